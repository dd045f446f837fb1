"""Runs read together: what is correlated with what, and which cells have a part."""

import numpy as np
import pytest
from judging import about, numbers
from rows import make_interval_row
from scipy import stats
from test_capacity_figures import make_search, make_searches
from test_pages_joined import make_part, make_parts
from test_robustness_figures import make_networks
from test_swap_figures import make_swap, make_swaps

from nfp_jax.pages import bootstrap
from nfp_jax.pages.claim import HOLDS, NOT, UNDECIDED, judge
from nfp_jax.report.claims import claims
from nfp_jax.report.together import claims as joint


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPEATS", 500)
        yield


KNOWN = {
    **{"random": 0.0, "magnitude_init": 5.0, "synflow": 10.0, "own": 20.0},
    **{"grasp": 40.0, "snip": 60.0, "imp": 70.0},
}


SURE = {"confidence": 1.0}  # intervals that never miss


def together(
    points, *, kept=None, question="capacity", known=KNOWN, of_masks=SURE, **changes
):
    """Rows at one sparsity with such values by pruner, beside what their masks know.

    ``of_masks`` are changes of the rows of information, ``changes`` of the others.
    """
    kept = kept or dict.fromkeys(points, 100)
    if question == "capacity":
        rows = [
            make_search(pruner, seed=seed, capacity=x, kept=kept[pruner], **changes)
            for pruner, values in points.items()
            for seed, x in enumerate(values)
        ]
    else:
        rows = [
            make_swap(pruner, swap_gaps=values, **changes)
            for pruner, values in points.items()
        ]
    information = [
        make_interval_row(
            pruner, information_lower=x, information_upper=x + 1, **of_masks
        )
        for pruner, x in known.items()
    ]
    parts = make_parts(make_part(rows, question), make_part(information, "information"))
    return judge(list(joint.claims(parts)))


SIX = [name for name in KNOWN if name != "imp"]
RISING = {name: [100 + 10 * i] for i, name in enumerate(SIX)}
FALLING = {name: [1000 - x for x in y] for name, y in RISING.items()}


def test_capacity_that_follows_p_eff_holds_and_kept_weights_that_do_not_are_worse():
    kept = {name: 106 - i for i, name in enumerate(SIX)}
    found = together(RISING, kept=kept)
    ranks = about(found, "Capacity follows", "rank correlation")
    assert numbers(ranks) == [1, 1, 1] and ranks.verdict == HOLDS
    assert ranks.key == "together/capacity/p_eff"
    better = about(found, "better than the weights kept")
    assert numbers(better) == [2, 2, 2] and better.verdict == HOLDS
    assert better.where.startswith("6 cells: gaussian, d = 50")


def test_capacity_is_read_beside_either_information():
    found = together(RISING, of_masks={**SURE, "conditioning": "data"})
    ranks = about(found, "Capacity follows", "rank correlation")
    assert ranks.claim.endswith("(data)") and "p_eff (data)" in ranks.what
    assert ranks.key == "together/capacity-data/p_eff" and ranks.verdict == HOLDS
    keys = [x.key for x in together(RISING)]
    assert not any("capacity-data" in key for key in keys)


def test_capacity_that_falls_with_p_eff_does_not_follow_it():
    found = together(FALLING)
    assert about(found, "Capacity follows").verdict == NOT
    assert about(found, "fit more, at equal").verdict == NOT


def test_kept_weights_that_tell_as_much_leave_it_undecided():
    kept = {name: 100 * (i + 1) for i, name in enumerate(SIX)}
    better = about(together(RISING, kept=kept), "better than the weights kept")
    assert numbers(better) == [0, 0, 0] and better.verdict == UNDECIDED
    scattered = dict(zip(SIX, ([130], [100], [150], [90], [120], [110]), strict=True))
    assert about(together(scattered), "Capacity follows").verdict == UNDECIDED


def test_intervals_that_overlap_leave_it_undecided_however_the_middles_lie():
    known = dict.fromkeys(SIX, 50.0)
    claim = about(together(RISING, known=known), "Capacity follows")
    assert claim.verdict == UNDECIDED and claim.p == 1


def test_fewer_than_three_cells_are_no_correlation():
    few = {"random": [100], "snip": [150]}
    assert together(few) == []


def test_networks_that_fit_nothing_are_cells_all_the_same():
    found = together({name: [0, 0, 0] for name in RISING})
    ranks = about(found, "Capacity follows")
    assert ranks.where.startswith("6 cells") and numbers(ranks) == [0, 0, 0]
    assert {x.verdict for x in found} == {UNDECIDED}


