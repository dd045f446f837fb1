"""How much and how fast: masks from training against those at initialization.

For every n and sparsity: points memorized at settled, the correlation with the label
noise at equal training loss, and the epochs until 99 % of the labels are fitted. The
correlation where each training ended is shown and not judged: networks end at different
confidence. Both ways to go on from a trained mask are judged. Then what a mask is
besides its layers' densities and its initial weights, where a run has the ablations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.claims.claim import (
    MARGIN,
    RESOLUTION,
    SHOWN,
    TRAINED,
    UNDECIDED,
    Claim,
    groups,
    late,
    numbers,
)
from nfp_jax.claims.paired import AgainstAll, against_all, differences_of, mean_of
from nfp_jax.claims.times import (
    LEAST_DEVIATION,
    paired_times,
    times_sooner,
    with_times,
)
from nfp_jax.estimates import equivalence_test
from nfp_jax.figures import label_of
from nfp_jax.joined import SEEDS, Part, scope, usual_rows

POINTS, NOISE = "memorized_points", "noise_correlation_normalized"
# How times are compared.
HOW = (
    f"t test of the share of its epochs, deviation at least {LEAST_DEVIATION:g}; one "
    "that never fits them takes infinitely many, one that used up its budget before "
    "any number beyond it, and the budget in the number itself"
)
# Ablations by what stays the same where the claim holds.
SAME = {
    "shuffle": "{label}: networks memorize as much when the mask is shuffled within "
    "its layers (a random mask of its layers' densities)",
    "reinitialize": "{label}: networks memorize as much from fresh initial weights",
}
# And by what is slower without it, where the claim holds.
FASTER = {
    "shuffle": "{label}: networks fit 99 % of the labels in fewer epochs of the last "
    "training than when the mask is shuffled within its layers",
    "reinitialize": "{label}: networks fit 99 % of the labels in fewer epochs of the "
    "last training than from fresh initial weights",
}


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say."""
    rows = usual_rows(part)
    rows = rows[rows["ablation"] == ""]
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        at_init = group[~group["pruner"].isin((*TRAINED, "dense"))]
        if at_init.empty:
            continue
        for trained in (x for x in TRAINED if (group["pruner"] == x).any()):
            own = group[group["pruner"] == trained]
            for resume, resumed in groups(own, "resume"):
                yield from _against_rivals(part, resumed, at_init, n, sparsity, resume)
    yield from _ablated(part)


def _against_rivals(
    part: Part,
    own: pd.DataFrame,
    rivals: pd.DataFrame,
    n: int,
    sparsity: float,
    way: str,
) -> Iterator[Claim]:
    trained = str(own["pruner"].iloc[0])
    both = pd.concat([own, rivals])
    label = f"{label_of(trained)} ({way})"
    unsure = _late_rivals(rivals)
    fixed: dict[str, Any] = {
        "where": scope(part, n=n, sparsity=sparsity, rows=both),
        "out_of_budget": late(own),
        "left_out": sum(unsure.values()),
    }
    key = f"{part.name}/{{}}/{trained}-{way}/n={n}/{sparsity:g}"
    points = differences_of(both, trained, POINTS)
    full = _all_fit(own, rivals, n)
    collapsed = _collapsed(own)
    broken = f"; {collapsed} of {len(own)} of its masks collapsed" if collapsed else ""
    if points:
        found = against_all(points, mean_of(RESOLUTION * n), unsure)
        yield _claim(
            f"Networks under masks of {label} memorize more points than those of "
            "every pruner at initialization",
            f"points at settled, less those of the closest, {{}}; {_paired(points)}"
            f"{_named(unsure)}{broken}{full}",
            found,
            key=key.format("points"),
            verdict=SHOWN if full else UNDECIDED,
            **fixed,
        )
    if points and way == "rewind":
        within = _within_margin(points, unsure, label, n, key.format("within"), fixed)
        verdict = SHOWN if full else UNDECIDED
        yield within._replace(what=f"{within.what}{broken}{full}", verdict=verdict)
    if way == "finetune":
        return  # its trainings begin where others end
    noisy = both["noise"].iloc[0] > 0
    ended, equal = differences_of(both, trained, NOISE), _at_equal_loss(both, trained)
    claim = (
        f"Networks under masks of {label} correlate more with the label noise than "
        "those of every pruner at initialization, "
    )
    what = "correlation, 1 = all noise learned, less that of the closest, {}; "
    if noisy and ended:
        found = against_all(ended, mean_of(0.0))
        yield _claim(
            f"{claim}where each training ended",
            f"{what}{_paired(ended)}; at different confidence",
            found,
            key=key.format("noise"),
            **{**fixed, "verdict": SHOWN},
        )
    if noisy and equal:
        yield _claim(
            f"{claim}at the least training loss that both reach",
            f"{what}{_paired(equal)}{_named(unsure)}; those that never have a loss in "
            f"common with it are left out{broken}",
            against_all(equal, mean_of(0.0), unsure),
            key=key.format("noise-at-loss"),
            verdict=SHOWN if collapsed else UNDECIDED,
            **fixed,
        )
    yield from _sooner(both, trained, label, key.format("epochs"), fixed)


