"""How much, how fast and how noisily: each trained pruner against every rival."""

import math

import numpy as np
import pandas as pd
import pytest
from judging import THREE, about, ends, judged, keyed, memorizers, numbers, tails
from rows import make_row, make_rows
from scipy import stats

from nfp_jax.pages.claim import HOLDS, NOT, SHOWN, UNDECIDED
from nfp_jax.questions.memorization.claims import at_loss
from nfp_jax.questions.memorization.times import LEAST_DEVIATION

POINTS = 5.0  # what points of 1,000 are known to: 0.5 % of n
BEST = [805.0, 790.0, 815.0, 800.0]
FAR = [505.0, 490.0, 515.0, 500.0]
IMP = {HOLDS: [902.0, 899.0, 908.0, 900.0], NOT: [700.0, 701.0, 690.0, 702.0]}
IMP |= {UNDECIDED: [800.0, 793.0, 814.0, 803.0]}


def less(a, b):
    return np.subtract(a, b)


# Points and noise


def test_a_pruner_of_any_name_is_judged_by_what_it_sees_and_called_by_its_label():
    rows = memorizers({"mine": IMP[HOLDS], "imp": BEST, "random": FAR})
    trained = rows["pruner"] == "mine"
    rows.loc[trained, ["label", "sees", "resume"]] = ["Mine", "training", "rewind"]
    rows.loc[rows["pruner"] == "imp", ["sees", "resume"]] = ["labels", ""]
    points = keyed(judged(rows), "memorization/points/")
    assert points.key == "memorization/points/mine-rewind/n=1000/0.9"
    assert points.claim.startswith("Networks under masks of Mine (rewind) memorize")
    assert points.verdict == HOLDS and "those of the closest, IMP" in points.what


@pytest.mark.parametrize("expected", THREE)
def test_memorized_points_are_compared_with_every_rival_by_paired_t_tests(expected):
    found = judged(memorizers({"imp": IMP[expected], "snip": BEST, "random": FAR}))
    points, noise = (keyed(found, f"memorization/{x}/") for x in ("points", "noise"))
    gap = less(IMP[expected], BEST)
    assert "IMP (rewind) memorize more points than those of every" in points.claim
    gaps = [gap, less(IMP[expected], FAR)]
    upper = min(ends(x, 1 - 0.05 / 2, POINTS)[2] for x in gaps)  # of two rivals
    assert numbers(points) == pytest.approx([*ends(gap, least=POINTS)[:2], upper])
    more, fewer = tails(gap, least=POINTS)
    assert (points.p_holds, points.p_not) == pytest.approx((more, min(2 * fewer, 1)))
    if np.std(gap, ddof=1) >= POINTS:
        test = stats.ttest_rel(IMP[expected], BEST, alternative="greater")
        assert points.p_holds == pytest.approx(test.pvalue)
    assert points.verdict == expected
    assert "those of the closest, SNIP" in points.what and "4 seeds" in points.what
    assert points.key == "memorization/points/imp-rewind/n=1000/0.9"
    assert "IMP (rewind) correlate more with the label noise than" in noise.claim
    upper = ends(gap, 1 - 0.05 / 2)[2]
    known = [x / 2000 for x in (*ends(gap)[:2], upper)]
    assert numbers(noise) == pytest.approx(known)
    assert noise.verdict == SHOWN and math.isnan(noise.p)
    assert "at different confidence" in noise.what


