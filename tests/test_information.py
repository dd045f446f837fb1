import itertools
import math
import tracemalloc
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nfp_jax import information, models, pruning, scores
from nfp_jax.decoding import Stack, class_means, ridge
from nfp_jax.information import (
    Interval,
    code_lengths,
    collision_lower_bound,
    decoded,
    exact_information,
    flip_blocks,
    irreproducible,
    label_entropy,
    make_masks,
    mask_information,
    noisy_label_probabilities,
    random_labels,
    sample_entropy_lower_bound,
    sample_masks,
)
from nfp_jax.information.repeats import clopper_pearson_upper_bound
from nfp_jax.information.stacks import mask_identities
from nfp_jax.measures.betting import betting_lower_bound

LOG2 = math.log(2)
LEAST = math.log(0.01)  # of what a decoder gains


def draw_labels(count, n, classes=2, seed=0):
    return np.random.default_rng(seed).integers(0, classes, (count, n))


def top_of(n, weights, keep, *, even=False):
    """Keeps the highest of random linear scores of labels, or of their sizes."""
    sums = np.random.default_rng(5).standard_normal((weights, n)).astype(np.float32)

    def mask_fn(y):
        found = sums @ (2.0 * y - 1)
        found = jnp.abs(found) if even else found
        return {"kernel": (found >= jnp.sort(found)[-keep])[None]}

    return mask_fn


def entropy(outcomes):
    """The entropy of equally likely outcomes, counted one by one."""
    counts = Counter(map(bytes, np.asarray(outcomes, np.uint8))).values()
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts)


def all_labelings(n, classes=2):
    return np.array(list(itertools.product(range(classes), repeat=n)))


# Intervals of a known information


def test_a_constant_mask_has_none():
    constant, y = np.tile([True, False], (1024, 25)), draw_labels(1024, 100)
    found = mask_information(constant, y, decoders=())
    assert found.lower == 0 < found.upper < 0.5  # of 69.3 nats
    assert (found.lower_by, found.upper_by) == ("nothing", "code length")
    some = mask_information(constant[:128], y[:128, :8])
    assert some.lower == 0 < some.upper < 2.5 and some.lower_by == "nothing"


@pytest.mark.parametrize(
    "code",
    [
        lambda y: y,
        lambda y: np.tile(y, (1, 3)),
        lambda y: y ^ (np.arange(8) % 3 == 0),  # each weight flips always, or never
        lambda y: np.repeat(y, 2, axis=1) ^ (np.arange(16) % 3 == 0),
    ],
    ids=["copy", "copied three times", "flipped", "two flipped unlike"],
)
def test_labels_that_can_be_read_off_are_all_there(code):
    y = draw_labels(256, 8)
    found = mask_information(code(y), y)
    assert 0.9 * 8 * LOG2 < found.lower <= 8 * LOG2 == pytest.approx(found.upper)
    assert found.lower_by == "ridge decoding"


def test_a_mask_of_other_labels_decodes_to_nothing():
    """They are no function of their labels, so that collisions do not apply: masks
    differ, and would be said to know. Decoding alone needs no such promise.
    """
    y, others = draw_labels(256, 10), draw_labels(256, 10, seed=1)
    stack = Stack(others == 1, y, np.full((10, 2), 0.5))
    gains = decoded(ridge(), stack)
    assert abs(gains.mean()) < 0.1 + 3 * gains.std() / math.sqrt(len(gains))
    assert betting_lower_bound(gains, LEAST, 0.0125) <= 0
    assert collision_lower_bound(others, 0.0125) > 3


def test_three_classes():
    y = draw_labels(200, 5, classes=3)
    found = mask_information(np.eye(3)[y].reshape(200, -1), y, classes=3)
    assert 0.85 * 5 * math.log(3) < found.lower <= 5 * math.log(3)
    assert found.upper == pytest.approx(5 * math.log(3))


