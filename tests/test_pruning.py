"""Pruning: rounds, pruning through training, and weights that stay at zero."""

import functools
import itertools
import math
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nfp_jax as nfp
from nfp_jax import masks, pruning, scores

KEY = jax.random.key(0)


def mlp(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x @ params[-1]["w"] + params[-1]["b"][None]


def init(*widths, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(widths))
    return [
        {"w": jax.random.normal(keys[i], (m, n)), "b": jnp.full((n,), 0.1, jnp.float32)}
        for i, (m, n) in enumerate(itertools.pairwise(widths))
    ]


def data(seed=5):
    x = jax.random.normal(jax.random.key(seed), (16, 5))
    return x, jax.random.randint(jax.random.key(seed + 1), (16,), 0, 2)


LOSS = scores.classification_loss(mlp, temperature=2.0)
PARAMS = init(5, 8, 6, 2)  # 100 prunable weights
SCORES = {
    "snip": scores.snip(LOSS),
    "grasp": scores.grasp(LOSS),
    "synflow": scores.synflow(mlp, (5,)),
    "random": scores.random(),
    "magnitude": scores.magnitude(),
}
SELECTIONS = [masks.top_k, masks.top_k_per_layer, masks.top_k_erk]


def kept(mask):
    return int(masks.ravel_mask(mask).sum())


# Rounds


def test_schedules_start_dense_and_end_at_the_density():
    for schedule in (pruning.exponential, pruning.linear):
        assert [schedule(0.04, t) for t in (0.0, 1.0)] == [1.0, pytest.approx(0.04)]
    assert pruning.exponential(0.04, 0.5) == pytest.approx(0.2)
    assert pruning.linear(0.04, 0.5) == pytest.approx(0.52)


@pytest.mark.parametrize("select", SELECTIONS)
def test_one_shot_is_the_selection_of_the_score(select):
    got = pruning.prune(SCORES["snip"], PARAMS, data(), sparsity=0.73, select=select)
    score = jax.jit(SCORES["snip"])(PARAMS, data())
    chex.assert_trees_all_equal(got, select(score, 27))


def test_quotas_can_be_pruned_to_in_rounds():
    keep = [{"w": jnp.array([30, k]), "b": jnp.array([0, 0])} for k in (20, 10, 4)]
    mask = pruning.prune(
        SCORES["snip"], PARAMS, data(), keep=keep, select=masks.top_k_by_quota
    )
    assert [int(layer["w"].sum()) for layer in mask] == [20, 10, 4]


@pytest.mark.filterwarnings("ignore:synflow in one round")
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("schedule", [pruning.exponential, pruning.linear])
def test_every_round_scores_the_masked_network_within_the_mask_before(name, schedule):
    counts = masks.keep_counts(100, 0.9, rounds=4, schedule=schedule)
    score = jax.jit(SCORES[name])
    mask, removed = masks.dense_mask(PARAMS), np.zeros(100, bool)
    for count in counts:
        weights = masks.apply_mask(PARAMS, mask)
        got = score(weights, data(), KEY, mask=mask)
        flat = np.concatenate([layer["w"].ravel() for layer in got])
        order = np.argsort(np.where(removed, np.inf, -flat), kind="stable")
        removed = np.ones(100, bool)
        removed[order[:count]] = False
        last = mask
        # A round that removes nothing changes nothing: one program for every count.
        keep = np.maximum(counts, count)
        mask = pruning.prune(SCORES[name], PARAMS, data(), KEY, keep=keep)
        assert masks.ravel_mask(mask).tolist() == (~removed).tolist()
        assert not np.any(masks.ravel_mask(mask) & ~masks.ravel_mask(last))
    whole = pruning.prune(
        SCORES[name], PARAMS, data(), KEY, sparsity=0.9, rounds=4, schedule=schedule
    )
    chex.assert_trees_all_equal(whole, mask)


@pytest.mark.parametrize("select", SELECTIONS)
def test_a_new_sparsity_batch_or_key_does_not_trace_again(select):
    traces = []

    def counted(params, batch=None, key=None, *, mask=None, prunable=None):
        traces.append(key)
        return SCORES["snip"](params, batch, key, mask=mask, prunable=prunable)

    # The first trace of a scan's body may be repeated; later calls add none.
    pruning.prune(counted, PARAMS, data(), KEY, sparsity=0.5, rounds=3, select=select)
    before = len(traces)
    for i, sparsity in enumerate((0.29, 0.9, 0.95, 0.0)):
        key = jax.random.key(i)
        mask = pruning.prune(
            counted, PARAMS, data(i), key, sparsity=sparsity, rounds=3, select=select
        )
        assert kept(mask) == masks.keep_count(100, sparsity)
    assert len(traces) == before


def test_counts_may_be_traced_and_mapped_over():
    keep = jnp.array([[60, 30], [50, 10], [100, 1]])

    def prune(keep):
        return pruning.prune(SCORES["grasp"], PARAMS, data(), keep=keep)

    batched = jax.jit(jax.vmap(prune))(keep)
    for i, counts in enumerate(keep):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        chex.assert_trees_all_equal(one, prune(counts))


def test_vmap_over_networks_equals_a_loop():
    many = [init(5, 4, 2, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)

    def prune(params):
        return pruning.prune(
            scores.magnitude(), params, sparsity=0.6, rounds=2, select=masks.top_k_erk
        )

    batched = jax.vmap(prune)(stacked)
    for i, params in enumerate(many):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        chex.assert_trees_all_equal(one, prune(params))


def many_networks(count=5):
    """Networks, their data sets and keys, each along a leading axis."""
    nets = [init(5, 4, 2, seed=seed) for seed in range(count)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *nets)
    sets = jax.tree.map(lambda *x: np.stack(x), *(data(i) for i in range(count)))
    return stacked, sets, jax.random.split(KEY, count)


def at(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@pytest.mark.parametrize("at_once", [None, 2, 8])
@pytest.mark.parametrize("name", ["random", "snip", "grasp", "synflow"])
def test_many_masks_in_one_call_are_those_of_one_call_each(name, at_once):
    params, sets, keys = many_networks()
    keep = np.array([[20 + i, 8 + i] for i in range(5)])
    found = pruning.prune_many(
        SCORES[name], params, sets, keys, keep=keep, at_once=at_once
    )
    for i in range(5):
        one = pruning.prune(
            SCORES[name], at(params, i), at(sets, i), keys[i], keep=keep[i]
        )
        chex.assert_trees_all_equal(at(found, i), one)


def test_many_data_sets_share_one_initialization_and_parts_of_a_batch():
    params, (x, y), _ = many_networks()
    one, own = at(params, 0), functools.partial(pruning.prune_many, SCORES["snip"])
    found = own(one, (x, y), in_axes=(None, 0, None), sparsity=0.7)
    shared = own(one, (x[0], y), in_axes=(None, (None, 0), None), sparsity=0.7)
    for i in range(5):
        mask = pruning.prune(SCORES["snip"], one, (x[i], y[i]), sparsity=0.7)
        chex.assert_trees_all_equal(at(found, i), mask)
        mask = pruning.prune(SCORES["snip"], one, (x[0], y[i]), sparsity=0.7)
        chex.assert_trees_all_equal(at(shared, i), mask)


def test_a_mask_of_many_depends_bit_by_bit_on_its_own_network():
    """At a fixed number at once, however many there are: scores of 28 networks."""
    params, sets, _ = many_networks(7)
    one_by_one = [
        pruning.prune_many(
            SCORES["grasp"],
            jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], params),
            jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], sets),
            sparsity=0.6,
            at_once=3,
        )
        for i in range(7)
    ]
    found = pruning.prune_many(SCORES["grasp"], params, sets, sparsity=0.6, at_once=3)
    for i, mask in enumerate(one_by_one):
        chex.assert_trees_all_equal(at(found, i), at(mask, 0))


