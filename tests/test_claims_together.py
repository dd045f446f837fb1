"""Runs read together: what is correlated with what, and which cells have a part."""

import math

import numpy as np
import pytest
from judging import about, numbers
from scipy import stats
from test_figures import make_interval_row
from test_figures_capacity import make_search, make_searches
from test_figures_robustness import make_network, make_networks
from test_figures_swap import make_swap, make_swaps
from test_joined import make_part, make_parts

from nfp_jax.claims import HOLDS, NOT, SHOWN, UNDECIDED, bootstrap, claims
from nfp_jax.claims import together as joint
from nfp_jax.claims.claim import judge


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPEATS", 500)
        yield


KNOWN = {
    **{"random": 0.0, "magnitude_init": 5.0, "synflow": 10.0, "own": 20.0},
    **{"grasp": 40.0, "snip": 60.0, "imp": 70.0},
}


def together(points, *, kept=None, question="capacity", known=KNOWN, **changes):
    """Rows at one sparsity with such values by pruner, beside what their masks know."""
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
        make_interval_row(pruner, information_lower=x, information_upper=x + 1)
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
    assert better.where.startswith("6 cells that no budget ended: gaussian, d = 50")


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


def test_fewer_than_three_cells_that_fit_anything_are_no_correlation():
    few = {"random": [100], "snip": [150]}
    assert together(few) == []
    found = together({name: [0, 0, 0] for name in RISING})
    assert not [x for x in found if "follows" in x.claim]
    assert {x.verdict for x in found} == {UNDECIDED}


def test_a_cell_is_left_out_with_all_its_seeds_where_one_search_gives_only_at_least():
    """To leave out that seed alone would be to leave out the largest value."""
    points = {name: [100, 110, 4000] for name in KNOWN}
    assert together(points, capacity_at_least=True) == []
    rows = [
        make_search(pruner, seed=seed, capacity=x)
        for pruner, values in points.items()
        for seed, x in enumerate(values)
    ]
    late = next(x for x in rows if (x["pruner"], x["capacity"]) == ("imp", 4000))
    information = make_part(
        [
            make_interval_row(x, information_lower=60.0, information_upper=61.0)
            for x in KNOWN
        ],
        "information",
    )
    for at_least, cells, exceeds in ((False, "7 cells", 1), (True, "6 cells", 0)):
        late["capacity_at_least"] = at_least
        parts = make_parts(make_part(rows, "capacity"), information)
        found = list(joint.claims(parts))
        assert about(found, "Capacity follows").where.startswith(cells)
        assert sum("IMP exceeds" in x.claim for x in found) == exceeds


def test_gaps_of_a_cell_with_a_training_out_of_budget_have_no_part():
    gaps = {name: [float(x), x + 1.0] for name, [x] in RISING.items()}
    [claim] = together(gaps, question="swap", swap_gap_out_of_budget=0)
    assert claim.where.startswith("6 cells")
    assert together(gaps, question="swap", swap_gap_out_of_budget=1) == []


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


def test_gaps_are_compared_among_masks_of_one_sparsity():
    """Where gaps rise with sparsity and information falls, all of it would be lost."""
    swaps, information = [], []
    for sparsity, more in ((0.5, 0.0), (0.9, 100.0)):
        for i, name in enumerate(SIX):
            swaps.append(make_swap(name, sparsity, swap_gaps=[i + more]))
            ends = ("information_lower", "information_upper")
            ends = dict.fromkeys(ends, 10.0 * i - more + 200)
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


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ([22.0, 25.0, 19.0, 23.0], HOLDS),
        ([-3.0, -5.0, -4.0, -6.0], NOT),
        ([2.0, -5.0, 8.0, 1.0], UNDECIDED),
    ],
)
def test_imp_is_compared_with_masks_that_know_nearly_as_much_by_welch(imp, expected):
    snip = [1.0, 2.0, -1.0, 0.5, 1.5]
    found = together({"random": [0.0] * 4, "snip": snip, "imp": imp}, question="swap")
    claim = about(found, "IMP exceeds SNIP", "swap gap")
    test = stats.ttest_ind(imp, snip, equal_var=False)
    interval = test.confidence_interval()
    assert numbers(claim) == pytest.approx([np.mean(imp) - np.mean(snip), *interval])
    assert 2 * min(claim.p_holds, claim.p_not) == pytest.approx(test.pvalue)
    assert claim.verdict == expected
    assert "information (labels) at n = " in claim.where
    assert "90 % removed" in claim.where


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


