"""What a kind of rows has to say for itself, and how its tables are laid out.

A `Kind` is all that a page or a terminal needs to know of rows: ``KIND`` in the
``figures`` of each question. A kind's troubles are columns, of its flagged rows
(booleans) and of its summary (how many networks of the cell).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from nfp_jax.pages.common import Drawing, spread
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.words import counted, in_words, varying

Line = tuple[list[str], list[str]]  # names of a pruner and its variant; entries


class Grid(NamedTuple):
    """A table: pruners and their variants down, sparsities across."""

    title: str
    heads: Line
    lines: list[Line]


class CardLine(NamedTuple):
    """A line of the card of a pruner: what was measured, and of whom."""

    what: str
    entries: Mapping[str, str]  # by the pruner's name, of those that have one


class Block(NamedTuple):
    """Lines of the card of a pruner that have a title together."""

    title: str
    lines: list[CardLine]


class Kind(NamedTuple):
    """One kind of rows, in its own words."""

    unit: str  # what a row is, as in "3 of 15 networks of SNIP"
    troubles: Mapping[str, str]  # what may be wrong, as it follows those words
    fine: str  # said where nothing is
    flagged: Callable[[pd.DataFrame], pd.DataFrame]  # a boolean for each trouble
    summary: Callable[[pd.DataFrame], pd.DataFrame]  # a line a cell, and ``networks``
    draw: Callable[[pd.DataFrame], dict[str, Drawing]]  # the figures by name
    # Titles by measure, see `title`; a terminal has the first.
    tables: Mapping[str, str]
    grids: Callable[[pd.DataFrame, str], Iterator[Grid]]  # the tables of a measure
    heading: Callable[[pd.DataFrame], str]  # above a terminal's table
    headline: Callable[[pd.DataFrame], str]  # the first sentences of a page
    entries: Callable[[pd.DataFrame], str]  # what the tables' entries are
    subject: str = ""  # what a terminal's warnings begin with
    shares: tuple[str, ...] = ()  # columns whose largest values, in %, troubles tell
    names: Callable[[pd.DataFrame], Mapping[str, str]] = lambda rows: {}  # in titles
    # What the card of a pruner has of these rows; its name is the second argument.
    card: Callable[[pd.DataFrame, str], Iterator[Block]] = lambda rows, name: iter(())

    def title(self, rows: pd.DataFrame, measure: str) -> str:
        """The title of a measure's tables, with the names that the rows give it."""
        return self.tables[measure].format_map(self.names(rows))

    def words(self, rows: pd.DataFrame, trouble: str) -> str:
        """What is wrong, with the largest shares among these rows."""
        most = self.flagged(rows)[list(self.shares)].max()
        shares = {name: 100 * float(share) for name, share in most.items()}
        return self.troubles[trouble].format_map(shares)


def verdict(flags: pd.DataFrame, unit: str, fine: str) -> str:
    """The end of a headline: how many rows have a trouble, from a column for each."""
    troubled = int(flags.any(axis=1).sum())
    if not troubled:
        return f"No warnings: {fine}."
    have = "has" if troubled == 1 else "have"
    return f"{counted(troubled, unit)} {have} a warning; see Warnings."


def grids_of(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    by: Sequence[str] = ("n", "noise"),
) -> Iterator[Grid]:
    """A table for each value of ``by``, from the cells' column ``text``.

    The other axes that vary over the rows are variants of a pruner; what the dense
    network has goes into the title.
    """
    variants = [axis for axis in varying(rows) if axis not in by]
    for values, group in cells.groupby(list(by)):
        names = zip(by, values, strict=True)
        title = ", ".join(filter(None, (in_words(*name) for name in names)))
        for text in dense(group)["text"]:
            title += f"; the dense network: {text}"
        yield Grid(title, *_laid_out(pruned(group), variants))


ON_A_CARD = 3  # sparsities of a measure


def blocks_of(kind: Kind, rows: pd.DataFrame, *measures: str) -> Iterator[Block]:
    """The tables of some measures, as the card of a pruner has them."""
    for measure in measures:
        for grid in kind.grids(rows, measure):
            title = kind.title(rows, measure)
            yield block_of(f"{title} ({grid.title})" if grid.title else title, grid)


def block_of(title: str, grid: Grid) -> Block:
    """A table as the card of a pruner has it: a line a variant and sparsity.

    Of many sparsities the card has some, evenly spread, the highest among them.

    >>> grid = Grid("", (["pruner"], ["0.5"]), [(["snip"], ["12"]), (["imp"], ["9"])])
    >>> block_of("Points", grid).lines[0].what
    '50 % removed'
    """
    lines = []
    places = spread(range(len(grid.heads[1])), ON_A_CARD)
    for variant in dict.fromkeys(tuple(names[1:]) for names, _ in grid.lines):
        same = [line for line in grid.lines if tuple(line[0][1:]) == variant]
        for place in places:
            removed = in_words("sparsity", float(grid.heads[1][place]))
            entries = {names[0]: texts[place] for names, texts in same if texts[place]}
            if entries:
                what = ", ".join(filter(None, (removed, *variant)))
                lines.append(CardLine(what, entries))
    return Block(title, lines)


def _laid_out(cells: pd.DataFrame, variants: list[str]) -> tuple[Line, list[Line]]:
    """Heads and lines of the cells' texts: pruners down, sparsities across."""
    sparsities = sorted(set(cells["sparsity"]))
    heads = ["pruner", *variants], [f"{s:g}" for s in sparsities]
    lines = []
    for names, line in cells.groupby(["pruner", *variants], sort=False):
        texts = dict(zip(line["sparsity"], line["text"], strict=True))
        entries = [texts.get(s, "") for s in sparsities]
        lines.append(([str(name) for name in names], entries))
    return heads, lines
