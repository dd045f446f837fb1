"""Rows of several runs side by side: what one question measured, what another did.

A ``Part`` is a run: its rows and its configuration. Two parts are joined where they are
of the same data and network, by pruner, sparsity, selection and noise rate: the
capacity, the gap or the slope of the one beside the information of the other.
Information is that at the n nearest to the other's (to the capacity itself, for
capacities), of masks found by the training of its run; over seeds its ends are
averaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.pages.pruners import as_on_pages, pruned
from nfp_jax.results import ResultsError, read_json, read_rows

CELL = ["pruner", "sparsity", "select", "noise"]
# Lines that agree on these keep as many weights of the same network, on such data.
GROUP = ["where", "n", "sparsity", "select", "noise"]
# Up to format 3 a configuration has the settings of all networks and sets, whichever it
# names: these are of the one named.
_UP_TO_3 = {"gaussian": ("dim", "classes"), "convnet": ("init", "channels", "widths")}
_OTHERS_UP_TO_3 = {"data": (), "model": ("init", "widths")}
_SYMBOLS = {"dim": "d", "classes": "C"}


class Part(NamedTuple):
    """One run of several that are read together.

    Attributes:
      name: what the collection calls it.
      config: the identity of its specification, as in ``config.json``.
      rows: of pruned and dense networks.
      directory: where they are from.
      judged: whether its claims are judged; those of a sensitivity run are shown.
    """

    name: str
    config: Mapping[str, Any]
    rows: pd.DataFrame
    directory: str = ""
    judged: bool = True

    @property
    def question(self) -> str:
        """Which question the rows answer."""
        return str(self.config.get("question", "memorization"))

    @property
    def where(self) -> str:
        """The data and the network, in words: what parts are joined by.

        Lists among the network's settings are its sizes, in the order of their names;
        other settings follow with their names, but for ``init``.
        """
        return self._words(self.init)

    @property
    def init(self) -> str:
        """The network's initialization; empty where it has no such setting."""
        return str(_settings(self.config, "model").get("init", ""))

    @property
    def but_init(self) -> str:
        """The data and the network in words, without its initialization."""
        return self._words("")

    def _words(self, init: str) -> str:
        data, model = (_settings(self.config, kind) for kind in ("data", "model"))
        named = [name for name in _SYMBOLS if name in data]
        named += sorted(data.keys() - _SYMBOLS.keys())
        words = [self.config["data"]["name"]]
        words += [f"{_SYMBOLS.get(name, name)} = {data[name]}" for name in named]
        model.pop("init", None)
        told = [init] if init else []
        sizes: list[str] = []
        for name, value in sorted(model.items()):
            if isinstance(value, (list, tuple)):
                sizes += map(str, value)
            else:
                told.append(f"{name} = {value}")
        network = f"{self.config['model']['name']} {'-'.join(sizes)}".rstrip()
        return ", ".join([*words, network]) + (f" ({', '.join(told)})" if told else "")