@pytest.mark.parametrize(
    ("missing", "expected"), [(0.0, HOLDS), (0.001, HOLDS), (0.004, UNDECIDED)]
)
def test_that_one_of_the_intervals_misses_is_added_to_the_p_values(missing, expected):
    """6 of them; 3 claims of the page, each with 1 / 501 from the bootstrap."""
    found = together(RISING, of_masks={"confidence": 1 - missing})
    claim = about(found, "Capacity follows")
    assert claim.p_holds == pytest.approx(1 / 501 + 6 * missing) and claim.p_not == 1
    assert claim.verdict == expected
    unknown = together(RISING, of_masks={"confidence": None})
    assert about(unknown, "Capacity follows").p_holds == 1


def test_masks_made_by_a_training_that_was_cut_short_leave_it_undecided():
    found = together(RISING, of_masks=SURE | {"out_of_budget": 2})
    assert {(x.verdict, x.out_of_budget) for x in found} == {(UNDECIDED, 12)}
    assert about(found, "Capacity follows").p_holds == pytest.approx(1 / 501)


def open_capacities(late):
    """Capacities of three seeds, some of the searches of IMP ended by their end."""
    points = {name: [100 + 10 * i, 105, 4000] for i, name in enumerate(KNOWN)}
    rows = [
        make_search(pruner, seed=seed, capacity=x)
        for pruner, values in points.items()
        for seed, x in enumerate(values)
    ]
    for row in rows:
        row["capacity_at_least"] = row["pruner"] == "imp" and row["init_seed"] in late
    information = [
        make_interval_row(x, information_lower=60.0, information_upper=61.0, **SURE)
        for x in KNOWN
    ]
    parts = make_parts(
        make_part(rows, "capacity"), make_part(information, "information")
    )
    return list(joint.claims(parts))


def test_a_cell_with_a_search_that_gives_only_at_least_is_kept_with_all_its_seeds():
    """To leave out that seed alone would be to leave out the largest value."""
    for late in ((), (2,), (0, 1, 2)):
        found = open_capacities(late)
        assert about(found, "Capacity follows").where.startswith("7 cells")
        assert about(found, "Capacity follows").out_of_budget == 0
        claim = about(found, "IMP exceeds")
        assert claim.out_of_budget == len(late)  # of a mean nothing is known then


@pytest.mark.parametrize(("who", "least"), [("own", 11 / 15), ("snip", 1.0)])
def test_of_a_capacity_that_is_at_least_a_number_no_more_is_known(who, least):
    """That of the fourth of six may be any larger: of 15 pairs two go either way."""
    points = {name: [x + y for y in range(3)] for name, [x] in RISING.items()}
    points[who] = [points[who][0]] * 3
    rows = [
        make_search(name, seed=i, capacity=x, capacity_at_least=name == who)
        for name, values in points.items()
        for i, x in enumerate(values)
    ]
    information = [
        make_interval_row(x, information_lower=y, information_upper=y + 1, **SURE)
        for x, y in KNOWN.items()
    ]
    parts = make_parts(
        make_part(rows, "capacity"), make_part(information, "information")
    )
    claim = about(judge(list(joint.claims(parts))), "Capacity follows")
    assert claim.measured == pytest.approx((least + 1) / 2)
    assert claim.out_of_budget == 0


def test_gaps_of_a_cell_with_a_training_out_of_budget_leave_it_undecided():
    gaps = {name: [float(x), x + 1.0] for name, [x] in RISING.items()}
    [claim] = together(gaps, question="swap", swap_gap_out_of_budget=0)
    assert claim.where.startswith("6 cells") and claim.verdict == HOLDS
    [late] = together(gaps, question="swap", swap_gap_out_of_budget=1)
    assert (late.verdict, late.out_of_budget) == (UNDECIDED, 6)
    assert late.where == claim.where and numbers(late) == numbers(claim)


@pytest.mark.parametrize("expected", [HOLDS, NOT, UNDECIDED])
def test_at_equal_weights_gaps_are_correlated_with_information(expected):
    values = {
        HOLDS: [1.0, 2, 3, 4, 5, 6],
        NOT: [9.0, 8, 7, 5, 4, 2],
        UNDECIDED: [3.0, 1, 4, 0, 6, 2],
    }[expected]
    points = {name: [x] * 3 for name, x in zip(SIX, values, strict=True)}
    [claim] = together(points, question="swap")
    assert claim.claim == "Masks that hold more gain more, at equal ‖m‖₁"
    assert claim.verdict == expected
    assert claim.measured == pytest.approx(stats.kendalltau(range(6), values).statistic)
    assert claim.key == "together/gap/information"