def test_labels_flipped_at_a_rate_hold_the_entropy_of_the_flips():
    """A rate of 0.4 redraws 1 of 5 as the other class."""
    clean = np.arange(12) % 2
    probabilities = noisy_label_probabilities(clean, 0.4, 2)
    flips = np.random.default_rng(0).random((256, 12)) < 0.2
    y = clean ^ flips
    found = mask_information(y, y, label_probabilities=probabilities)
    exact = 12 * -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert 0.8 * exact < found.lower <= exact == pytest.approx(found.upper)


def test_so_few_masks_hold_no_more_than_their_number():
    mask_fn = top_of(20, 6, 1)
    sample = sample_masks(
        mask_fn, random_labels(20), jax.random.key(0), datasets=128, at_once=128
    )
    known = mask_information(sample.masks, sample.data, keep=1, decoders=())
    assert known.upper <= math.log(6) + 1e-9
    # Ten data sets cost too much code; then a count is the bound.
    few = mask_information(sample.masks[:10], sample.data[:10], keep=1)
    assert few.upper == pytest.approx(math.log(6)) and few.upper_by == "log binomial"
    free = mask_information(sample.masks[:10], sample.data[:10])
    assert free.upper == pytest.approx(6 * LOG2)
    assert free.upper_by == "number of weights"


@pytest.fixture(scope="module")
def linear():
    return sampled(top_of(10, 40, 4))


@pytest.fixture(scope="module")
def even():
    return sampled(top_of(10, 40, 4, even=True))


def sampled(mask_fn, n=10):
    """Exact information, and masks of labelings drawn: of all, made once."""
    labels = all_labelings(n)
    made = make_masks(mask_fn, jnp.asarray(labels, jnp.int32), at_once=256)
    drawn = np.random.default_rng(1).integers(0, len(labels), 512)
    return entropy(made), made[drawn], labels[drawn]


def test_most_of_what_linear_scores_tell_is_found(linear):
    exact, made, y = linear
    found = mask_information(made, y, keep=4)
    assert 0.7 * exact < found.lower < exact < found.upper < exact + 1
    gains = decoded(ridge(), Stack(made, y, np.full((10, 2), 0.5)))
    assert 0.6 * exact < betting_lower_bound(gains, LEAST, 0.0125) < exact


def test_what_no_single_label_tells_is_found_in_pairs(even):
    exact, made, y = even
    stack = Stack(made, y, np.full((10, 2), 0.5))
    alone, pairs = decoded(ridge(pairs=0), stack), decoded(ridge(pairs=64), stack)
    assert alone.mean() < 0.05
    assert exact / 2 < betting_lower_bound(pairs, LEAST, 0.0125) < exact
    found = mask_information(made, y, keep=4)
    assert exact / 2 < found.lower < exact < found.upper


def test_resampled_inputs_are_bounded_by_the_masks_alone():
    """Weight i keeps label i where the input i is positive; n log 2 of labels."""
    y, x = draw_labels(256, 6), 2.0 * draw_labels(256, 6, seed=1) - 1
    made = (y == 1) == (x > 0)

    def agreement(mask, x):
        sign = np.where(mask, x, -x)
        return np.stack([-sign, sign], axis=1)[..., None]

    found = mask_information(
        made, y, conditioning="data", x=x, decoders=(ridge(features=agreement),)
    )
    assert 0.85 * 6 * LOG2 < found.lower <= 6 * LOG2 <= found.upper
    assert (found.lower_by, found.upper_by) == ("ridge decoding", "number of weights")
    masks_alone = mask_information(made, conditioning="data")
    assert masks_alone.lower < 6 * LOG2 == pytest.approx(masks_alone.upper)
    assert masks_alone.lower > 3 and masks_alone.conditioning == "data"