def test_noise_rates_are_not_compared_with_each_other():
    """Each swap has the information of its own rate, of a run that has both."""
    points = {0.5: [22.0, 25.0, 19.0, 23.0], 1.0: [-3.0, -5.0, -4.0, -6.0]}
    others = {"random": [0.0] * 4, "snip": [1.0, 2.0, -1.0, 0.5]}
    swaps = [
        make_part(
            [
                make_swap(pruner, noise=noise, swap_gaps=gaps)
                for pruner, gaps in {**others, "imp": imp}.items()
            ],
            "swap",
            f"at {noise}",
        )
        for noise, imp in points.items()
    ]
    known = [
        make_interval_row(
            pruner, n=1000, noise=noise, information_lower=60.0, information_upper=70.0
        )
        for pruner in ("random", "snip", "imp")
        for noise in points
    ]
    found = claims(make_parts(*swaps, make_part(known, "information")))
    exceeding = [x for x in found if "IMP exceeds SNIP" in x.claim]
    assert [numbers(x)[0] > 0 for x in exceeding] == [True, False]
    [ranks] = [x for x in found if "at equal ‖m‖₁" in x.claim]
    assert ranks.where.startswith("6 cells")
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


# The law of robustness with p_eff


def law(exponent, known, n=1000, excess=(0.2, 0.1), seeds=2, accuracy=1.0):
    """Networks as steep as a power of sqrt(n d / p_eff), and what their masks know."""
    rows, information = [], []
    for (pruner, sparsity), nats in known.items():
        own = {"information_lower": nats, "information_upper": nats + 50, "noise": 0.5}
        information.append(make_interval_row(pruner, sparsity, n=n, **own))
        for seed in range(seeds):
            row = make_network(
                pruner, sparsity, seed, excess=excess[seed], train_accuracy=accuracy
            )
            demanded = math.sqrt(1000 * 50 / (row["kept"] + nats))
            row["lipschitz_lower"] = abs(excess[seed]) * demanded**exponent
            rows.append(row)
    return make_parts(
        make_part(rows, "robustness"), make_part(information, "information")
    )


NATS = {("imp", 0.9): 900.0, ("imp", 0.5): 300.0, ("snip", 0.9): 100.0}


@pytest.mark.parametrize("exponent", [1.3, -0.7])
def test_the_law_with_p_eff_shows_its_exponent_at_both_ends(exponent):
    lower, upper = joint._robustness_of_p_eff(law(exponent, NATS))
    for claim, end in ((lower, "lower"), (upper, "upper")):
        assert f"grows with sqrt(n d / p_eff (labels) at its {end} end)" in claim.claim
        assert claim.verdict == SHOWN and f"p_eff-{end}" in claim.key
        assert "6 networks with information at the same n" in claim.where
    assert numbers(lower) == pytest.approx([exponent] * 3)
    assert upper.measured != pytest.approx(exponent, abs=1e-3)
    assert upper.measured == pytest.approx(exponent, abs=0.1)


def test_a_network_that_fits_no_noise_has_no_part_in_the_law():
    for excess in ((0.2, -0.1), (0.2, 0.0), (0.1, math.nan)):
        found = list(joint._robustness_of_p_eff(law(1.0, NATS, excess=excess)))
        assert found[0].measured == pytest.approx(1)
        assert "3 networks" in found[0].where
    assert not list(joint._robustness_of_p_eff(law(1.0, NATS, excess=(0.0, -0.1))))
    assert not list(joint._robustness_of_p_eff(law(1.0, NATS, accuracy=0.9)))


def test_the_law_with_p_eff_needs_three_networks_at_one_n():
    assert not list(joint._robustness_of_p_eff(law(1.0, NATS, n=500)))
    two = {cell: NATS[cell] for cell in list(NATS)[:1]}
    assert not list(joint._robustness_of_p_eff(law(1.0, two)))
