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
CORE = {"types", "trees", "losses", "freeze", "masks", "pruners", "scores", "pruning"}
ALLOWED = {
    "types": set(),
    "trees": {"types"},
    "losses": {"types", "trees"},
    "masks": {"types", "trees"},
    "freeze": {"types", "trees", "masks"},
    "pruners": {"types", "trees", "losses", "masks"},
    "scores": {"types", "losses", "pruners"},
    "pruning": {"freeze", "pruners"},
    "engine": {"types", "trees", "masks", "compaction"},
    "models": set(),
    "data": set(),
    "spec": set(),
    "compaction": {"masks"},
    "training": {"types", "engine"},
    "ensemble": {"engine"},
    "estimates": set(),
    "measures": {"types", "estimates"},
    "capacity": {"measures"},
    "robustness": {"measures"},
    "results": {"spec"},
    "cluster": {"spec"},
    "submit": set(),
    "decoding": {"masks"},
    "information": {"masks", "measures", "decoding"},
    "experiments": {
        *CORE,
        *("models", "data", "spec", "training", "ensemble", "capacity", "compaction"),
        *("results", "information", "decoding", "robustness"),
    },
    "pages": {"results", "estimates"},
    "report": {"results", "estimates", "pages", "questions"},
    "collection": {"report"},
    "running": {
        *("results", "cluster", "spec", "experiments", "report", "collection", "data"),
    },
    "results_page": {"report"},
    "questions": {"results", "estimates", "pages"},
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
    """A folder counts as one module, whose files may import each other."""
    name = file.parts[0].removesuffix(".py")
    itself = {name} if len(file.parts) > 1 else set()
    assert ours(PACKAGE / file) - itself <= ALLOWED[name]


def test_questions_do_not_know_each_other_and_the_lab_knows_none():
    """Robustness alone has another's rows and more columns."""
    for file in (PACKAGE / "experiments").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.stem != "__init__":
            assert "nfp_jax.experiments import" not in text
            found = set(re.findall(r"nfp_jax\.experiments\.(\w+) import", text))
            shared = {"tables", "trainer", "lab"}
            allowed = {
                "tables": set(),
                "trainer": {"tables"},
                "lab": {"tables", "trainer"},
                "robustness": {"lab", "memorization"},
            }
            assert found <= allowed.get(file.stem, shared)


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


def test_the_card_of_a_question_needs_its_contract_alone():
    for name in QUESTIONS:
        assert ours(PACKAGE / "questions" / name / "card.py") <= {"questions"}


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
    questions.module(name, "claims").claims
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