def test_a_claim_says_what_it_is_about():
    rows = memorizers({"imp": BEST, "snip": FAR}, n=1500)
    [where] = {x.where for x in judged(rows)}
    assert where == (
        "memorization: gaussian, d = 50, C = 2, mlp 200-200 (he_normal), n = 1,500, "
        "90 % removed, selection global, noise 1, adam 0.001, budget 3,200 epochs"
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
        ended = claim.key.startswith("memorization/noise/")
        assert claim.verdict == (SHOWN if ended else UNDECIDED)
        assert not math.isnan(claim.measured)
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
    behind, close = zip(*(tails(x, 20.0, POINTS) for x in gaps), strict=True)
    assert claim.p_not == pytest.approx(max(behind))
    assert claim.p_holds == pytest.approx(min(2 * min(close), max(close)))  # Simes
    assert claim.verdict == expected
    assert "the margin is 20" in claim.what


def test_points_that_agree_vary_by_what_they_are_known_to():
    found = judged(memorizers({"imp": [820.0] * 4, "snip": [800.0] * 4}))
    points, within = (keyed(found, f"memorization/{x}") for x in ("points", "within"))
    half_width = stats.t.ppf(0.975, 3) * POINTS / math.sqrt(4)
    assert numbers(points) == pytest.approx([20, 20 - half_width, 20 + half_width])
    assert points.verdict == HOLDS
    assert within.verdict == UNDECIDED  # exactly at the margin


def test_what_points_are_known_to_is_a_share_of_n():
    ahead = {"imp": [820.0] * 4, "snip": [800.0] * 4}
    for n in (1000, 4000):
        points = keyed(judged(memorizers(ahead, n=n)), "memorization/points")
        assert numbers(points) == pytest.approx(ends([20.0] * 4, least=0.005 * n))
        assert points.verdict == (HOLDS if n == 1000 else UNDECIDED)


# Budgets


def cut_short(rows, **late):
    """The rows where so many trainings of some pruners used up their budget."""
    out = np.zeros(len(rows), int)
    for pruner, count in late.items():
        out[np.flatnonzero(rows["pruner"] == pruner)[0]] = count
    return rows.assign(out_of_budget=out)


def test_a_rival_out_of_budget_leaves_what_sure_rivals_decide():
    """IMP is behind SNIP, whatever random masks would have come to."""
    rows = memorizers({"imp": IMP[NOT], "snip": BEST, "random": FAR})
    known = keyed(judged(cut_short(rows)), "memorization/points")
    found = keyed(judged(cut_short(rows, random=2)), "memorization/points")
    assert (known.verdict, found.verdict) == (NOT, NOT)
    assert (found.out_of_budget, found.left_out) == (0, 2)
    assert found.p_not == pytest.approx(known.p_not) and found.p_holds == 1
    assert found.p_not == pytest.approx(2 * tails(less(IMP[NOT], BEST), 0, POINTS)[1])
    assert found.what.endswith("some trainings used up their budget: random (2)")
    unsure = keyed(judged(cut_short(rows, snip=1)), "memorization/points")
    assert unsure.verdict == UNDECIDED and unsure.p_not > 0.9


def test_a_rival_out_of_budget_may_still_memorize_as_much_and_another_surely_does():
    rows = memorizers({"imp": IMP[UNDECIDED], "snip": BEST, "random": FAR})
    close = keyed(judged(cut_short(rows, random=1)), "memorization/within")
    assert (close.verdict, close.left_out) == (HOLDS, 1) and close.p_not == 1
    ahead = memorizers({"imp": IMP[HOLDS], "snip": BEST, "random": FAR})
    assert keyed(judged(cut_short(ahead)), "memorization/within").verdict == NOT
    unsure = keyed(judged(cut_short(ahead, random=1)), "memorization/within")
    assert unsure.verdict == UNDECIDED and unsure.p_not == 1


def test_networks_of_the_trained_pruner_out_of_budget_decide_nothing():
    rows = memorizers({"imp": IMP[NOT], "snip": BEST, "random": FAR})
    found = judged(cut_short(rows, imp=3, snip=1))
    for kind in ("points", "within"):
        claim = keyed(found, f"memorization/{kind}")
        assert (claim.out_of_budget, claim.left_out) == (3, 1)
        assert claim.verdict == UNDECIDED


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
    [
        *((0.8, 1.0), (0.7, 1.5), (0.6, 2.0), (0.45, 4.0), (0.3, 6.0)),
        (0.9, math.nan),  # it begins below
        (0.1, math.nan),  # it never falls so far
    ],
)
def test_a_value_at_a_loss_is_where_it_first_falls_to_it(target, expected):
    loss = np.array([0.8, 0.6, 0.3, 0.7, 0.2])
    found = at_loss(loss, np.array([1.0, 2, 6, 9, 9]), target)
    assert found == pytest.approx(expected, nan_ok=True)


def at_equal(*rivals, **late):
    """Claims at equal loss of IMP and rivals: their losses and correlations."""
    rows = [curved("imp", i, LOSS, [0.1, 0.2, 0.3 + 0.01 * i]) for i in range(3)]
    for name, loss, noise in rivals:
        for seed in range(3):
            own = loss[seed] if np.ndim(loss) > 1 else loss
            rows.append(curved(name, seed, LOSS, [0.1, 0.15, 0.2]))
            rows[-1] |= {"loss_by_epoch": own, "noise_correlation_by_epoch": noise}
    found = judged(cut_short(pd.DataFrame(rows), **late))
    return [x for x in found if "/noise-at-loss/" in x.key]


USUAL = "snip", LOSS, [0.1, 0.15, 0.2]