def test_many_masks_trace_once_for_all_chunks_and_sparsities():
    traces = []

    def counted(params, batch=None, key=None, *, mask=None, prunable=None):
        traces.append(key)
        return SCORES["snip"](params, batch, key, mask=mask, prunable=prunable)

    params, sets, _ = many_networks()
    pruning.prune_many(counted, params, sets, sparsity=0.6, at_once=2)
    before = len(traces)
    pruning.prune_many(counted, params, sets, sparsity=0.2, at_once=2)
    assert len(traces) == before


def test_many_masks_name_the_network_and_the_layer_of_a_nan():
    params, (x, y), _ = many_networks()
    x[3] = np.nan
    message = r"networks \[3\]: scores at '0/w' are NaN"
    with pytest.raises(pruning.NanScores, match=message) as caught:
        pruning.prune_many(SCORES["snip"], params, (x, y), sparsity=0.5, at_once=2)
    assert caught.value.networks == [3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at_once": 0}, "at_once is 0, expected at least 1"),
        ({"batch": (jnp.ones((3, 8, 5)), jnp.zeros((3, 8), int))}, r"sizes \[3, 5\]"),
        ({"sparsity": None}, "expected exactly one of them"),
        ({"sparsity": None, "keep": jnp.full((5, 1), 1000)}, "expected 0 <= keep"),
    ],
)
def test_many_masks_refuse(changes, message):
    params, sets, _ = many_networks()
    arguments = {"batch": sets, "sparsity": 0.5, **changes}
    with pytest.raises(ValueError, match=message):
        pruning.prune_many(SCORES["snip"], params, **arguments)


