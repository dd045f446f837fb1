"""Cards: found by name, file or module; their settings; what they refuse."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import OF_AN_MLP, pruner_entry, run, setup_of, spec_of

from configs.start import defaults
from nfp_jax import cards, data, models, pruners, spec
from nfp_jax.cards import CardError
from nfp_jax.fields import SpecError
from nfp_jax.grid import Pruning
from nfp_jax.pruners.contract import MaskUpdate, Pruner, Trajectory
from nfp_jax.spec import Spec

BASE = {
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "train": {"max_epochs": 3, "stop": "still"},
    "grid": {"pruner": ("random",), "sparsity": (0.5,), "n": (16,)},
}
PHEW = """
import jax
import jax.numpy as jnp
from nfp_jax import masks
from nfp_jax.pruning import Pruner


def build(net):
    # A mask without a score: the first weights of all, in their order.

    def mask_fn(params, batch=None, key=None, *, keep, prunable=None, mask=None):
        total = masks.prunable_size(params, prunable)
        return masks.unravel_mask(jnp.arange(total) < keep, params, prunable=prunable)

    return mask_fn


CARD = Pruner("first", label="the first", sees="nothing", build=build)
"""
NET = """
import jax
from flax import linen as nn
from nfp_jax.models import Model


class Attention(nn.Module):
    classes: int
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="embed")(x[..., None])
        return nn.Dense(self.classes, name="head")(nn.softmax(x, axis=1).mean(1))


CARD = Model("attention", lambda classes, *, width=3: Attention(classes, width))
"""
SET = """
import jax
import jax.numpy as jnp
from nfp_jax.data import Synthetic, gaussian


def make(key, n, *, dim=3):
    points = gaussian(key, n, dim)
    y = (points.x[:, 0] > 0).astype(jnp.int32)
    return points._replace(y=y, clean=y)


