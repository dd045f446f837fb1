"""What runs say together: capacity, gaps and steepness beside what masks know.

From lines of `nfp_jax.joined`, each a pruner at a sparsity of some data and network.
Depends on `estimates` and `figures` too, and on ``bootstrap``, ``capacity`` and
``robustness``. What would surprise: information is an interval; a correlation is drawn
from all of it, and the law of robustness judged at either end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from nfp_jax.claims.bootstrap import correlation
from nfp_jax.claims.capacity import within_search
from nfp_jax.claims.claim import DATA_FREE, TRAINED, Claim, groups, numbers, verdict
from nfp_jax.claims.robustness import exponent, steepness_of
from nfp_jax.estimates import welch_interval
from nfp_jax.figures import label_of
from nfp_jax.joined import GROUP, Part, beside_information, main_rows


def claims(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """What the rows of several runs say that none of them says alone."""
    searched = {
        name: part._replace(rows=within_search(main_rows(part)))
        if part.question == "capacity"
        else part
        for name, part in parts.items()
    }
    capacities = beside_information(searched, "capacity", "capacity")
    yield from _capacity_follows(capacities)
    gaps = beside_information(parts, "swap", "swap_gaps")
    yield from _at_equal_weights(gaps, "the swap gap", "Masks that hold more gain more")
    yield from _at_equal_weights(
        capacities, "the capacity", "Networks whose masks hold more fit more"
    )
    yield from _robustness_of_p_eff(parts)


def _capacity_follows(cells: pd.DataFrame) -> Iterator[Claim]:
    fitted = cells[cells["value"] > 0]
    if len(fitted) < 3:
        return
    where = f"{len(fitted)} cells: {'; '.join(sorted(set(fitted['where'])))}"
    how = "bootstrap over cells and seeds, information anywhere in its interval"
    kinds = {"rank correlation": True, "linear correlation of logarithms": False}
    for kind, ranked in kinds.items():
        found = correlation(fitted, "p_eff", ranked=ranked)
        yield Claim(
            "Capacity follows the effective parameter count",
            where,
            f"{kind}; {how}",
            *found,
            verdict(*found[1:]),
        )
    better = correlation(fitted, "p_eff", ranked=True, less="kept")
    yield Claim(
        "The effective parameter count tells capacity better than the weights kept",
        where,
        f"rank correlation with p_eff less that with ‖m‖₁; {how}",
        *better,
        verdict(*better[1:]),
    )


def _at_equal_weights(cells: pd.DataFrame, what: str, claim: str) -> Iterator[Claim]:
    """Whether information tells a value among pruners that keep as many weights."""
    sizes = cells.groupby(GROUP)["pruner"].transform("size")
    cells = cells[sizes >= 3] if len(cells) else cells
    if cells.empty:
        return
    found = correlation(cells, "information", ranked=True, within=True)
    yield Claim(
        f"{claim}, at equal ‖m‖₁",
        f"{len(cells)} cells: {'; '.join(sorted(set(cells['where'])))}",
        f"rank correlation of information and {what} among pruners at one sparsity; "
        "bootstrap over pruners and seeds, information anywhere in its interval",
        *found,
        verdict(*found[1:]),
    )
    yield from _trained_at_equal(cells, what)


def _trained_at_equal(cells: pd.DataFrame, what: str) -> Iterator[Claim]:
    """Whether IMP's value is larger than that of masks that know nearly as much.

    Where it is, it is not the information alone that makes it.
    """
    for (where, _, sparsity, *_), group in groups(cells, GROUP):
        of = {row["pruner"]: row for _, row in group.iterrows()}
        seeing = [x for x in of if x not in (*DATA_FREE, *TRAINED)]
        if "imp" not in of or not seeing:
            continue
        other = max(seeing, key=lambda name: of[name]["information_lower"])
        apart = of["imp"]["information_upper"] - of[other]["information_lower"]
        if apart > 0.2 * of["imp"]["information_upper"]:
            continue  # the other is not certain to hold nearly as much
        own, others = of["imp"]["values"], of[other]["values"]
        if len(own) < 2 or len(others) < 2:
            continue
        gap, low, high = welch_interval(own, others)
        yield Claim(
            f"IMP exceeds {label_of(other)}, whose masks hold nearly as much "
            f"information or more, in {what}",
            f"{where}, information at n = {of['imp']['information_n']:,.0f}, "
            f"{100 * sparsity:g} % removed",
            f"difference of means, IMP less {label_of(other)}; Welch",
            *numbers(gap, low, high),
            verdict(low, high),
        )


def _robustness_of_p_eff(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """The law with the effective count for p, at either end of its interval."""
    steep = {
        name: part._replace(rows=part.rows.assign(steepness=steepness_of(part.rows)))
        for name, part in parts.items()
        if part.question == "robustness" and not part.rows.empty
    }
    dims = {part.rows["dim"].astype(float).iloc[0] for part in steep.values()}
    cells = beside_information({**parts, **steep}, "robustness", "steepness")
    cells = cells[cells["n"] == cells["information_n"]]
    if len(cells) < 3 or len(dims) != 1:
        return
    for end in ("lower", "upper"):
        demanded = np.sqrt(cells["n"] * min(dims) / cells[f"p_eff_{end}"].astype(float))
        yield from exponent(
            "The steepness of networks that fit noise grows with sqrt(n d / p_eff)",
            f"{len(cells)} cells with information at the same n; p_eff at its {end} "
            "end",
            demanded.to_numpy(float),
            cells["value"].to_numpy(float),
        )