def test_pruning_goes_on_from_an_earlier_mask():
    earlier = pruning.prune(SCORES["random"], PARAMS, key=KEY, sparsity=0.5)
    mask = pruning.prune(
        SCORES["snip"], PARAMS, data(), sparsity=0.8, rounds=3, mask=earlier
    )
    assert kept(mask) == 20
    assert not np.any(masks.ravel_mask(mask) & ~masks.ravel_mask(earlier))
    score = jax.jit(SCORES["snip"])(PARAMS, data(), mask=earlier)
    once = pruning.prune(SCORES["snip"], PARAMS, data(), sparsity=0.8, mask=earlier)
    chex.assert_trees_all_equal(once, masks.top_k(score, 20, mask=earlier))
    with pytest.raises(ValueError, match="keep is 60, expected at most 50"):
        pruning.prune(SCORES["snip"], PARAMS, data(), sparsity=0.4, mask=earlier)
    with pytest.raises(ValueError, match="mask at '0/b' has dtype float32"):
        pruning.prune(SCORES["snip"], PARAMS, data(), sparsity=0.8, mask=PARAMS)


# What a score may ask of its rounds


FLAT = {"kernel": jnp.arange(1.0, 9.0).reshape(2, 4)}


def toggling(params, batch=None, key=None, *, mask=None, prunable=None):
    """Prefers the weights that the mask has removed; says what weights it was given."""
    return jax.tree.map(lambda w, m: w + jnp.where(m, 0.0, 100.0), params, mask)


def test_weights_return_where_masks_are_not_nested():
    """Round 1 removes 1 to 4. Given all weights, round 2 prefers just these."""
    keep = jnp.array([4, 3])
    found = nfp.prune(toggling, FLAT, keep=keep, nested=False)
    assert found["kernel"].tolist() == [[False, True, True, True], [False] * 4]
    nested = nfp.prune(toggling, FLAT, keep=keep)
    assert nested["kernel"].tolist() == [[False] * 4, [False, True, True, True]]


def test_weights_that_an_earlier_mask_removed_never_return():
    mask = {"kernel": jnp.array([[False, True, True, True], [True] * 4])}
    found = nfp.prune(toggling, FLAT, keep=jnp.array([4, 7]), nested=False, mask=mask)
    assert found["kernel"].tolist() == mask["kernel"].tolist()


