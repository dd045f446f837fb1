"""Data swaps: gains, and equivalence to nothing with the margin of the run."""

import math

import numpy as np
import pytest
from judging import THREE, about, ends, judged, numbers, tails
from test_swap_figures import make_swap, make_swaps

from nfp_jax.pages.claim import HOLDS, NOT, SHOWN, UNDECIDED

POINTS = 5.0  # what points of 1,000 are known to: 0.5 % of n
GAPS = {
    HOLDS: [99.0, 101.0, 104.0, 97.0],
    NOT: [-99.0, -101.0, -104.0, -97.0],
    UNDECIDED: [-9.0, 8.0, 13.0, -10.0],
}


@pytest.mark.parametrize("expected", THREE)
def test_a_gain_is_the_mean_of_its_draws_with_a_t_test(expected):
    gaps, fresh = GAPS[expected], [-x / 2 for x in GAPS[expected]]
    own, reinit, _ = judged([make_swap(swap_gaps=gaps, swap_gaps_reinit=fresh)], "swap")
    assert own.claim.startswith("IMP gains points on the labels that its mask was")
    assert numbers(own) == pytest.approx(ends(gaps, least=POINTS))
    assert (own.p_holds, own.p_not) == pytest.approx(tails(gaps, least=POINTS))
    assert own.verdict == expected and "paired, 4 draws" in own.what
    assert own.key == "swap/gain/imp/n=1000/0.9"
    assert reinit.claim == "The gain of IMP outlives fresh initial weights"
    assert numbers(reinit) == pytest.approx(ends(fresh, least=POINTS))
    opposite = {HOLDS: NOT, NOT: HOLDS, UNDECIDED: UNDECIDED}
    assert reinit.verdict == opposite[expected]
    assert "both from fresh initial weights" in reinit.what


def test_gaps_of_several_rows_are_taken_together():
    halves = [make_swap(seed=i, swap_gaps=GAPS[HOLDS][2 * i :][:2]) for i in (0, 1)]
    own, *_ = judged(halves, "swap")
    assert numbers(own) == pytest.approx(ends(GAPS[HOLDS], least=POINTS))
    assert "4 draws" in own.what


def test_without_gaps_from_fresh_weights_nothing_is_said_to_outlive_them():
    row = make_swap()
    row.pop("swap_gaps_reinit", None)
    _, reinit, _ = judged([row], "swap")
    assert reinit.verdict == UNDECIDED and math.isnan(reinit.measured)


# Gaining nothing: two one-sided tests, margin 2 % of 1,000


def no_gain(gaps, **others):
    rows = [
        make_swap(pruner, swap_gaps=values)
        for pruner, values in {"snip": gaps, **others}.items()
    ]
    return about(judged(rows, "swap"), "that see the labels gain nothing")


SMALL = [3.0, -5.0, 1.0, 4.0]  # 0.75


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        (SMALL, HOLDS),
        ([9.0, 10.0, 11.0, 10.0], HOLDS),  # surely above 0, and within the margin
        ([30.0, 31.0, 33.0, 31.5], NOT),
        ([-30.0, -31.0, -33.0, -31.5], NOT),
        ([19.0, 20.0, 21.0, 20.5], UNDECIDED),
        ([30.0, 31.0, 33.0, -90.0], UNDECIDED),
        ([3.0], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_nothing_is_gained_where_the_gap_is_surely_within_the_margin(gaps, expected):
    claim = no_gain(gaps)
    assert claim.verdict == expected
    if len(gaps) > 1:
        above, below = (tails(gaps, x, POINTS) for x in (-20.0, 20.0))
        assert claim.p_holds == pytest.approx(max(above[0], below[1]))
        outside = min(1.0, 2 * min(above[1], below[0]))
        assert claim.p_not == pytest.approx(outside)


def test_of_several_pruners_all_must_lie_within_and_one_outside_refutes():
    flat, far = [-1.0, 0.5, 0.0, -0.5], [40.0, 43.0, 38.0, 41.0]
    both = no_gain(SMALL, grasp=flat)
    within = tails(SMALL, 20.0, POINTS)[1]
    assert both.p_holds == pytest.approx(within) and both.verdict == HOLDS
    level = 1 - 0.05 / 2
    assert numbers(both) == pytest.approx(ends(SMALL, level, POINTS))
    assert "the largest gap of 2 pruners, that of SNIP" in both.what
    assert "interval at 97.5 %" in both.what
    three = no_gain(SMALL, grasp=flat, own=far)
    assert three.p_not == pytest.approx(3 * 2 * tails(far, 20.0, POINTS)[0])
    assert three.measured == pytest.approx(np.mean(far)) and three.verdict == NOT


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.05, HOLDS), (0.02, NOT), (0.0, NOT), (math.nan, NOT)]
)
def test_the_margin_is_that_of_the_run(margin, expected):
    """Without one it is 2 % of n; nothing surely lies within a margin of 0."""
    claim = no_gain([30.0, 31.0, 33.0, 31.5])
    rows = [make_swap("snip", swap_gaps=[30.0, 31.0, 33.0, 31.5], margin=margin)]
    [claim] = judged(rows, "swap")
    assert claim.verdict == expected
    shown = 20 if math.isnan(margin) else 1000 * margin
    assert f"within {shown:g} " in claim.what


