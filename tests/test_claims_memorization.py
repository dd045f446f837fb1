"""How much, how fast and how noisily: each trained pruner against every rival."""

import math

import numpy as np
import pandas as pd
import pytest
from judging import THREE, about, ends, judged, keyed, memorizers, numbers, tails
from scipy import stats
from test_figures import make_row, make_rows

from nfp_jax.claims import HOLDS, NOT, UNDECIDED
from nfp_jax.claims.memorization import at_loss

BEST = [805.0, 790.0, 815.0, 800.0]
FAR = [505.0, 490.0, 515.0, 500.0]
IMP = {HOLDS: [902.0, 899.0, 908.0, 900.0], NOT: [700.0, 701.0, 690.0, 702.0]}
IMP |= {UNDECIDED: [800.0, 793.0, 814.0, 803.0]}


def less(a, b):
    return np.subtract(a, b)


# Points and noise


@pytest.mark.parametrize("expected", THREE)
def test_memorized_points_are_compared_with_every_rival_by_paired_t_tests(expected):
    found = judged(memorizers({"imp": IMP[expected], "snip": BEST, "random": FAR}))
    points, noise = (keyed(found, f"memorization/{x}/") for x in ("points", "noise"))
    gap = less(IMP[expected], BEST)
    assert "IMP (rewind) memorize more points than those of every" in points.claim
    upper = ends(gap, 1 - 0.05 / 2)[2]  # of two rivals
    assert numbers(points) == pytest.approx([*ends(gap)[:2], upper])
    more, fewer = tails(gap)
    assert (points.p_holds, points.p_not) == pytest.approx((more, min(2 * fewer, 1)))
    test = stats.ttest_rel(IMP[expected], BEST, alternative="greater")
    assert points.p_holds == pytest.approx(test.pvalue)
    assert points.verdict == expected
    assert "those of the closest, SNIP" in points.what and "4 seeds" in points.what
    assert points.key == "memorization/points/imp-rewind/n=1000/0.9"
    assert "IMP (rewind) correlate more with the label noise than" in noise.claim
    assert numbers(noise) == pytest.approx([x / 2000 for x in numbers(points)])
    assert noise.verdict == expected and noise.p == pytest.approx(points.p)


def test_a_claim_says_what_it_is_about():
    rows = memorizers({"imp": BEST, "snip": FAR}, n=1500)
    [where] = {x.where for x in judged(rows)}
    assert where == (
        "memorization: gaussian, d = 50, C = 2, mlp 200-200 (he_normal), n = 1,500, "
        "90 % removed, selection global, noise 1"
    )