def test_every_round_may_have_a_key_and_weights_of_its_own():
    """The rounds by hand: the key of round t is fold_in(key, t)."""
    keep = [60, 30]

    def by_hand(score_fn, weights_of):
        mask = masks.dense_mask(PARAMS)
        for t, count in enumerate(keep):
            key = jax.random.fold_in(KEY, t)
            weights = masks.apply_mask(weights_of(key), mask)
            mask = masks.top_k(
                score_fn(weights, None, key, mask=mask), count, mask=mask
            )
        return mask

    def fresh(key):
        return init(5, 8, 6, 2, seed=jax.random.bits(key, dtype=jnp.uint32))

    random, magnitude = nfp.random(), nfp.magnitude()
    found = nfp.prune(random, PARAMS, key=KEY, keep=keep, fresh_keys=True)
    expected = by_hand(random, lambda key: PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    one_key = nfp.prune(random, PARAMS, key=KEY, keep=keep)
    assert nfp.overlap(found, one_key) < 1
    found = nfp.prune(magnitude, PARAMS, key=KEY, keep=keep, init_fn=fresh)
    expected = by_hand(magnitude, fresh)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    many = nfp.prune_many(
        magnitude,
        PARAMS,
        key=jnp.stack([KEY, jax.random.key(7)]),
        in_axes=(None, None, 0),
        keep=keep,
        init_fn=fresh,
    )
    jax.tree.map(np.testing.assert_array_equal, at(many, 0), expected)
    for options in ({"fresh_keys": True}, {"init_fn": fresh}):
        with pytest.raises(ValueError, match="key is None, expected one: every round"):
            nfp.prune(magnitude, PARAMS, keep=keep, **options)


def test_a_score_makes_a_pruner():
    """By the final count, the counts of all rounds, or a count that is traced."""
    mask_fn = pruning.by_score(nfp.magnitude(), rounds=3, schedule="linear")
    expected = nfp.prune(
        nfp.magnitude(), PARAMS, sparsity=0.8, rounds=3, schedule=nfp.linear
    )
    for keep in (20, mask_fn.counts(100, 0.8)):
        found = mask_fn(PARAMS, keep=keep)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    once = pruning.by_score(nfp.magnitude())
    traced = jax.jit(lambda keep: once(PARAMS, keep=keep))(20)
    jax.tree.map(np.testing.assert_array_equal, traced, once(PARAMS, keep=20))
    with pytest.raises(ValueError, match="rounds is 0, expected rounds >= 1"):
        pruning.by_score(nfp.magnitude(), rounds=0)
    with pytest.raises(ValueError, match="schedule is 'cubic', expected one of 'exp"):
        pruning.by_score(nfp.magnitude(), schedule="cubic")


def test_synflow_in_one_round_is_warned_of_and_in_two_it_is_not():
    with pytest.warns(UserWarning, match="may empty a layer: pass rounds=100"):
        pruning.prune(SCORES["synflow"], PARAMS, sparsity=0.5)
    pruning.prune(SCORES["synflow"], PARAMS, sparsity=0.5, rounds=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparsity is None and keep is None, expected exactly one"),
        ({"sparsity": 0.5, "keep": 3}, "sparsity is 0.5 and keep is 3, .* exactly one"),
        ({"sparsity": 1.0}, "sparsity is 1.0, expected 0 <= sparsity < 1"),
        ({"sparsity": 0.5, "rounds": 0}, "rounds is 0, expected at least 1"),
        ({"keep": 101}, r"keep is \[101\], expected 0 <= keep <= 100"),
        ({"keep": np.array([3, -1])}, r"keep is \[3, -1\], expected 0 <= keep"),
        ({"keep": 0.5}, r"keep is float32\[1\], expected integers \[rounds\]"),
        ({"keep": np.ones((2, 2), int)}, r"keep is int32\[2, 2\], expected integers"),
        ({"keep": {"a": 101}}, r"keep at 'a' is \[101\]"),
        ({"keep": [50, 101]}, r"keep is \[50, 101\], expected 0 <= keep <= 100"),
        ({"keep": [0.5]}, r"keep is float32\[1\], expected integers \[rounds\]"),
    ],
)
def test_prune_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        pruning.prune(scores.magnitude(), PARAMS, **options)


def test_a_list_of_counts_has_those_of_the_rounds():
    found = pruning.prune(scores.magnitude(), PARAMS, keep=[80, 50])
    known = pruning.prune(scores.magnitude(), PARAMS, keep=np.array([80, 50]))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, known))
    traced = jax.jit(
        lambda a, b: pruning.prune(scores.magnitude(), PARAMS, keep=[a, b])
    )(80, 50)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, traced, known))
    # Of parameters that are a list, a list of numbers has those of the leaves.
    pair = [jnp.arange(6.0).reshape(2, 3), jnp.arange(4.0).reshape(2, 2)]
    mask = pruning.prune(
        scores.magnitude(), pair, keep=[2, 3], select=masks.top_k_by_quota
    )
    assert [int(leaf.sum()) for leaf in mask] == [2, 3]


