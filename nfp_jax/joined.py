"""Rows of several runs side by side: what one question measured, what another did.

A ``Part`` is a run: its rows and its configuration. Two parts are joined where they are
of the same data and network, by pruner, sparsity, selection and noise rate: the
capacity, the gap or the slope of the one beside the information of the other. Depends
on `nfp_jax.results` alone. The surprise: information is that at the n nearest to the
other's (to the capacity itself, for capacities), of masks found by the training of its
own run; over seeds its ends are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.results import read_json, read_rows

SEEDS = ["init_seed", "data_seed", "train_seed"]
CELL = ["pruner", "sparsity", "select", "noise"]
# Lines that agree on these keep as many weights of the same network, on such data.
GROUP = ["where", "n", "sparsity", "select", "noise"]


class Part(NamedTuple):
    """One run of several that are read together.

    Attributes:
      name: what the collection calls it.
      config: the identity of its specification, as in ``config.json``.
      rows: of pruned and dense networks.
    """

    name: str
    config: Mapping[str, Any]
    rows: pd.DataFrame

    @property
    def question(self) -> str:
        """Which question the rows answer."""
        return str(self.config.get("question", "memorization"))

    @property
    def where(self) -> str:
        """The data and the network, in words: what parts are joined by."""
        data, model = self.config["data"], self.config["model"]
        gaussian = data["name"] == "gaussian"
        dim = f", d = {data['dim']}, C = {data['classes']}" if gaussian else ""
        sizes = [*(model["channels"] if model["name"] == "convnet" else ())]
        sizes += model["widths"]
        widths = "-".join(map(str, sizes))
        return f"{data['name']}{dim}, {model['name']} {widths} ({model['init']})"


def read_part(name: str, directory: str | os.PathLike[str]) -> Part:
    """A run's part of a collection, from its directory.

    Raises:
      ResultsError: the directory can't be read.
    """
    directory = Path(directory)
    return Part(name, read_json(directory / "config.json"), read_rows(directory))


def main_rows(part: Part) -> pd.DataFrame:
    """The rows of the usual protocol: rewound, not ablated, all of the labels noise.

    And where there are several selections or noise rates, ranked over all layers, and
    the most noise.
    """
    rows = _rewound(part)
    if (rows["select"] == "global").any():
        rows = rows[rows["select"].isin(("global", ""))]
    return rows[rows["noise"] == rows["noise"].max()]


def _rewound(part: Part) -> pd.DataFrame:
    rows = part.rows
    return rows[(rows["ablation"] == "") & (rows["resume"] != "finetune")]


def beside_information(
    parts: Mapping[str, Part], question: str, value: str
) -> pd.DataFrame:
    """A column of one question beside the information of masks of the same network.

    Args:
      parts: the runs, by name.
      question: ``"capacity"``, ``"swap"`` or ``"robustness"``.
      value: the column.

    Returns:
      A line a pruner, sparsity, selection, noise rate and n, of each data and network:
      ``where``, ``values`` (a list: one a seed, or where a row has a list all of them),
      ``value`` (their median), ``kept``, ``information_lower``, ``information_upper``
      (means over seeds, in nats), ``information_n`` (what n they are of),
      ``p_eff_lower`` and ``p_eff_upper``. No lines where nothing can be joined.
    """
    lines = []
    of_question = [part for part in parts.values() if part.question == question]
    for part in of_question:
        rows = main_rows(part)
        rows = rows[rows["pruner"] != "dense"]
        groups: Any = rows.groupby([*CELL, "n"])
        for (*cell, n), group in groups:
            values = _values(group[value])
            found = [
                information
                for other in parts.values()
                if other.question == "information" and other.where == part.where
                for information in _information(other, cell)
            ]
            if not values or not found:
                continue
            middle = float(np.median(values))
            near = max(middle, 1) if question == "capacity" else n
            distance = [abs(np.log(near / one["information_n"])) for one in found]
            line: dict[str, Any] = dict(zip(CELL, cell, strict=True))
            line |= {"n": n, "where": part.where, "values": values, "value": middle}
            line |= {"kept": float(group["kept"].astype(float).mean())}
            line |= found[int(np.argmin(distance))]
            for end in ("lower", "upper"):
                line[f"p_eff_{end}"] = line["kept"] + line[f"information_{end}"]
            lines.append(line)
    columns = [*CELL, "n", "where", "values", "value", "kept", "information_n"]
    ends = [
        f"{x}_{end}" for x in ("information", "p_eff") for end in ("lower", "upper")
    ]
    return pd.DataFrame(lines, columns=[*columns, *ends])


def _values(column: pd.Series[Any]) -> list[float]:
    """The finite numbers of a column, of the lists in it all."""
    lists = [np.atleast_1d(entry) for entry in column.dropna()]
    values = np.concatenate([np.zeros(0), *lists]).astype(float)
    return [float(value) for value in values[np.isfinite(values)]]


def _information(part: Part, cell: list[Any]) -> list[dict[str, float]]:
    """The mean ends of a cell's information, for each n."""
    rows = _rewound(part)
    ends = rows[["information_lower", "information_upper"]]
    here = (rows[CELL] == cell).all(axis=1) & ends.notna().all(axis=1)
    groups: Any = rows[here].groupby("n")
    return [
        {
            "information_n": float(n),
            "information_lower": float(group["information_lower"].mean()),
            "information_upper": float(group["information_upper"].mean()),
        }
        for n, group in groups
    ]