def _settings(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The settings of the network, or set, that a configuration names."""
    group = dict(config[kind])
    name = group.pop("name")
    if config.get("format", 3) > 3:
        return group
    kept = _UP_TO_3.get(name, _OTHERS_UP_TO_3[kind])
    return {key: group[key] for key in kept if key in group}


def read_part(name: str, directory: str | os.PathLike[str]) -> Part:
    """A run's part of a collection, from its directory.

    Raises:
      ResultsError: the directory can't be read.
    """
    directory = Path(directory)
    config = read_json(directory / "config.json")
    rows = as_on_pages(read_rows(directory))
    return Part(name, config, rows, str(directory))


def check_rules(parts: Mapping[str, Part]) -> None:
    """Raises where runs that are read together ended their trainings by other rules.

    What one rule calls memorized another calls too early: such rows are not compared.

    Raises:
      ResultsError: names both directories and both rules.
    """
    first: Part | None = None
    for part in parts.values():
        first = first or part
        rules = [rule_of(one) for one in (first, part)]
        if rules[0] != rules[1]:
            raise ResultsError(
                f"{first.directory or first.name} ends trainings by {rules[0]} and "
                f"{part.directory or part.name} by {rules[1]}: claims are judged over "
                "rows of one stopping rule"
            )


def rule_of(part: Part) -> str:
    """The stopping rule of a run's trainings, in words, without their budget."""
    train = part.config.get("train", {})
    stop = train.get("stop", "still")
    if stop != "settled":
        names = ("patience", *(["min_epochs"] if stop == "still" else ()))
    else:
        names = ("settle_from", "settle_rise", "settle_fall", "settle_steps")
    settings = ", ".join(f"{name} = {train[name]}" for name in names if name in train)
    return f"{stop!r} ({settings})" if settings else repr(stop)


def scope(
    part: Part,
    *,
    n: float | None = None,
    sparsity: float | None = None,
    rows: pd.DataFrame | None = None,
) -> str:
    """What a claim about some of a run's rows is about, in words.

    The run, its data and network, n, sparsity, selection and noise rate of the rows,
    the training and its budget.
    """
    words = [f"{part.name}: {part.where}"]
    if n is not None:
        words.append(f"n = {n:,}")
    if sparsity is not None:
        words.append(f"{100 * sparsity:.5g} % removed")
    if rows is not None:
        for axis, what in (("select", "selection {}"), ("noise", "noise {:g}")):
            values = sorted({x for x in rows[axis] if x != ""})
            words += [what.format(x) for x in values[:1] if len(values) == 1]
    train = part.config.get("train", {})
    if "max_epochs" in train:
        decay = ", cosine decay" if train.get("decay_steps") else ""
        rate = train.get("learning_rate", 1e-3)
        budget = f"{train['max_epochs']:,} epochs"
        settings = part.config.get(part.question, {})
        if "max_steps" in settings:
            budget = f"{settings['max_steps']:,} steps"
        kept = ""
        if (moments := train.get("moments", "float32")) != "float32":
            kept = f", {moments} moments"
        words.append(f"{train.get('optimizer', 'adam')} {rate:g}{decay}{kept}")
        words.append(f"budget {budget}")
    return ", ".join(words)


def usual_rows(part: Part) -> pd.DataFrame:
    """The rows ranked over all layers and with the most noise, where there are others.

    With all of their ablations, rewound and fine-tuned.
    """
    rows = part.rows
    if (rows["select"] == "global").any():
        rows = rows[rows["select"].isin(("global", ""))]
    return rows[rows["noise"] == rows["noise"].max()]


def main_rows(part: Part) -> pd.DataFrame:
    """The usual rows that are rewound and not ablated."""
    return _rewound(part._replace(rows=usual_rows(part)))


def _rewound(part: Part) -> pd.DataFrame:
    rows = part.rows
    return rows[(rows["ablation"] == "") & (rows["resume"] != "finetune")]


def beside_information(
    parts: Mapping[str, Part], question: str, value: str, conditioning: str = "labels"
) -> pd.DataFrame:
    """A column of one question beside the information of masks of the same network.

    Args:
      parts: the runs, by name.
      question: ``"capacity"``, ``"swap"`` or ``"robustness"``.
      value: the column.
      conditioning: ``"labels"``: the information about labels with the inputs known;
        ``"data"``: that about inputs and labels.

    Returns:
      A line a pruner, sparsity, selection, noise rate and n, of each data and network:
      the pruner's ``label`` and what it ``sees``, ``where``, ``values`` (a list: one a
      seed, or where a row has a list all of them), ``values_upper`` (the same, infinite
      where a capacity is known to be at least that), ``value`` (the median), ``kept``,
      ``conditioning``, ``information_lower``, ``information_upper`` (means over seeds,
      in nats), ``information_n`` (what n they are of), ``p_eff_lower`` and
      ``p_eff_upper``; ``late`` (trainings that the line
      rests on and that used up their budget, but for searches) and ``missed`` (with
      which probability, at most, one of the line's intervals misses). No lines where
      nothing can be joined. Of several runs of a question on one data and network the
      one with the most rows.
    """
    lines = []
    largest: dict[str, Part] = {}
    for part in parts.values():
        if part.question == question:
            before = largest.get(part.where)
            if before is None or len(part.rows) > len(before.rows):
                largest[part.where] = part
    for part in largest.values():
        rows = main_rows(part)
        rows = pruned(rows)
        groups: Any = rows.groupby([*CELL, "n"])
        for (*cell, n), group in groups:
            values = _values(group[value])
            found = [
                information
                for other in parts.values()
                if other.question == "information" and other.where == part.where
                for information in _information(other, cell, conditioning)
            ]
            if not values or not found:
                continue
            middle = float(np.median(values))
            near = max(middle, 1) if question == "capacity" else n
            distance = [abs(np.log(near / one["information_n"])) for one in found]
            line: dict[str, Any] = dict(zip(CELL, cell, strict=True))
            line |= {name: group[name].iloc[0] for name in ("label", "sees")}
            line |= {"n": n, "where": part.where, "values": values, "value": middle}
            line["values_upper"] = _open(group, values)
            line |= {"kept": float(group["kept"].astype(float).mean())}
            known = found[int(np.argmin(distance))]
            line["conditioning"] = conditioning
            late = _total(group, "swap_gap_out_of_budget")
            line |= {**known, "late": known["late"] + late}
            for end in ("lower", "upper"):
                line[f"p_eff_{end}"] = line["kept"] + line[f"information_{end}"]
            lines.append(line)
    columns = [*CELL, "label", "sees", "n", "where", "values", "values_upper"]
    columns += ["value", "kept", "conditioning"]
    columns += ["information_n", "late", "missed"]
    ends = [
        f"{x}_{end}" for x in ("information", "p_eff") for end in ("lower", "upper")
    ]
    return pd.DataFrame(lines, columns=[*columns, *ends])


def _total(group: pd.DataFrame, column: str) -> float:
    """The sum of a column; 0 where there is none, or where it is null."""
    if column not in group:
        return 0.0
    return float(group[column].astype(float).fillna(0).sum())


def _open(group: pd.DataFrame, values: list[float]) -> list[float]:
    """The values, infinite where a row says that it is at least that."""
    if "capacity_at_least" not in group or len(group) != len(values):
        return values
    more = group["capacity_at_least"].astype("boolean").fillna(False)
    return [np.inf if more_ else x for x, more_ in zip(values, more, strict=True)]


def _values(column: pd.Series[Any]) -> list[float]:
    """The finite numbers of a column, of the lists in it all."""
    lists = [np.atleast_1d(entry) for entry in column.dropna()]
    values = np.concatenate([np.zeros(0), *lists]).astype(float)
    return [float(value) for value in values[np.isfinite(values)]]


def information_rows(part: Part, conditioning: str) -> pd.DataFrame:
    """The rows of a run of information that are of one conditioning and have both ends.

    Rewound and not ablated; rows that do not say of which they are, are of labels.
    """
    rows = _rewound(part)
    usable = rows[["information_lower", "information_upper"]].notna().all(axis=1)
    of_data = pd.Series(False, rows.index)
    if "conditioning" in rows:
        of_data = rows["conditioning"] == "data"
    return rows[usable & (of_data == (conditioning == "data"))]


def _information(
    part: Part, cell: list[Any], conditioning: str
) -> list[dict[str, float]]:
    """The mean ends of a cell's information, for each n."""
    rows = information_rows(part, conditioning)
    groups: Any = rows[(rows[CELL] == cell).all(axis=1)].groupby("n")
    return [
        {
            "information_n": float(n),
            "information_lower": float(group["information_lower"].mean()),
            "information_upper": float(group["information_upper"].mean()),
            "late": _total(group, "out_of_budget"),
            "missed": len(group) - _total(group, "confidence"),
        }
        for n, group in groups
    ]
