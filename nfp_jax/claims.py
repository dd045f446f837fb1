"""What the paper claims, held against rows: a number, its interval and a verdict.

``claims(parts)`` goes through the runs of a collection and returns a line for each
claim that their rows can speak to. A claim is put as an inequality; it *holds* where
all of the interval is on its side, *does not hold* where all is on the other, and is
*undecided* else. Depends on `nfp_jax.joined`, `estimates` and `figures`. The surprise:
where a run has several sparsities, a claim about pruners is judged at the one where
their means differ most, in whatever direction, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nfp_jax.estimates import mean_interval, slope_interval, welch_interval
from nfp_jax.figures import label_of
from nfp_jax.joined import SEEDS, Part, beside_information, main_rows

TRAINED = ("imp", "magnitude_trained")
DATA_FREE = ("random", "magnitude_init", "synflow")
HOLDS, NOT, UNDECIDED = "holds", "does not hold", "undecided"
REPEATS = 2000  # of a bootstrap


class Claim(NamedTuple):
    """One line of the table.

    Attributes:
      claim: what is claimed.
      where: the run it was measured in, its data, network and sparsity.
      what: what the number is, and what its interval.
      measured: the number.
      lower: the lower end of its interval; ``upper``: the upper one.
      verdict: ``holds``, ``does not hold`` or ``undecided``.
    """

    claim: str
    where: str
    what: str
    measured: float
    lower: float
    upper: float
    verdict: str


def claims(parts: Mapping[str, Part]) -> list[Claim]:
    """Returns the claims that the rows of these runs speak to, judged."""
    found: list[Claim] = []
    for part in parts.values():
        if not part.rows.empty:
            found += OF_QUESTION[part.question](part)
    return found + list(_together(parts))


def verdict(lower: float, upper: float, than: float = 0.0) -> str:
    """Whether "more than ``than``" holds, from an interval.

    >>> verdict(0.1, 0.3), verdict(-0.2, -0.1), verdict(-0.1, 0.1)
    ('holds', 'does not hold', 'undecided')
    """
    if lower > than:
        return HOLDS
    return NOT if upper <= than else UNDECIDED


# ---- Memorization and noise


def _memorization(part: Part) -> Iterator[Claim]:
    rows = main_rows(part)
    for n, of_n in _groups(rows, "n"):
        yield from _against_the_best(
            part, of_n, n, "memorized_points", "memorize more points than", "points"
        )
        if of_n["noise"].iloc[0] > 0:
            yield from _against_the_best(
                part,
                of_n,
                n,
                "noise_correlation_normalized",
                "correlate more with the label noise than",
                "correlation, 1 = all noise learned",
            )


def _against_the_best(
    part: Part, rows: pd.DataFrame, n: Any, column: str, more: str, unit: str
) -> Iterator[Claim]:
    """Each trained pruner against the best at initialization, paired by seed."""
    table = _by_seed(rows, column)
    if table is None:
        return
    sparsity, wide = table
    at_init = [str(name) for name in wide if name not in TRAINED]
    for trained in (name for name in TRAINED if name in wide):
        if not at_init:
            return
        best = max(at_init, key=lambda name: wide[name].mean())
        mean, half_width = mean_interval(wide[trained] - wide[best])
        low, high = mean - half_width, mean + half_width
        yield Claim(
            f"Networks under masks of {label_of(trained)} {more} those of every pruner "
            "at initialization",
            f"{part.name}: {part.where}, n = {n:,}, {100 * sparsity:g} % removed",
            f"difference to {label_of(best)}, the best of them, in {unit}; paired, "
            f"{len(wide)} seeds",
            *_numbers(mean, low, high),
            verdict(low, high),
        )


def _by_seed(rows: pd.DataFrame, column: str) -> tuple[float, pd.DataFrame] | None:
    """A column by seed and pruner, at the sparsity where pruners differ most."""
    rows = rows[(rows["pruner"] != "dense") & rows[column].notna()]
    if rows.empty:
        return None
    rows = rows.assign(value=rows[column].astype(float))
    means = rows.groupby(["sparsity", "pruner"])["value"].mean()
    sparsity: Any = means.groupby("sparsity").std().fillna(0.0).idxmax()
    wide = rows[rows["sparsity"] == sparsity].pivot_table(
        index=SEEDS, columns="pruner", values="value"
    )
    wide = wide.dropna()
    return (float(sparsity), wide) if len(wide) else None


# ---- Information


def _information(part: Part) -> Iterator[Claim]:
    rows = main_rows(part)
    for n, of_n in _groups(rows, "n"):
        sparsity = float(of_n["sparsity"].max())
        ends = (
            of_n[of_n["sparsity"] == sparsity]
            .groupby("pruner")[["information_lower", "information_upper"]]
            .mean()
        )
        where = f"{part.name}: {part.where}, n = {n:,}, {100 * sparsity:g} % removed"
        entropy = float(of_n["label_entropy"].astype(float).mean())
        blind = [name for name in ends.index if name in DATA_FREE]
        seeing = [name for name in ends.index if name not in (*blind, *TRAINED)]
        for trained in (name for name in TRAINED if name in ends.index):
            for others, what in (
                (blind, "data-free masks"),
                (seeing, "masks at initialization that see the data"),
            ):
                if others:
                    yield _more_information(ends, trained, others, what, where)
        if seeing and 0 < entropy < math.inf:
            low = float(ends.loc[seeing, "information_lower"].max()) / entropy
            high = float(ends.loc[seeing, "information_upper"].max()) / entropy
            yield Claim(
                "Pruning at initialization can't gather half of the labels' "
                "information",
                where,
                "the most that a pruner at initialization has, as a share of the "
                "labels' entropy; certified interval",
                *_numbers((low + high) / 2, low, high),
                {HOLDS: NOT, NOT: HOLDS}.get(
                    verdict(low, high, 0.5), verdict(low, high, 0.5)
                ),
            )


def _more_information(
    ends: pd.DataFrame, trained: str, others: list[str], what: str, where: str
) -> Claim:
    low = ends.loc[trained, "information_lower"]
    high = ends.loc[trained, "information_upper"]
    low = float(low - ends.loc[others, "information_upper"].max())
    high = float(high - ends.loc[others, "information_lower"].max())
    return Claim(
        f"Masks of {label_of(trained)} hold more information than {what}",
        where,
        "difference to the most of them, in nats, from certified intervals",
        *_numbers((low + high) / 2, low, high),
        verdict(low, high),
    )


# ---- Swap


def _swap(part: Part) -> Iterator[Claim]:
    rows = main_rows(part)
    for (n, sparsity), group in _groups(rows, ["n", "sparsity"]):
        of = {str(pruner): own for pruner, own in _groups(group, "pruner")}
        where = f"{part.name}: {part.where}, n = {n:,}, {100 * sparsity:g} % removed"
        for trained in (name for name in TRAINED if name in of):
            gap = _gap(of[trained], "swap_gap")
            yield Claim(
                f"{_sentence(trained)} gains points on the labels that its mask was "
                "found on",
                where,
                "points more than on fresh labels; paired, "
                f"{of[trained]['pairs'].sum()} draws",
                *gap,
                verdict(*gap[1:]),
            )
            fresh = _gap(of[trained], "swap_gap_reinit")
            yield Claim(
                f"The gain of {label_of(trained)} outlives fresh initial weights",
                where,
                "points more than on fresh labels, both from fresh weights",
                *fresh,
                verdict(*fresh[1:]),
            )
        least = _gap(of["imp"], "swap_gap")[1] if "imp" in of else math.nan
        groups = {
            "Data-free masks gain nothing on their own labels": [
                name for name in of if name in DATA_FREE
            ],
            "Masks at initialization that see the labels gain nothing on them": [
                name for name in of if name not in (*DATA_FREE, *TRAINED)
            ],
        }
        for claim, names in groups.items():
            if names:
                yield _nothing_gained(claim, of, names, where, least)


def _gap(rows: pd.DataFrame, prefix: str) -> tuple[float, float, float]:
    """The gap of a row and its interval's ends; of several seeds', their mean's."""
    points, low, high = (
        rows[f"{prefix}_{end}"].astype(float) for end in ("points", "lower", "upper")
    )
    if len(rows) == 1:
        return _numbers(points.iloc[0], low.iloc[0], high.iloc[0])
    mean, half_width = mean_interval(points, float(rows["confidence"].iloc[0]))
    return _numbers(mean, mean - half_width, mean + half_width)


