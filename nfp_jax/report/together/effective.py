"""The effective parameters of masks, of either information side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.joined import CELL, Part, information_rows
from nfp_jax.pages.pruners import pruned
from nfp_jax.pages.words import OF_LABELS_ALONE, in_words, number

CONDITIONINGS = ("labels", "data")
HEADS = ["pruner", "removed", "weights kept", "p_eff (labels)", "p_eff (data)"]
TITLE = "Effective parameters, weights kept + nats, lower-upper end"
ALONE = "-"  # where one information was not bounded


def effective_parameters(parts: Mapping[str, Part]) -> pd.DataFrame:
    """Returns a line for each mask whose information is bounded, of either kind.

    Columns: ``where`` (data and network), ``n``, the pruner's coordinates and its
    ``label``, ``kept``, and ``labels_lower``, ``labels_upper``, ``data_lower`` and
    ``data_upper``: the ends of p_eff, means over networks; NaN where not bounded.
    """
    lines: dict[Any, dict[str, Any]] = {}
    for part in parts.values():
        if part.question != "information":
            continue
        for conditioning in CONDITIONINGS:
            rows = pruned(information_rows(part, conditioning))
            groups: Any = rows.groupby(["n", *CELL], sort=False)
            for place, group in groups:
                line = lines.setdefault((part.where, *place), {})
                line.setdefault("label", group["label"].iloc[0])
                line.setdefault("kept", mean_interval(group["kept"])[0])
                for end in ("lower", "upper"):
                    ends = group["kept"] + group[f"information_{end}"]
                    name = f"{conditioning}_{end}"
                    line.setdefault(name, mean_interval(ends)[0])
    columns = ["where", "n", *CELL]
    rest = [f"{x}_{end}" for x in CONDITIONINGS for end in ("lower", "upper")]
    found = [
        {
            **dict(zip(columns, place, strict=True)),
            **dict.fromkeys(rest, np.nan),
            **line,
        }
        for place, line in lines.items()
    ]
    return pd.DataFrame(found, columns=[*columns, "label", "kept", *rest])


def tables(lines: pd.DataFrame) -> list[tuple[str, list[list[str]]]]:
    """Returns titles and bodies of the tables, one a network, n, selection and noise.

    Their columns are ``HEADS``.
    """
    found = []
    groups: Any = lines.groupby(["where", "n", "select", "noise"], sort=False)
    for (where, *place), group in groups:
        named = zip(("n", "select", "noise"), place, strict=True)
        words = [where, *filter(None, (in_words(*one) for one in named))]
        body = [
            [
                line["label"],
                in_words("sparsity", line["sparsity"]),
                number(line["kept"]),
            ]
            + [_ends(line, x) for x in CONDITIONINGS]
            for _, line in group.iterrows()
        ]
        found.append((", ".join(words), body))
    return found


def note(lines: pd.DataFrame) -> str:
    """Returns what is said beside the tables."""
    what = (
        "p_eff (labels) is of the information about the labels with the inputs known, "
        "p_eff (data) of that about inputs and labels, as in the paper."
    )
    if lines["data_lower"].isna().any():
        what += f" Where it stands alone: {OF_LABELS_ALONE}."
    return what


def _ends(line: pd.Series[Any], conditioning: str) -> str:
    low, high = (line[f"{conditioning}_{end}"] for end in ("lower", "upper"))
    return ALONE if np.isnan(low) else f"{number(low)}-{number(high)}"