def test_each_trained_pruner_each_n_and_each_sparsity_has_claims_of_its_own():
    rows = pd.concat([make_rows(n=n) for n in (500, 1000)])
    found = judged(rows)
    cells = 2 * 5 * 2  # n, sparsities, trained pruners
    kinds = [x.key.split("/")[1] for x in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == dict.fromkeys(
        ("points", "within", "noise", "noise-at-loss", "epochs"), cells
    )
    assert sum("/imp-rewind/n=500/" in x.key for x in found) == 5 * 5
    assert sum("/magnitude_trained-rewind/" in x.key for x in found) == 5 * 10
    assert {x.key.split("/")[-1] for x in found} == {
        "0.5",
        "0.8",
        "0.9",
        "0.95",
        "0.98",
    }


def test_no_sparsity_is_chosen_by_what_it_shows():
    even = memorizers(
        {"imp": [950.0, 970.0, 960.0], "snip": [850.0, 860.0, 862.0]}, 0.5
    )
    apart = memorizers({"imp": [500.0, 520.0, 510.0], "snip": [900.0, 910.0, 905.0]})
    found = judged(pd.concat([even, apart]))
    gaps = [x.measured for x in found if "/points/" in x.key]
    assert gaps == pytest.approx([960 - 857.333333, -395])


def test_permuted_and_hopeless_rivals_change_nothing_but_how_hard_it_is_to_refute():
    rivals = {"snip": BEST, "random": FAR, "grasp": [x - 30 for x in BEST]}
    [first, *_] = judged(memorizers({"imp": IMP[HOLDS]} | rivals))
    backwards = dict(reversed(rivals.items()))
    [again, *_] = judged(memorizers(backwards | {"imp": IMP[HOLDS]}))
    assert again == first
    hopeless = {"synflow": [x - 700 for x in BEST]}
    [more, *_] = judged(memorizers({"imp": IMP[HOLDS]} | rivals | hopeless))
    assert (more.measured, more.lower) == (first.measured, first.lower)
    assert more.p_holds == first.p_holds and more.upper >= first.upper


def test_only_seeds_that_all_pruners_have_are_paired():
    values = {"imp": [900.0, 930.0, 1.0], "snip": [800.0, 790.0], "random": [5.0] * 2}
    points = keyed(judged(memorizers(values)), "memorization/points")
    assert points.measured == pytest.approx(120) and "2 seeds" in points.what


def test_one_seed_is_a_number_without_ends_and_undecided():
    found = judged(make_rows(seeds=1))
    assert len(found) == 50
    for claim in found:
        assert not math.isnan(claim.measured) and claim.verdict == UNDECIDED
        assert math.isnan(claim.lower) and math.isnan(claim.upper)


def test_without_noise_nothing_correlates_with_it():
    kinds = {
        name: {x.key.split("/")[1] for x in judged(rows)}
        for name, rows in {
            "some": make_rows(("imp", "snip"), noise=0.5),
            "none": make_rows(
                ("imp", "snip"), noise=0.0, noise_correlation_normalized=0.3
            ),
            "null": make_rows(("imp", "snip"), noise_correlation_normalized=None),
        }.items()
    }
    assert kinds["some"] == {*("points", "within", "noise", "noise-at-loss", "epochs")}
    assert kinds["none"] == {"points", "within", "epochs"}
    assert "noise" not in kinds["null"]


@pytest.mark.parametrize(
    "pruners", [("dense",), ("imp",), ("imp", "magnitude_trained"), ("snip", "random")]
)
def test_where_there_is_nobody_to_compare_nothing_is_claimed(pruners):
    assert judged(make_rows(pruners)) == []


def test_a_network_that_is_tuned_on_is_judged_by_its_points_alone():
    rows = memorizers({"imp": IMP[HOLDS], "snip": BEST, "random": FAR})
    tuned = rows[rows["pruner"] == "imp"].assign(resume="finetune")
    tuned["memorized_points"] += 50
    found = judged(pd.concat([rows, tuned]))
    [claim] = [x for x in found if "finetune" in x.key]
    assert claim.key == "memorization/points/imp-finetune/n=1000/0.9"
    rewound = keyed(found, "memorization/points/imp-rewind")
    assert claim.measured == pytest.approx(rewound.measured + 50)


# As much, to within a margin


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ([1.0, 3.0, -2.0, 2.0], HOLDS),
        ([-400.0, -380.0, -410.0, -390.0], HOLDS),
        ([90.0, 95.0, 99.0, 93.0], NOT),
        ([25.0, 10.0, 35.0, 12.0], UNDECIDED),
        ([18.0, 21.0, 19.0, 22.0], UNDECIDED),
    ],
)
def test_some_rival_memorizes_as_much_where_one_is_surely_within_the_margin(
    ahead, expected
):
    """The margin is 2 % of 1,000."""
    imp = [x + y for x, y in zip(BEST, ahead, strict=True)]
    claim = about(
        judged(memorizers({"imp": imp, "snip": BEST, "random": FAR})), "within"
    )
    gaps = [less(imp, BEST), less(imp, FAR)]
    behind, close = zip(*(tails(x, 20.0) for x in gaps), strict=True)
    assert claim.p_not == pytest.approx(max(behind))
    assert claim.p_holds == pytest.approx(min(1, 2 * min(close)))
    assert claim.verdict == expected
    assert "the margin is 20" in claim.what