def test_an_error_of_many_traced_counts_is_one_line():
    def wrong(counts):
        return pruning.prune(
            scores.magnitude(), PARAMS, sparsity=0.5, keep={"a": list(counts)}
        )

    with pytest.raises(ValueError, match="keep is a dict of 100 arrays") as error:
        jax.jit(wrong)(jnp.arange(100))
    assert "\n" not in str(error.value)


def test_scores_that_are_all_zero_are_refused_with_the_layer_of_zeros():
    """SNIP's, of a head of zeros. GraSP's are not, and later rounds may collapse."""
    head = {"w": jnp.zeros((6, 2)), "b": PARAMS[-1]["b"]}
    headless, snip = [*PARAMS[:-1], head], SCORES["snip"]
    message = "every score is 0, and all weights of '2/w': no weight is preferred"
    with pytest.raises(ValueError, match=message):
        nfp.prune(snip, headless, data(), sparsity=0.5)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), PARAMS, headless)
    with pytest.raises(nfp.pruning.NanScores, match=rf"networks \[1\]: {message}"):
        nfp.prune_many(snip, both, data(), in_axes=(0, None, None), sparsity=0.5)
    assert kept(nfp.prune(SCORES["grasp"], headless, data(), sparsity=0.5)) == 50
    nothing = nfp.invert(nfp.magnitude())
    with pytest.raises(ValueError, match="every score is 0, and all weights of '0/w'"):
        nfp.prune(nothing, jax.tree.map(jnp.zeros_like, PARAMS), sparsity=0.5)
    one = nfp.prune(snip, PARAMS, data(), keep=[1, 1, 1])
    assert kept(one) == 1  # one weight makes no path: all later scores are 0


def test_a_nan_score_names_its_layer_unless_it_is_pruned_already():
    params = [dict(layer) for layer in PARAMS]
    params[1]["w"] = params[1]["w"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="scores at '1/w' are NaN in 1 of 48 entries"):
        pruning.prune(scores.magnitude(), params, sparsity=0.5)
    without = masks.dense_mask(params)
    without[1]["w"] = without[1]["w"].at[0, 0].set(False)
    mask = pruning.prune(scores.magnitude(), params, sparsity=0.5, mask=without)
    assert kept(mask) == 50
    # Under a transform it ranks lowest.
    mask = jax.jit(lambda p: pruning.prune(scores.magnitude(), p, sparsity=0.01))(
        params
    )
    assert kept(mask) == 99 and not mask[1]["w"][0, 0]


# Pruning through training


def toy(log=None, *, factor=2.0):
    """Training that adds to each weight its column: known to the last digit."""

    def train_fn(params, mask, data, key, *, steps=None):
        if log is not None:
            log.append((params, mask, data, key, steps))
        trained = params * factor + jnp.arange(10.0)[None] / 10 * (steps or 1)
        return jnp.where(mask, trained, 0.0)

    return train_fn


START = jnp.array([[0.5, -0.4, 0.1, -1.0, 0.3, 0.2, 0.6, -0.9, 0.0, 0.8]])


def by_hand(keep):
    return [[i in keep for i in range(10)]]


def test_imp_follows_the_trajectory_worked_out_by_hand():
    # 2w + column/10: 1.0 -.7 .4 -1.7 1.0 .9 1.8 -1.1 .8 2.5, in every round
    # alike, since what is kept is rewound. The smallest go first: .4 and .7, then .8,
    # .9 and 1.0 (the later of the two), then the other 1.0 and 1.1.
    tickets = pruning.imp_tickets(
        toy(), START, None, KEY, sparsities=[0.2, 0.3, 0.5, 0.75]
    )
    expected = {
        0.2: {0, 3, 4, 5, 6, 7, 8, 9},
        0.3: {0, 3, 4, 5, 6, 7, 9},
        0.5: {0, 3, 6, 7, 9},
        0.75: {3, 6, 9},
    }
    for sparsity, keep in expected.items():
        assert tickets[sparsity].mask.tolist() == by_hand(keep)
        assert tickets[sparsity].rewound is START


