"""The card of a pruner: at a glance what was measured of it, next to others.

``card_of`` puts it in one table with a column a pruner, whose entries are those of the
parts' own tables; ``page`` and ``markdown`` write it, for the page of the collection
and for anyone's README.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from nfp_jax.pages.joined import Part
from nfp_jax.pages.kind import Block, CardLine
from nfp_jax.pages.pruners import labels_of, pruned, pruners_of
from nfp_jax.report.kinds import kind_of


class Card(NamedTuple):
    """What a card says.

    Attributes:
      pruners: their names, the one that the card is about first.
      labels: what they are called.
      blocks: what was measured.
      failed: what failed, a line each.
    """

    pruners: list[str]
    labels: Mapping[str, str]
    blocks: list[Block]
    failed: list[str]


def card_of(
    parts: Mapping[str, Part],
    pruners: Sequence[str],
    failed: Mapping[str, Sequence[str]],
) -> Card:
    """Returns what a card says of a pruner, from the rows of a collection's parts.

    Args:
      parts: with their rows as on pages.
      pruners: the names of the pruner and of those beside it.
      failed: what failed, by part.
    """
    first = pruners[0]
    parts = {name: _of(part, pruners) for name, part in parts.items()}
    rows = pd.concat([part.rows[list(_TOLD)] for part in parts.values()])
    costs = [part.rows for part in parts.values() if _COST in part.rows]
    names = pruners_of(rows)
    mine = [name for name in names if _base(name) == first] or [first]
    told = [_sees(rows), *(_gradients(pd.concat(costs)) if costs else [])]
    blocks = [Block("What it is", told)] if names else []
    # What masks are like comes before what is trained under them.
    for name in sorted(parts, key=lambda name: parts[name].question != "masks"):
        part = parts[name]
        if not part.rows.empty:
            found = kind_of(part.rows).card(part.rows, mine[0])
            blocks += [x._replace(title=f"{name}: {x.title}") for x in found]
    return Card(
        [*mine, *(name for name in names if name not in mine)],
        {first: first, **labels_of(rows)},
        [block for block in blocks if block.lines],
        [f"{part}: {line}" for part, said in failed.items() for line in said],
    )


_TOLD = ("pruner", "label", "sees")
_COST = "pruning_gradients"


def _base(name: str) -> str:
    """The name of a pruner without the settings that pages tell apart."""
    return name.partition("[")[0]


def _of(part: Part, pruners: Sequence[str]) -> Part:
    """The part with the rows of these pruners alone."""
    rows = pruned(part.rows)
    return part._replace(rows=rows[rows["pruner"].map(_base).isin(pruners)])


def _sees(rows: pd.DataFrame) -> CardLine:
    return CardLine("sees", dict(zip(rows["pruner"], rows["sees"], strict=True)))


def _gradients(rows: pd.DataFrame) -> Iterator[CardLine]:
    """How many gradient evaluations a mask cost, from the least to the most."""
    entries = {}
    for name, own in rows.groupby("pruner"):
        counts = sorted(int(count) for count in own[_COST].dropna())
        ends = [f"{count:,}" for count in dict.fromkeys((*counts[:1], *counts[-1:]))]
        entries[str(name)] = " to ".join(ends) or "not said"
    yield CardLine("gradients a mask, with epochs of trainings", entries)


# ---- Written


def page(card: Card) -> str:
    """The card as HTML."""
    heads = "".join(
        f'<th scope="col">{html.escape(card.labels.get(x, x))}' for x in card.pruners
    )
    body = "".join(
        f'<tbody><tr><th scope="rowgroup" class="name" '
        f'colspan="{len(card.pruners) + 1}"><b>{html.escape(block.title)}</b>'
        + "".join(
            f'<tr><th scope="row" class="name">{html.escape(line.what)}'
            + "".join(f"<td>{html.escape(text)}" for text in _texts(card, line))
            for line in block.lines
        )
        for block in card.blocks
    )
    title = html.escape(card.labels[card.pruners[0]])
    failed = "".join(f"<li>{html.escape(line)}" for line in card.failed)
    return (
        f'<h2 id="glance">{title} at a glance</h2>'
        + (f"<p>What failed:</p><ul>{failed}</ul>" if failed else "")
        + f'<div class="scroll"><table><thead><tr><td class="name">{heads}</thead>'
        + f"{body}</table></div>"
    )


def markdown(card: Card) -> str:
    """The card as a Markdown table, for a README."""
    labels = [card.labels.get(name, name) for name in card.pruners]
    out = [f"**{labels[0]}, measured by nfp_jax**", ""]
    out += [f"- failed: {line}" for line in card.failed]
    out += ["", _row(["", f"**{labels[0]}**", *labels[1:]])]
    out.append(_row(["---"] * (len(labels) + 1)))
    for block in card.blocks:
        out.append(_row([f"**{block.title}**", *[""] * len(labels)]))
        out += [_row([line.what, *_texts(card, line)]) for line in block.lines]
    return "\n".join(out) + "\n"


def _texts(card: Card, line: CardLine) -> list[str]:
    return [line.entries.get(name, "") for name in card.pruners]


def _row(entries: Sequence[str]) -> str:
    cells = (entry.replace("|", "\\|").replace("\n", " ") for entry in entries)
    return f"| {' | '.join(cells)} |"