def two_sparsities(of_masks):
    """Gaps that rise with information at 90 %, and fall at 50 %, where rows of
    information have these changes.
    """
    swaps, information = [], []
    for sparsity, sign, changes in ((0.9, 1, SURE), (0.5, -1, SURE | of_masks)):
        for i, name in enumerate(SIX):
            swaps.append(make_swap(name, sparsity, n=100, swap_gaps=[sign * i] * 3))
            ends = ("information_lower", "information_upper")
            changes = {"n": 100} | changes | dict.fromkeys(ends, 10.0 * i)
            information.append(make_interval_row(name, sparsity, **changes))
    parts = make_parts(make_part(swaps, "swap"), make_part(information, "information"))
    [claim] = judge(list(joint.claims(parts)))
    return claim


def test_gaps_stand_beside_information_of_their_n_where_there_is_some():
    assert two_sparsities({}).where.startswith("12 cells")
    claim = two_sparsities({"n": 50})
    assert claim.where.startswith("6 cells") and claim.where.endswith("at n = 100")
    assert claim.verdict == HOLDS and claim.measured == 1


def test_intervals_that_may_all_miss_take_no_verdict_with_them():
    claim = two_sparsities({"confidence": 0.95})
    assert claim.where.startswith("6 cells") and claim.verdict == HOLDS
    assert two_sparsities({"confidence": 0.9999}).where.startswith("12 cells")


def test_gaps_are_compared_among_masks_of_one_sparsity():
    """Where gaps rise with sparsity and information falls, all of it would be lost."""
    swaps, information = [], []
    for sparsity, more in ((0.5, 0.0), (0.9, 100.0)):
        for i, name in enumerate(SIX):
            swaps.append(make_swap(name, sparsity, swap_gaps=[i + more]))
            ends = ("information_lower", "information_upper")
            ends = dict.fromkeys(ends, 10.0 * i - more + 200) | SURE
            information.append(make_interval_row(name, sparsity, **ends))
    [claim] = judge(
        list(
            joint.claims(
                make_parts(
                    make_part(swaps, "swap"), make_part(information, "information")
                )
            )
        )
    )
    assert claim.measured == pytest.approx(1) and claim.verdict == HOLDS
    assert "12 cells" in claim.where


def known_to(deviation, values):
    """Values of the same mean that deviate by at least so much."""
    gaps = np.subtract(values, np.mean(values))
    return np.mean(values) + gaps * max(1, deviation / np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ([22.0, 25.0, 19.0, 23.0], HOLDS),
        ([-23.0, -25.0, -24.0, -26.0], NOT),
        ([2.0, -5.0, 8.0, 1.0], UNDECIDED),
        ([42.0, 25.0, 19.0, 33.0], HOLDS),
    ],
)
def test_imp_is_compared_with_masks_that_know_nearly_as_much_by_welch(imp, expected):
    snip = [1.0, 2.0, -1.0, 0.5, 1.5]
    found = together({"random": [0.0] * 4, "snip": snip, "imp": imp}, question="swap")
    claim = about(found, "IMP exceeds SNIP", "swap gap")
    # Gaps are known to 0.5 % of n, which is 5.
    test = stats.ttest_ind(known_to(5, imp), known_to(5, snip), equal_var=False)
    interval = test.confidence_interval()
    assert numbers(claim) == pytest.approx([np.mean(imp) - np.mean(snip), *interval])
    assert 2 * min(claim.p_holds, claim.p_not) == pytest.approx(test.pvalue)
    assert claim.verdict == expected
    assert "information (labels) at n = " in claim.where
    assert "90 % removed" in claim.where


def test_every_pruner_that_sees_training_is_compared_with_such_masks():
    gaps = {"random": [0.0] * 4, "snip": [1.0, 2.0, -1.0, 0.5]}
    gaps |= {"imp": [99.0] * 4, "magnitude_trained": [98.0] * 4}
    known = KNOWN | {"magnitude_trained": KNOWN["imp"]}
    found = together(gaps, question="swap", known=known)
    claim = about(found, "magnitude after training exceeds SNIP")
    assert claim.key.startswith("together/gap/magnitude_trained-snip/")
    assert claim.verdict == HOLDS and about(found, "IMP exceeds SNIP").verdict == HOLDS


def test_capacities_of_imp_are_compared_to_a_tenth_of_the_others():
    points = {"random": [9] * 4, "snip": [500, 504, 496, 502], "imp": [800, 900] * 2}
    claim = about(together(points), "IMP exceeds SNIP", "the capacity")
    test = stats.ttest_ind(
        known_to(50.05, points["imp"]), known_to(50.05, points["snip"]), equal_var=False
    )
    interval = test.confidence_interval()
    assert numbers(claim) == pytest.approx([349.5, *interval])
    assert claim.p_holds == pytest.approx(test.pvalue / 2) and claim.verdict == HOLDS


