"""What runs say together: capacity and gaps beside what masks know.

From lines of `beside_information`, each a pruner at a sparsity of a data set and
network.
Information is an interval, of labels with the inputs known, so that it is a lower bound
of the paper's quantity: p_eff (labels). Where that of inputs and labels is on file,
p_eff (data) has the same claims on capacity. A correlation is bounded over all values
within the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.estimates import welch_test
from nfp_jax.pages.bootstrap import Range, correlation
from nfp_jax.pages.claim import LEVEL, RESOLUTION, Claim, groups, numbers
from nfp_jax.pages.joined import GROUP, Part, beside_information
from nfp_jax.pages.pruners import DATA, that_see, trained

HOW = (
    "Kendall's, from its least to its greatest over the box of certified intervals, "
    "each end bootstrapped by pruner and seed; the number is the middle of the two"
)


def claims(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """What the rows of several runs say that none of them says alone."""
    capacities = beside_information(parts, "capacity", "capacity")
    yield from _capacity_follows(capacities, "labels")
    of_data = beside_information(parts, "capacity", "capacity", "data")
    yield from _capacity_follows(of_data, "data")
    gaps = beside_information(parts, "swap", "swap_gaps")
    same = gaps["information_n"] == gaps["n"]
    yield from _at_equal_weights(
        # Beside information of the gaps' n, that of another n says less.
        gaps[same] if same.any() else gaps,
        "the swap gap",
        "Masks that hold more gain more",
        "gap",
    )
    yield from _at_equal_weights(
        capacities,
        "the capacity",
        "Networks whose masks hold more fit more",
        "capacity",
    )


def _correlated(
    claim: str, what: str, cells: pd.DataFrame, found: Range, key: str
) -> Claim:
    """A claim of a correlation; that an interval misses counts against it."""
    missed = float(cells["missed"].sum())
    at = sorted({f"{n:,.0f}" for n in cells["information_n"]})
    places = "; ".join(sorted(set(cells["where"])))
    return Claim(
        claim,
        f"{len(cells)} cells: {places}; information of masks at n = {', '.join(at)}",
        f"{what}; {HOW}",
        measured=(found.least + found.greatest) / 2,
        lower=found.lower,
        upper=found.upper,
        p_holds=min(1.0, found.p_more + missed),
        p_not=min(1.0, found.p_less + missed),
        out_of_budget=int(cells["late"].sum()),
        key=key,
    )


def _capacity_follows(cells: pd.DataFrame, conditioning: str) -> Iterator[Claim]:
    if len(cells) < 3:
        return
    key = {"labels": "together/capacity", "data": "together/capacity-data"}
    yield _correlated(
        f"Capacity follows the effective parameter count ({conditioning})",
        f"rank correlation of capacity and p_eff ({conditioning}); of a capacity that "
        "is at least a number, no more is taken to be known",
        cells,
        correlation(cells, "p_eff"),
        f"{key[conditioning]}/p_eff",
    )
    yield _correlated(
        f"The effective parameter count ({conditioning}) tells capacity better than "
        "the weights kept",
        f"rank correlation with p_eff ({conditioning}) less that with ‖m‖₁, pair by "
        "pair",
        cells,
        correlation(cells, "p_eff", less="kept"),
        f"{key[conditioning]}/better-than-kept",
    )


def _at_equal_weights(
    cells: pd.DataFrame, what: str, claim: str, name: str
) -> Iterator[Claim]:
    """Whether information tells a value among pruners that keep as many weights."""
    sizes = cells.groupby(GROUP)["pruner"].transform("size")
    cells = _surest(cells[sizes >= 3]) if len(cells) else cells
    if cells.empty:
        return
    yield _correlated(
        f"{claim}, at equal ‖m‖₁",
        f"rank correlation of information (labels) and {what} among pruners at one "
        "sparsity",
        cells,
        correlation(cells, "information", within=True),
        f"together/{name}/information",
    )
    yield from _trained_at_equal(cells, what, name)


def _surest(cells: pd.DataFrame) -> pd.DataFrame:
    """The groups whose intervals hold together, if any do; else all.

    Groups of intervals that were made for themselves would decide nothing, and take the
    verdict of the others with them: that one interval misses counts against all.
    """
    missed = cells.groupby(GROUP)["missed"].transform("sum")
    return cells[missed <= LEVEL] if (missed <= LEVEL).any() else cells


def _trained_at_equal(cells: pd.DataFrame, what: str, name: str) -> Iterator[Claim]:
    """Whether a trained mask's value is larger than that of one that knows as much.

    Where it is, it is not the information alone that makes it. The other is chosen by
    its information, of masks from another run.
    """
    for names, group in groups(cells, GROUP):
        lines = {row["pruner"]: row for _, row in group.iterrows()}
        others = [lines[name] for name in that_see(group, *DATA)]
        if not others:
            continue
        other = max(others, key=lambda line: line["information_lower"])
        for pruner in trained(group):
            place = dict(zip(GROUP, names, strict=True))
            yield from _exceeds(lines[pruner], other, place, what, name)


def _exceeds(
    line: pd.Series[Any],
    other: pd.Series[Any],
    place: dict[str, Any],
    what: str,
    name: str,
) -> Iterator[Claim]:
    """Whether one line's value is larger than another's that knows nearly as much."""
    apart = line["information_upper"] - other["information_lower"]
    if apart > 0.2 * line["information_upper"]:
        return  # the other is not certain to hold nearly as much
    values = line["values"], other["values"]
    open_ = [*line["values_upper"], *other["values_upper"]]
    if min(map(len, values)) < 2:
        return
    # Gaps are known to the stopping rule's share of n, capacities to a search step.
    step = 0.1 * float(np.mean(values[1]))
    least = RESOLUTION * place["n"] if name == "gap" else step
    tested = welch_test(*values, least_deviation=least)
    missed = line["missed"] + other["missed"]
    yield Claim(
        f"{line['label']} exceeds {other['label']}, whose masks hold nearly as much "
        f"information or more, in {what}",
        f"{place['where']}, information (labels) at n = {line['information_n']:,.0f}, "
        f"{100 * place['sparsity']:g} % removed",
        f"difference of means, {line['label']} less {other['label']}; Welch",
        *numbers(tested),
        p_holds=min(1.0, tested.p_more + missed),
        p_not=min(1.0, tested.p_less + missed),
        out_of_budget=int(line["late"] + other["late"]) + int(np.isinf(open_).sum()),
        key=f"together/{name}/{line['pruner']}-{other['pruner']}/{place['where']}/"
        f"{place['select']}/noise={place['noise']:g}/n={place['n']}/"
        f"{place['sparsity']:g}",
    )