@pytest.mark.parametrize(
    ("loss", "noise"),
    [
        (None, None),
        ([math.nan] * 3, [math.nan] * 3),
        ([math.nan] * 3, [0.1, 0.15, 0.2]),
        ([0.2, 0.15, 0.1], [0.1, 0.15, 0.2]),  # below IMP's least loss at once
        ([0.9, 0.8, 0.75], [0.1, 0.15, 0.2]),  # IMP begins below its least
        ([LOSS, LOSS, [0.2, 0.1, 0.1]], [0.1, 0.15, 0.2]),  # so in one seed
    ],
    ids=["no curves", "no loss", "only noise", "below", "above", "one seed"],
)
def test_rivals_without_a_loss_in_common_are_left_out_at_equal_loss(loss, noise):
    assert at_equal(("random", loss, noise)) == []
    [claim] = at_equal(USUAL, ("random", loss, noise))
    [alone] = at_equal(USUAL)
    assert claim[2:-1] == alone[2:-1] and "least over 1 rivals" in claim.what
    assert claim.verdict == HOLDS


def test_at_equal_loss_nothing_rests_on_a_rival_out_of_budget():
    other = "random", LOSS, [0.1, 0.12, 0.15]
    [known], [found] = at_equal(USUAL, other), at_equal(USUAL, other, random=1)
    assert (known.verdict, found.verdict) == (HOLDS, UNDECIDED)
    assert (found.p_holds, found.left_out) == (1, 1)
    [own] = at_equal(USUAL, other, imp=1)
    assert (own.verdict, own.out_of_budget) == (UNDECIDED, 1)


def test_noise_where_each_training_ended_is_shown_whatever_used_up_its_budget():
    rows = memorizers({"imp": IMP[HOLDS], "snip": BEST, "random": FAR})
    for late in ({}, {"imp": 1}, {"snip": 1}):
        noise = keyed(judged(cut_short(rows, **late)), "memorization/noise/")
        assert noise.verdict == SHOWN and math.isnan(noise.p)


# How fast


def timed(epochs, **changes):
    """Rows with the epoch at which 99 % were fitted; None: it never was."""
    rows = memorizers({name: [800.0] * len(x) for name, x in epochs.items()}, **changes)
    return rows.assign(epochs_to_99=[x for some in epochs.values() for x in some])


FAST = [20, 22, 19, 25, 21, 23]
SLOW = [40, 44, 39, 51, 46, 43]


@pytest.mark.parametrize(
    ("snip", "expected"),
    [
        (SLOW, HOLDS),
        ([None] * 6, HOLDS),
        ([10, 11, 9, 12, 8, 13], NOT),
        ([18, 24, 26, 16, 27, 28], UNDECIDED),
    ],
)
def test_epochs_to_99_are_compared_as_shares_with_every_rival(snip, expected):
    rows = timed({"imp": FAST, "snip": snip, "random": [None] * 6})
    claim = keyed(judged(rows), "memorization/epochs")
    shares = [np.zeros(6)]  # of a rival that never fits them
    p_not = 1.0
    if None not in snip:
        shares.append(np.divide(FAST, snip))
        p_not = 2 * tails(np.divide(snip, FAST), 1.0, LEAST_DEVIATION)[1]
    p_holds = max(tails(x, 1.0, LEAST_DEVIATION)[1] for x in shares)
    assert claim.p_holds == pytest.approx(p_holds)
    assert claim.p_not == pytest.approx(min(1, p_not))
    assert claim.verdict == expected
    mean, _, most = ends(shares[-1], least=LEAST_DEVIATION)
    least = ends(shares[-1], 1 - 0.05 / 2, LEAST_DEVIATION)[1]
    known = [1 / x if x > 0 else math.inf for x in (mean, most, least)]
    assert numbers(claim) == pytest.approx(known)
    closest = "SNIP" if None not in snip else "random"  # none is closer: the first
    assert claim.what.startswith(f"epochs of the closest, {closest}, ÷ its epochs")
    assert (claim.out_of_budget, claim.left_out) == (0, 0)


def test_where_nobody_ever_fits_99_percent_nothing_is_claimed_to_be_sooner():
    never = judged(timed({"imp": [None] * 6, "snip": [None] * 6}))
    assert not [x for x in never if "/epochs/" in x.key]
    missing = judged(timed({"imp": FAST, "snip": FAST}).drop(columns="epochs_to_99"))
    assert not [x for x in missing if "/epochs/" in x.key]
    behind = timed({"imp": [None] * 6, "snip": FAST})
    claim = keyed(judged(behind), "memorization/epochs")
    assert (claim.measured, claim.lower, claim.verdict) == (0.0, 0.0, NOT)


