"""Information: whose masks hold more of it, and whether half of the labels' is reached.

At equal n and equal weights kept: masks from training against those of every pruner at
initialization, masks that saw the data against those of every pruner that did not, and
pruners of one kind two by two.

Ends are those of certified intervals. Each interval misses with probability 1 less its
confidence; a claim that compares several, or means over seeds of several, has the sum
of these for its p-value where the ends decide it, and 1 where they don't.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pandas as pd

from nfp_jax.pages.claim import Claim, groups, late
from nfp_jax.pages.joined import Part, main_rows, scope
from nfp_jax.pages.pruners import DATA, labels_of, pruners_of, that_see, trained

LOW, HIGH = "information_lower", "information_upper"


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of what their masks hold."""
    rows = main_rows(part)
    rows = rows[rows[LOW].notna() & rows[HIGH].notna()]
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        blind, seeing = that_see(group, "nothing"), that_see(group, *DATA)
        where = scope(part, n=n, sparsity=sparsity, rows=group)
        key = f"{part.name}/{{}}/n={n}/{sparsity:g}"
        init = "every pruner at initialization that sees the data"
        for short, pruners, others, what in (
            ("data-free", seeing, blind, "every data-free pruner"),
            ("data-free", trained(group), blind, "every data-free pruner"),
            ("seeing", trained(group), seeing, init),
        ):
            for pruner in pruners if others else ():
                yield _more(
                    group, pruner, others, what, where, f"{key.format(short)}/{pruner}"
                )
        for kind in (seeing, trained(group)):
            yield from _two_by_two(group, kind, where, key.format("more"))
        entropy = float(group["label_entropy"].astype(float).mean())
        if seeing and 0 < entropy < math.inf:
            yield _half(group, seeing, entropy, where, key.format("half"))


def _two_by_two(
    group: pd.DataFrame, kind: list[str], where: str, key: str
) -> Iterator[Claim]:
    """Whether one of two pruners knows more: the later one in the order of legends."""
    ordered = [pruner for pruner in pruners_of(group) if pruner in kind]
    for other, pruner in itertools.combinations(ordered, 2):
        what = labels_of(group)[other]
        yield _more(group, pruner, [other], what, where, f"{key}/{pruner}-{other}")


def _more(
    group: pd.DataFrame,
    pruner: str,
    others: list[str],
    what: str,
    where: str,
    key: str,
) -> Claim:
    ends = group.groupby("pruner")[[LOW, HIGH]].mean()
    low = float(ends.loc[pruner, LOW] - ends.loc[others, HIGH].max())
    high = float(ends.loc[pruner, HIGH] - ends.loc[others, LOW].max())
    compared = group[group["pruner"].isin([pruner, *others])]
    miss, label = missed(compared), labels_of(group)[pruner]
    return Claim(
        f"Masks of {label} hold more information than those of {what}",
        where,
        f"difference{' to the most of them' * (len(others) > 1)}, nats; certified "
        f"ends, which all hold with probability {1 - miss:.9g}; the number is their "
        "middle",
        measured=(low + high) / 2,
        lower=low,
        upper=high,
        p_holds=miss if low > 0 else 1.0,
        p_not=miss if high <= 0 else 1.0,
        out_of_budget=late(compared),
        key=key,
    )


def _half(
    group: pd.DataFrame, seeing: list[str], entropy: float, where: str, key: str
) -> Claim:
    compared = group[group["pruner"].isin(seeing)]
    ends = compared.groupby("pruner")[[LOW, HIGH]].mean() / entropy
    low, high, miss = float(ends[LOW].max()), float(ends[HIGH].max()), missed(compared)
    return Claim(
        "No pruner at initialization has half of the labels' information here",
        where,
        "the most that a pruner at initialization has, as a share of the labels' "
        f"entropy; certified ends, which all hold with probability {1 - miss:.9g}",
        measured=(low + high) / 2,
        lower=low,
        upper=high,
        p_holds=miss if high <= 0.5 else 1.0,
        p_not=miss if low > 0.5 else 1.0,
        out_of_budget=late(compared),
        key=key,
    )


def missed(rows: pd.DataFrame) -> float:
    """With which probability, at most, one of the rows' intervals misses.

    One whose confidence is not on file may miss for certain.
    """
    return min(float((1 - rows["confidence"].astype(float).fillna(0)).sum()), 1.0)