def test_normal_inputs_are_bounded_by_their_class_means():
    rng = np.random.default_rng(1)
    y, x = draw_labels(256, 10), rng.standard_normal((256, 10, 8))
    sums = np.einsum("knc,knd->kcd", np.eye(2)[y], x)
    made = (sums > 0).reshape(256, -1)  # 16 log 2: 8.1 are told
    found = mask_information(made, y, conditioning="data", x=x, gaussian=True)
    assert 6 < found.lower <= 16 * LOG2 and found.lower_by == "class means"
    without = mask_information(made, y, conditioning="data", x=x)
    assert without.lower_by != "class means" and without.lower <= 16 * LOG2


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 10])
def test_few_data_sets_say_little_and_do_not_fail(count):
    y = draw_labels(count, 4)
    found = mask_information(y, y)
    assert 0 <= found.lower <= 4 * LOG2 == pytest.approx(found.upper)
    assert found.samples == count


def test_an_interval_says_what_it_is_of():
    interval = Interval(
        1.234, 5.0, 0.95, 256, "labels", "ridge decoding", "code length"
    )
    assert str(interval) == (
        "1.23 to 5.00 nats (labels, 95%, 256 data sets; ridge decoding, code length)"
    )


# How often intervals miss


SIGNS = np.random.default_rng(7).standard_normal((5, 8))


def highest_two(y):
    found = (2 * y - 1) @ SIGNS
    return found >= np.sort(found, axis=1)[:, [-2]]


@pytest.mark.parametrize(
    ("code", "n", "decoders"),
    [
        (lambda y: y, 4, (ridge(pairs=0)._replace(blocks=2),)),
        (highest_two, 5, ()),
        (lambda y: y.all(axis=1, keepdims=True), 4, ()),  # 1 of 16: rare, and skewed
    ],
    ids=["copy", "highest two", "rare"],
)
def test_intervals_miss_no_more_often_than_allowed(code, n, decoders):
    exact = entropy(code(all_labelings(n)))
    found = []
    for seed in range(200):
        y = draw_labels(64, n, seed=seed)
        found.append(mask_information(code(y), y, decoders=decoders))
    misses = sum(not one.lower <= exact <= one.upper + 1e-9 for one in found)
    assert misses <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)
    # The ends are of use: not all of them are the trivial ones.
    widths = [one.upper - one.lower for one in found]
    assert np.mean(widths) < 0.8 * n * LOG2


# Exact, and by blocks


def test_exact_information_of_hand_computed_cases():
    def parity(y):
        return {"kernel": (y.sum() % 2 == 0)[None, None]}

    def both(y):
        return {"kernel": (y[:2].sum() == 2)[None, None]}

    assert exact_information(parity, 5) == pytest.approx(LOG2)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert exact_information(both, 5) == pytest.approx(quarter)
    # Of 9 pairs of three classes, 1 keeps both.
    ninth = -(1 / 9 * math.log(1 / 9) + 8 / 9 * math.log(8 / 9))

    def twos(y):
        return {"kernel": (y.sum() == 4)[None, None]}

    assert exact_information(twos, 2, classes=3) == pytest.approx(ninth)
    many = exact_information(jax.vmap(both), 5, vectorized=True, at_once=7)
    assert many == pytest.approx(quarter)


def test_exact_information_is_what_a_loop_counts(even):
    exact, _, _ = even
    found = exact_information(top_of(10, 40, 4, even=True), 10, at_once=256)
    assert found == pytest.approx(exact)
    sums = np.random.default_rng(5).standard_normal((40, 10)).astype(np.float32)
    values = np.abs(sums @ (2 * all_labelings(10).T - 1))
    kept = values >= np.sort(values, axis=0)[-4]
    assert exact == pytest.approx(entropy(kept.T), abs=0.01)  # ties: float32


def test_blocks_bracket_the_exact_information(linear):
    exact, _, _ = linear
    blocks = flip_blocks(top_of(10, 40, 4), 10, jax.random.key(0), block=5, rests=100)
    assert blocks.entropies.shape == (100,)
    assert 0.3 * exact < blocks.lower(0.025) < exact
    assert exact < blocks.upper(0.025) < 10 * LOG2 + 1e-9


def test_a_block_of_all_labels_is_exact():
    mask_fn = top_of(6, 12, 3)
    blocks = flip_blocks(mask_fn, 6, jax.random.key(0), block=6, rests=3)
    exact = exact_information(mask_fn, 6)
    np.testing.assert_allclose(blocks.entropies, np.full(3, exact))