def _nothing_gained(
    claim: str,
    of: Mapping[str, pd.DataFrame],
    names: list[str],
    where: str,
    least: float,
) -> Claim:
    """The largest gap of several pruners, its interval widened for having chosen.

    That it is 0 no interval can show; it holds where the interval has 0 and ends below
    the ``least`` that IMP gains.
    """
    gaps = {name: np.hstack([*of[name]["swap_gaps"]]).astype(float) for name in names}
    means = {name: float(mean_interval(gaps[name])[0]) for name in names}
    largest = max(names, key=lambda name: np.nan_to_num(means[name], nan=-np.inf))
    level = 1 - (1 - float(of[largest]["confidence"].iloc[0])) / len(names)
    mean, half_width = mean_interval(gaps[largest], level)
    low, high = mean - half_width, mean + half_width
    judged = NOT if low > 0 else UNDECIDED
    return Claim(
        claim,
        where,
        f"the largest gap of {len(names)} pruners, that of {label_of(largest)}, in "
        "points; Bonferroni; holds where the interval has 0 and ends below IMP's gap",
        *_numbers(mean, low, high),
        HOLDS if low <= 0 and high < least else judged,
    )


# ---- Capacity


def _capacity(part: Part) -> Iterator[Claim]:
    rows = _within_search(main_rows(part))
    rows = rows.assign(logarithm=np.log(rows["capacity"].astype(float).clip(lower=1)))
    table = _by_seed(rows, "logarithm")
    if table is None:
        return
    sparsity, wide = table
    at_init = [str(name) for name in wide if name not in TRAINED]
    for trained in (name for name in TRAINED if name in wide):
        if not at_init:
            return
        best = max(at_init, key=lambda name: wide[name].mean())
        mean, half_width = mean_interval(wide[trained] - wide[best])
        low, mean, high = np.exp([mean - half_width, mean, mean + half_width])
        yield Claim(
            f"Networks under masks of {label_of(trained)} have a larger capacity than "
            "those of every pruner at initialization",
            f"{part.name}: {part.where}, {100 * sparsity:g} % removed",
            f"ratio to {label_of(best)}, the best of them; paired, {len(wide)} seeds",
            *_numbers(mean, low, high),
            verdict(low, high, 1.0),
        )


