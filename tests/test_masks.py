"""Masks: counts, selection, measures, refusals."""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nfp_jax import masks
from nfp_jax.masks import selection
from nfp_jax.models import ConvNet

# Two prunable leaves of different shapes around one that is not; 22 weights.
SHAPES = {"a": (3, 4), "b": (4,), "c": (2, 5)}
TOTAL = 22
SELECTIONS = [masks.top_k, masks.top_k_per_layer, masks.top_k_erk]


def tree_of(flat, dtype=jnp.float32):
    flat = np.asarray(flat).astype(dtype)
    return {
        "a": flat[:12].reshape(3, 4),
        "b": np.zeros(4, dtype),
        "c": flat[12:].reshape(2, 5),
    }


def scores_from(seed, shapes=SHAPES):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def stable_top(flat, keep):
    """The reference selection: a stable sort in numpy, highest first."""
    order = np.argsort(-np.asarray(flat, np.float64), kind="stable")
    kept = np.zeros(len(flat), bool)
    kept[order[:keep]] = True
    return kept


def raveled(mask):
    """As ``ravel_mask`` does, without a program for every step."""
    return np.concatenate([np.asarray(mask[name]).ravel() for name in "ac"])


def trees_equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-40, 3e38, 1e-38]
tied = hnp.arrays(np.float32, TOTAL, elements=st.sampled_from(SPECIAL))
distinct = hnp.arrays(
    np.float32, TOTAL, elements=st.floats(width=32, allow_nan=False), unique=True
)
keeps = st.integers(0, TOTAL)
jitted = {select: jax.jit(select) for select in SELECTIONS}
by_quota = jax.jit(masks.top_k_by_quota)
within = {
    select: jax.jit(lambda s, k, m, select=select: select(s, k, mask=m))
    for select in SELECTIONS
}


# Counts


def test_sparsity_is_the_decimal_number_written():
    assert math.floor(0.29 * 50_400) == 14_615  # the trap: 0.29 is a little less
    assert masks.keep_count(50_400, 0.29) == 50_400 - 14_616


@given(st.integers(1, 10**9), st.integers(0, 9999))
def test_keep_count_is_exact_for_every_decimal(total, ten_thousandths):
    written = Fraction(ten_thousandths, 10_000)
    expected = total - total * ten_thousandths // 10_000
    assert masks.keep_count(total, ten_thousandths / 10_000) == expected
    assert masks.keep_count(total, np.float64(ten_thousandths / 10_000)) == expected
    assert masks.keep_count(total, written) == expected


@pytest.mark.parametrize("sparsity", [1.0, -0.1, math.nan, True, "0.5", None])
def test_keep_count_refuses_what_is_no_sparsity(sparsity):
    with pytest.raises(ValueError, match=r"sparsity is .*(0 <= sparsity < 1|\[0, 1\))"):
        masks.keep_count(10, sparsity)


@given(st.integers(1, 10**6), st.integers(0, 999), st.integers(1, 120), st.booleans())
def test_keep_counts_follow_the_schedule_and_end_at_keep_count(
    total, thousandths, rounds, is_linear
):
    sparsity = thousandths / 1000
    density = (
        1 - thousandths / 1000 if thousandths == 0 else (1000 - thousandths) / 1000
    )
    schedule = (lambda d, t: 1 - (1 - d) * t) if is_linear else (lambda d, t: d**t)
    counts = masks.keep_counts(total, sparsity, rounds=rounds, schedule=schedule)
    last = masks.keep_count(total, sparsity)
    early = [
        total - math.floor((1.0 - schedule(density, t / rounds)) * total)
        for t in range(1, rounds)
    ]
    # Rounding can put an early count one below the decimal one, never more.
    assert all(count >= last - 1 for count in early)
    assert counts.tolist() == [max(count, last) for count in early] + [last]
    assert np.all(np.diff(counts) <= 0)