def test_another_rival_that_is_slower_does_not_matter():
    few = timed({"imp": FAST, "snip": SLOW})
    more = timed({"imp": FAST, "snip": SLOW, "random": [None] * 6})
    one, other = (keyed(judged(rows), "memorization/epochs") for rows in (few, more))
    assert (one.measured, one.lower, one.p_holds) == pytest.approx(
        (other.measured, other.lower, other.p_holds)
    )


@pytest.mark.parametrize("trained", [60, 3200])
def test_a_rival_that_used_up_its_budget_counts_as_any_time_beyond_it(trained):
    rows = timed({"imp": FAST, "snip": [*SLOW[:5], None]}).assign(epochs=trained)
    late = rows.assign(out_of_budget=[*[0] * 11, 1])
    claim = keyed(judged(late), "memorization/epochs")
    first = np.divide(FAST[:5], SLOW[:5])
    both = [np.append(first, last) for last in (0.0, FAST[5] / trained)]
    p_holds = [tails(x, 1.0, LEAST_DEVIATION)[1] for x in both]
    assert claim.p_holds == pytest.approx(max(p_holds)) and claim.p_not == 1
    assert claim.measured == pytest.approx(1 / both[1].mean())
    lower = [1 / ends(x, least=LEAST_DEVIATION)[2] for x in both]
    assert claim.lower == pytest.approx(min(lower))
    assert (claim.out_of_budget, claim.left_out, claim.verdict) == (0, 1, HOLDS)
    assert claim.what.endswith("; 1 used up their budget before, and count so")
    # Whenever it would have fitted them, the claim would have held.
    for time in (trained + 1, 10 * trained, 10**9):
        fitted = timed({"imp": FAST, "snip": [*SLOW[:5], time]})
        known = keyed(judged(fitted), "memorization/epochs")
        assert known.verdict == HOLDS and known.p_holds <= claim.p_holds + 1e-12


def test_a_rival_that_had_fitted_when_its_budget_ended_counts_with_its_time():
    rows = timed({"imp": FAST, "snip": SLOW})
    known = keyed(judged(rows), "memorization/epochs")
    late = judged(cut_short(rows, snip=1))
    claim = keyed(late, "memorization/epochs")
    assert (numbers(claim), claim.verdict) == (numbers(known), HOLDS)
    assert (claim.out_of_budget, claim.left_out) == (0, 0)
    # Of the points, which it might have had more of, nothing is known.
    assert keyed(late, "memorization/points").left_out == 1
    own = keyed(judged(cut_short(rows, imp=1)), "memorization/epochs")
    assert (own.verdict, own.out_of_budget) == (UNDECIDED, 1)


def test_one_that_does_not_always_fit_them_is_not_called_the_sooner():
    rows = timed({"imp": [*FAST[:5], None], "snip": [90, 95, 93, 88, 91, 94]})
    claim = keyed(judged(rows), "memorization/epochs")
    assert claim.p_holds == 1 and claim.verdict == UNDECIDED
    sooner = timed({"imp": [*FAST[:5], None], "snip": [4, 5, 4, 5, 4, 5]})
    claim = keyed(judged(sooner), "memorization/epochs")
    assert (claim.verdict, claim.out_of_budget) == (NOT, 0)
    shares = np.append(np.divide([4, 5, 4, 5, 4], FAST[:5]), 0.0)
    assert claim.p_not == pytest.approx(tails(shares, 1.0, LEAST_DEVIATION)[1])


# What tells nothing


def test_where_a_rival_fits_all_points_too_points_are_not_judged():
    full = [1000.0] * 4
    rows = memorizers({"imp": full, "snip": full, "random": FAR})
    for what in ("points", "within"):
        claim = keyed(judged(rows), f"memorization/{what}")
        assert claim.verdict == SHOWN
        assert claim.what.endswith(
            "for SNIP fit all points too: capacity does not bind"
        )
    rows = memorizers({"imp": full, "snip": [1000.0, 1000.0, 1000.0, 999.0]})
    assert keyed(judged(rows), "memorization/within").verdict == HOLDS


def test_masks_that_collapsed_are_counted():
    rows = memorizers({"imp": IMP[NOT], "snip": BEST}).assign(
        collapsed=[True, False, True, False] + [False] * 4
    )
    found = judged(rows)
    assert "; 2 of 4 of its masks collapsed" in keyed(found, "memorization/poi").what


# Ablations


def ablated(gap, ablation="shuffle", pruner="snip", **changes):
    rows = memorizers({pruner: BEST})
    other = memorizers({pruner: less(BEST, gap).tolist()}).assign(ablation=ablation)
    return pd.concat([rows, other]).assign(**changes)


