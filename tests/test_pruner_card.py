"""The card of a user's pruner, from its file to its page."""

import re

import pytest
from test_readme import ROOT, blocks

import nfp_jax as nfp
from configs import pruner_card
from nfp_jax.fields import SpecError
from nfp_jax.questions.masks.figures import jaccard
from nfp_jax.results import read_rows
from nfp_jax.running import as_spec
from nfp_jax.spec import check_field

TOO_MANY = """
from nfp_jax.masks import dense_mask
from nfp_jax.pruning import Pruner

def build(net):
    def mask_fn(params, batch=None, key=None, *, keep, prunable=None, mask=None):
        return dense_mask(params)
    return mask_fn

CARD = Pruner("too_many", label="Too many", sees="nothing", build=build)
"""
INVERTED = "memorization_inverted"
NAN = """
import jax
from nfp_jax.pruning import Pruner, by_score

def build(net):
    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(lambda w: 0 / (w - w), params)
    return by_score(score)

CARD = Pruner("broken", label="Broken", sees="labels", build=build)
"""


def config_of(out, pruner, only=None):
    """The smoke preset, or some of its parts, of a pruner."""
    config = pruner_card.get_config("smoke")
    config.out, config.pruner = str(out), str(pruner)
    for name in [name for name in config.parts if only and name not in only]:
        del config.parts[name]
    return config


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def fisher(results, one_device, tmp_path_factory):
    """The card of a file of the user's."""
    file = tmp_path_factory.mktemp("my") / "fisher.py"
    file.write_text((ROOT / "examples" / "fisher.py").read_text())
    return nfp.run(config_of(results, file))


def entries_of(markdown, title, what):
    """The entries of a line of ``card.md``, of the first block whose title fits."""
    _, _, block = markdown.partition(f"| **{title}")
    block = re.split(r"\n\| \*\*", block)[0]
    [line] = [x for x in block.splitlines() if x.startswith(f"| {what} |")]
    return [entry.strip() for entry in line.split("|")[2:-1]]


def test_the_example_is_the_pruner_of_readme():
    [code] = [code for code in blocks("README.md") if code.startswith("# fisher.py")]
    found = []
    for text in (code, (ROOT / "examples" / "fisher.py").read_text()):
        namespace = {}
        exec(text, namespace)
        names = namespace["fisher"].__code__, namespace["build"].__code__
        found.append([(x.co_names, x.co_varnames) for x in names])
    assert found[0] == found[1]


def test_all_parts_of_a_card_are_there_with_the_pruner_first(fisher):
    assert not fisher.failed and fisher.directory.name.startswith(
        "pruner-card-smoke-fi"
    )
    parts = ["information", "information_data", "masks", "memorization", INVERTED]
    parts.append("swap")
    assert sorted(fisher.parts) == parts
    page = fisher.page.read_text(encoding="utf-8")
    assert page.index("Fisher at a glance") < page.index(">Claims</h2")
    text = (fisher.directory / "card.md").read_text(encoding="utf-8")
    assert "|  | **Fisher** | random | SNIP |" in text and "failed" not in text


def test_the_numbers_of_the_table_are_those_of_the_rows(fisher):
    text = (fisher.directory / "card.md").read_text(encoding="utf-8")
    names = ["fisher", "random", "snip"]
    rows = read_rows(fisher.parts["masks"].directory)
    assert (rows["kept"] == rows["asked"]).all() and len(rows) == 6
    assert entries_of(text, "masks: Masks", "keep as many as asked") == ["all"] * 3
    seconds = rows.groupby("pruner")["seconds"].median()
    told = entries_of(text, "masks: Masks", "seconds a mask, median")
    assert told == [f"{seconds[name]:.2g}" for name in names]
    for sparsity in (0.5, 0.9):
        masks = rows[rows["sparsity"] == sparsity].set_index("pruner")["mask"]
        shares = [jaccard(masks["fisher"], masks[name]) for name in names[1:]]
        told = entries_of(text, "masks: Overlap", f"{100 * sparsity:g} % removed")
        assert told == ["", *(f"{100 * share:.1f}" for share in shares)]
    rows = nfp.read(fisher.directory)
    for ablation in ("", "shuffle", "reinitialize", "invert"):
        part = INVERTED if ablation == "invert" else "memorization"
        what = "50 % removed" + f", {ablation}" * (
            ablation in ("shuffle", "reinitialize")
        )
        mine = rows[(rows["part"] == part) & (rows["ablation"] == ablation)]
        mine = mine.set_index("pruner")
        told = entries_of(text, f"{part}: Train accuracy", what)
        assert told == [f"{mine.loc[name, 'train_accuracy']:.3f}" for name in names]
    for part in ("information", "information_data"):
        rows = read_rows(fisher.parts[part].directory).set_index("pruner")
        told = entries_of(text, f"{part}: Information of the mask", "50 % removed")
        for name, entry in zip(names, told, strict=True):
            low, high = map(float, entry.split("-"))
            ends = rows.loc[name, ["information_lower", "information_upper"]].tolist()
            assert [low, high] == pytest.approx(ends, rel=5e-3, abs=5e-3)
    told = entries_of(text, "What it is", "gradients a mask, with epochs of trainings")
    assert told == ["not said", "0", "1"]