def test_no_gap_lies_within_a_margin_of_0_and_none_may_be_below():
    [claim] = judged([make_swap("snip", swap_gaps=SMALL, margin=0.0)], "swap")
    assert claim.p_holds > 0.5 and claim.verdict == UNDECIDED
    with pytest.raises(ValueError, match="margin is -10"):
        judged([make_swap("snip", margin=-0.01)], "swap")


def test_a_pruner_without_gaps_leaves_it_open_and_hides_no_other():
    for gone in ([math.nan] * 4, None):
        claim = no_gain(SMALL, grasp=gone)
        assert claim.measured == 0.75 and claim.verdict == UNDECIDED
        assert no_gain([40.0, 43.0, 38.0, 41.0], grasp=gone).verdict == NOT


@pytest.mark.parametrize("trained", ["imp", "magnitude_trained"])
@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        (SMALL, HOLDS),
        (GAPS[HOLDS], NOT),
        (GAPS[UNDECIDED], UNDECIDED),
        ([7.0], UNDECIDED),
    ],
)
def test_of_each_trained_pruner_it_is_claimed_too_that_it_gains_nothing(
    trained, gaps, expected
):
    rows = [make_swap(trained, swap_gaps=gaps), make_swap("snip", swap_gaps=SMALL)]
    found = judged(rows, "swap")
    [claim] = [x for x in found if x.key == f"swap/nothing/{trained}/n=1000/0.9"]
    assert "gains nothing on the labels that its mask was found on" in claim.claim
    assert claim.verdict == expected and "within 20 (" in claim.what
    assert sum("/nothing/" in x.key for x in found) == 2
    if len(gaps) > 1:
        assert numbers(claim) == pytest.approx(ends(gaps, least=POINTS))
        below, above = tails(gaps, 20.0, POINTS)[1], tails(gaps, -20.0, POINTS)[0]
        assert claim.p_holds == pytest.approx(max(below, above))


@pytest.mark.parametrize("pruner", ["imp", "snip", "random"])
def test_where_all_fit_all_points_there_is_nothing_to_gain_and_nothing_is_judged(
    pruner,
):
    full = {"memorized_points": 1000.0, "memorized_points_swapped": 1000.0}
    rows = [
        make_swap(pruner, seed=seed, swap_gaps=[0.0, 0.0], **full) for seed in (0, 1)
    ]
    [claim] = [x for x in judged(rows, "swap") if "/nothing/" in x.key]
    assert claim.verdict == SHOWN and math.isnan(claim.p) and claim.measured == 0
    assert claim.what.endswith(
        "; not judged, for all fit all points and there is nothing to gain"
    )
    for name in full:
        other = [rows[0], rows[1] | {name: 999.0}]
        [claim] = [x for x in judged(other, "swap") if "/nothing/" in x.key]
        assert claim.verdict == HOLDS and "not judged" not in claim.what
    if pruner == "imp":  # a gain is judged all the same
        gain, *_ = judged(rows, "swap")
        assert gain.verdict == UNDECIDED and not math.isnan(gain.p)


def test_data_free_masks_are_the_control():
    rows = [make_swap(x, swap_gaps=SMALL) for x in ("random", "synflow")]
    [claim] = judged(rows, "swap")
    assert claim.claim == "Control: data-free masks gain nothing on their own labels"
    assert claim.verdict == HOLDS and claim.key == "swap/nothing/data-free/n=1000/0.9"


# Less than IMP


def less_than_imp(imp, **others):
    rows = [make_swap(x, swap_gaps=y) for x, y in {"imp": imp, **others}.items()]
    return about(judged(rows, "swap"), "gain less on them than IMP's")


@pytest.mark.parametrize("expected", THREE)
def test_gains_less_than_imps_are_compared_draw_by_draw_with_every_pruner(expected):
    far = [x - 300 for x in SMALL]
    claim = less_than_imp(GAPS[expected], snip=SMALL, grasp=far)
    gap = np.subtract(GAPS[expected], SMALL)
    assert numbers(claim)[:2] == pytest.approx(ends(gap, least=POINTS)[:2])
    more, fewer = tails(gap, least=POINTS)
    assert (claim.p_holds, claim.p_not) == pytest.approx((more, min(1, 2 * fewer)))
    assert claim.verdict == expected and "that of SNIP" in claim.what