def _within_search(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of sparsities where no search ended at its end.

    There it says only "at least", which compares with nothing.
    """
    at_least = rows["capacity_at_least"].astype("boolean").fillna(False).astype(bool)
    return rows[~rows["sparsity"].isin(rows.loc[at_least, "sparsity"])]


# ---- Robustness


def _robustness(part: Part) -> Iterator[Claim]:
    rows = main_rows(part)
    steepness = _steepness(rows)
    here = np.isfinite(steepness)
    if here.sum() < 3:
        return
    n, dim, kept = (
        rows[x].astype(float).to_numpy()[here] for x in ("n", "dim", "kept")
    )
    required, steepness = np.sqrt(n * dim / kept), steepness[here]
    where = f"{part.name}: {part.where}, {here.sum()} networks that fit noise"
    least = float((steepness / required).min())
    yield Claim(
        "Networks that fit noise are as steep as the law of robustness demands",
        where,
        "the least Lipschitz constant found ÷ ε·sqrt(n d / kept), constant 1; a lower "
        "bound, so it has no upper end",
        *_numbers(least, least, math.inf),
        verdict(least, math.inf, 1.0),
    )
    yield from _exponent(
        "The steepness of networks that fit noise grows with sqrt(n d / kept)",
        where,
        required,
        steepness,
    )


def _steepness(rows: pd.DataFrame) -> np.ndarray:
    """The least Lipschitz constant by the excess; NaN where noise is not fitted."""
    lower, excess = (
        rows[name].astype(float).to_numpy() for name in ("lipschitz_lower", "excess")
    )
    here = (excess > 0) & (lower > 0)
    return np.divide(lower, excess, out=np.full(len(rows), np.nan), where=here)


def _exponent(
    claim: str, where: str, required: np.ndarray, steepness: np.ndarray
) -> Iterator[Claim]:
    """Whether steepness grows with what is demanded, by least squares of logarithms."""
    slope, low, high = slope_interval(np.log(required), np.log(steepness))
    if math.isfinite(slope):
        yield Claim(
            claim,
            where,
            "exponent of the demanded constant, 1 where it grows in proportion; least "
            "squares",
            *_numbers(slope, low, high),
            verdict(low, high),
        )


OF_QUESTION: dict[str, Callable[[Part], Iterator[Claim]]] = {
    "memorization": _memorization,
    "information": _information,
    "swap": _swap,
    "capacity": _capacity,
    "robustness": _robustness,
}


# ---- Runs read together


def _together(parts: Mapping[str, Part]) -> Iterator[Claim]:
    searched = {
        name: part._replace(rows=_within_search(main_rows(part)))
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
    of_p_eff = correlation(fitted, "p_eff", ranked=True)
    yield Claim(
        "Capacity follows the effective parameter count",
        where,
        f"rank correlation; {how}",
        *of_p_eff,
        verdict(*of_p_eff[1:]),
    )
    linear = correlation(fitted, "p_eff", ranked=False)
    yield Claim(
        "Capacity follows the effective parameter count",
        where,
        f"linear correlation of logarithms; {how}",
        *linear,
        verdict(*linear[1:]),
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
    sizes = cells.groupby(["where", "n", "sparsity"])["pruner"].transform("size")
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
    for (where, _, sparsity), group in _groups(cells, ["where", "n", "sparsity"]):
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
            *_numbers(gap, low, high),
            verdict(low, high),
        )


def correlation(
    cells: pd.DataFrame,
    by: str,
    *,
    ranked: bool,
    within: bool = False,
    less: str | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Returns the correlation of ``value`` with a column of intervals, bootstrapped.

    Args:
      cells: lines of ``joined.beside_information``.
      by: the column whose ends are ``<by>_lower`` and ``<by>_upper``.
      ranked: Spearman's; else Pearson's of logarithms.
      within: whether only cells of one ``where``, n and sparsity are compared: the
        correlation of ranks less their mean in the group, or of logarithms likewise.
      less: a column whose correlation is subtracted.
      seed: of the bootstrap.

    Returns:
      The correlation at the middle of the intervals and at the median over seeds; and
      the 2.5 and 97.5 % points over ``REPEATS`` resamples of the cells (in their group,
      if ``within``), of the seeds in each, with ``by`` drawn uniformly within its ends:
      noise on top of what the values have, so that the ends lean towards 0. NaN where
      nothing varies.
    """
    if cells.empty:
        return math.nan, math.nan, math.nan
    groups = np.zeros(len(cells), int)
    if within:
        groups = cells.groupby(["where", "n", "sparsity"]).ngroup().to_numpy()
    low, high = (cells[f"{by}_{end}"].to_numpy(float) for end in ("lower", "upper"))
    fixed = None if less is None else cells[less].to_numpy(float)
    values = [np.asarray(some, float) for some in cells["values"]]

    def of(x: np.ndarray, y: np.ndarray, which: np.ndarray) -> float:
        found = _correlation(x, y, groups[which], ranked)
        if fixed is not None:
            found -= _correlation(fixed[which], y, groups[which], ranked)
        return found

    everyone = np.arange(len(cells))
    middle = of((low + high) / 2, cells["value"].to_numpy(float), everyone)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    # Medians over resampled seeds, made at once: [cells, REPEATS].
    medians = np.stack(
        [np.median(rng.choice(x, (REPEATS, len(x))), axis=1) for x in values]
    )
    found = []
    for _ in range(REPEATS):
        which = np.concatenate([rng.choice(some, len(some)) for some in members])
        x = rng.uniform(low[which], high[which])
        y = medians[which, rng.integers(REPEATS, size=len(which))]
        found.append(of(x, y, which))
    here = np.asarray(found)[np.isfinite(found)]
    if not len(here) or not math.isfinite(middle):
        return math.nan, math.nan, math.nan
    return _numbers(middle, *np.quantile(here, [0.025, 0.975]))


def _correlation(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, ranked: bool
) -> float:
    """Of ranks or logarithms, each less its group's mean."""
    parts = []
    for group in np.unique(groups):
        pair = [some[groups == group] for some in (x, y)]
        if ranked:
            pair = [stats.rankdata(some) for some in pair]
        else:
            pair = [np.log(np.maximum(some, 1e-12)) for some in pair]
        parts.append([some - some.mean() for some in pair])
    a, b = (np.concatenate(some) for some in zip(*parts, strict=True))
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else math.nan


def _robustness_of_p_eff(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """The law with the effective count for p, at either end of its interval."""
    steep = {
        name: part._replace(rows=part.rows.assign(steepness=_steepness(part.rows)))
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
        yield from _exponent(
            "The steepness of networks that fit noise grows with sqrt(n d / p_eff)",
            f"{len(cells)} cells with information at the same n; p_eff at its {end} "
            "end",
            demanded.to_numpy(float),
            cells["value"].to_numpy(float),
        )


def _sentence(pruner: str) -> str:
    """The pruner's name where a sentence begins."""
    label = label_of(pruner)
    return label[:1].upper() + label[1:]


def _groups(rows: pd.DataFrame, by: Any) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The groups of rows, their names of any type."""
    yield from rows.groupby(by)


def _numbers(*values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