CARD = Synthetic("teacher", make, lambda *, dim=3: ((dim,), 2), gaussian_inputs=True)
"""

pytestmark = pytest.mark.usefixtures("one_device")


def test_every_pruner_of_ours_has_a_card_that_builds_what_it_says():
    contracts = {"through": Trajectory, "during": MaskUpdate}
    names = pruners.names()
    assert {"random", "snip", "grasp", "synflow", "magnitude_init"} <= set(names)
    setup = setup_of(spec_of(BASE, grid={"pruner": OF_AN_MLP}))
    for name in OF_AN_MLP:
        card = pruners.card(name)
        assert card.name == name and card.label
        if card.when == "before":
            assert callable(setup.pruners[name])
        else:
            assert isinstance(setup.pruners[name], contracts[card.when])
        assert card.when == "before" or card.sees == "training"


def test_what_a_card_says_that_it_sees_is_all_that_it_sees():
    """Masks are the same whatever the labels, or the inputs, that it does not see."""
    names = [name for name in OF_AN_MLP if pruners.card(name).when == "before"]
    setup = setup_of(spec_of(BASE, grid={"pruner": tuple(names)}))
    params = setup.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, 4))
    y = jnp.arange(16) % 2

    def mask(name, x, y):
        found = setup.pruners[name](params, (x, y), jax.random.key(2), keep=18)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])

    for name in names:
        first, sees = mask(name, x, y), pruners.card(name).sees
        other_labels = mask(name, x, jnp.where(x[:, 0] > 0, y, 1 - y))
        other_inputs = mask(name, 3 - x**2, y)
        blind = sees in ("nothing", "inputs")
        assert not blind or (first == other_labels).all(), name
        assert (sees != "nothing") or (first == other_inputs).all(), name
        if not blind:
            assert (first != other_labels).any(), name


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("question", ["memorization", "information"])
def test_a_pruner_is_shown_what_its_card_says_that_it_sees(
    question, at_once, monkeypatch
):
    """Labels that it does not see are absent, or zeros where there are many sets."""
    shown = {}

    def watch(name):
        def score(params, batch=None, key=None, *, mask=None, prunable=None):
            shown[name] = batch
            labels = jnp.zeros(1) if batch is None or batch[1] is None else batch[1]
            number = jnp.sum(labels * 2.0 ** jnp.arange(len(labels)))
            return jax.tree.map(lambda w: jnp.sin(100 * w + number), params)

        return score

    entries = tuple(
        pruner_entry(monkeypatch, sees, watch(sees), sees=sees)
        for sees in ("nothing", "inputs", "labels", "training")
    )
    config = {**BASE, "question": question, "information": {"datasets": 4}}
    spec = spec_of(config, grid={"pruner": entries}, engine={"score_at_once": at_once})
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 4
    if question == "memorization":
        assert shown["nothing"] is None and shown["inputs"][1] is None
        for all_of_it in ("labels", "training"):
            assert all(part is not None for part in shown[all_of_it])
    # Of a pruner that sees no labels a mask knows nothing.
    if question == "information":
        known = {row["pruner"]: row["distinct_masks"] for row in rows.values()}
        assert known["nothing"] == known["inputs"] == 1
        assert known["labels"] > 1 and known["training"] > 1


def test_a_mask_function_a_network_and_a_set_of_the_users_are_files(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, text in (("phew", PHEW), ("net", NET), ("teacher", SET)):
        (tmp_path / f"{name}.py").write_text(text)
    spec = spec_of(
        BASE,
        data={"name": "teacher.py", "dim": 5},
        model={"name": "net.py", "width": 4},
        grid={"pruner": ("dense", "phew.py", "imp"), "noise": (0.0,)},
    )
    assert dict(spec.data.settings) == {"dim": 5}
    before = spec.digest()
    (tmp_path / "net.py").write_text(NET + "# edited")
    assert spec.digest() != before  # rows of another file lie elsewhere
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 3
    kept = {row["pruner"]: row["kept_by_layer"] for row in rows.values()}
    # 4 of the embedding and 8 of the head, of which the first 6 in order are kept.
    assert kept["dense"] == [4, 8] and kept["first"] == [4, 2]
    assert sum(kept["imp"]) == 6


def test_a_mask_function_selects_by_itself_and_has_nothing_to_invert(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phew.py").write_text(PHEW)
    for axis, value, message in (
        ("select", "erk", "'first' selects by itself, expected 'global'"),
        ("ablation", "invert", "'first' has no score to invert"),
    ):
        with pytest.raises(SpecError, match=message):
            run(spec_of(BASE, grid={"pruner": ("phew.py",), axis: (value,)}))


def test_a_card_is_found_in_an_importable_module(tmp_path, monkeypatch):
    (tmp_path / "some_package.py").write_text(PHEW)
    monkeypatch.syspath_prepend(str(tmp_path))
    card = pruners.card("some_package:CARD")
    assert (card.name, card.label) == ("first", "the first")
    assert card.version == f"1-{cards.fingerprint('some_package:CARD')}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CARD = 3", "CARD = 3, expected a Pruner"),
        ("", "CARD = None, expected a Pruner"),
        ("1 / 0", "raises ZeroDivisionError"),
        (PHEW.replace('"first"', '"snip"'), "a card named 'snip', which is the name"),
        (PHEW.replace('"nothing"', '"all"'), "sees of pruner 'first' is 'all', expec"),
        (PHEW.replace("(net)", "(net, *, rounds)"), "rounds has no default"),
    ],
)
def test_a_file_that_is_no_card_is_refused_with_the_reason(
    text, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(SpecError, match=message):
        run(spec_of(BASE, grid={"pruner": ("bad.py",)}))


def test_two_cards_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(PHEW)
    with pytest.raises(SpecError, match="two cards that are named 'first'"):
        run(spec_of(BASE, grid={"pruner": ("one.py", "two.py")}))


def test_what_can_not_be_found_is_said():
    with pytest.raises(CardError, match=r"there is no file nowhere\.py"):
        pruners.card("nowhere.py")
    with pytest.raises(CardError, match="nowhere can't be imported"):
        pruners.card("nowhere:CARD")
    with pytest.raises(CardError, match="expected one of 'convnet', 'mlp'"):
        models.settings_of("nowhere")
    assert data.synthetic("emnist/letters:3.1.0") is None


def test_a_card_says_what_it_does_not_take():
    with pytest.raises(ValueError, match="when of pruner 'x' is 'later', expected 'b"):
        Pruner("x", "X", "labels", lambda net: None, when="later")
    with pytest.raises(ValueError, match=r"gradients of pruner 'x' .*\['a'\]"):
        Pruner("x", "X", "labels", lambda net, *, a=1: None, gradients=lambda: 0)
    settings = cards.settings_of(lambda net, *, a=1, b="c": None)
    assert settings == {"a": 1, "b": "c"}


def test_a_card_says_what_a_mask_costs_with_its_settings():
    costs = {"random": 0, "magnitude_init": 0, "snip": 1, "grasp": 3, "synflow": 100}
    costs |= {"imp": 0, "magnitude_trained": 0}
    for name in pruners.names():
        card = pruners.card(name)
        found = card.cost(cards.settings_of(card.build))
        assert isinstance(found, int) and found == costs.get(name, found), name
    assert (
        pruners.card("snip").cost({"rounds": 7, "schedule": "", "chunk_size": 1}) == 7
    )
    assert Pruner("x", "X", "labels", lambda net: None).cost({}) is None


def test_the_table_of_pruners_is_what_their_cards_say():
    text = (Path(__file__).parent.parent / "docs" / "experiments.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\w+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) >= 17
    for name, sees, gradients in rows:
        card = pruners.card(name)
        cost = card.cost(cards.settings_of(card.build))
        assert (card.sees, cost) == (sees, int(gradients)), name


def test_the_columns_of_a_pruner_are_its_card_and_settings():
    pruning = Pruning("x", "X", "labels", {"b": 1, "a": 2}, "7")
    assert pruning.columns() == {
        "pruner": "x",
        "settings": '{"a": 2, "b": 1}',
        "version": "7",
        "label": "X",
        "sees": "labels",
    }
    assert dataclasses.replace(pruning, settings={}).columns()["settings"] == ""


def test_a_setting_with_other_defaults_in_two_networks_is_that_of_the_one_named():
    """In a configuration it is None until it is set, and has its type."""
    plain = spec.defaults()
    assert plain["model"]["width"] is None and plain["model"]["patch"] == 4
    assert spec.disputed()["model"] == {
        **dict.fromkeys(("depth", "width", "heads", "mlp"), int),
        "norm": str,
    }
    for name in ("resnet", "transformer", "vit"):
        model = {**plain["model"], "name": name}
        found = Spec.from_config({**plain, "model": model}).model.settings
        assert found == models.settings_of(name)
        found = Spec.from_config({"model": {**model, "width": 24}}).model.settings
        assert found == {**models.settings_of(name), "width": 24}
    with pytest.raises(SpecError, match=r"model\.width is not a field of model; kn"):
        Spec.from_config({**plain, "model": {**plain["model"], "width": 24}})
    config = defaults()
    config.model.width = 24
    with pytest.raises(TypeError, match="width"):
        config.model.width = "wide"