def test_keep_counts_refuses_rounds_and_schedules_that_make_no_sense():
    with pytest.raises(ValueError, match="rounds is 0, expected at least 1"):
        masks.keep_counts(10, 0.5, rounds=0, schedule=lambda d, t: d)
    with pytest.raises(ValueError, match=r"keeps \[2, 5\], expected no increase"):
        masks.keep_counts(10, 0.5, rounds=2, schedule=lambda d, t: 0.2)
    with pytest.raises(ValueError, match=r"keeps \[15, 5\], expected no increase"):
        masks.keep_counts(10, 0.5, rounds=2, schedule=lambda d, t: 1.5)


# Selection: exact counts


@given(tied, keeps)
def test_every_selection_keeps_the_exact_count_whatever_the_ties(flat, keep):
    for select in SELECTIONS:
        mask = jitted[select](tree_of(flat), keep)
        assert raveled(mask).sum() == keep
        assert np.all(mask["b"])


@given(tied, st.integers(0, 12), st.integers(0, 10))
def test_quotas_are_kept_exactly_as_pytree_and_as_sequence(flat, in_a, in_c):
    mask = by_quota(tree_of(flat), {"a": in_a, "b": 99, "c": in_c})
    assert [np.sum(mask["a"]), np.sum(mask["c"])] == [in_a, in_c]
    assert raveled(mask)[:12].tolist() == stable_top(flat[:12], in_a).tolist()
    assert trees_equal(mask, by_quota(tree_of(flat), np.array([in_a, in_c])))


@given(tied | distinct, keeps)
def test_top_k_is_a_stable_sort(flat, keep):
    mask = raveled(jitted[masks.top_k](tree_of(flat), keep))
    assert mask.tolist() == stable_top(flat, keep).tolist()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@given(flat=tied, keep=keeps)
def test_half_precision_scores_rank_as_their_values(dtype, flat, keep):
    scores = tree_of(np.clip(flat, -6e4, 6e4), dtype)
    mask = jitted[masks.top_k](scores, keep)
    values = np.concatenate([scores["a"].ravel(), scores["c"].ravel()], dtype=float)
    assert raveled(mask).tolist() == stable_top(values, keep).tolist()


def test_double_precision_scores_are_not_rounded():
    with jax.enable_x64(True):
        flat = 1.0 + np.arange(TOTAL) * 1e-15
        for select in SELECTIONS:
            mask = select(tree_of(flat, jnp.float64), 7)
            assert int(masks.ravel_mask(mask).sum()) == 7
        mask = masks.top_k(tree_of(flat, jnp.float64), 7)
        assert masks.ravel_mask(mask).tolist() == [False] * 15 + [True] * 7


def test_equal_scores_keep_the_lower_flat_index():
    scores = {"w": jnp.array([[0.0, -0.0, 0.0], [-0.0, 0.0, -0.0]])}
    assert masks.top_k(scores, 3)["w"].tolist() == [[True] * 3, [False] * 3]