def _all_fit(own: pd.DataFrame, rivals: pd.DataFrame, n: int) -> str:
    """Why points can't tell a pruner from its rivals; empty where they can."""
    fit = rivals.groupby("pruner")[POINTS].min().astype(float) >= n
    if fit.any() and (own[POINTS].astype(float) >= n).all():
        names = ", ".join(label_of(str(name)) for name in fit.index[fit])
        return f"; not judged, for {names} fit all points too: capacity does not bind"
    return ""


def _within_margin(
    points: dict[str, np.ndarray],
    unsure: dict[str, int],
    label: str,
    n: int,
    key: str,
    fixed: dict[str, Any],
) -> Claim:
    """Whether some rival memorizes nearly as much: that of IMP's lead no more is left.

    It holds where one rival is certainly less than the margin behind, and does not
    where all are certainly more.
    """
    margin = MARGIN * n
    found = against_all(points, mean_of(RESOLUTION * n, margin), unsure)
    return Claim(
        claim=f"Some pruner at initialization memorizes as much as {label}, to within "
        f"{MARGIN:.0%} of n",
        what=f"points at settled, less those of the closest, "
        f"{label_of(found.closest)}; the margin is {margin:g}; {_paired(points)}"
        f"{_named(unsure)}",
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_not,
        p_not=found.p_holds,
        key=key,
        **fixed,
    )


def _late_rivals(rivals: pd.DataFrame) -> dict[str, int]:
    """The pruners of which trainings used up their budget, and how many of them."""
    counts = {str(name): late(rows) for name, rows in groups(rivals, "pruner")}
    return {name: count for name, count in counts.items() if count}


def _named(unsure: dict[str, int]) -> str:
    """Which rivals no verdict rests on."""
    names = ", ".join(f"{label_of(name)} ({x})" for name, x in unsure.items())
    return f"; some trainings used up their budget: {names}" if names else ""


def _claim(claim: str, what: str, found: AgainstAll, **more: Any) -> Claim:
    return Claim(
        claim=claim,
        what=what.format(label_of(found.closest)),
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_holds,
        p_not=found.p_not,
        **more,
    )


def _paired(differences: dict[str, np.ndarray]) -> str:
    count = len(next(iter(differences.values())))
    return f"least over {len(differences)} rivals, paired, {count} seeds"


def _at_equal_loss(both: pd.DataFrame, trained: str) -> dict[str, np.ndarray]:
    """The differences in correlation where both first have the least common loss."""
    found: dict[str, list[float]] = {}
    for _, seed in groups(both, SEEDS):
        curves = {row["pruner"]: _curve(row) for _, row in seed.iterrows()}
        if trained not in curves:
            continue
        for name in curves.keys() - {trained}:
            found.setdefault(str(name), []).append(
                _compared(curves[trained], curves[name])
            )
    known = {name: np.array(values) for name, values in sorted(found.items())}
    return {name: x for name, x in known.items() if np.isfinite(x).all()}


