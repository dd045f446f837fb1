"""Rows by their pruners: which there are, what they see, and what they are called.

A row says it of itself, in ``label`` and ``sees``; no name is looked up but in the
palette. ``as_on_pages`` comes first, once, when rows are read.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pandas as pd

from nfp_jax.grid import DENSE
from nfp_jax.pages.looks import FURTHER, PALETTE, Look

SEES = ("nothing", "inputs", "labels", "training")  # from least to most
AT_INITIALIZATION = SEES[:3]
DATA = ("inputs", "labels")  # what those at initialization see that see data


# ---- Read


def as_on_pages(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as figures, tables and claims take them; a second time changes nothing.

    - Of a pruner's versions only the latest on file counts: that of the row with the
      largest ``written``, or where there is no such column the last row's.
    - Where a pruner's rows have several ``settings``, the settings that differ are told
      in ``pruner`` and ``label``: ``snip[rounds=100]``, ``SNIP, rounds = 100``.
    - A pruner without a label is called by its name. Without ``sees`` it counts as one
      at initialization that sees the labels.
    """
    pruners = rows["pruner"]
    label = rows.get("label", pd.Series(None, rows.index, dtype=object))
    sees = rows.get("sees", pd.Series(None, rows.index, dtype=object))
    unknown = pruners.map(lambda name: "" if name == DENSE else "labels")
    rows = rows.assign(label=label.fillna(pruners), sees=sees.fillna(unknown))
    return _told_apart(_latest(rows))


def _latest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each pruner's latest version."""
    if "version" not in rows:
        return rows
    rows = rows.assign(version=rows["version"].fillna(""))
    ordered = rows.sort_values("written", kind="stable") if "written" in rows else rows
    last = ordered.groupby("pruner")["version"].agg(lambda versions: versions.iloc[-1])
    return rows[rows["version"] == rows["pruner"].map(last)]


def _told_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, the pruners of several settings named and labeled by these."""
    if "settings" not in rows:
        return rows
    rows = rows.assign(settings=rows["settings"].fillna(""))
    names, labels = rows["pruner"].copy(), rows["label"].copy()
    for name, group in rows.groupby("pruner"):
        for settings, differing in _differing(sorted(set(group["settings"]))).items():
            same = (rows["pruner"] == name) & (rows["settings"] == settings)
            if differing:
                inside = ",".join(f"{key}={value}" for key, value in differing)
                names[same] = f"{name}[{inside.removeprefix('=')}]"
                words = [f"{key} = {value}" for key, value in differing]
                labels[same] += ", " + ", ".join(words).removeprefix(" = ")
    return rows.assign(pruner=names, label=labels)


def _differing(variants: list[str]) -> dict[str, list[tuple[str, Any]]]:
    """What of each of several settings is not the same in all, by name.

    >>> _differing(['{"rounds": 1, "chunk": 8}', '{"rounds": 100, "chunk": 8}'])
    {'{"rounds": 1, "chunk": 8}': [('rounds', 1)], \
'{"rounds": 100, "chunk": 8}': [('rounds', 100)]}
    """
    known = {text: _settings(text) for text in variants}
    names = sorted({name for settings in known.values() for name in settings})
    absent = object()
    told = [
        name
        for name in names
        if any(
            settings.get(name, absent) != known[variants[0]].get(name, absent)
            for settings in known.values()
        )
    ]
    return {
        text: [(name, settings[name]) for name in told if name in settings]
        for text, settings in known.items()
    }


def _settings(text: str) -> dict[str, Any]:
    """The settings of a JSON object; of another text one, without a name."""
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        settings = None
    return settings if isinstance(settings, dict) else {"": text}


# ---- Which there are


def pruned(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of pruned networks: all but the dense ones."""
    return rows[rows["pruner"] != DENSE]


def dense(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of dense networks."""
    return rows[rows["pruner"] == DENSE]


def at_initialization(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks pruned at initialization."""
    return rows[rows["sees"].isin(AT_INITIALIZATION)]


def that_see(rows: pd.DataFrame, *what: str) -> list[str]:
    """The names of the rows' pruners that see one of these (`SEES`), sorted."""
    return sorted(set(rows.loc[rows["sees"].isin(what), "pruner"]))


def trained(rows: pd.DataFrame) -> list[str]:
    """The names of the rows' pruners that see training, sorted."""
    return that_see(rows, "training")


def pruners_of(rows: pd.DataFrame) -> list[str]:
    """The rows' pruners in the order of legends, tables and sentences.

    First those of the palette, then the others by what they see and by name.
    """
    sees = dict(zip(rows["pruner"], rows["sees"], strict=True))
    further = sees.keys() - PALETTE.keys()
    rank = {what: i for i, what in enumerate(SEES)}

    def place(name: str) -> tuple[int, list[Any]]:
        parts = re.split(r"(\d+)", name)  # so that 20 rounds come before 100
        return rank.get(sees[name], len(SEES)), [
            int(part) if i % 2 else part for i, part in enumerate(parts)
        ]

    return [name for name in PALETTE if name in sees] + sorted(further, key=place)


# ---- What they are called, and how they look


def labels_of(rows: pd.DataFrame) -> dict[str, str]:
    """The labels of the rows' pruners by name."""
    return dict(zip(rows["pruner"], rows["label"], strict=True))


def looks_of(rows: pd.DataFrame) -> dict[str, Look]:
    """The looks of the rows' pruners by name; those of no palette take further ones."""
    names, labels, further = pruners_of(rows), labels_of(rows), itertools.cycle(FURTHER)
    paints = {name: PALETTE.get(name) or next(further) for name in names}
    return {name: Look(labels[name], x.color, x.marker) for name, x in paints.items()}