def test_what_the_two_intervals_miss_counts_against_imp_and_for_nothing_else():
    gaps = {"random": [0.0] * 4, "snip": [1.0, 2.0, -1.0, 0.5], "imp": [99.0] * 4}
    sure, found = (
        about(together(gaps, question="swap", of_masks=x), "IMP exceeds SNIP")
        for x in (SURE, {"confidence": 0.99})
    )
    assert found.p_holds == pytest.approx(sure.p_holds + 0.02)
    late = together(
        gaps,
        question="swap",
        of_masks=SURE | {"out_of_budget": 3},
        swap_gap_out_of_budget=1,
    )
    claim = about(late, "IMP exceeds SNIP")
    assert (claim.out_of_budget, claim.verdict) == (8, UNDECIDED)


@pytest.mark.parametrize(("snip", "there"), [(57.0, True), (56.5, False)])
def test_nearly_as_much_is_four_fifths_of_imps_upper_end(snip, there):
    """IMP's is 71 nats: the other's lower end has to be 56.8."""
    points = {"random": [0.0] * 3, "snip": [1.0, 2.0], "imp": [9.0, 8.0]}
    found = together(points, question="swap", known=KNOWN | {"snip": snip})
    assert bool([x for x in found if "IMP exceeds" in x.claim]) == there


@pytest.mark.parametrize(
    "points",
    [
        {"random": [0.0, 1.0], "snip": [1.0, 2.0], "grasp": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0, 2.0], "synflow": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0], "snip": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0, 2.0], "snip": [1.0]},
    ],
    ids=["no imp", "nobody sees", "one draw of imp", "one draw of snip"],
)
def test_imp_is_compared_with_nobody_where_one_of_the_two_is_missing(points):
    [claim] = together(points, question="swap")
    assert "at equal ‖m‖₁" in claim.claim


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_a_swap_has_the_information_of_its_own_noise_rate(noise):
    """Of a run of information that has both, in the opposite order."""
    gaps = {"random": [0.0] * 4, "snip": [1.0, 2.0, -1.0, 0.5]}
    gaps["imp"] = [22.0, 25.0, 19.0, 23.0]
    swaps = [make_swap(x, noise=noise, swap_gaps=y) for x, y in gaps.items()]
    known = [
        make_interval_row(
            pruner,
            n=1000,
            noise=rate,
            information_lower=60.0 + (i if rate == noise else -i),
            information_upper=60.5 + (i if rate == noise else -i),
            **SURE,
        )
        for i, pruner in enumerate(gaps)
        for rate in (0.5, 1.0)
    ]
    parts = make_parts(make_part(swaps, "swap"), make_part(known, "information"))
    ranks = about(list(joint.claims(parts)), "at equal ‖m‖₁")
    assert ranks.where.startswith("3 cells") and ranks.measured == 1
    exceeds = about(list(joint.claims(parts)), "IMP exceeds SNIP")
    assert exceeds.measured == pytest.approx(22.25 - 0.625)
    assert f"/noise={noise:g}/" in exceeds.key


def test_of_two_runs_of_a_question_the_one_with_the_most_rows_is_read_together():
    gaps = {name: [float(x), x + 1.0] for name, [x] in RISING.items()}
    large = [make_swap(x, swap_gaps=y) for x, y in gaps.items()]
    small = [make_swap(x, swap_gaps=[-z for z in y]) for x, y in gaps.items()][:-1]
    known = [
        make_interval_row(x, information_lower=y, information_upper=y + 1, **SURE)
        for x, y in KNOWN.items()
    ]
    runs = [make_part(large, "swap", "large"), make_part(small, "swap", "small")]
    for order in (runs, runs[::-1]):
        parts = make_parts(*order, make_part(known, "information"))
        [claim] = joint.claims(parts)
        assert claim.where.startswith("6 cells") and claim.measured == 1
    found = claims(make_parts(*runs, make_part(known, "information")))
    assert len({x.key for x in found}) == len(found)


def test_nothing_is_read_together_of_other_networks():
    parts = make_parts(
        make_part(make_searches(tuple(KNOWN)), "capacity"),
        make_part(make_swaps(tuple(KNOWN)), "swap"),
        make_part(make_networks(tuple(KNOWN), train_accuracy=1.0), "robustness"),
        make_part(
            [make_interval_row(x, n=1000) for x in KNOWN],
            "information",
            model={"widths": [50]},
        ),
    )
    assert list(joint.claims(parts)) == []