def test_imp_trains_every_round_from_the_rewound_weights_with_one_key():
    log = []
    tickets = pruning.imp_tickets(
        toy(log), START, "data", KEY, sparsities=[0.5], rewind_step=3
    )
    first, *rounds = log
    assert first[4] == 3 and first[1].all() and first[0] is START
    rewound = START * 2 + jnp.arange(10.0)[None] / 10 * 3
    # 10, 10 - 2, 10 - floor(3.6), 10 - floor(4.88); the next, 10 - floor(5.9) = 5,
    # is as sparse as asked for, so that four trainings do.
    assert [kept(mask) for _, mask, *_ in rounds] == [10, 8, 7, 6]
    for i, (params, mask, points, key, steps) in enumerate(rounds):
        assert points == "data" and key is KEY and steps is None
        start = START if i == 0 else masks.apply_mask(rewound, mask)
        assert params.tolist() == start.tolist()
    last = toy()(log[-1][0], log[-1][1], None, KEY)
    assert tickets[0.5].trained.tolist() == last.tolist()
    assert tickets[0.5].rewound.tolist() == rewound.tolist()


def test_asking_for_more_sparsities_changes_no_mask_and_keeps_their_order():
    sparsities = [0.75, 0.1, 0.5, 0.9, 0.2]
    every = pruning.imp(toy(factor=-1.5), START, None, KEY, sparsities=sparsities)
    assert list(every) == sparsities
    for sparsity in sparsities:
        alone = pruning.imp(
            toy(factor=-1.5), START, None, KEY, sparsities=iter([sparsity])
        )
        assert alone[sparsity].tolist() == every[sparsity].tolist()
        assert kept(alone[sparsity]) == masks.keep_count(10, sparsity)


@given(
    st.integers(1, 10**6),
    st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True),
    st.integers(5, 99),
)
def test_imp_cuts_from_the_last_round_that_is_not_yet_sparser(total, asked, percent):
    sparsities = [thousandths / 1000 for thousandths in asked]
    rounds = pruning.imp_rounds(total, sparsities, keep_per_round=percent / 100)
    trained = total
    for t, one in enumerate(rounds, 1):
        share = Fraction(percent, 100) ** t
        following = total - math.floor((1 - share) * total)
        for sparsity, keep in one.cuts.items():
            assert keep == masks.keep_count(total, sparsity)
            assert trained >= keep >= following
        assert one.keep in (following, None) and (one.keep is None) == (
            one is rounds[-1]
        )
        trained = following
    cut = [sparsity for one in rounds for sparsity in one.cuts]
    assert sorted(cut) == sorted(sparsities)
    assert rounds[-1].cuts


def test_magnitude_after_training_cuts_all_from_one_dense_training():
    log = []
    tickets = pruning.magnitude_after_training(
        toy(log), START, None, KEY, sparsities=[0.75, 0.5]
    )
    assert len(log) == 1 and log[0][1].all()
    assert list(tickets) == [0.75, 0.5]
    assert tickets[0.5].mask.tolist() == by_hand({0, 3, 6, 7, 9})
    assert tickets[0.75].mask.tolist() == by_hand({3, 6, 9})
    assert tickets[0.5].trained.tolist() == toy()(START, True, None, KEY).tolist()


def test_imp_refuses():
    def call(train_fn=None, **options):
        options = {"sparsities": [0.5]} | options
        return pruning.imp(train_fn or toy(), START, None, KEY, **options)

    for options, message in [
        ({"sparsities": []}, "sparsities is empty"),
        ({"sparsities": [0.5, 1.2]}, "sparsity is 1.2, expected 0 <= sparsity < 1"),
        ({"keep_per_round": 1.0}, "keep_per_round is 1.0, expected 0 <"),
        ({"rewind_step": -1}, "rewind_step is -1, expected at least 0"),
        ({"train_fn": lambda *_: {"w": START}}, "train_fn returned has no leaf ''"),
        ({"train_fn": lambda *_: START * jnp.nan}, "NaN in 10 of 10 entries"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**options)
    with pytest.raises(ValueError, match="sparsities is empty"):
        pruning.magnitude_after_training(toy(), START, None, KEY, sparsities=[])


def test_reinitialized_weights_are_fresh_and_masked():
    mask = {"w": jnp.array([[True, False]])}
    fresh = pruning.reinitialize(
        lambda key: {"w": jax.random.normal(key, (1, 2))}, mask, KEY
    )
    assert fresh["w"].tolist() == [[float(jax.random.normal(KEY, (1, 2))[0, 0]), 0.0]]
    with pytest.raises(ValueError, match="mask at 'w' has shape"):
        pruning.reinitialize(lambda key: {"w": jnp.ones((2, 2))}, mask, KEY)


# Pruned weights stay pruned


OPTIMIZERS = {
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "momentum": lambda: optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "partitioned": lambda: optax.multi_transform(
        {"w": optax.adam(1e-2), "b": optax.sgd(1e-2)},
        lambda params: [{"w": "w", "b": "b"} for _ in params],
    ),
}
HALF = pruning.prune(scores.magnitude(), PARAMS, sparsity=0.5)
OTHER = pruning.prune(scores.random(), PARAMS, key=KEY, sparsity=0.7)


def trainer(optimizer, loss=LOSS):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params, data()), state, params)
        return optax.apply_updates(params, updates), state

    return step