def test_a_pruner_that_keeps_too_many_has_a_card_that_says_so(
    fisher, results, tmp_path, one_device
):
    (tmp_path / "too_many.py").write_text(TOO_MANY)
    config = config_of(results, tmp_path / "too_many.py", ("masks", INVERTED))
    found = nfp.run(config)
    # Of the others all rows are on file.
    assert found.parts["masks"].new == 2 and found.parts["masks"].cells == 6
    text = (found.directory / "card.md").read_text(encoding="utf-8")
    told = entries_of(text, "masks: Masks", "keep as many as asked")
    assert told == ["0 of 2; 64 for 7 (90 % removed)", "all", "all"]
    assert "fisher" not in text.lower()  # the card before is another one
    why = (
        f"{INVERTED}: not run: grid.ablation is 'invert', and pruner 'too_many' has no"
    )
    assert f"- failed: {why} score to invert" in text
    page = found.page.read_text(encoding="utf-8")
    assert "Too many at a glance" in page and "has no score to invert" in page
    assert found.failed and list(found.refused) == [INVERTED]


def test_nan_scores_give_a_card_that_says_so(fisher, results, tmp_path, one_device):
    (tmp_path / "broken.py").write_text(NAN)
    found = nfp.run(config_of(results, tmp_path / "broken.py", ("masks",)))
    assert found.failed and len(found.failures) == 2
    text = (found.directory / "card.md").read_text(encoding="utf-8")
    assert "- failed: masks: broken: 2 of its rows failed: ValueError: " in text
    assert "NaN" in text and "| **broken** | random | SNIP |" in text
    assert "broken at a glance" in found.page.read_text(encoding="utf-8")


def test_a_pruner_whose_build_raises_refuses_each_part_in_a_line(tmp_path, one_device):
    code = NAN.replace("def build(net):", "def build(net):\n    raise KeyError('rate')")
    (tmp_path / "raising.py").write_text(code)
    found = nfp.run(config_of(tmp_path, tmp_path / "raising.py", ("masks",)))
    assert (
        found.refused == {"masks": "pruners.broken: build raises KeyError: 'rate'"}
        and found.page is None
    )


def test_the_pruner_is_put_first_in_every_grid_once():
    spec = as_spec(config_of("results", "snip"))
    assert {part.grid.pruner for part in spec.parts.values()} == {("snip", "random")}
    assert spec.pruner == "snip" and spec.name == "pruner-card-smoke-snip"
    spec = as_spec(config_of("results", "grasp"))
    assert spec.parts["swap"].grid.pruner == ("grasp", "snip", "random")
    check_field("pruner")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(SpecError, match=r"^pruner names 'no/such\.py': there is no fi"):
        as_spec(config_of("results", "no/such.py"))


def test_the_default_is_small_and_asks_every_question_of_five_pruners():
    spec = as_spec(pruner_card.get_config())
    others = ("snip", "synflow", "imp", "random")
    for name, part in spec.parts.items():
        beside = [x for x in others if name != "information_data" or x != "imp"]
        assert part.grid.pruner == ("examples/fisher.py", *beside)
        assert part.model.settings["widths"] == (50, 50) and part.grid.n == (200,)
    with pytest.raises(ValueError, match=r"preset 'tiny' of pruner_card\.py, expected"):
        pruner_card.get_config("tiny")