def test_blocks_of_copies_and_of_a_parity_are_what_they_should_be():
    """A block of b copied labels holds b log 2; of a parity, always log 2."""
    key = jax.random.key(0)
    copy = flip_blocks(
        lambda y: {"kernel": (y == 1)[None]}, 6, key, block=2, rests=5, classes=3
    )
    # Label 1 of three or not: h(1/3) each.
    third = math.log(3) - 2 / 3 * LOG2
    np.testing.assert_allclose(copy.entropies, np.full(5, 2 * third))
    parity = flip_blocks(
        lambda y: {"kernel": (y.sum() % 2 == 0)[None, None]}, 6, key, block=3, rests=300
    )
    assert 0.97 * LOG2 < parity.lower(0.05) <= LOG2 <= parity.upper(0.05)


# Of pruners


N, KEPT = 7, 3


@pytest.fixture(scope="module")
def network():
    model = models.MLP(classes=2, widths=(4,))
    x = jax.random.normal(jax.random.key(1), (N, 3))
    params = models.initialize(model, jax.random.key(0), (3,))

    def pruner(score_fn, keep=KEPT):
        def mask_fn(y):
            return pruning.prune(score_fn, params, (x, y), jax.random.key(2), keep=keep)

        return mask_fn

    return model, pruner


@pytest.mark.parametrize("name", ["random", "magnitude", "synflow"])
def test_a_pruner_that_looks_at_no_label_holds_nothing(network, name):
    model, pruner = network
    score_fn = {
        "random": scores.random(),
        "magnitude": scores.magnitude(),
        "synflow": scores.synflow(model.apply, (3,)),
    }[name]
    mask_fn = pruner(score_fn, jnp.array([9, 5, KEPT]) if name == "synflow" else KEPT)
    made = make_masks(mask_fn, jnp.asarray(all_labelings(N), jnp.int32), at_once=128)
    assert entropy(made) == 0.0 and made.sum() == 128 * KEPT
    drawn = np.random.default_rng(0).integers(0, 128, 512)
    found = mask_information(
        made[drawn], all_labelings(N)[drawn], keep=KEPT, decoders=(ridge(pairs=0),)
    )
    assert found.lower == 0 and found.upper < 0.2


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_the_interval_of_a_pruner_is_near_its_exact_information(network, name):
    model, pruner = network
    loss_fn = scores.classification_loss(
        model.apply, temperature=200 if name == "grasp" else 1
    )
    mask_fn = pruner(getattr(scores, name)(loss_fn))
    exact = exact_information(mask_fn, N, at_once=128)
    assert exact > 1
    labels = all_labelings(N)
    made = make_masks(mask_fn, jnp.asarray(labels, jnp.int32), at_once=128)
    assert entropy(made) == pytest.approx(exact)
    drawn = np.random.default_rng(0).integers(0, len(labels), 512)
    found = mask_information(made[drawn], labels[drawn], keep=KEPT)
    assert 0.75 * exact - 0.2 <= found.lower <= exact
    assert exact <= found.upper <= 1.2 * exact + 0.2


# Code lengths


def test_code_lengths_of_hand_computed_cases():
    """Base uniform over 2^3: weights are fair at first too, so a mask costs 3 log 2.
    Seen once, it comes again with probability (1 - d) / 2, d from 0 to 3/4.
    """
    base = np.full(2, -3 * LOG2)
    lengths, most = code_lengths(np.ones((2, 3)), log_base=base, log_least=base[0])
    expected = [3 * LOG2, -math.log((1 + 0.75 + 0.5 + 0.25) / 4 / 2)]
    np.testing.assert_allclose(lengths, expected)
    assert most >= max(expected)