def zeros_where_removed(params, mask):
    return all(
        jnp.all(jnp.where(m, 0.0, p) == 0.0)
        for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_exactly_zero_also_when_the_mask_is_replaced(name):
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.chain(OPTIMIZERS[name](), pruning.freeze_pruned(HALF)),
    )
    step, state = trainer(optimizer), optimizer.init(PARAMS)
    params = PARAMS  # not yet masked: the first update does it
    for _ in range(50):
        params, state = step(params, state)
        assert zeros_where_removed(params, HALF)
    state = pruning.replace_mask(state, OTHER)
    params, state = step(params, state)
    assert zeros_where_removed(params, OTHER)
    for _ in range(5):
        params, state = step(params, state)
    assert zeros_where_removed(params, OTHER)
    regrown = masks.ravel_mask(OTHER) & ~masks.ravel_mask(HALF)
    flat = np.concatenate([layer["w"].ravel() for layer in params])
    assert regrown.sum() > 5 and np.mean(flat[np.asarray(regrown)] != 0) > 0.5


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum"])
def test_kept_weights_move_as_under_the_optimizer_alone_on_the_masked_network(name):
    def masked_loss(params, batch):
        return LOSS(masks.apply_mask(params, HALF), batch)

    start = masks.apply_mask(PARAMS, HALF)
    alone, chained = OPTIMIZERS[name](), None
    chained = optax.chain(OPTIMIZERS[name](), pruning.freeze_pruned(HALF))
    runs = []
    for optimizer, loss in [(alone, masked_loss), (chained, LOSS)]:
        params, state = start, optimizer.init(start)
        step = trainer(optimizer, loss)
        for _ in range(20):
            params, state = step(params, state)
        runs.append(masks.apply_mask(params, HALF))
    # Elementwise optimizers: the rest differs by the fusing of float32 alone.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), *runs)


def test_freezing_maps_over_masks():
    many = jax.tree.map(lambda *m: jnp.stack(m), HALF, OTHER)

    def run(mask):
        optimizer = optax.chain(optax.adam(1e-2), pruning.freeze_pruned(mask))
        params, state = PARAMS, optimizer.init(PARAMS)
        for _ in range(2):
            updates, state = optimizer.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params

    batched, alone = jax.jit(jax.vmap(run))(many), jax.jit(run)
    for i, mask in enumerate((HALF, OTHER)):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert zeros_where_removed(one, mask)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-6), one, alone(mask)
        )


def test_freezing_refuses_what_does_not_fit():
    freeze = pruning.freeze_pruned(HALF)
    state = freeze.init(PARAMS)
    with pytest.raises(ValueError, match="freeze_pruned needs params"):
        freeze.update(PARAMS, state)
    with pytest.raises(ValueError, match=r"mask at '0/w' has shape \(5, 8\), expected"):
        freeze.init(init(4, 8, 6, 2))
    with pytest.raises(ValueError, match=r"mask at '0/w' has shape \(4, 8\), expected"):
        pruning.replace_mask(state, masks.dense_mask(init(4, 8, 6, 2)))
    with pytest.raises(ValueError, match="state has no freeze_pruned in it"):
        pruning.replace_mask(optax.adam(1e-3).init(PARAMS), HALF)
