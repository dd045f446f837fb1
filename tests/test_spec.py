import dataclasses
import itertools
import runpy
from pathlib import Path

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax import experiments, pruners, questions, spec
from nfp_jax.fields import SpecError
from nfp_jax.grid import COORDINATES, DRAW, GridSpec, Pruning, cells, share
from nfp_jax.spec import Collection, Spec

TRAINED = ("magnitude_trained", "imp")
PRUNERS = ("dense", "random", "snip", *TRAINED)
PRUNINGS = {
    name: Pruning(name, name, "labels", resumed=name in TRAINED) for name in PRUNERS[1:]
}
ASKED = {"question": "information", "grid": {"pruner": ("imp",)}}


def test_defaults_make_a_spec_and_go_round():
    for config in (spec.defaults(), ml_collections.ConfigDict(spec.defaults())):
        found = Spec.from_config(config)
        # They have the settings of all pruners spelt out.
        assert set(found.pruners) == set(pruners.names())
        assert dataclasses.replace(found, pruners={}) == Spec()
    assert Spec.from_config({}) == Spec()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"grid": {"sparsity": (0.5, 0.8, 0.9, 1.2)}},
            r"grid\.sparsity\[3\] is 1\.2, exp",
        ),
        (
            {"grid": {"sparsity": (-0.1,)}},
            r"grid\.sparsity\[0\] is -0\.1, expected 0 <= s",
        ),
        ({"grid": {"sparsity": (1.0,)}}, r"expected 0 <= sparsity < 1"),
        ({"grid": {"sparsity": (float("nan"),)}}, r"expected 0 <= sparsity < 1"),
        ({"grid": {"sparsity": ()}}, r"grid\.sparsity is empty"),
        ({"grid": {"pruner": ()}}, r"grid\.pruner is empty"),
        (
            {"grid": {"sparsity": 0.5}},
            r"grid\.sparsity is 0\.5, expected a tuple of float",
        ),
        (
            {"grid": {"pruner": "snip"}},
            r"grid\.pruner is 'snip', expected a tuple of str",
        ),
        (
            {"train": {"moments": "float16"}},
            r"train\.moments is 'float16', expected one of 'float32', 'bfloat16'",
        ),
        ({"grid": {"n": (10.5,)}}, r"grid\.n\[0\] is 10\.5, expected int"),
        ({"grid": {"n": (0,)}}, r"grid\.n\[0\] is 0, expected n >= 1"),
        ({"grid": {"noise": (1.5,)}}, r"grid\.noise\[0\] is 1\.5, expected 0 <= noise"),
        ({"grid": {"init_seed": (-1,)}}, r"grid\.init_seed\[0\] is -1"),
        (
            {"grid": {"colour": (1,)}},
            r"grid\.colour is not a field of grid; known: pruner",
        ),
        ({"seeds": 3}, r"seeds is not a field of the configuration; known: name, out"),
        ({"grid": 3}, r"grid is 3, expected a group of fields"),
        (
            {"train": {"batch_size": 0}},
            r"train\.batch_size is 0, expected batch_size >= 1",
        ),
        ({"train": {"batch_size": True}}, r"train\.batch_size is True, expected int"),
        ({"train": {"learning_rate": 0.0}}, r"train\.learning_rate is 0\.0, expected"),
        ({"train": {"learning_rate": -1}}, r"train\.learning_rate is -1\.0, expected"),
        (
            {"train": {"learning_rate": "fast"}},
            r"learning_rate is 'fast', expected float",
        ),
        ({"train": {"optimizer": 3}}, r"train\.optimizer is 3, expected str"),
        (
            {"train": {"max_epochs": 99}},
            r"train\.max_epochs is 99, expected at least 100, the first doubling: 2 tr",
        ),
        (
            {"question": "capacity", "train": {"stop": "still", "max_epochs": 99}},
            r"train\.max_epochs is 99, expected at least 100, the first doubling: 2 tr",
        ),
        (
            {"train": {"max_epochs": 19, "settle_from": 10}},
            r"train\.max_epochs is 19, expected at least 20",
        ),
        ({"train": {"settle_from": 0}}, r"settle_from is 0, expected settle_from >= 1"),
        (
            {"train": {"settle_steps": -1}},
            r"settle_steps is -1, expected 0 <= settle_st",
        ),
        (
            {"train": {"settle_rise": 0.0}},
            r"settle_rise is 0\.0, expected 0 < settle_r",
        ),
        (
            {"train": {"settle_rise": 1.1}},
            r"settle_rise is 1\.1, expected 0 < settle_r",
        ),
        (
            {"train": {"settle_fall": 0.0}},
            r"settle_fall is 0\.0, expected 0 < settle_f",
        ),
        (
            {"train": {"settle_fall": 2.0}},
            r"settle_fall is 2\.0, expected 0 < settle_f",
        ),
        (
            {"train": {"decay_steps": -1}},
            r"train\.decay_steps is -1, expected 0 <= decay",
        ),
        (
            {"prune": {"round_epochs": -1}},
            r"prune\.round_epochs is -1, expected 0 <= ro",
        ),
        (
            {"prune": {"round_epochs": 5}, "grid": {"pruner": ("imp", "dense")}},
            r"grid\.pruner\[1\] is 'dense', expected no 'dense' where prune\.round_",
        ),
        ({"capacity": {"tries": 0}}, r"capacity\.tries is 0, expected tries >= 1"),
        (
            {"swap": {"margin": -0.01}},
            r"swap\.margin is -0\.01, expected 0 <= margin <= 1, a share of n",
        ),
        ({"swap": {"margin": 1.5}}, r"swap\.margin is 1\.5, expected 0 <= margin <= 1"),
        ({"model": {"widths": (200, 0)}}, r"model\.widths\[1\] is 0"),
        ({"data": {"classes": 1}}, r"data\.classes is 1, expected classes >= 2"),
        ({"data": {"dir": 3}}, r"data\.dir is 3, expected str"),
        (
            {"model": {"init": "he"}},
            r"model\.init is 'he', expected one of \['delta_or",
        ),
        (
            {"model": {"name": "rnn"}},
            r"model\.name names 'rnn': expected one of 'convn",
        ),
        ({"model": {"depth": 3}}, r"model\.depth is not a field of model; known: widt"),
        ({"data": {"size": 3}}, r"data\.size is not a field of data; known: dim, clas"),
        ({"model": {"widths": (2.5,)}}, r"model\.widths\[0\] is 2\.5, expected int"),
        ({"prune": {"rounds": {}}}, r"prune\.rounds is not a field of prune; known: "),
        ({"pruners": {"snip": 3}}, r"pruners\.snip is 3, expected a group of fields"),
        ({"engine": {"lanes": -1}}, r"engine\.lanes is -1, expected lanes >= 0"),
        ({"engine": {"shrink_from": -1.0}}, r"engine\.shrink_from is -1\.0, expected"),
        ({"information": {"datasets": 1}}, r"information\.datasets is 1, expected"),
        ({"information": {"decoded": -1}}, r"information\.decoded is -1, expected"),
        ({"information": {"confidence": 1.0}}, r"information\.confidence is 1\.0, exp"),
        (
            {"information": {"conditioning": "inputs"}},
            r"information\.conditioning is 'inputs', expected 'labels' or 'data'",
        ),
        (
            {"question": "information", "grid": {"pruner": ("imp", "dense")}},
            r"grid\.pruner\[1\] is 'dense', expected a pruner: a dense mask holds no",
        ),
        (
            {
                "question": "information",
                "grid": {"pruner": ("imp",), "ablation": ("shuffle",)},
            },
            r"grid\.ablation\[0\] is 'shuffle', expected ''",
        ),
        ({"name": "../up"}, r"name is '\.\./up', expected letters"),
        ({"capacity": {"share": 0.0}}, r"capacity\.share is 0\.0, expected 0 < share"),
        ({"capacity": {"share": 1.1}}, r"capacity\.share is 1\.1, expected 0 < share"),
        (
            {
                "question": "capacity",
                "data": {"classes": 4},
                "capacity": {"share": 0.25},
            },
            r"capacity\.share is 0\.25, expected 0\.25 < share <= 1, above chance",
        ),
        (
            {"capacity": {"precision": 0.0}},
            r"capacity\.precision is 0\.0, expected 0 <",
        ),
        (
            {"capacity": {"max_steps": 0}},
            r"capacity\.max_steps is 0, expected max_steps",
        ),
        ({"swap": {"pairs": 0}}, r"swap\.pairs is 0, expected pairs >= 1"),
        ({"swap": {"confidence": 1.0}}, r"swap\.confidence is 1\.0, expected 0 < conf"),
        ({"robustness": {"segments": 0}}, r"robustness\.segments is 0, expected"),
        ({"robustness": {"ascents": 0}}, r"robustness\.ascents is 0, expected asc"),
        (
            {"robustness": {"steps": -1}},
            r"robustness\.steps is -1, expected steps >= 0",
        ),
        (
            {"question": "swap", "grid": {"pruner": ("imp", "dense")}},
            r"grid\.pruner\[1\] is 'dense', expected a pruner: a dense mask holds no",
        ),
        (
            {
                "question": "swap",
                "grid": {"pruner": ("imp",), "resume": ("rewind", "finetune")},
            },
            r"grid\.resume\[1\] is 'finetune', expected 'rewind': trained weights have",
        ),
        (
            {
                "question": "swap",
                "grid": {"pruner": ("imp",)},
                "prune": {"rewind_step": 5},
            },
            r"prune\.rewind_step is 5, expected 0: weights of a later step have seen",
        ),
        (
            {
                "question": "swap",
                "grid": {"pruner": ("imp",), "ablation": ("", "reinitialize")},
            },
            r"grid\.ablation\[1\] is 'reinitialize', expected no 'reinitialize'",
        ),
        (
            {"grid": {"paired_seeds": True, "init_seed": (0, 1)}},
            r"grid\.paired_seeds is True and the seeds number .*'init_seed': 2",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(config, message):
    with pytest.raises(SpecError, match=message):
        Spec.from_config(config)


@pytest.mark.parametrize("stop", ["still", "paper"])
def test_a_budget_below_the_first_doubling_does_for_the_other_rules(stop):
    spec = Spec.from_config({"train": {"stop": stop, "max_epochs": 1}})
    assert spec.train.max_epochs == 1
    assert Spec.from_config({"train": {"max_epochs": 100}}).train.stop == "settled"


def test_a_mistyped_flag_is_found_before_anything_runs():
    spec.check_field("pruners.mine.rounds")
    spec.check_field("capacity.share")
    spec.check_field("model.widths")
    spec.check_field("parts.swap.grid.sparsity")
    spec.check_field("parts.swap.pruners.mine.rounds")
    spec.check_field("parts.swap.swap.pairs")
    spec.check_field("parts.swap")
    for path, known in {
        "train.lr": r"train\.lr is not a field of train; known: optimizer, ",
        "parts.swap.train.lr": r"parts\.swap\.train\.lr is not a field of parts",
        "parts.swap.pruner": r"parts\.swap\.pruner is not a field of parts\.swap;",
        "parts": "parts is not a field of the configuration; known: name, ",
        "swap.pears": r"swap\.pears is not a field of swap; known: pairs, conf",
    }.items():
        with pytest.raises(SpecError, match=f"^{known}"):
            spec.check_field(path)


def test_the_hash_covers_every_field_but_grid_and_engine_and_where_things_lie():
    plain = Spec()
    same = [
        dataclasses.replace(plain, out="elsewhere"),
        dataclasses.replace(plain, grid=GridSpec(n=(5,), init_seed=(1, 2))),
        Spec.from_config({"data": {"dir": "somewhere", "download": False}}),
        Spec.from_config({"information": {"datasets": 3}}),
        Spec.from_config({"capacity": {"share": 0.9}, "swap": {"pairs": 9}}),
        Spec.from_config({"robustness": {"steps": 9}}),
        Spec.from_config({"engine": {"lanes": 8, "shrink_from": float("inf")}}),
        # Of pruners the rows have the settings; of networks and sets others count not.
        Spec.from_config({"pruners": {"synflow": {"rounds": 99}}}),
        Spec.from_config({"model": {"channels": (3,)}}),
    ]
    assert {each.digest() for each in same} == {plain.digest()}
    other = [
        Spec.from_config(config)
        for config in (
            {"name": "other"},
            {"seed": 1},
            {"data": {"dim": 51}},
            {"model": {"init": "lecun_normal"}},
            {"train": {"options": {"b1": 0.8}}},
            {"train": {"min_epochs": 9}},
            {"train": {"stop": "still"}},
            {"train": {"settle_from": 51}},
            {"train": {"settle_rise": 0.01}},
            {"train": {"settle_fall": 0.1}},
            {"train": {"settle_steps": 999}},
            {"train": {"decay_steps": 1}},
            {"train": {"moments": "bfloat16"}},
            {"prune": {"round_epochs": 1}, "grid": {"pruner": ("imp",)}},
            {"prune": {"rewind_step": 1}},
            {"model": {"name": "convnet"}},
            {"model": {"name": "convnet", "channels": (3,)}},
            {"data": {"name": "digits"}},
            ASKED,
            {**ASKED, "information": {"datasets": 3}},
            {**ASKED, "information": {"conditioning": "data"}},
        )
    ]
    digests = {each.digest() for each in (plain, *other)}
    assert len(digests) == 1 + len(other)


QUESTIONS = {
    "capacity": {"share": 0.9},
    "swap": {"pairs": 9},
    "robustness": {"steps": 9},
    "information": {"datasets": 9},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_settings_of_a_question_are_in_its_own_hash_alone(question):
    def digest(**groups):
        config = {"question": question, "grid": {"pruner": ("imp",)}, **groups}
        return Spec.from_config(config).digest()

    assert digest() != Spec().digest()
    for group, fields in QUESTIONS.items():
        assert (digest(**{group: fields}) == digest()) == (group != question)


def test_the_hash_is_the_one_of_before():
    """A changed default must not land in an old directory: these numbers then change,
    and so does this test, knowingly. They are those of the version in which trainings
    end when they have settled under doubling, and settings are those of cards."""
    assert Spec().digest() == "e5567cadf0"
    assert Spec.from_config(ASKED).digest() == "4b330c90c4"


def test_a_field_that_came_later_is_in_the_hash_only_where_it_is_set():
    later = Spec.from_config({"train": {"moments": "float32"}})
    assert later.digest() == Spec().digest()
    assert "moments" not in later.identity()["train"]
    half = Spec.from_config({"train": {"moments": "bfloat16"}})
    assert half.identity()["train"]["moments"] == "bfloat16"


# Collections


def test_a_collection_has_checked_parts_that_lie_where_it_does():
    config = {
        "name": "both",
        "out": "there",
        "parts": {"a": {"out": "elsewhere"}, "b": {"name": "b", "seed": 1}},
    }
    for whole in (config, ml_collections.ConfigDict(config)):
        both = Collection.from_config(whole)
        assert (both.name, both.out) == ("both", "there")
        assert both.parts == {
            "a": Spec(out="there"),
            "b": Spec(name="b", out="there", seed=1),
        }
        # Each in the directory that it has when it is run alone.
        assert both.parts["a"].digest() == Spec().digest()


def test_the_hash_of_a_collection_is_that_of_its_parts():
    def digest(**parts):
        return Collection.from_config({"name": "x", "parts": parts}).digest()

    assert digest(a={}, b={"seed": 1}) == digest(b={"seed": 1}, a={})
    assert digest(a={}) == digest(a={"grid": {"n": (5,)}, "engine": {"lanes": 3}})
    others = [digest(a={}), digest(b={}), digest(a={"seed": 1}), digest(a={}, b={})]
    assert len({*others, digest(a={"name": "other"})}) == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "parts is empty, expected configurations by name"),
        ({"parts": {}}, "parts is empty, expected configurations by name"),
        ({"parts": ("a", "b")}, "parts is empty, expected configurations by name"),
        ({"parts": {"a": 3}}, r"parts\.a is 3, expected a group of fields"),
        (
            {"parts": {"swap": {"grid": {"n": (0,)}}}},
            r"^parts\.swap\.grid\.n\[0\] is 0, expected n >= 1",
        ),
        (
            {"parts": {"a": {}, "b": {"seeds": 3}}},
            r"^parts\.b\.seeds is not a field of the configuration; known: name, out",
        ),
        (
            {"part": {}, "parts": {"a": {}}},
            "^part is not a field of the configuration; known: name, out, parts, shown",
        ),
        (
            {"parts": {"a": {}, "b": {}}, "shown": ("a", "c")},
            r"^shown\[1\] is 'c', expected one of a, b$",
        ),
        ({"parts": {"a": {}}, "shown": "a"}, "^shown is 'a', expected a tuple of str$"),
        (
            {"name": "../up", "parts": {"a": {}}},
            r"^name is '\.\./up', expected letters",
        ),
        ({"name": 3, "parts": {"a": {}}}, r"^name is 3, expected str"),
        ({"out": 3, "parts": {"a": {}}}, r"^out is 3, expected str"),
    ],
)
def test_a_collection_names_what_is_wrong(config, message):
    with pytest.raises(SpecError, match=message):
        Collection.from_config(config)