@pytest.mark.parametrize("seed", range(4))
def test_the_code_is_one_of_probabilities(seed):
    """Over every mask that may come next, whatever came before."""
    rng = np.random.default_rng(seed)
    before = rng.random((seed**2, 3)) < 0.3  # 0, 1, 4, 9 masks
    base = np.log(rng.dirichlet(np.ones(8)))
    total = 0.0
    for i, mask in enumerate(all_labelings(3)):
        told = np.concatenate([before, mask[None] == 1])
        places = told.astype(int) @ [4, 2, 1]
        assert places[-1] == i
        lengths, most = code_lengths(told, log_base=base[places], log_least=base.min())
        assert lengths.max() <= most
        total += math.exp(-lengths[-1])
    # A dictionary of d of 8 masks wastes on them the escapes to the base.
    assert 0.3 < total <= 1 + 1e-9


@pytest.mark.parametrize(
    "law",
    [[0.5, 0.25, 0.25], [0.96, 0.01, 0.01, 0.01, 0.01], np.full(32, 1 / 32)],
    ids=["few", "skewed", "many"],
)
def test_a_code_is_no_shorter_than_the_entropy_and_near_it_in_the_end(law):
    rng = np.random.default_rng(0)
    ids = rng.choice(len(law), size=(20, 200), p=law)
    base = np.full(200, -5 * LOG2)
    means = np.array(
        [
            code_lengths(
                row[:, None] >> np.arange(5) & 1, log_base=base, log_least=base[0]
            )[0].mean()
            for row in ids
        ]
    )
    exact = -np.dot(law, np.log(law))
    error = 3 * means.std() / math.sqrt(20)
    assert exact - error < means.mean() < exact + 0.5


def test_a_code_learns_how_often_each_weight_is_kept():
    """Of 40 weights 1 of 20 each: 7.9 nats, of 27.7 for fair ones; the base is poor."""
    rng = np.random.default_rng(0)
    lengths, _ = code_lengths(
        rng.random((256, 40)) < 0.05, log_base=np.full(256, -100.0), log_least=-100.0
    )
    exact = -40 * (0.05 * math.log(0.05) + 0.95 * math.log(0.95))
    assert exact < lengths[128:].mean() < exact + 2


def test_no_length_is_above_the_most_that_is_said():
    """All masks new but the last, and the base as small as it may be."""
    told = (np.arange(64)[:, None] >> np.arange(6)) & 1
    for last in (told[:1], 1 - told[-1:]):
        told_all = np.concatenate([np.tile(told[1:2], (200, 1)), last])
        base = np.full(201, -30.0)
        lengths, most = code_lengths(told_all, log_base=base, log_least=-30.0)
        assert lengths.max() <= most < 30 + math.log(201) + 3


# Lower bounds, and entropies


@pytest.mark.parametrize("support", [1, 2, 16, 64])
def test_lower_bounds_are_below_the_log_of_the_support(support):
    rng = np.random.default_rng(support)
    ids = rng.integers(0, support, 1024)
    found = ids[:, None] >> np.arange(6) & 1
    for bound in (collision_lower_bound, sample_entropy_lower_bound):
        lower = bound(found, 0.025)
        assert 0 <= lower <= math.log(support)
        assert lower > math.log(support) - 1


def test_collisions_find_the_entropy_of_order_two_of_few_outcomes():
    ids = np.random.default_rng(0).choice(3, size=2048, p=[0.5, 0.3, 0.2])
    renyi = -math.log(0.25 + 0.09 + 0.04)
    lower = collision_lower_bound(np.eye(3)[ids], 0.025)
    assert renyi - 0.35 < lower <= renyi


def test_collisions_that_never_come_say_more_than_the_number_of_masks():
    found = (np.arange(1024)[:, None] >> np.arange(10)) & 1
    assert collision_lower_bound(found, 0.025) > math.log(1024)


def test_the_samples_own_entropy_is_bounded_as_computed_by_hand():
    """Half and half of 400: log 2, less (log 400 + 1) sqrt(log 40 / 800)."""
    found = np.arange(400)[:, None] % 2
    expected = LOG2 - (math.log(400) + 1) * math.sqrt(math.log(40) / 800)
    assert sample_entropy_lower_bound(found, 0.025) == pytest.approx(expected)
    assert sample_entropy_lower_bound(found, 0.2) > expected