def test_whole_points_that_agree_vary_by_their_rounding():
    found = judged(memorizers({"imp": [820.0] * 4, "snip": [800.0] * 4}))
    points, within = (keyed(found, f"memorization/{x}") for x in ("points", "within"))
    half_width = stats.t.ppf(0.975, 3) / math.sqrt(12 * 4)
    assert numbers(points) == pytest.approx([20, 20 - half_width, 20 + half_width])
    assert points.verdict == HOLDS
    assert within.verdict == UNDECIDED  # exactly at the margin


# Noise at equal loss


def curved(pruner, seed, loss, noise, **changes):
    """A network whose correlation, normalized, is twice the one by epoch."""
    settled = {"noise_correlation": noise[-1], "loss": loss[-1]}
    settled |= {"noise_correlation_normalized": 2 * noise[-1]}
    curves = {"loss_by_epoch": loss, "noise_correlation_by_epoch": noise}
    return make_row(pruner, seed=seed, **settled, **curves, **changes)


LOSS = [0.7, 0.5, 0.3]


def at_loss_claim(own_loss=(0.7, 0.4, 0.2, 0.1), own_noise=(0.1, 0.3, 0.4, 0.49)):
    rows = []
    for seed in range(3):
        own = np.array(own_noise) + 0.01 * seed
        rows.append(curved("imp", seed, list(own_loss), own.tolist()))
        rows.append(curved("snip", seed, LOSS, [0.1, 0.15, 0.2]))
    return keyed(judged(pd.DataFrame(rows)), "memorization/noise-at-loss")


def test_noise_is_compared_at_the_least_loss_that_both_reach():
    """0.3: halfway from .4 to .2, where IMP's correlation is .35, twice that of .2."""
    claim = at_loss_claim()
    gaps = [2 * (0.35 + x - 0.2) for x in (0, 0.01, 0.02)]
    assert numbers(claim) == pytest.approx(ends(gaps))
    assert (claim.p_holds, claim.p_not) == pytest.approx(tails(gaps))
    assert claim.verdict == HOLDS


def test_how_long_the_better_network_trained_on_does_not_matter_at_equal_loss():
    """Its settled correlation is nearly three times that of where the other stops."""
    short = at_loss_claim((0.7, 0.4, 0.2), (0.1, 0.3, 0.4))
    longer = at_loss_claim((0.7, 0.4, 0.2, 0.1, 0.0), (0.1, 0.3, 0.4, 0.9, 0.99))
    assert numbers(longer) == pytest.approx(numbers(short))


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0.9, 1.0), (0.8, 1.0), (0.7, 1.5), (0.6, 2.0), (0.45, 4.0), (0.3, 6.0)],
)
def test_a_value_at_a_loss_is_where_it_first_falls_to_it(target, expected):
    loss = np.array([0.8, 0.6, 0.3, 0.7, 0.2])
    assert at_loss(loss, np.array([1.0, 2, 6, 9, 9]), target) == pytest.approx(expected)


def test_networks_without_curves_or_without_a_finite_loss_are_not_compared_at_equal():
    lost = [math.nan] * 3
    for loss, noise in ((None, None), (lost, lost), (lost, [0.1, 0.15, 0.2])):
        rows = [curved("imp", seed, LOSS, [0.1, 0.2, 0.3]) for seed in range(3)]
        for seed in range(3):
            rows.append(curved("snip", seed, LOSS, [0.1, 0.15, 0.2]))
            rows[-1] |= {"loss_by_epoch": loss, "noise_correlation_by_epoch": noise}
        claim = keyed(judged(pd.DataFrame(rows)), "memorization/noise-at-loss")
        assert claim.verdict == UNDECIDED and math.isnan(claim.measured)
        assert claim.p_holds == claim.p_not == 1


# How fast


def timed(epochs, **changes):
    """Rows with the epoch at which 99 % were fitted; None: it never was."""
    rows = memorizers({name: [800.0] * len(x) for name, x in epochs.items()}, **changes)
    return rows.assign(epochs_to_99=[x for some in epochs.values() for x in some])


FAST = [20, 22, 19, 25, 21, 23]