def _curve(row: pd.Series[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Loss and normalized correlation at the epochs on file; None without them."""
    loss, noise = row.get("loss_by_epoch"), row.get("noise_correlation_by_epoch")
    last, whole = row["noise_correlation"], row[NOISE]
    if loss is None or noise is None or pd.isna(whole) or not last:
        return None
    loss = np.asarray(loss, float)
    if not np.isfinite(loss).any():
        return None  # it diverged before the first epoch ended
    return loss, np.asarray(noise, float) * (whole / last)


def _compared(own: Any, other: Any) -> float:
    if own is None or other is None:
        return np.nan
    loss = max(np.nanmin(own[0]), np.nanmin(other[0]))
    return at_loss(own[0], own[1], loss) - at_loss(other[0], other[1], loss)


def at_loss(loss: np.ndarray, values: np.ndarray, target: float) -> float:
    """Returns a value where the loss first falls to a target, linear between epochs.

    NaN where the loss never falls so far, or is below the target from the first epoch.

    >>> round(at_loss(np.array([0.8, 0.6]), np.array([0.0, 1.0]), 0.7), 6)
    0.5
    """
    first = int(np.argmax(loss <= target))
    if loss[first] > target or (first == 0 and loss[0] < target):
        return np.nan  # it never has that loss, or begins below it
    if first == 0:
        return float(values[0])
    before, after = loss[first - 1], loss[first]
    share = (before - target) / (before - after)
    return float(values[first - 1] + share * (values[first] - values[first - 1]))


def _sooner(
    both: pd.DataFrame, trained: str, label: str, key: str, fixed: dict[str, Any]
) -> Iterator[Claim]:
    """Whether 99 % are fitted in fewer epochs than under any rival's masks.

    No rival is left out: one that used up its budget counts as any time beyond it.
    """
    both = with_times(both)
    rivals = both[both["pruner"] != trained]
    if not np.isfinite(both["time_most"]).any():
        return
    times = {
        str(name): paired_times(both[both["pruner"] == trained], rows)
        for name, rows in groups(rivals, "pruner")
    }
    times = {name: pairs for name, pairs in times.items() if len(pairs.least)}
    if not times:
        return
    found = against_all(times, times_sooner)
    yield Claim(
        claim=f"Networks under masks of {label} fit 99 % of the labels in fewer epochs "
        "of the last training than those of every pruner at initialization",
        what=f"epochs of the closest, {label_of(found.closest)}, ÷ its epochs, least "
        f"over {len(times)} rivals, paired, {len(times[found.closest].least)} seeds; "
        f"{HOW}{_cut_short(rivals)}",
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_holds,
        p_not=found.p_not,
        key=key,
        **{**fixed, "left_out": _unknown(rivals)},
    )


def _unknown(rows: pd.DataFrame) -> int:
    """How many networks used up their budget before they fitted 99 %."""
    return int((rows["time_least"] < rows["time_most"]).sum())


def _cut_short(rows: pd.DataFrame) -> str:
    count = _unknown(rows)
    return f"; {count} used up their budget before, and count so" if count else ""


def _ablated(part: Part) -> Iterator[Claim]:
    """Whether something beside densities, and beside the initial weights, matters."""
    rows = usual_rows(part)
    rows = rows[(rows["pruner"] != "dense") & (rows["resume"] != "finetune")]
    rows = with_times(rows)
    plain = rows[rows["ablation"] == ""]
    for (n, sparsity, pruner), own in groups(plain, ["n", "sparsity", "pruner"]):
        if pruner == "random":
            continue  # a random mask shuffled is another random mask
        for ablation, claim in SAME.items():
            here = (rows["pruner"] == pruner) & (rows["sparsity"] == sparsity)
            here &= (rows["n"] == n) & (rows["ablation"] == ablation)
            both = own.merge(rows[here], on=SEEDS, suffixes=("", "_ablated"))
            if both.empty:
                continue
            gap = (both[POINTS] - both[f"{POINTS}_ablated"]).astype(float)
            margin = MARGIN * n
            tested = equivalence_test(gap, margin, least_deviation=RESOLUTION * n)
            why = _says_nothing(both, n)
            yield Claim(
                claim.format(label=label_of(str(pruner))),
                scope(part, n=n, sparsity=sparsity, rows=own),
                f"points at settled with the mask as it is, less those without; within "
                f"{margin:g} is as much; paired, {len(both)} seeds{why}",
                *numbers(tested),
                p_holds=tested.p_less,
                p_not=tested.p_more,
                out_of_budget=late(own) + late(rows[here]),
                verdict=SHOWN if why else UNDECIDED,
                key=f"{part.name}/{ablation}/{pruner}/n={n}/{sparsity:g}",
            )
            other = rows[here]
            known = pd.concat([own["time_most"], other["time_most"]])
            if np.isfinite(known).any() and not _collapsed(both):
                yield _faster(part, own, other)


def _faster(part: Part, own: pd.DataFrame, other: pd.DataFrame) -> Claim:
    """Whether masks of a pruner are faster as they are than when they are ablated."""
    first = own.iloc[0]
    pruner, n, sparsity = (
        str(first["pruner"]),
        int(first["n"]),
        float(first["sparsity"]),
    )
    ablation = str(other["ablation"].iloc[0])
    times = paired_times(own, other)
    found = times_sooner(times)
    ratio, lower, upper = numbers(found)
    return Claim(
        FASTER[ablation].format(label=label_of(pruner)),
        scope(part, n=n, sparsity=sparsity, rows=own),
        f"epochs without it ÷ epochs with it, paired, {len(times.least)} seeds; "
        f"{HOW}{_cut_short(other)}",
        ratio,
        lower,
        upper,
        p_holds=found.p_more,
        p_not=found.p_less,
        out_of_budget=late(own),
        left_out=_unknown(other),
        key=f"{part.name}/{ablation}-epochs/{pruner}/n={n}/{sparsity:g}",
    )


def _says_nothing(both: pd.DataFrame, n: int) -> str:
    """Why an ablation can't show anything; empty where it can."""
    columns = (POINTS, f"{POINTS}_ablated")
    if all((both[name].astype(float) >= n).all() for name in columns):
        return "; not judged, for both fit all points: capacity does not bind"
    if _collapsed(both):
        return "; not judged, for networks collapsed"
    return ""


def _collapsed(rows: pd.DataFrame) -> int:
    """How many networks have no path left from input to output."""
    names = [name for name in ("collapsed", "collapsed_ablated") if name in rows]
    return int(rows[names].astype("boolean").fillna(False).to_numpy(bool).sum())