def test_log_binomial_counts_masks():
    for total, keep in ((4, 2), (50, 7), (9, 0), (9, 9)):
        expected = math.log(math.comb(total, keep))
        assert information.log_binomial(total, keep) == pytest.approx(expected)
    with pytest.raises(ValueError, match="keep is 5, expected 0 <= keep <= total = 4"):
        information.log_binomial(4, 5)


def test_entropy_of_labels_that_are_redrawn_is_that_of_the_flips():
    probabilities = noisy_label_probabilities([0, 2, 1], 0.3, 3)
    np.testing.assert_allclose(probabilities[1], [0.1, 0.1, 0.8])
    expected = -3 * (0.8 * math.log(0.8) + 0.2 * math.log(0.1))
    found = label_entropy(probabilities, conditioning="labels")
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"noise is 1\.5, expected 0 <= noise <= 1"):
        noisy_label_probabilities([0], 1.5, 2)


def test_fano_is_below_what_flips_at_random_leave():
    """Of binary labels with errors at random, exactly what is left; 0 at chance."""
    expected = 100 * (LOG2 + 0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert information.fano_lower_bound(0.1, 100) == pytest.approx(expected)
    three = 10 * (math.log(3) + 0.5 * math.log(0.25) + 0.5 * math.log(0.5))
    assert information.fano_lower_bound(0.5, 10, 3) == pytest.approx(three)
    assert information.fano_lower_bound(0.5, 100) == 0.0
    with pytest.raises(ValueError, match=r"error is -0\.1, expected 0 <= error <= 1"):
        information.fano_lower_bound(-0.1, 100)


# Drawing masks


def count_above(y):
    """Whole numbers, so that no order of sums matters."""
    return {"kernel": (jnp.cumsum(y) % 3 == 0)[None], "bias": y == 1}


def beside(y):
    """Keeps labels that are above the mean of all data sets in the call."""
    return {"kernel": (y > y.mean(axis=0, keepdims=True))[:, None]}


def test_masks_are_the_same_whatever_is_in_a_call_and_however_many():
    key, draw = jax.random.key(0), random_labels(6)
    expected = sample_masks(count_above, draw, key, datasets=13)
    assert expected.masks.shape == (13, 6) and expected.data.shape == (13, 6)
    np.testing.assert_array_equal(
        expected.masks, np.cumsum(expected.data, axis=1) % 3 == 0
    )
    more = sample_masks(count_above, draw, key, datasets=20, at_once=5)
    np.testing.assert_array_equal(more.masks[:13], expected.masks)
    np.testing.assert_array_equal(more.data[:13], expected.data)
    assert len(np.unique(more.data, axis=0)) > 10
    one = sample_masks(count_above, draw, key, datasets=1)
    np.testing.assert_array_equal(one.masks, expected.masks[:1])


def test_many_masks_are_held_once_and_until_then_as_bits():
    """What numpy allocates: the masks, a byte a weight, and an eighth of it packed."""
    y = np.random.default_rng(0).integers(0, 2, (1999, 4)).astype(np.int32)

    def mask_fn(y):
        return {"kernel": jnp.tile(y == 1, 1000)[None]}

    make_masks(mask_fn, y[:8])  # compiles
    tracemalloc.start()
    found = make_masks(mask_fn, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, np.tile(y == 1, 1000))
    assert peak < 1.5 * found.nbytes


def test_masks_are_numbered_as_rows_are_sorted():
    rows = np.random.default_rng(0).integers(0, 2, (200, 9)).astype(bool)
    rows = np.concatenate([rows, rows[::3]])
    _, expected = np.unique(np.packbits(rows, axis=1), axis=0, return_inverse=True)
    np.testing.assert_array_equal(mask_identities(rows), expected.reshape(-1))


def test_masks_of_stacked_data_are_made_in_calls_of_one_size():
    shapes = []

    def many(y):
        shapes.append(y.shape)
        return jax.vmap(count_above)(y)

    key, draw = jax.random.key(0), random_labels(6)
    expected = sample_masks(count_above, draw, key, datasets=13)
    found = sample_masks(
        many, draw, key, datasets=13, at_once=5, vectorized=True, prunable=None
    )
    np.testing.assert_array_equal(found.masks, expected.masks)
    assert shapes == [(5, 6)] * 3


def test_masks_are_those_of_the_prunable_weights_and_data_may_be_a_tree():
    def draw(key):
        one, two = jax.random.split(key)
        return jax.random.normal(one, (4,)), jax.random.randint(two, (4,), 0, 2)

    def mask_fn(data):
        x, y = data
        return {"kernel": (x > 0)[None], "bias": y == 1}

    both = sample_masks(
        mask_fn,
        draw,
        jax.random.key(0),
        datasets=9,
        prunable={"kernel": True, "bias": True},
    )
    x, y = both.data
    np.testing.assert_array_equal(both.masks, np.concatenate([y == 1, x > 0], axis=1))


def test_masks_that_depend_on_their_neighbors_are_found_out():
    """Also where calls are full, so that in reverse they would have the same ones."""
    key, draw = jax.random.key(0), random_labels(6, classes=9)
    options = {"at_once": 8, "vectorized": True}
    sample = sample_masks(beside, draw, key, datasets=64, **options)
    assert irreproducible(beside, sample, **options) > 0.2
    alone = jax.vmap(count_above)
    same = sample._replace(masks=make_masks(alone, sample.data, **options))
    assert irreproducible(alone, same, **options) == 0.0


# Refusals


Y = draw_labels(8, 4)


@pytest.mark.parametrize(
    ("made", "labels", "options", "message"),
    [
        (Y + 1, Y, {}, r"masks hold other values than 0 and 1 \(int64\)"),
        (Y[0], Y, {}, r"masks of shape \(4,\), expected \[datasets, weights\]"),
        (Y[:, :0], Y, {}, r"masks of shape \(8, 0\), expected .* at least 1"),
        (Y, Y[:7], {}, r"labels of shape \(7, 4\), .* with 8 data sets"),
        (Y, Y[:, 0], {}, r"labels of shape \(8,\), expected \[datasets, n\]"),
        (Y, Y + 1, {}, "labels hold 1 to 2, expected whole numbers in 0 to 1"),
        (Y, 0.5 * Y, {}, "labels hold 0.0 to 0.5, expected whole numbers"),
        (Y, None, {}, "labels is None, expected those that each mask was made from"),
        (Y, Y, {"keep": 2}, "masks keep 0 to 4 weights, expected keep = 2"),
        (Y, Y, {"conditioning": "inputs"}, "conditioning is 'inputs', expected one of"),
        (Y, Y, {"confidence": 1.0}, "confidence is 1.0, expected 0 < confidence < 1"),
        (Y, Y, {"confidence": 95}, "confidence is 95, expected 0 < confidence < 1"),
        (
            Y,
            Y,
            {"label_probabilities": np.full((3, 2), 0.5)},
            "label_probabilities are of 3 labels, expected 4",
        ),
        (
            Y,
            Y,
            {"label_probabilities": np.full((4, 2), 0.4)},
            r"probabilities of shape \(4, 2\), .* a distribution for each label",
        ),
        (
            Y,
            Y,
            {"label_probabilities": np.tile([1.0, 0.0], (4, 1))},
            "labels hold some that label_probabilities rule out",
        ),
        (
            np.tile(Y, 8),
            Y,
            {"conditioning": "data", "decoders": (ridge(),)},
            "inputs are resampled and the decoder has no features",
        ),
        (
            Y,
            None,
            {"conditioning": "data", "decoders": (ridge(),)},
            "labels is None, expected labels for the decoders",
        ),
    ],
)
def test_masks_and_labels_that_do_not_fit_are_refused(made, labels, options, message):
    with pytest.raises(ValueError, match=message):
        mask_information(made, labels, **options)


def test_the_entropy_of_labels_bounds_nothing_where_inputs_are_resampled():
    message = "entropy of the labels bounds the information under 'labels' alone, not "
    with pytest.raises(ValueError, match=message + "under 'data'"):
        label_entropy(np.full((4, 2), 0.5), conditioning="data")


def test_too_many_labelings_are_refused():
    with pytest.raises(ValueError, match=r"n is 17: 2\^17 labelings are too many"):
        exact_information(count_above, 17)
    with pytest.raises(ValueError, match=r"block is 17, .* at most 65,536 labelings"):
        flip_blocks(count_above, 20, jax.random.key(0), block=17, rests=1)
    with pytest.raises(ValueError, match="block is 0, expected 1 <= block <= n = 4"):
        flip_blocks(count_above, 4, jax.random.key(0), block=0, rests=1)
    with pytest.raises(ValueError, match="rests is 0, expected at least 1"):
        flip_blocks(count_above, 4, jax.random.key(0), block=2, rests=0)


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_mask_that_is_not_boolean_is_refused(vectorized):
    with pytest.raises(ValueError, match="mask_fn returned float32, expected bool"):
        sample_masks(
            lambda y: {"kernel": (1.0 * y)[None]},
            random_labels(4),
            jax.random.key(0),
            datasets=2,
            vectorized=vectorized,
        )


@pytest.mark.parametrize("option", ["datasets", "at_once"])
def test_no_data_sets_are_refused(option):
    options = {"datasets": 4, "at_once": 2, option: 0}
    with pytest.raises(ValueError, match=f"{option} is 0, expected at least 1"):
        sample_masks(count_above, random_labels(4), jax.random.key(0), **options)


def test_signs_of_a_class_mean_are_decoded_under_data_and_nothing_else_is():
    rng = np.random.default_rng(8)
    count, n, dim = 256, 6, 4
    x, y = rng.normal(size=(count, n, dim)), rng.integers(0, 2, (count, n))
    first = np.einsum("kn,knd->kd", y == 1, x)
    masks = np.concatenate([first > 0, first <= 0], axis=1)
    options = {"conditioning": "data", "x": x, "gaussian": True}
    # A sign of a normal variable: 1/2 log 1/(1 - 2/pi) nats of log 2 are linear in it.
    gains = class_means(Stack(masks, y, np.full((n, 2), 0.5), x, resampled=True))
    linear = dim * math.log(1 / (1 - 2 / math.pi)) / 2
    assert gains.mean() == pytest.approx(linear, abs=0.25)
    interval = mask_information(masks, y, **options)
    assert interval.lower <= dim * math.log(2) <= interval.upper
    others = rng.permutation(count)
    unrelated = class_means(
        Stack(masks[others], y, np.full((n, 2), 0.5), x, resampled=True)
    )
    assert unrelated.mean() < 0.1
    with pytest.raises(ValueError, match="class_means needs resampled inputs"):
        class_means(Stack(masks, y, np.full((n, 2), 0.5), x[0]))


# The binomial bound of collisions


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 50), (3, 10), (49, 50)])
@pytest.mark.parametrize("alpha", [0.5, 0.01])
def test_a_share_is_bounded_where_so_few_have_probability_alpha(count, total, alpha):
    bound = clopper_pearson_upper_bound(count, total, alpha)
    assert stats.binom.cdf(count, total, bound) == pytest.approx(alpha)


def test_a_share_is_not_bounded_where_all_or_none_were_seen():
    assert (
        clopper_pearson_upper_bound(5, 5, 0.05)
        == clopper_pearson_upper_bound(0, 0, 0.05)
        == 1.0
    )


@pytest.mark.parametrize(("count", "total"), [(3, 2), (-1, 2)])
def test_a_count_of_more_than_all_is_refused(count, total):
    message = f"count is {count}, expected 0 <= count <= total = {total}"
    with pytest.raises(ValueError, match=message):
        clopper_pearson_upper_bound(count, total, 0.05)


def test_a_share_is_bounded_more_widely_with_more_confidence():
    bounds = [clopper_pearson_upper_bound(7, 50, a) for a in (0.001, 0.01, 0.1, 0.5)]
    assert np.all(np.diff(bounds) < 0)
