"""Information: claims of certified intervals, at the levels they were made with."""

import math

import pandas as pd
import pytest
from judging import about, judged, numbers
from rows import make_interval_row

from nfp_jax.pages.claim import HOLDS, NOT, UNDECIDED

SURE = 0.9999  # of each interval


def knowers(confidence=SURE, **ends):
    return [
        make_interval_row(
            pruner,
            information_lower=low,
            information_upper=high,
            label_entropy=20.0,
            confidence=confidence,
        )
        for pruner, (low, high) in ends.items()
    ]


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ((9.0, 12.0), HOLDS),
        ((1.0, 2.0), NOT),
        ((4.0, 8.0), UNDECIDED),
        ((6.0, 9.0), UNDECIDED),  # the ends touch
    ],
)
def test_a_verdict_on_information_needs_certified_intervals_that_are_disjoint(
    imp, expected
):
    rows = knowers(imp=imp, snip=(3.0, 5.0), grasp=(2.0, 6.0), synflow=(0.0, 20.0))
    claim = about(judged(rows, "information"), "IMP", "that sees the data")
    low, high = imp[0] - 6, imp[1] - 3
    assert numbers(claim) == pytest.approx([(low + high) / 2, low, high])
    assert claim.verdict == expected
    assert claim.key == "information/seeing/n=12/0.9/imp"


def test_pruners_are_compared_by_what_they_see_not_by_name():
    rows = knowers(imp=(1.0, 2.0), snip=(3.0, 4.0), mine=(9.0, 12.0))
    cards = {"imp": "nothing", "snip": "inputs", "mine": "training"}
    rows = [row | {"sees": cards[row["pruner"]]} for row in rows]
    found = judged(rows, "information")
    assert numbers(about(found, "mine", "data-free"))[1] == 9 - 2
    assert numbers(about(found, "mine", "that sees the data"))[1] == 9 - 4
    assert not [claim for claim in found if claim.key.endswith("/imp")]


@pytest.mark.parametrize(
    ("imp", "expected"),
    [((9.0, 12.0), HOLDS), ((0.0, 0.0), NOT), ((1.0, 3.0), UNDECIDED)],
)
def test_data_free_masks_are_a_comparison_of_their_own(imp, expected):
    rows = knowers(imp=imp, snip=(8.0, 10.0), random=(0.0, 1.0), synflow=(0.5, 2.0))
    claim = about(judged(rows, "information"), "IMP", "data-free")
    assert numbers(claim)[1:] == [imp[0] - 2, imp[1] - 0.5]
    assert claim.verdict == expected


def test_masks_that_saw_the_data_are_held_against_those_that_did_not():
    ends = {"random": (0.0, 1.0), "synflow": (0.0, 2.0)}
    rows = knowers(snip=(8.0, 10.0), grasp=(1.0, 12.0), **ends)
    found = judged(rows, "information")
    claim = about(found, "SNIP", "data-free")
    assert claim.verdict == HOLDS and numbers(claim)[1:] == [6, 10]
    assert claim.key == "information/data-free/n=12/0.9/snip"
    assert about(found, "GraSP", "data-free").verdict == UNDECIDED


@pytest.mark.parametrize(
    ("grasp", "expected"),
    [((6.0, 9.0), HOLDS), ((1.0, 3.0), NOT), ((4.0, 6.0), UNDECIDED)],
)
def test_pruners_of_one_kind_are_compared_two_by_two_in_the_order_of_legends(
    grasp, expected
):
    rows = knowers(grasp=grasp, snip=(3.0, 5.0), imp=(2.0, 15.0), random=(0.0, 1.0))
    found = judged(rows, "information")
    [claim] = [x for x in found if "/more/" in x.key]
    assert claim.key == "information/more/n=12/0.9/grasp-snip"
    assert claim.claim == "Masks of GraSP hold more information than those of SNIP"
    assert numbers(claim)[1:] == [grasp[0] - 5, grasp[1] - 3]
    assert claim.verdict == expected
    assert min(claim.p_holds, claim.p_not) == pytest.approx(
        2 * (1 - SURE) if expected != UNDECIDED else 1
    )


