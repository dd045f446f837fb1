"""The law of robustness: whether networks that fit noise are as steep as it demands.

Of networks with a train accuracy of at least `ACCURATE` alone, for one at chance fits
nothing, and whose trainings did not use up their budget. The law is a lower bound. That
it is met by all networks of a run is a fact about them; how steepness grows with n and
with the weights kept illustrates the law and can neither confirm nor refute it, so that
exponents are shown and not judged. Beside runs of information the law is shown with the
effective count, p_eff (labels) and where it is on file p_eff (data), at either end of
its interval. ``smoother`` compares networks at equal weights kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from nfp_jax.estimates import clustered_fit
from nfp_jax.pages.claim import SHOWN, Claim, late, numbers
from nfp_jax.pages.fitted import ACCURATE, fitting, in_budget
from nfp_jax.pages.joined import Part, beside_information, main_rows, scope
from nfp_jax.pages.words import SEEDS
from nfp_jax.questions.robustness.card import CARD
from nfp_jax.questions.robustness.smoother import smoother


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of the law of robustness."""
    every = main_rows(part)
    accurate = fitting(every)
    rows = in_budget(accurate)
    if len(rows) >= 3:
        yield from _law(part, rows, late(accurate))
    yield from smoother(part, every, rows)


def _law(part: Part, rows: pd.DataFrame, cut_short: int) -> Iterator[Claim]:
    """Of networks that fit in their budget; so many others did not end in theirs."""
    n, dim, kept, lip, excess = (
        rows[name].astype(float).to_numpy()
        for name in ("n", "dim", "kept", "lipschitz_lower", "excess")
    )
    where = f"{scope(part, rows=rows)}; {len(rows)} networks that fit {ACCURATE:.0%}"
    if cut_short:
        where += f", without those of {cut_short} trainings that used up their budget"
    least = float((lip / excess / np.sqrt(n * dim / kept)).min())
    yield Claim(
        "All networks that fit noise are as steep as the law of robustness demands",
        where,
        "the least Lipschitz constant found ÷ ε·sqrt(n d / kept), constant 1; a slope "
        "found, so it has no upper end, and a fact about these networks",
        measured=least,
        lower=least,
        upper=math.inf,
        p_holds=0.0 if least > 1 else 1.0,
        left_out=cut_short,
        key=f"{part.name}/law",
    )
    clusters = clusters_of(rows)
    for name, y in (("Lip", lip), ("Lip/ε", lip / excess)):
        yield from exponents(
            np.column_stack([np.log(n) / 2, -np.log(kept) / 2]),
            np.log(y),
            clusters,
            ("n", "1 / kept"),
            name,
            where,
            f"{part.name}/exponents/{name}",
        )


def together(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """The law with the effective count for p, at either end of its interval.

    From runs of robustness beside those of information.
    """
    for part in parts.values():
        if part.question != CARD.name or part.rows.empty:
            continue
        rows = in_budget(fitting(main_rows(part)))
        for conditioning in ("labels", "data"):
            known = _with_p_eff(rows, parts, part, conditioning)
            if len(known) >= 3:
                yield from _with_effective_count(known, part, conditioning)


def _with_effective_count(
    known: pd.DataFrame, part: Part, conditioning: str
) -> Iterator[Claim]:
    """The exponents with p_eff of one conditioning, at either end."""
    clusters = clusters_of(known)
    lip, excess = (
        known[name].to_numpy(float) for name in ("lipschitz_lower", "excess")
    )
    kind = {"labels": "p_eff", "data": "p_eff-data"}[conditioning]
    for end in ("lower", "upper"):
        n, dim, p_eff = (
            known[name].to_numpy(float) for name in ("n", "dim", f"p_eff_{end}")
        )
        demanded = n * dim / p_eff
        yield from exponents(
            np.log(demanded)[:, None] / 2,
            np.log(lip / excess),
            clusters,
            (f"n d / p_eff ({conditioning}) at its {end} end",),
            "Lip/ε",
            f"{part.name}: {part.where}, {len(known)} networks with information "
            "at the same n",
            f"{part.name}/exponents/{kind}-{end}",
        )


def _with_p_eff(
    rows: pd.DataFrame, parts: Mapping[str, Part], part: Part, conditioning: str
) -> pd.DataFrame:
    """The rows of networks beside p_eff of masks at the same n."""
    slopes = {**parts, part.name: part._replace(rows=rows)}
    cells = beside_information(slopes, CARD.name, CARD.column, conditioning)
    cells = cells[
        (cells["n"] == cells["information_n"]) & (cells["where"] == part.where)
    ]
    if cells.empty:
        return rows.iloc[:0]
    by = ["pruner", "sparsity", "select", "noise", "n"]
    ends = cells[[*by, "p_eff_lower", "p_eff_upper"]]
    rows = rows.drop(columns=["p_eff_lower", "p_eff_upper"], errors="ignore")
    return rows.merge(ends, on=by)


def clusters_of(rows: pd.DataFrame) -> np.ndarray:
    """The pruner and the seed of each row, ``[rows, 2]``: errors depend within both."""
    seeds = rows.groupby(SEEDS).ngroup()
    return np.column_stack([rows.groupby("pruner").ngroup(), seeds])


def exponents(
    x: np.ndarray,
    y: np.ndarray,
    clusters: np.ndarray,
    names: tuple[str, ...],
    steepness: str,
    where: str,
    key: str,
) -> Iterator[Claim]:
    """The exponents of square roots, fitted together, each a line that isn't judged."""
    fit = clustered_fit(x, y, clusters)
    if fit is None:
        return
    for i, name in enumerate(names):
        yield Claim(
            f"How {steepness} grows with sqrt({name})",
            where,
            f"exponent, where the law has 1; least squares of logarithms on "
            f"{' and '.join(names)} together, errors clustered by pruner and by seed",
            *numbers(ends[i] for ends in fit),
            verdict=SHOWN,
            key=f"{key}/{name}",
        )