@pytest.mark.parametrize(
    "preset", ["", "all", "core", "quick", "smoke", "seed", "paper"]
)
def test_the_collection_of_the_paper_is_one(preset, monkeypatch):
    """Its parts are the other configurations: run alone, they have the same rows."""
    root = Path(__file__).parent.parent
    monkeypatch.syspath_prepend(str(root))
    get_config = runpy.run_path(str(root / "configs" / "paper.py"))["get_config"]
    whole = Collection.from_config(get_config(preset))
    assert len(whole.parts) >= 2
    directories = {(part.name, part.digest()) for part in whole.parts.values()}
    assert len(directories) == len(whole.parts)
    for name, part in whole.parts.items():
        experiments.check_names(part)
        assert experiments.all_cells(part)
        another = name.startswith("sensitivity") or name == "capacity_long"
        assert (name in whole.shown) == another
        asked = name.split("_")[0]
        if asked in questions.names():
            assert part.question == asked
    known = "expected one of all, core, quick, smoke, seed, paper"
    with pytest.raises(ValueError, match=rf"preset 'tiny' of paper\.py, {known}$"):
        get_config("tiny")


ROOT = Path(__file__).parent.parent
CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "start")
)


def presets_of(name):
    """The specifications of a configuration by preset, as its error message lists them;
    those of its parts where it is a collection.
    """
    get_config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]
    with pytest.raises(ValueError, match=rf"preset 'tiny' of {name}\.py, ") as raised:
        get_config("tiny")
    listed = str(raised.value).split("expected ")[1].replace(" or one of ", ", ")
    presets = listed.replace("one of ", "").replace(" or ", ", ").split(", ")
    found = {}
    for preset in ["base" if name == "sensitivity" else "", *presets]:
        config = get_config(preset)
        if "parts" in config:
            parts = Collection.from_config(config).parts
            found |= {f"{preset}.{part}": spec for part, spec in parts.items()}
        else:
            found[preset] = Spec.from_config(config)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_every_preset_that_a_configuration_names_is_valid(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    found = presets_of(name)
    assert len(found) >= 3
    names = {(part.name, part.digest()) for part in found.values()}
    for preset, part in found.items():
        experiments.check_names(part)
        assert experiments.all_cells(part), preset
        if part.train.stop == "settled" and part.question != "capacity":
            # A budget between two doublings would be used up for nothing.
            doublings = part.train.max_epochs / part.train.settle_from
            assert doublings >= 2 and doublings in {2**k for k in range(20)}, preset
        if preset.startswith("smoke"):
            assert part.train.max_epochs <= 300
    if name != "paper":  # whose collections have parts in common
        # The rows of seed lie in the directory of another preset, on purpose.
        shared = name in ("capacity", "mask_information")
        assert len(names) == len(found) - shared


def test_a_sensitivity_changes_one_thing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    found = presets_of("sensitivity")

    def settings(spec):
        groups = dataclasses.asdict(spec)
        return {
            (group, field): value
            for group in ("data", "model", "train", "prune", "grid")
            for field, value in groups[group].items()
        }

    base = settings(found["base"])
    changed = {
        preset: {
            field for field, value in settings(spec).items() if base[field] != value
        }
        for preset, spec in found.items()
    }
    assert changed == {
        "base": set(),
        "rate": {("train", "learning_rate")},
        "cosine": {("train", "decay_steps"), ("train", "max_epochs")},
        "rounds": {("prune", "round_epochs")},
        "late": {("train", "settle_from"), ("grid", "pruner")},
    }
    # The rate is 0 after half of the budget: the last doubling settles every network.
    cosine = found["cosine"].train
    an_epoch = -(-found["cosine"].grid.n[0] // cosine.batch_size)
    assert 2 * cosine.decay_steps == cosine.max_epochs * an_epoch


def test_cells_are_the_product_without_repetition():
    grid = GridSpec(
        pruner=("dense", "snip", "imp"),
        sparsity=(0.5, 0.9),
        n=(10, 20),
        resume=("rewind", "finetune"),
        ablation=("", "shuffle"),
        init_seed=(0, 1),
    )
    found = cells(grid, PRUNINGS)
    keys = [tuple(cell.values()) for cell in found]
    assert len(set(keys)) == len(keys)
    count = {
        name: sum(c["pruner"] == name for c in found)
        for name in ("dense", "snip", "imp")
    }
    assert count == {"dense": 2 * 2, "snip": 2 * 2 * 2 * 2, "imp": 2 * 2 * 2 * (2 + 1)}
    assert set(found[0]) == {*COORDINATES, "label", "sees"}
    assert {c["resume"] for c in found if c["pruner"] == "snip"} == {""}


def test_fresh_weights_resume_from_nowhere_and_shuffled_masks_rewind():
    """Else a network would be trained twice, or from the zeros of a fine-tuned one."""
    grid = GridSpec(
        pruner=("imp", "magnitude_trained"),
        resume=("rewind", "finetune"),
        ablation=("", "shuffle", "reinitialize"),
    )
    found = cells(grid, PRUNINGS)
    keys = [tuple(cell.values()) for cell in found]
    assert len(set(keys)) == len(keys) == 2 * (2 + 1 + 1)
    for cell in found:
        fresh = cell["ablation"] == "reinitialize"
        assert (cell["resume"] == "") == fresh
        assert cell["ablation"] != "shuffle" or cell["resume"] == "rewind"


def test_paired_seeds_advance_together():
    seeds = {"init_seed": (0, 1), "data_seed": (2, 3), "train_seed": (4, 5)}
    paired = cells(GridSpec(**seeds, paired_seeds=True), {})
    assert [(c["init_seed"], c["data_seed"], c["train_seed"]) for c in paired] == [
        (0, 2, 4),
        (1, 3, 5),
    ]
    assert len(cells(GridSpec(**seeds), {})) == 8


@st.composite
def grids(draw):
    def some(*values):
        return tuple(draw(st.lists(st.sampled_from(values), min_size=1, unique=True)))

    grid = GridSpec(
        pruner=some(*PRUNERS),
        sparsity=some(0.5, 0.8, 0.9),
        n=some(10, 100, 1000),
        noise=some(0.5, 1.0),
        resume=some("rewind", "finetune"),
        data_seed=some(0, 1, 2),
    )
    return cells(grid, PRUNINGS)


def unit_of(cell):
    """What one process must work whole."""
    through = cell["pruner"] in ("dense", *TRAINED)
    draw = tuple(cell[name] for name in DRAW)
    return draw, "" if through else cell["pruner"]


def cost_of(found):
    return sum(cell["n"] * (1 if unit_of(cell)[1] else 2) for cell in found)


@given(grids(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_shares_are_whole_units_disjoint_complete_and_balanced(found, count, random):
    shares = [share(found, i, count, through=TRAINED) for i in range(count)]
    # Disjoint and complete: each cell once, in the order of the grid.
    position = {tuple(cell.values()): i for i, cell in enumerate(found)}
    dealt = [[position[tuple(cell.values())] for cell in part] for part in shares]
    assert sorted(itertools.chain(*dealt)) == list(range(len(found)))
    assert all(part == sorted(part) for part in dealt)
    # Whole units: none is in two shares.
    units = [{unit_of(cell) for cell in part} for part in shares]
    assert sum(map(len, units)) == len(set.union(*units))
    # Balanced: two loads differ by the most costly unit at most.
    loads = [cost_of(part) for part in shares]
    whole = {
        unit: [c for c in found if unit_of(c) == unit] for unit in map(unit_of, found)
    }
    assert max(loads) - min(loads) <= max(map(cost_of, whole.values()))
    # The order of the cells decides nothing.
    shuffled = random.sample(found, len(found))
    for i, part in enumerate(shares):
        again = share(shuffled, i, count, through=TRAINED)
        assert {tuple(c.values()) for c in again} == {tuple(c.values()) for c in part}


def test_one_process_works_all_and_one_too_many_works_nothing():
    grid = GridSpec(pruner=("dense", "imp", "random"), sparsity=(0.5, 0.9))
    found = cells(grid, PRUNINGS)
    assert share(found, 0, 1, through=TRAINED) == found
    first, second, third = (
        [cell["pruner"] for cell in share(found, i, 3, through=TRAINED)]
        for i in range(3)
    )
    assert first == ["dense", "imp", "imp"] and second == ["random", "random"]
    assert third == []
