"""What README and the guides show runs: Python from top to bottom, commands as read.

A block that begins with a file's name, as ``# fisher.py``, is that file too.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from absl.testing import flagsaver

import nfp_jax as nfp
from nfp_jax import launching, models

ROOT = Path(__file__).parent.parent
FILES = ["README.md", *(f"docs/{x.name}" for x in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\w+\.py)\n")
# Indented, or the rest of a line; a comment ends it.
COMMAND = re.compile(
    r"^    (?:\w+=\S+ )?(?:(?:\S*python )?launch\.py|nfp run|python -m nfp_jax).*$",
    re.M,
)


def blocks(file):
    return BLOCK.findall((ROOT / file).read_text(encoding="utf-8"))


def given():
    """What the snippets take as there: a model, weights, data."""
    model = models.MLP(2, (8,))
    x = jax.random.normal(jax.random.key(0), (32, 4))
    y = jnp.arange(32) % 2
    params = models.initialize(model, jax.random.key(1), (4,))
    mask = nfp.prune(nfp.magnitude(), params, sparsity=0.5)
    return {
        "nfp": nfp,
        "jax": jax,
        "jnp": jnp,
        "optax": optax,
        "model": model,
        "params": params,
        "loss_fn": nfp.classification_loss(model.apply),
        "batch": (x, y),
        "batches": [(x, y)] * 3,
        "x": x,
        "y": y,
        "labels": jnp.stack([y, 1 - y]),
        "networks": [(params, mask, (x, y), jax.random.key(2))] * 2,
    }


def write_if_named(code, folder):
    if named := NAMED.match(code):
        (folder / named[1]).write_text(code, encoding="utf-8")


@pytest.mark.parametrize("file", [x for x in FILES if blocks(x)])
def test_snippets_run_from_top_to_bottom(file, tmp_path, monkeypatch, one_device):
    monkeypatch.chdir(tmp_path)
    namespace = given()
    for code in blocks(file):
        write_if_named(code, tmp_path)
        exec(compile(code, file, "exec"), namespace)


def commands():
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
        yield from ((file, line.strip()) for line in COMMAND.findall(text))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(("file", "command"), list(commands()))
def test_commands_name_configurations_fields_and_flags_that_there_are(
    file, command, tmp_path, monkeypatch
):
    """All but the run: the configuration is loaded, and every flag parsed."""
    monkeypatch.chdir(tmp_path)
    for code in [code for each in FILES for code in blocks(each)]:
        write_if_named(code, tmp_path)
    words = [x for x in shlex.split(command, comments=True) if "_VISIBLE_" not in x]
    if "-m" in words:
        module, *words = words[words.index("-m") + 1 :]
        assert importlib.util.find_spec(module)
        words = words[words.index("--") + 1 :] if "--" in words else []
    elif words[:2] == ["nfp", "run"]:
        words = [f"--config={words[2]}", *words[3:]]
    else:
        words = words[words.index(next(x for x in words if "launch.py" in x)) + 1 :]
    flags = [x for x in words if x != "--config=..." and x != "--help"]
    with flagsaver.flagsaver():
        assert launching._parse(["launch.py", *flags]) == ["launch.py"]


def test_the_mask_of_the_first_snippet_holds_weights_at_zero():
    namespace = given()
    exec(blocks("README.md")[0], namespace)
    mask, params = namespace["mask"], namespace["params"]
    assert nfp.sparsity_of(mask) == pytest.approx(0.9, abs=0.02)
    zero = jax.tree.map(lambda p, m: bool(jnp.all((p == 0) | m)), params, mask)
    assert jax.tree.all(zero)


def test_the_ten_lines_of_readme_are_a_pruner_that_runs_beside_the_others(
    tmp_path, monkeypatch, one_device
):
    """An edit makes its rows anew, and those of the others stay."""
    [code] = [code for code in blocks("README.md") if code.startswith("# fisher.py")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fisher.py").write_text(code)
    config = {
        "data": {"dim": 6},
        "model": {"widths": (8,)},
        "train": {"max_epochs": 4, "settle_from": 2, "settle_steps": 0},
        "grid": {"pruner": ("snip", "fisher.py"), "sparsity": (0.5,), "n": (16,)},
    }
    first = nfp.run(config)
    rows = nfp.read(first.directory).set_index("pruner")
    assert first.new == 2 and not first.failed
    assert rows.loc["fisher", ["label", "sees"]].tolist() == ["Fisher", "labels"]
    assert rows.loc["fisher", "settings"] == '{"rounds": 10}'
    assert rows.loc["fisher", "kept"] == (6 * 8 + 8 * 2) // 2
    assert "Fisher" in first.page.read_text(encoding="utf-8")
    assert nfp.run(config).new == 0
    (tmp_path / "fisher.py").write_text(code.replace("(g * w) ** 2", "abs(g)"))
    edited = nfp.run(config)
    assert edited.directory == first.directory and edited.new == 1
    other = {**config, "pruners": {"fisher": {"rounds": 1}}}
    assert nfp.run(other).new == 1
    rows = nfp.read(first.directory)
    assert rows["pruner"].tolist() == ["fisher"] * 3 + ["snip"]
    assert rows["version"].nunique() == 3 and rows["settings"].nunique() == 3