@given(tied | distinct, keeps)
def test_masks_are_nested_as_sparsity_grows(flat, keep):
    scores, more = tree_of(flat), min(keep + 3, TOTAL)
    for small, large in [
        (jitted[masks.top_k](scores, keep), jitted[masks.top_k](scores, more)),
        (
            by_quota(scores, np.array([keep // 2, keep // 3])),
            by_quota(scores, np.array([more // 2, more // 3])),
        ),
    ]:
        assert not np.any(raveled(small) & ~raveled(large))


@given(hnp.arrays(np.int8, TOTAL), keeps)
def test_a_monotone_map_of_scores_changes_nothing(flat, keep):
    for select in SELECTIONS:
        expected = jitted[select](tree_of(flat), keep)
        # Exact in float32 for small integers: strictly increasing maps.
        for transformed in (flat * 4.0 - 3.0, flat.astype(float) ** 3):
            assert trees_equal(expected, jitted[select](tree_of(transformed), keep))


@given(tied | distinct, hnp.arrays(bool, TOTAL), keeps)
def test_what_an_earlier_mask_removed_stays_removed(flat, earlier, keep):
    mask = tree_of(earlier, bool) | {"b": np.ones(4, bool)}
    for select in SELECTIONS:
        kept = raveled(within[select](tree_of(flat), keep, mask))
        assert not np.any(kept & ~earlier)
        assert kept.sum() == min(keep, earlier.sum())
        if select is masks.top_k:
            order = np.lexsort((np.arange(TOTAL), -flat.astype(float), ~earlier))
            assert set(np.flatnonzero(kept)) == set(order[: kept.sum()])


# Selection: by layer


@given(st.lists(st.integers(1, 2**26), min_size=1, max_size=7), st.fractions(0, 1))
def test_floor_shares_are_exact_where_the_product_overflows(sizes, share):
    sizes = [*sizes, 2**29 - 7 - sum(sizes)]
    keep = math.floor(share * sum(sizes))
    shares = selection._uniform_quotas([(size,) for size in sizes], keep).tolist()
    assert shares == [keep * size // sum(sizes) for size in sizes]


def test_too_many_weights_for_exact_shares_are_refused():
    with pytest.raises(ValueError, match=r"1073741824 .*expected fewer than 2\^30"):
        selection._uniform_quotas([(2**30,)], 1)
    with pytest.raises(ValueError, match=r"1073741824 .*expected fewer than 2\^30"):
        selection._erk_quotas([(2**15, 2**15)], 1)


@given(distinct, keeps)
def test_per_layer_keeps_the_floor_share_and_gives_the_rest_to_the_best(flat, keep):
    mask = raveled(jitted[masks.top_k_per_layer](tree_of(flat), keep))
    share = [keep * 12 // TOTAL, keep * 10 // TOTAL]
    first = np.concatenate(
        [stable_top(flat[:12], share[0]), stable_top(flat[12:], share[1])]
    )
    rest = np.where(first, -np.inf, flat.astype(float))
    expected = first | stable_top(rest, keep - first.sum())
    assert mask.tolist() == expected.tolist()


def erk_by_bisection(shapes, keep):
    """Densities min(1, eps·raw), eps found by bisection instead of filling layers."""
    raw = np.array([sum(shape) / math.prod(shape) for shape in shapes])
    sizes = np.array([math.prod(shape) for shape in shapes])
    low, high = 0.0, 1 / raw.min()
    for _ in range(200):
        middle = (low + high) / 2
        kept = np.sum(np.minimum(1, middle * raw) * sizes)
        low, high = (middle, high) if kept < keep else (low, middle)
    return np.minimum(1, high * raw)


SHAPE = st.tuples(st.integers(1, 9), st.integers(1, 300), st.integers(1, 300))


@given(st.lists(SHAPE, min_size=1, max_size=6), st.integers(0, 99))
def test_erk_densities_equal_those_of_another_algorithm(shapes, percent):
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    keep = masks.keep_count(sum(map(math.prod, shapes)), percent / 100)
    densities = masks.erk_densities(params, percent / 100)
    # 1e-9: rounding of double precision over 200 halvings.
    np.testing.assert_allclose(densities, erk_by_bisection(shapes, keep), rtol=1e-9)
    quotas = np.asarray(selection._erk_quotas(shapes, keep))
    sizes = [math.prod(shape) for shape in shapes]
    assert quotas.sum() <= keep < quotas.sum() + len(shapes)
    np.testing.assert_allclose(
        quotas, np.floor(np.multiply(densities, sizes) + 1e-6), atol=0
    )


def test_erk_quotas_fall_where_the_densities_say():
    scores = {"a": jnp.ones((10, 10)), "bias": jnp.ones(3), "b": jnp.ones((2, 5))}
    densities = masks.erk_densities(scores, 0.5)
    # raw 0.2 and 0.7, 55 to keep: b would need 1.4 and is full, a holds 45 of 100.
    assert densities == {"a": pytest.approx(0.45), "bias": 1.0, "b": 1.0}
    mask = jax.jit(masks.top_k_erk)(scores, 55)
    assert [int(mask[name].sum()) for name in ("a", "b", "bias")] == [45, 10, 3]


def test_kernels_of_attention_have_the_densities_of_matrices():
    attention = {
        "query": {"kernel": (12, 2, 3)},
        "value": {"kernel": (12, 3, 2)},
        "out": {"kernel": (2, 3, 12)},
    }
    matrices = {"query": (12, 6), "value": (12, 6), "out": (6, 12)}
    given, expected = (
        jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
            {"attend": kernels, "out": {"kernel": (3, 5, 7)}},  # a convolution
            is_leaf=lambda node: isinstance(node, tuple),
        )
        for kernels in (attention, {x: {"kernel": y} for x, y in matrices.items()})
    )
    given, expected = (masks.erk_densities(x, 0.9) for x in (given, expected))
    assert given == expected and given["out"]["kernel"] < 1


def test_quotas_may_be_a_list_of_traced_integers():
    scores = scores_from(0)
    found = jax.jit(lambda k: masks.top_k_by_quota(scores, [k, k + 1]))(3)
    assert trees_equal(found, masks.top_k_by_quota(scores, [3, 4]))
    with pytest.raises(ValueError, match="keeps is a list of 3 arrays, expected"):
        jax.jit(lambda k: masks.top_k_by_quota(scores, [k, k, k]))(3)


def test_prunable_decides_what_is_ranked():
    scores = {"w": jnp.array([[1.0, 2.0]]), "b": jnp.array([5.0, 0.0])}
    mask = masks.top_k(scores, 1, prunable={"w": False, "b": True})
    assert mask["w"].all() and mask["b"].tolist() == [True, False]


# Selection: transforms


@pytest.mark.parametrize("select", SELECTIONS)
def test_a_new_count_does_not_trace_again(select):
    traces = []

    @jax.jit
    def traced(scores, keep):
        traces.append(keep)
        return select(scores, keep)

    scores = scores_from(0)
    for keep in range(0, TOTAL + 1, 3):
        assert trees_equal(traced(scores, keep), select(scores, keep))
    assert len(traces) == 1


@pytest.mark.parametrize("select", [*SELECTIONS, masks.top_k_by_quota])
def test_vmap_over_scores_equals_a_loop(select):
    keep = jnp.array([3, 4]) if select is masks.top_k_by_quota else 7
    many = [scores_from(seed) for seed in range(3)]
    prunable = masks.prunable_kernels(many[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    batched = jax.vmap(lambda scores: select(scores, keep))(stacked)
    explicit = jax.vmap(lambda s: select(s, keep, prunable=prunable))(stacked)
    for i, scores in enumerate(many):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert trees_equal(one, select(scores, keep))
    assert trees_equal(batched, explicit)


@chex.dataclass
class Chex:
    kernel: jax.Array
    bias: jax.Array


@flax.struct.dataclass
class Struct:
    kernel: jax.Array
    bias: jax.Array
    name: str = flax.struct.field(pytree_node=False, default="layer")


class Tuple(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


KERNEL, BIAS = jnp.array([[1.0, 4.0], [3.0, 2.0]]), jnp.zeros(2)
TREES = {
    "array": KERNEL,
    "list": [KERNEL, BIAS],
    "tuple": (BIAS, (KERNEL,), {}),
    "nested": {"params": {"Dense_0": [{"kernel": KERNEL}, None, BIAS]}},
    "chex": Chex(kernel=KERNEL, bias=BIAS),
    "struct": Struct(kernel=KERNEL, bias=BIAS),
    "named": {"layers": [Tuple(KERNEL, BIAS)]},
}


@pytest.mark.parametrize("kind", TREES)
def test_any_pytree_can_be_masked(kind):
    params = TREES[kind]
    for select in SELECTIONS:
        mask = select(params, 2)
        assert jax.tree.structure(mask) == jax.tree.structure(params)
        masks.check_mask(params, mask)
        assert masks.ravel_mask(mask).tolist() == [False, True, True, False]
        assert float(masks.sparsity_of(mask)) == 0.5
    applied = jax.tree.leaves(masks.apply_mask(params, mask))
    kernel = next(leaf for leaf in applied if leaf.ndim == 2)
    assert kernel.tolist() == [[0.0, 4.0], [3.0, 0.0]]


# Selection: refusals


def test_a_nan_score_is_an_error_that_names_the_layer():
    scores = {"Dense_0": {"kernel": jnp.array([[1.0, jnp.nan, 2.0]])}}
    with pytest.raises(ValueError, match="'Dense_0/kernel' are NaN in 1 of 3 entries"):
        masks.top_k(scores, 1)
    removed = {"Dense_0": {"kernel": jnp.array([[True, False, True]])}}
    assert int(masks.ravel_mask(masks.top_k(scores, 1, mask=removed)).sum()) == 1


def test_under_jit_a_nan_ranks_lowest():
    scores = {"w": jnp.array([[jnp.nan, -jnp.inf, -jnp.nan, 1.0]])}
    kept = [jax.jit(masks.top_k)(scores, keep)["w"][0].tolist() for keep in (2, 3)]
    assert kept == [[False, True, False, True], [True, True, False, True]]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (-1, "keep is -1, expected 0 <= keep <= 22"),
        (23, "keep is 23, expected 0 <= keep <= 22"),
        (0.5, "keep is 0.5, expected one integer"),
        (True, "keep is True, expected one integer"),
        ([3, 4], r"keep is \[3, 4\], expected one integer"),
    ],
)
@pytest.mark.parametrize("select", SELECTIONS)
def test_a_count_out_of_range_is_refused(select, keep, message):
    with pytest.raises(ValueError, match=message):
        select(scores_from(0), keep)


def test_a_traced_count_that_is_no_integer_is_refused():
    with pytest.raises(ValueError, match="expected one integer"):
        jax.jit(masks.top_k)(scores_from(0), 7.0)


def test_a_count_above_what_the_earlier_mask_left_is_refused_or_keeps_all_left():
    scores, mask = scores_from(0), masks.top_k(scores_from(0), 5)
    with pytest.raises(ValueError, match="keep is 6, expected 0 <= keep <= 5"):
        masks.top_k(scores, 6, mask=mask)
    assert trees_equal(within[masks.top_k](scores, 6, mask), mask)


def test_quotas_that_fit_no_layer_are_refused():
    scores = scores_from(0)
    with pytest.raises(ValueError, match=r"keep of layer 'c' is 11, .* keep <= 10"):
        masks.top_k_by_quota(scores, [3, 11])
    with pytest.raises(ValueError, match=r"one integer for each of \['a', 'c'\]"):
        masks.top_k_by_quota(scores, [3])


def test_scores_and_prunable_are_refused_by_path():
    with pytest.raises(ValueError, match="scores at 'w' have dtype int32"):
        masks.top_k({"w": jnp.ones((2, 2), int)}, 1)
    with pytest.raises(ValueError, match=r"nothing to prune: .*'b': \(3,\)"):
        masks.prunable_kernels({"b": jnp.ones(3)})
    w = {"w": jnp.ones((2, 2))}
    for prunable, message in [
        ({"v": True}, r"prunable has the leaves \['v'\], .*\['w'\]"),
        ({"w": jnp.array(True)}, "prunable at 'w' is .* expected a Python bool"),
        ({"w": False}, "prunable is False everywhere"),
    ]:
        with pytest.raises(ValueError, match=message):
            masks.top_k(w, 1, prunable=prunable)


@pytest.mark.parametrize("call", [masks.check_mask, masks.apply_mask, masks.overlap])
def test_a_mask_that_does_not_fit_is_refused_by_path(call):
    params = {"Dense_0": {"kernel": jnp.ones((8, 32), bool), "bias": jnp.ones(2, bool)}}
    good = masks.dense_mask(params)["Dense_0"]
    for layer, message in [
        (
            good | {"kernel": jnp.ones((3, 3), bool)},
            r"mask at 'Dense_0/kernel' has shape \(3, 3\), expected \(8, 32\)",
        ),
        (good | {"bias": jnp.ones(2)}, "mask at 'Dense_0/bias' has dtype float32"),
        ({"kernel": good["kernel"]}, "mask has no leaf 'Dense_0/bias'"),
        (good | {"scale": good["bias"]}, "mask has a leaf 'Dense_0/scale'"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(params, {"Dense_0": layer})
    with pytest.raises(ValueError, match="mask has the structure"):
        call([params["Dense_0"]["bias"]], (good["bias"],))


# Masks as values


def test_the_gradient_in_a_float_mask_is_the_gradient_times_the_weight():
    w, x = {"w": jnp.array([[2.0, -3.0]])}, jnp.ones((1, 1))

    def loss(params, x):
        return jnp.sum((x @ params["w"]) ** 3)

    gradient = jax.grad(masks.masked_apply(loss), argnums=1)
    for m in (1.0, 0.5):
        # d/dm (w m)^3 = 3 (w m)^2 w
        at = gradient(w, {"w": jnp.full((1, 2), m)}, x)["w"]
        assert at.tolist() == [[24.0 * m**2, -81.0 * m**2]]


def test_masked_apply_maps_over_masks_and_refuses_what_does_not_fit():
    f = masks.masked_apply(lambda params, x: x @ params)
    w, x = jnp.array([[1.0], [2.0]]), jnp.ones((1, 2))
    many = jnp.array([[[True], [False]], [[True], [True]], [[False], [False]]])
    assert jax.vmap(lambda m: f(w, m, x))(many).ravel().tolist() == [1.0, 3.0, 0.0]
    with pytest.raises(ValueError, match=r"has shape \(1, 2\), expected \(2, 1\)"):
        f(w, jnp.ones((1, 2)), x)


def test_apply_mask_removes_nan_and_keeps_the_dtype():
    params = {"w": jnp.array([[jnp.nan, 2.0]], jnp.bfloat16)}
    applied = masks.apply_mask(params, {"w": jnp.array([[False, True]])})["w"]
    assert applied.dtype == jnp.bfloat16 and applied.tolist() == [[0.0, 2.0]]


# Measures


def test_measures_have_the_values_counted_by_hand():
    mask = {
        "a": jnp.array([[True, False], [False, False]]),
        "b": jnp.array([True]),
        "c": jnp.array([[False, False]]),
    }
    other = mask | {"c": jnp.array([[True, False]])}
    assert masks.ravel_mask(mask).tolist() == [True] + [False] * 5
    assert float(masks.sparsity_of(mask)) == pytest.approx(5 / 6)
    assert jax.tree.map(float, masks.sparsity_by_layer(mask)) == {"a": 0.75, "c": 1.0}
    assert masks.empty_layers(mask) == ["c"]
    assert float(masks.overlap(mask, other)) == 0.5
    assert float(masks.overlap(mask, mask)) == 1.0
    empty = jax.tree.map(jnp.zeros_like, mask)
    assert float(masks.overlap(empty, empty)) == 1.0
    assert float(masks.overlap(empty, mask)) == 0.0


def test_a_layer_with_one_weight_of_millions_left_is_not_empty():
    # 2^25 - 1 removed of 2^25: in float32 the share removed rounds to 1.
    mask = jnp.zeros((2, 2**24), bool).at[1, 5].set(True)
    assert masks.empty_layers({"w": mask}) == []


def test_shuffling_keeps_the_counts_of_layers_and_moves_their_entries():
    mask = masks.top_k(scores_from(1), 9) | {"b": jnp.array([True, False] * 2)}
    shuffle = jax.jit(masks.shuffle_within_layers)
    shuffled = [shuffle(mask, jax.random.key(seed)) for seed in range(5)]
    for one in shuffled:
        assert one["b"].tolist() == mask["b"].tolist() or one["b"].all()
        assert [one[n].sum() for n in "ac"] == [mask[n].sum() for n in "ac"]
    assert len({tuple(masks.ravel_mask(one).tolist()) for one in shuffled}) == 5
    assert trees_equal(shuffle(mask, jax.random.key(0)), shuffled[0])


# Collapse


def mlp(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x @ params[-1]["w"] + params[-1]["b"][None]


def layers(*widths, fill=True):
    return [
        {"w": jnp.full((m, n), fill), "b": jnp.ones(n, bool)}
        for m, n in itertools.pairwise(widths)
    ]


def chain(first, second):
    """2-2-2-1: the paths left are those through ``first`` and ``second``."""
    mask = layers(2, 2, 2, 1)
    mask[0]["w"] = jnp.zeros((2, 2), bool).at[0, first].set(True)
    mask[1]["w"] = jnp.zeros((2, 2), bool).at[second, 0].set(True)
    return mask


def test_a_network_whose_paths_miss_each_other_is_collapsed_whatever_its_biases():
    assert not masks.collapsed(mlp, chain(0, 0), (2,))
    assert masks.collapsed(mlp, chain(0, 1), (2,))
    assert masks.empty_layers(chain(0, 1)) == []


def test_collapse_is_seen_under_jit_and_vmap():
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    stacked = jax.tree.map(lambda *m: jnp.stack(m), *[chain(*pair) for pair in pairs])
    check = jax.jit(jax.vmap(lambda mask: masks.collapsed(mlp, mask, (2,))))
    assert check(stacked).tolist() == [False, True, True, False]


def test_a_deep_network_is_judged_without_overflow_or_underflow():
    every = layers(50, *[200] * 50, 2)
    collapsed = jax.jit(lambda mask: masks.collapsed(mlp, mask, (50,)))
    for left in ("all", "few", "one"):
        mask = [dict(layer) for layer in every]
        for layer in mask:
            shape = layer["w"].shape
            if left == "few":
                layer["w"] = jnp.asarray(np.random.default_rng(0).random(shape) < 0.01)
            elif left == "one":
                layer["w"] = jnp.zeros(shape, bool).at[0, 0].set(True)
        assert not collapsed(mask)
        mask[25]["w"] = jnp.zeros((200, 200), bool)
        assert collapsed(mask)


def test_layers_stacked_in_one_leaf_are_judged_as_layers():
    def scanned(params, x):
        return jax.lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, params)[0]

    check = jax.jit(lambda mask: masks.collapsed(scanned, mask, (200,)))
    mask = jnp.ones((50, 200, 200), bool)
    assert not check(mask)
    assert check(mask.at[25].set(False))
    assert not check(mask.at[25, 1:].set(False))


def test_a_convolutional_network_collapses_with_its_channels():
    model = ConvNet(classes=2, channels=(2, 2), widths=(3,))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    mask = masks.dense_mask(shapes)
    check = jax.jit(lambda mask: masks.collapsed(model.apply, mask, (8, 8, 1)))
    assert not check(mask)
    # The first convolution feeds channel 0, the second reads channel 1.
    convs = mask["params"]
    convs["Conv_0"]["kernel"] = convs["Conv_0"]["kernel"].at[..., 1].set(False)
    assert not check(mask)
    convs["Conv_1"]["kernel"] = convs["Conv_1"]["kernel"].at[:, :, 0].set(False)
    assert check(mask) and masks.empty_layers(mask) == []


def test_a_skip_connection_carries_past_an_empty_block():
    def residual(params, x):
        hidden = x @ params["in"]
        return (hidden + jax.nn.relu(hidden @ params["block"])) @ params["out"]

    mask = {name: jnp.ones((2, 2), bool) for name in ("in", "block", "out")}
    mask["block"] = jnp.zeros((2, 2), bool)
    assert masks.empty_layers(mask) == ["block"]
    assert not masks.collapsed(residual, mask, (2,))
    assert masks.collapsed(residual, mask | {"in": mask["block"]}, (2,))


def test_unravel_is_the_inverse_of_ravel_and_keeps_what_is_not_prunable():
    params = {
        "a": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)},
        "b": jnp.ones(2),
    }
    rng = np.random.default_rng(0)
    row = jnp.asarray(rng.random(6) < 0.5)
    mask = masks.unravel_mask(row, params)
    assert mask["a"]["bias"].all() and mask["b"].all()
    np.testing.assert_array_equal(masks.ravel_mask(mask), row)
    assert mask["a"]["kernel"].tolist() == row.reshape(2, 3).tolist()
    with pytest.raises(ValueError, match=r"row has shape \(5,\), expected \(6,\)"):
        masks.unravel_mask(row[:5], params)
