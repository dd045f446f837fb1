"""All claims of a page together: Holm's correction, the verdicts, what is odd."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging import judged, memorizers, numbers
from rows import make_interval_row, make_rows
from test_capacity_figures import make_searches
from test_pages_joined import make_config, make_part, make_parts
from test_robustness_figures import make_networks
from test_swap_figures import make_swaps

from nfp_jax.pages import bootstrap
from nfp_jax.pages.claim import (
    HOLDS,
    LEVEL,
    NOT,
    SHOWN,
    UNDECIDED,
    Claim,
    holm,
    judge,
    late,
)
from nfp_jax.pages.joined import Part, read_part
from nfp_jax.report.claims import claims
from nfp_jax.results import ResultsError, open_results


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPEATS", 200)


def draft(p_holds=1.0, p_not=1.0, **changes):
    return Claim("a", "", "", 1.0, 0.5, 1.5, p_holds, p_not, **changes)


def verdicts(drafts):
    return [x.verdict for x in judge(drafts)]


# Holm


def test_holm_is_that_of_four_p_values_by_hand():
    # Sorted .005, .01, .03, .04: times 4, 3, 2, 1 is .02, .03, .06, .04; the last is
    # raised to .06, for no larger p-value may end below a smaller one.
    expected = [0.03, 0.06, 0.06, 0.02]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(expected)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0, 1))
def test_holm_rejects_what_its_steps_do_and_no_other(p, level):
    """Holm's own words: the smallest is tested at level / m, and so on, to a stop."""
    rejected = [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > level:
            break
        rejected[i] = True
    assert [x <= level for x in holm(p)] == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_no_correction_and_bonferronis(p):
    for raw, corrected in zip(p, holm(p), strict=True):
        assert raw <= corrected <= min(raw * len(p), 1)


# Verdicts


@pytest.mark.parametrize(
    ("p_holds", "p_not", "expected"),
    [
        (0.05, 1.0, HOLDS),
        (0.0501, 1.0, UNDECIDED),
        (1.0, 0.05, NOT),
        (0.9, 0.0501, UNDECIDED),
        (0.03, 0.02, NOT),
        (0.0, 1.0, HOLDS),
        (math.nan, 0.001, NOT),
        (0.001, math.nan, HOLDS),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_one_claim_is_decided_where_its_smaller_p_value_is_at_most_the_level(
    p_holds, p_not, expected
):
    assert verdicts([draft(p_holds, p_not)]) == [expected]


def test_more_claims_on_a_page_ask_for_smaller_p_values():
    assert verdicts([draft(0.02)]) == [HOLDS]
    many = [draft(0.02), *[draft(0.5, 0.5)] * 4]
    assert verdicts(many) == [UNDECIDED] * 5
    assert judge(many)[0].p == pytest.approx(0.1)


def test_only_the_smaller_p_value_of_a_claim_is_corrected():
    """One of its two hypotheses is true: it counts as one claim and not as two."""
    found = judge([draft(0.02, 0.5), draft(0.6, 0.01)])
    assert [x.p for x in found] == pytest.approx([0.02, 0.02])
    assert [x.verdict for x in found] == [HOLDS, NOT]


def test_what_is_only_shown_is_not_corrected_for_and_stays_as_it_is():
    shown = draft(verdict=SHOWN)
    found = judge([draft(0.01), *[shown] * 9])
    assert found[0].p == pytest.approx(0.01) and found[0].verdict == HOLDS
    assert list(map(repr, found[1:])) == [repr(shown)] * 9


def test_a_claim_with_one_training_out_of_budget_is_undecided_and_still_counts():
    late_one = draft(0.0, 1.0, out_of_budget=1)
    found = judge([late_one, draft(0.04)])
    assert [x.verdict for x in found] == [UNDECIDED, HOLDS]
    assert [x.p for x in found] == pytest.approx([0.0, 0.04])
    unsure = late_one._replace(p_holds=0.5)
    assert verdicts([unsure, draft(0.04)]) == [UNDECIDED] * 2
    assert verdicts([draft(1.0, 0.0, out_of_budget=1)]) == [UNDECIDED]


def test_trainings_that_a_verdict_does_not_rest_on_leave_it_as_it_is():
    found = judge([draft(0.01, left_out=7), draft(1.0, 0.01, left_out=1)])
    assert [x.verdict for x in found] == [HOLDS, NOT]
    assert [x.left_out for x in found] == [7, 1]


def test_of_pages_of_false_claims_one_in_twenty_says_that_one_holds():
    """False at the boundary: that one does not hold is true, and no error."""
    rng = np.random.default_rng(0)
    pages = rng.uniform(size=(3000, 8))
    found = [verdicts([draft(p, 1 - p) for p in page]) for page in pages]
    # A claim that does not hold, however surely, leaves fewer to correct for: between
    # 1 - (1 - .05 / 8)^8 = 4.9 % and 5 %. Four standard errors of a share of 3,000 are
    # 1.6 %.
    wrong = np.mean([HOLDS in x for x in found])
    assert wrong == pytest.approx(LEVEL, abs=0.016)
    assert np.mean([NOT in x for x in found]) == pytest.approx(LEVEL, abs=0.016)


def test_of_pages_with_true_and_false_claims_one_in_twenty_has_a_wrong_verdict():
    rng = np.random.default_rng(1)
    truth = [HOLDS, NOT] * 4
    wrong = []
    for page in rng.uniform(size=(3000, 8)):
        pairs = zip(page, truth, strict=True)
        drafts = [draft(p, 1 - p) if t == NOT else draft(1 - p, p) for p, t in pairs]
        verdict = zip(verdicts(drafts), truth, strict=True)
        wrong.append(any(x not in (t, UNDECIDED) for x, t in verdict))
    assert np.mean(wrong) == pytest.approx(LEVEL, abs=0.016)  # four standard errors


def test_true_claims_on_the_page_make_no_false_one_likelier_than_the_level():
    rng = np.random.default_rng(0)
    true = [draft(1e-9, 1.0)] * 5
    wrong = []
    for page in rng.uniform(size=(3000, 3)):
        found = verdicts([*true, *(draft(p, 1 - p) for p in page)])
        assert found[:5] == [HOLDS] * 5
        wrong.append(HOLDS in found[5:])
    assert np.mean(wrong) == pytest.approx(LEVEL, abs=0.016)  # four standard errors


def test_no_difference_between_any_two_is_found_on_few_pages():
    """Claims of rows as a run has them, of three sparsities, in which all are alike.

    That one memorizes more is false; that one does not is no wrong verdict.
    """
    rng = np.random.default_rng(0)
    alike = {x: [0.0] * 5 for x in ("imp", "snip")}
    rows = pd.concat([memorizers(alike, x, noise=0.0) for x in (0.5, 0.8, 0.9)])
    rows = rows.drop(columns="epochs_to_99")
    wrong = []
    for _ in range(12):
        points = rng.normal(700, 40, len(rows))
        found = judged(rows.assign(memorized_points=points))
        assert [x.key.split("/")[1] for x in found] == ["points", "within"] * 3
        wrong.append(any(x.verdict == HOLDS for x in found if "/points/" in x.key))
    # 5 % of 12 are 0.6; P(more than 3) is 0.2 % where each page is wrong that often.
    assert sum(wrong) <= 3


# Trainings out of budget


def test_trainings_out_of_budget_are_counted_from_either_column():
    rows = pd.DataFrame({"out_of_budget": [0, 2, None, 1]})
    assert late(rows) == 3
    assert late(rows.rename(columns={"out_of_budget": "gap"}), "gap") == 3
    other_rule = pd.DataFrame(
        {
            "converged": [True, False, False, None],
            "diverged": [False, False, True, None],
        }
    )
    assert late(other_rule) == 2
    nothing = other_rule.assign(out_of_budget=None)
    assert late(nothing) == 2
    assert late(pd.DataFrame({"n": [1, 2]})) == 0


def test_what_diverged_counts_with_what_used_up_its_budget():
    rows = pd.DataFrame(
        {
            "out_of_budget": [0, 2, 0, 1],
            "diverged": [False, False, True, None],
            "converged": [True, False, False, False],
        }
    )
    assert late(rows) == 4
    assert late(rows.drop(columns="converged")) == 4
    assert late(rows[["diverged"]]) == 1
    assert late(rows[["out_of_budget"]]) == 3
    assert late(rows.rename(columns={"out_of_budget": "gap"}), "gap") == 4


AHEAD = {"imp": [900.0] * 4, "snip": [500.0] * 4, "random": [400.0] * 4}


def with_late(row, rule):
    """Networks far ahead of others, and the same where one used up its budget."""
    rows = memorizers(AHEAD, noise=0.0).drop(columns="epochs_to_99")
    budget = np.zeros(12, int)
    budget[row] = 1
    changes = {
        "settled": {"out_of_budget": budget},
        "still": {"converged": budget == 0},
        "diverged": {"out_of_budget": 0, "diverged": budget == 1},
    }[rule]
    return judged(rows), judged(rows.assign(**changes))


RULES = pytest.mark.parametrize("rule", ["settled", "still", "diverged"])


@RULES
def test_one_network_out_of_budget_leaves_a_claim_undecided_and_says_how_many(rule):
    known, found = with_late(2, rule)
    assert [x.verdict for x in known] == [HOLDS, NOT]
    assert {(x.out_of_budget, x.left_out) for x in known} == {(0, 0)}
    assert [x.verdict for x in found] == [UNDECIDED] * 2
    assert {(x.out_of_budget, x.left_out) for x in found} == {(1, 0)}
    assert [(numbers(x), x.p) for x in found] == [(numbers(x), x.p) for x in known]


@RULES
def test_one_rivals_network_out_of_budget_lets_nothing_be_more_than_every(rule):
    """It might have memorized more, so that the claim is not known to hold."""
    known, found = with_late(5, rule)
    assert [x.verdict for x in found] == [UNDECIDED] * 2
    assert {(x.out_of_budget, x.left_out) for x in found} == {(0, 1)}
    assert all("used up their budget: SNIP (1)" in x.what for x in found)
    assert [numbers(x) for x in found] == [numbers(x) for x in known]
    assert (found[0].p_holds, found[1].p_not) == (1, 1)


# Runs by two rules


def test_runs_of_two_stopping_rules_are_refused_with_both_directories():
    parts = {
        name: Part(
            name,
            make_config() | {"train": {"stop": stop, "max_epochs": 60}},
            make_rows(("imp", "snip"), (0.9,)),
            f"results/{name}-ab12",
        )
        for name, stop in (("one", "settled"), ("other", "paper"))
    }
    words = r"results/one-ab12 ends trainings by 'settled' and results/other-ab12 by"
    with pytest.raises(ResultsError, match=words):
        claims(parts)
    empty = parts["other"]._replace(rows=parts["other"].rows.iloc[:0])
    assert len(claims(parts | {"other": empty})) == len(judged(parts["one"].rows))


# What is odd

KNOWN = ("random", "synflow", "grasp", "snip", "imp")
ROWS = {
    "memorization": make_rows(("snip", "random", "imp"), (0.5, 0.9)),
    "capacity": pd.concat(
        [make_searches(("snip", "random", "imp")), make_searches(("dense",), (0.0,))]
    ),
    "swap": make_swaps(),
    "robustness": pd.concat([make_networks(n=n, train_accuracy=1.0) for n in (9, 99)]),
    "information": pd.DataFrame(
        [make_interval_row(x, y, n=1000) for x in KNOWN for y in (0.5, 0.9)]
    ),
}
NULL = {
    "memorization": (
        *("memorized_points", "noise_correlation_normalized"),
        "epochs_to_99",
    ),
    "capacity": ("capacity", "capacity_at_least"),
    "swap": [
        *("swap_gaps", "pairs", "confidence"),
        *(f"swap_gap{x}_{y}" for x in ("", "_reinit") for y in ("lower", "points")),
    ],
    "robustness": ("lipschitz_lower", "excess", "dim"),
    "information": ("information_lower", "information_upper", "label_entropy"),
}


def on_file(root, name, rows):
    store = open_results(root, name, "ab12", make_config(name))
    rows = rows.astype(object).where(rows.notna(), None)
    store.write(rows.to_dict("records"))
    return read_part(name, store.directory)


def test_rows_on_file_are_judged_as_those_in_memory(tmp_path, quick):
    in_memory = make_parts(*(make_part(rows, name) for name, rows in ROWS.items()))
    from_file = make_parts(*(on_file(tmp_path, *item) for item in ROWS.items()))
    found, again = claims(in_memory), claims(from_file)
    assert len(found) > 30
    for one, other in zip(found, again, strict=True):
        assert one[:3] == other[:3] and one.key == other.key
        assert one.verdict == other.verdict
        assert numbers(one) == pytest.approx(numbers(other), nan_ok=True)
        assert one[6:10] == pytest.approx(other[6:10], nan_ok=True)
    names = [x.key.split("/")[0] for x in found]
    assert list(dict.fromkeys(names)) == [*ROWS, "together"]


def test_a_sensitivity_run_is_shown_whatever_its_rule_and_changes_no_verdict(quick):
    parts = make_parts(*(make_part(rows, name) for name, rows in ROWS.items()))
    found = claims(parts)
    name, train = "memorization", {"stop": "paper"}
    other = make_part(ROWS[name], name, train=train)._replace(name="again")
    with pytest.raises(ResultsError, match="claims are judged over rows of one"):
        claims({**parts, "again": other})
    both = claims({"again": other._replace(judged=False), **parts})
    own = [x for x in both if x.key.startswith("again/")]
    assert own and {x.verdict for x in own} == {SHOWN}
    rest = [x for x in both if x not in own]
    assert list(map(repr, rest)) == list(map(repr, found))


def test_keys_are_unique_on_a_page(quick):
    found = claims(make_parts(*(make_part(rows, name) for name, rows in ROWS.items())))
    keys = [x.key for x in found]
    assert all(keys) and len(set(keys)) == len(keys) > 30


def test_the_order_of_the_rows_changes_nothing(quick):
    shuffled = {
        name: rows.sample(frac=1, random_state=0) for name, rows in ROWS.items()
    }
    pages = [
        claims(make_parts(*(make_part(rows, name) for name, rows in some.items())))
        for some in (ROWS, shuffled)
    ]
    one, other = ({x.key: x for x in page if x.key[:8] != "together"} for page in pages)
    assert set(one) == set(other)
    for key, claim in one.items():
        assert claim.verdict == other[key].verdict
        assert numbers(claim) == pytest.approx(numbers(other[key]), nan_ok=True)


@pytest.mark.parametrize("question", ROWS)
def test_null_columns_decide_nothing(tmp_path, quick, question):
    others = {name: rows for name, rows in ROWS.items() if name != question}
    rows = ROWS[question].assign(**dict.fromkeys(NULL[question]))
    parts = {name: on_file(tmp_path, name, x) for name, x in others.items()}
    parts |= {question: on_file(tmp_path, question, rows)}
    found = [x for x in claims(parts) if x.where.startswith(f"{question}: ")]
    assert {x.verdict for x in found} <= {UNDECIDED}
    known = [x for x in found if "/outlives/" not in x.key]  # its list is another
    assert all(math.isnan(x.lower) for x in known)


@pytest.mark.parametrize("question", ["memorization", "capacity"])
def test_of_dense_networks_alone_nothing_is_claimed_of_pruners(question):
    rows = ROWS[question].query("pruner == 'dense'")
    assert len(rows) and judged(rows, question) == []


def test_a_part_without_rows_is_passed_over(quick):
    empty = [make_part(rows.iloc[:0], name) for name, rows in ROWS.items()]
    assert claims(make_parts(*empty)) == []
    assert claims({}) == []


def test_a_run_of_one_sparsity_and_collapsed_networks_is_judged():
    rows = make_rows(sparsities=(0.98,), seeds=5, collapsed=True, train_accuracy=0.5)
    found = judged(rows.assign(memorized_points=500.0))
    [claim] = [x for x in found if "/points/imp" in x.key]
    # All agree, so that they vary by what they are known to: 0.5 % of n, five seeds.
    assert claim.measured == 0 and claim.verdict == UNDECIDED
    assert claim.lower == pytest.approx(-2.776445 * 5 / math.sqrt(5), abs=1e-5)
    [within] = [x for x in found if "/within/imp" in x.key]
    assert within.verdict == HOLDS