def judged_points(rows):
    """The claims of rows that don't tell how fast they were."""
    return judged(rows.drop(columns="epochs_to_99"))


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
    [claim] = judged_points(ablated(gap, ablation))
    assert claim.verdict == expected
    assert numbers(claim) == pytest.approx(ends(gap, least=POINTS))
    below, above = tails(gap, 20.0, POINTS)[1], tails(gap, -20.0, POINTS)[0]
    assert claim.p_holds == pytest.approx(max(below, above))
    assert claim.key == f"memorization/{ablation}/snip/n=1000/0.9"
    assert claim.claim.startswith("SNIP: networks memorize as much")


def test_random_masks_shuffled_are_a_control():
    """A random mask shuffled is another random mask: nothing may differ."""
    [claim] = judged_points(ablated([1.0, -2.0, 3.0, 0.0], pruner="random"))
    assert claim.verdict == HOLDS and claim.key.startswith(
        "memorization/shuffle/random"
    )


def test_other_ablations_are_no_claim():
    assert judged(ablated([0.0] * 4, "invert")) == []
    assert judged(ablated([0.0] * 4, pruner="imp", resume="finetune")) == []


@pytest.mark.parametrize(
    ("points", "changes", "words"),
    [
        ([1000.0] * 4, {}, "both fit all points: capacity does not bind"),
        (BEST, {"collapsed": True}, "networks collapsed"),
        ([1000.0, 1000.0, 1000.0, 999.0], {}, ""),
    ],
    ids=["all fit", "collapsed", "one does not"],
)
def test_an_ablation_that_can_show_nothing_is_not_judged(points, changes, words):
    rows = memorizers({"snip": points})
    other = rows.assign(ablation="shuffle", **changes)
    for both in ([rows, other], [rows.assign(**changes), other]):
        [claim] = judged_points(pd.concat(both))
        assert claim.verdict == (SHOWN if words else HOLDS)
        assert claim.what.endswith(f"; not judged, for {words}" if words else "seeds")
        assert math.isnan(claim.p) == bool(words)
        assert numbers(claim) == pytest.approx(ends([0.0] * 4, least=POINTS))


def test_an_ablation_is_undecided_where_a_training_on_either_side_was_cut_short():
    rows = ablated([1.0, -2.0, 3.0, 0.0])
    for late in (0, 5):
        budget = np.zeros(8, int)
        budget[late] = 1
        [claim] = judged_points(rows.assign(out_of_budget=budget))
        assert claim.verdict == UNDECIDED and claim.out_of_budget == 1


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (FAST, SLOW, HOLDS),
        (SLOW, FAST, NOT),
        (FAST, [None] * 6, HOLDS),
        (FAST, [18, 24, 26, 16, 27, 28], UNDECIDED),
    ],
)
@pytest.mark.parametrize("ablation", ["shuffle", "reinitialize"])
def test_a_mask_is_faster_than_its_ablation_by_the_share_of_epochs(
    ablation, own, other, expected
):
    rows = timed({"snip": own})
    ablation_rows = timed({"snip": other}).assign(ablation=ablation)
    claim = keyed(
        judged(pd.concat([rows, ablation_rows])),
        f"memorization/{ablation}-epochs/snip/n=1000/0.9",
    )
    assert claim.verdict == expected
    shares = np.divide(own, [x or np.inf for x in other])
    mean, low, high = ends(shares, least=LEAST_DEVIATION)
    known = [1 / x if x > 0 else math.inf for x in (mean, high, low)]
    assert numbers(claim) == pytest.approx(known)
    assert claim.p_holds == pytest.approx(tails(shares, 1.0, LEAST_DEVIATION)[1])


def test_an_ablation_that_used_up_its_budget_counts_as_any_time_beyond_it():
    rows = timed({"snip": FAST}).assign(out_of_budget=0)
    other = timed({"snip": [*SLOW[:5], None]}).assign(
        ablation="shuffle", out_of_budget=[0, 0, 0, 0, 1, 1]
    )
    claim = keyed(judged(pd.concat([rows, other])), "memorization/shuffle-epochs")
    assert (claim.out_of_budget, claim.left_out, claim.verdict) == (0, 1, HOLDS)
    assert claim.p_not == 1 and claim.upper > claim.measured
    own = rows.assign(out_of_budget=[0, 0, 0, 0, 0, 1])
    claim = keyed(judged(pd.concat([own, other])), "memorization/shuffle-epochs")
    assert (claim.out_of_budget, claim.verdict) == (1, UNDECIDED)
    never = [timed({"snip": [None] * 6}).assign(ablation=x) for x in ("", "shuffle")]
    assert not [x for x in judged(pd.concat(never)) if "-epochs/" in x.key]