def test_every_pruner_that_sees_training_is_compared_so():
    gaps = {"imp": GAPS[HOLDS], "magnitude_trained": GAPS[NOT], "snip": SMALL}
    rows = [make_swap(x, swap_gaps=y) for x, y in gaps.items()]
    rows.append(make_swap("mine", swap_gaps=GAPS[HOLDS], label="My", sees="training"))
    found = judged(rows, "swap")
    for label, verdict in (
        ("IMP", HOLDS),
        ("magnitude after training", NOT),
        ("My", HOLDS),
    ):
        claim = about(found, f"gain less on them than {label}'s")
        assert claim.verdict == verdict and claim.what.startswith(f"{label}'s gap")
    assert about(found, "less-than-imp/") and about(found, "swap/gain/mine/")
    data_free = [make_swap("mine", swap_gaps=SMALL, label="My", sees="nothing")]
    assert "that of My" in about(judged(data_free, "swap"), "Control: data-free").what


def test_gains_are_paired_by_seed_whatever_the_order_of_the_rows():
    """Of a seed that one pruner lacks there is no pair."""
    imp = [[99.0, 101.0], [9.0, 7.0], [55.0, 51.0]]
    snip = [[9.0, 1.0], [3.0, -2.0]]
    rows = [make_swap("imp", seed=i, swap_gaps=x) for i, x in enumerate(imp)]
    rows += [make_swap("snip", seed=i, swap_gaps=x) for i, x in enumerate(snip)]
    gap = np.subtract(np.ravel(imp[:2]), np.ravel(snip))
    for order in (rows, rows[::-1], [rows[3], rows[1], rows[4], rows[2], rows[0]]):
        claim = about(judged(order, "swap"), "gain less on them than IMP's")
        assert numbers(claim) == pytest.approx(ends(gap, least=POINTS))
        assert claim.p_holds == pytest.approx(tails(gap, least=POINTS)[0])
        assert "paired, 4 draws" in claim.what


def test_a_pruner_with_other_draws_than_imps_leaves_it_undecided():
    claim = less_than_imp(GAPS[HOLDS], snip=SMALL, grasp=SMALL[:3])
    assert claim.verdict == UNDECIDED and claim.p_holds == 1
    assert claim.measured == pytest.approx(np.mean(GAPS[HOLDS]) - 0.75)


# Budgets


def test_a_gap_of_trainings_that_were_cut_short_decides_nothing():
    late = {"swap_gap_out_of_budget": 2, "swap_gap_reinit_out_of_budget": 0}
    gaps = {"swap_gaps": GAPS[HOLDS], "swap_gaps_reinit": GAPS[HOLDS]}
    own, reinit, nothing = judged([make_swap(**gaps, **late)], "swap")
    assert (own.verdict, own.out_of_budget) == (UNDECIDED, 2)
    assert (nothing.verdict, nothing.out_of_budget) == (UNDECIDED, 2)
    assert (reinit.verdict, reinit.out_of_budget) == (HOLDS, 0)
    late = {"swap_gap_out_of_budget": 0, "swap_gap_reinit_out_of_budget": 3}
    own, reinit, nothing = judged([make_swap(**gaps, **late)], "swap")
    assert (own.verdict, reinit.verdict) == (HOLDS, UNDECIDED)
    assert nothing.verdict == NOT
    late = {"swap_gap_out_of_budget": 0, "diverged": True}
    found = judged([make_swap(**gaps, **late)], "swap")
    assert {(x.verdict, x.out_of_budget) for x in found} == {(UNDECIDED, 1)}


@pytest.mark.parametrize("who", ["imp", "snip"])
def test_every_comparison_counts_the_trainings_of_both_sides(who):
    rows = [make_swap("imp", swap_gaps=GAPS[HOLDS]), make_swap("snip", swap_gaps=SMALL)]
    for row in rows:
        row["swap_gap_out_of_budget"] = int(row["pruner"] == who)
    found = judged(rows, "swap")
    assert about(found, "gain less on them").out_of_budget == 1
    nothing = about(found, "that see the labels gain nothing")
    assert nothing.out_of_budget == int(who == "snip")


def test_one_pair_decides_nothing():
    found = judged(make_swaps(swap_gaps=[7.0], swap_gaps_reinit=[7.0], pairs=1), "swap")
    assert len(found) == 12 and {x.verdict for x in found} == {UNDECIDED}
    assert all(math.isnan(x.lower) and math.isnan(x.upper) for x in found)