def test_trained_masks_are_compared_two_by_two_too():
    rows = knowers(imp=(9.0, 12.0), magnitude_trained=(3.0, 5.0))
    [claim] = judged(rows, "information")
    assert claim.key == "information/more/n=12/0.9/imp-magnitude_trained"
    assert claim.verdict == HOLDS


@pytest.mark.parametrize(
    ("snip", "expected"),
    [((4.0, 10.0), HOLDS), ((11.0, 15.0), NOT), ((9.0, 11.0), UNDECIDED)],
)
def test_half_of_the_labels_information_is_a_claim_of_less(snip, expected):
    rows = knowers(imp=(18.0, 19.0), snip=snip, grasp=(1.0, 9.5), random=(0.0, 20.0))
    claim = about(judged(rows, "information"), "half of the labels'")
    low, high = snip[0] / 20, max(snip[1], 9.5) / 20
    assert numbers(claim) == pytest.approx([(low + high) / 2, low, high])
    assert claim.verdict == expected


def test_the_p_value_is_the_sum_of_the_misses_of_all_intervals_and_seeds():
    rows = [
        make_interval_row(
            pruner,
            seed=seed,
            information_lower=low + seed,
            information_upper=low + 1 + seed,
            confidence=1 - miss,
            label_entropy=20.0,
        )
        for pruner, low in (("imp", 9.0), ("snip", 3.0), ("grasp", 2.0))
        for seed, miss in ((0, 0.001), (1, 0.0005))
    ]
    found = judged(rows, "information")
    claim = about(found, "IMP", "that sees the data")
    assert claim.p_holds == pytest.approx(3 * 0.0015) and claim.p_not == 1
    assert "hold with probability 0.9955;" in claim.what
    half = about(found, "half of the labels'")  # of two pruners
    assert min(half.p_holds, half.p_not) == pytest.approx(2 * 0.0015)


@pytest.mark.parametrize(("confidence", "p"), [(0.95, 0.15), (0.5, 1.0), (None, 1.0)])
def test_intervals_that_may_miss_decide_nothing_however_far_apart(confidence, p):
    rows = knowers(confidence, imp=(90.0, 91.0), snip=(0.0, 1.0), grasp=(0.0, 1.0))
    claim = about(judged(rows, "information"), "IMP")
    assert claim.p_holds == pytest.approx(p) and claim.verdict == UNDECIDED


def test_ends_are_means_over_seeds_and_every_sparsity_is_judged():
    ends = {
        ("imp", 0.9, 0): (6.0, 8.0),
        ("imp", 0.9, 1): (7.0, 8.5),
        ("snip", 0.9, 0): (3.0, 4.0),
        ("imp", 0.5, 0): (9.0, 9.0),
        ("snip", 0.5, 0): (90.0, 99.0),
    }
    rows = [
        make_interval_row(*cell, information_lower=low, information_upper=high)
        for cell, (low, high) in ends.items()
    ]
    some, most = (x for x in judged(rows, "information") if "IMP" in x.claim)
    assert numbers(most)[1:] == pytest.approx([2.5, 5.25])
    assert "90 % removed" in most.where
    assert numbers(some)[1:] == [-90, -81] and "50 % removed" in some.where


def test_information_of_labels_that_have_none_has_no_share_to_claim():
    for entropy in (0.0, None):
        rows = [
            make_interval_row("imp", label_entropy=entropy),
            make_interval_row("snip", label_entropy=entropy),
        ]
        [claim] = judged(pd.DataFrame(rows), "information")
        assert "IMP" in claim.claim


def test_masks_made_by_a_training_that_was_cut_short_decide_nothing():
    rows = knowers(imp=(9.0, 12.0), snip=(3.0, 5.0), random=(0.0, 1.0))
    rows[0]["out_of_budget"] = 7
    found = judged(rows, "information")
    of_imp = [x for x in found if "IMP" in x.claim]
    assert [(x.verdict, x.out_of_budget) for x in of_imp] == [(UNDECIDED, 7)] * 2
    assert about(found, "half of the labels'").verdict == HOLDS


def test_information_that_is_not_there_is_no_claim():
    rows = knowers(imp=(math.nan, math.nan), snip=(3.0, 4.0), random=(0.0, 1.0))
    assert not [x for x in judged(rows, "information") if "IMP" in x.claim]
    assert len(judged(knowers(random=(0.0, 1.0)), "information")) == 0