@pytest.mark.parametrize(
    ("snip", "expected"),
    [
        ([40, 44, 39, 51, 46, 43], HOLDS),
        ([None] * 6, HOLDS),
        ([10, 11, 9, 12, 8, 13], NOT),
        ([18, 24, 26, 16, 27, 28], UNDECIDED),
    ],
)
def test_epochs_to_99_are_compared_by_ranks_with_every_rival(snip, expected):
    slow = [None] * 6
    rows = timed({"imp": FAST, "snip": snip, "random": slow})
    claim = keyed(judged(rows), "memorization/epochs")
    infinite = [math.inf if x is None else x for x in snip]
    # Exact: also where all six of SNIP tie at "never".
    test = {
        side: stats.mannwhitneyu(
            infinite,
            FAST,
            alternative=side,
            method=stats.PermutationMethod(n_resamples=math.inf, batch=1000),
        ).pvalue
        for side in ("greater", "less")
    }
    assert claim.p_holds == pytest.approx(test["greater"])
    assert claim.p_not == pytest.approx(min(1, 2 * test["less"]))
    assert claim.verdict == expected
    ratios = np.divide.outer(infinite, FAST)
    assert claim.measured == pytest.approx(
        math.exp(np.median(np.log(ratios))) if None not in snip else math.inf
    )
    closest = "SNIP" if None not in snip else "random"  # none is closer: the first
    assert claim.what.startswith(f"epochs of the closest, {closest}, ÷ its epochs")


def test_where_neither_ever_fits_99_percent_nothing_is_sooner():
    rows = timed({"imp": [None] * 6, "snip": [None] * 6})
    claim = keyed(judged(rows), "memorization/epochs")
    assert numbers(claim) == [1, 1, 1] and claim.verdict == UNDECIDED
    never = timed({"imp": [None] * 6, "snip": FAST})
    claim = keyed(judged(never), "memorization/epochs")
    assert numbers(claim) == [0, 0, 0] and claim.verdict == NOT


def test_another_rival_that_is_slower_does_not_matter():
    few = timed({"imp": FAST, "snip": [40, 44, 39, 51, 46, 43]})
    more = timed({"imp": FAST, "snip": [40, 44, 39, 51, 46, 43], "random": [None] * 6})
    one, other = (keyed(judged(rows), "memorization/epochs") for rows in (few, more))
    assert (one.measured, one.lower, one.p_holds) == pytest.approx(
        (other.measured, other.lower, other.p_holds)
    )


# Ablations


def ablated(gap, ablation="shuffle", pruner="snip", **changes):
    rows = memorizers({pruner: BEST})
    other = memorizers({pruner: less(BEST, gap).tolist()}).assign(ablation=ablation)
    return pd.concat([rows, other]).assign(**changes)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ([1.0, -2.0, 3.0, 0.0], HOLDS),
        ([60.0, 66.0, 58.0, 63.0], NOT),
        ([-60.0, -66.0, -58.0, -63.0], NOT),
        ([19.0, 22.0, 18.0, 24.0], UNDECIDED),
    ],
)
@pytest.mark.parametrize("ablation", ["shuffle", "reinitialize"])
def test_an_ablation_that_changes_less_than_the_margin_changes_nothing(
    ablation, gap, expected
):
    [claim] = judged(ablated(gap, ablation))
    assert claim.verdict == expected and numbers(claim) == pytest.approx(ends(gap))
    below, above = tails(gap, 20.0)[1], tails(gap, -20.0)[0]
    assert claim.p_holds == pytest.approx(max(below, above))
    assert claim.key == f"memorization/{ablation}/snip/n=1000/0.9"
    assert claim.claim.startswith("SNIP: networks memorize as much")


def test_random_masks_shuffled_and_other_ablations_are_no_claim():
    assert judged(ablated([0.0] * 4, pruner="random")) == []
    assert judged(ablated([0.0] * 4, "invert")) == []
    assert judged(ablated([0.0] * 4, pruner="imp", resume="finetune")) == []


def test_an_ablation_is_undecided_where_a_training_on_either_side_was_cut_short():
    rows = ablated([1.0, -2.0, 3.0, 0.0])
    for late in (0, 5):
        budget = np.zeros(8, int)
        budget[late] = 1
        [claim] = judged(rows.assign(out_of_budget=budget))
        assert claim.verdict == UNDECIDED and claim.out_of_budget == 1
