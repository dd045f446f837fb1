"""Who imports whom, held to the direction that the layout lays down."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nfp_jax"
# Faces of folders: ``scores``, ``pruning``, ``training``, ``ensemble``, ``capacity``
# and ``robustness``.
ROLES = {
    "card": "card",
    "run": "run",
    "family": "run",
    "reading": "run",
    "simulated": "run",
}  # of a question's files
CORE = {"types", "trees", "losses", "freeze", "masks", "pruners", "scores", "pruning"}
ALLOWED = {
    "types": set(),
    "trees": {"types"},
    "losses": {"types", "trees"},
    "cards": set(),
    "fields": set(),
    "grid": set(),
    "groups": {"fields"},
    "files": set(),
    "cores": set(),
    "masks": {"types", "trees"},
    "freeze": {"types", "trees", "masks"},
    "pruners": {"types", "trees", "losses", "masks", "cards"},
    "scores": {"types", "losses", "pruners"},
    "pruning": {"freeze", "pruners"},
    "models": {"trees", "cards", "fields"},
    "data": {"cards", "fields"},
    "engine": {"types", "trees", "masks", "pruners", "compaction", "cores"},
    "compaction": {"masks"},
    "training": {"types", "engine"},
    "ensemble": {"engine", "cores"},
    "measures": {"types", "estimates"},
    "capacity": {"measures"},
    "robustness": {"measures"},
    "decoding": {"masks", "cores"},
    "information": {"masks", "measures", "decoding"},
    # The library ends here.
    "spec": {
        *("cards", "fields", "grid", "groups", "questions"),
        *("data", "models", "pruners"),
    },
    "results": {"files", "grid", "questions"},
    "listing": {"files"},
    "row_writer": {"results"},
    "cluster": {"fields"},
    "submit": set(),
    "lab": {
        *CORE,
        *("cards", "fields", "grid", "spec", "results", "questions", "models", "data"),
        *("engine", "training", "ensemble", "capacity", "compaction"),
    },
    "experiments": {"lab", "pruners"},
    "questions": set(),
    "questions/card": {"fields", "grid", "groups"},
    "questions/run": {
        *CORE,
        *("fields", "grid", "spec", "results", "lab", "data", "models", "engine"),
        *("ensemble", "capacity", "information", "decoding", "robustness"),
    },
    "questions/page": {"results", "estimates", "pages"},
    "running": {
        *("fields", "grid", "spec", "results", "listing"),
        *("row_writer", "cluster"),
        *("experiments", "data", "engine", "report", "collection"),
    },
    "configurations": {"fields"},
    "launching": {
        *("configurations", "fields", "spec", "cluster", "results", "running"),
        *("data", "ensemble", "report", "collection"),
    },
    "help_text": {"configurations", "launching", "questions", "spec"},
    "command": {"launching", "help_text"},
    # Rows alone, without JAX.
    "estimates": set(),
    "pages": {"grid", "results", "estimates"},
    "report": {"listing", "results", "estimates", "pages", "questions"},
    "collection": {"report"},
    "results_page": {"report"},
    "__init__": {*CORE, "running"},
}


def ours(path):
    """The modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "nfp_jax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith("nfp_jax."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "nfp_jax" and name[1:]}
    return found


FILES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_module_imports_only_what_is_below_it(file):
    """A folder counts as one module, whose files may import each other.

    In the folder of a question the card, the run and the page are apart.
    """
    name = file.parts[0].removesuffix(".py")
    itself = {name} if len(file.parts) > 1 else set()
    if len(file.parts) == 3 and file.stem != "__init__":
        role = ROLES.get(file.stem, "page")
        name = f"questions/{role}"
    assert ours(PACKAGE / file) - itself <= ALLOWED[name]


NAMES = sorted(
    path.stem
    for folder in ("pruners", "models", "data")
    for path in (PACKAGE / folder).glob("*.py")
    if "CARD = " in path.read_text(encoding="utf-8")
)
# Where a name may stand: a default of a configuration, the palette of figures, what was
# written before there were cards, and the pruners that README's table and the targets'
# table are about.
NAMED = {
    "spec.py",
    "groups.py",
    "pages/looks.py",
    "results.py",
    "pages/joined.py",
    "report/published.py",
    "report/targets.py",
}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_nobody_asks_for_a_pruner_a_network_or_a_set_by_its_name(file):
    """Of all files but its own; an example in a docstring is no question."""
    if str(file) in NAMED or file.stem in NAMES:
        return
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    skipped = {
        id(constant)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(getattr(target, "id", "") == "__all__" for target in node.targets)
        for constant in ast.walk(node)
    }
    named = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and id(node) not in skipped
    }
    assert not named & set(NAMES)


QUESTIONS = sorted(x.parent.name for x in PACKAGE.glob("questions/*/card.py"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_knows_no_other_and_nobody_knows_it(question):
    """It is found by its folder, so that adding one is adding a folder.

    Robustness has memorization's rows and more.
    """
    known = {"robustness": {"memorization"}}
    pattern = re.compile(r"nfp_jax\.questions\.(\w+)")
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name != question:
            found = pattern.findall(file.read_text(encoding="utf-8"))
            assert question not in found or question in known.get(
                file.parent.name, ()
            ), file


def loaded_after(code):
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name.split(".")[0] for name in printed.split()}


def test_importing_the_library_loads_jax_optax_and_chex_alone():
    heavy = {"flax", "tensorflow", "tensorflow_datasets", "ml_collections", "pandas"}
    heavy |= {"matplotlib", "sklearn", "pyarrow", "absl.flags", "tqdm"}
    loaded = loaded_after("import nfp_jax; nfp_jax.prune; nfp_jax.freeze_pruned")
    assert {"jax", "optax"} <= loaded
    assert not heavy & loaded


def test_importing_the_package_or_the_cards_of_questions_loads_no_jax():
    code = "import nfp_jax\nfrom nfp_jax import questions as q\n"
    code += "[q.card(name) for name in q.names()]"
    assert "jax" not in loaded_after(code)


def test_the_pages_of_all_questions_load_no_jax():
    """Figures and claims read rows, never arrays."""
    code = """
from nfp_jax import collection, questions, report, results_page
from nfp_jax.report import claims, kinds
for name in questions.names():
    questions.module(name, "figures").KIND
    claims.module_of(name)
"""
    loaded = loaded_after(code)
    assert {"pandas", "matplotlib"} <= loaded
    assert not {"jax", "jaxlib", "flax", "optax", "tensorflow"} & loaded


def test_the_pages_of_a_question_go_with_its_folder(tmp_path):
    """Of all but memorization, which stands for rows of no question."""
    shutil.copytree(PACKAGE, tmp_path / "nfp_jax")
    for name in QUESTIONS:
        if name != "memorization":
            shutil.rmtree(tmp_path / "nfp_jax" / "questions" / name)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import pandas as pd
from nfp_jax import collection, questions
from nfp_jax.report import claims, kinds
assert questions.__file__.startswith({str(tmp_path)!r})
print(questions.names(), kinds.question_of(pd.DataFrame()), claims.claims({{}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "('memorization',) memorization []", done.stderr


def test_no_module_loads_tensorflow_or_tfds_at_import():
    code = "import nfp_jax.experiments, nfp_jax.report"
    assert not {"tensorflow", "tensorflow_datasets"} & loaded_after(code)


def test_every_public_name_has_a_docstring():
    import inspect

    import nfp_jax

    for name in nfp_jax.__all__:
        assert inspect.getdoc(getattr(nfp_jax, name)), name
