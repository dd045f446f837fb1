"""The page of several runs: claims with verdicts, what they say together, and each run.

``python -m nfp_jax.collection results/NAME-HASH`` makes it again, from the rows of its
parts alone. The parts' rows stay in their own directories, so that a run
serves several collections.
"""

from __future__ import annotations

import argparse
import csv
import html
import io
import math
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints
from urllib.parse import quote

import matplotlib.style
import pandas as pd

from nfp_jax.listing import read_collection
from nfp_jax.pages.claim import HOLDS, LEVEL, NOT, SHOWN, UNDECIDED, Claim
from nfp_jax.pages.common import Drawing
from nfp_jax.pages.joined import Part, beside_information, read_part
from nfp_jax.pages.looks import RC
from nfp_jax.report import card
from nfp_jax.report import page as report
from nfp_jax.report.claims import claims
from nfp_jax.report.figures import (
    Image,
    figure_html,
    files_of,
    image,
    images,
    write_figures,
)
from nfp_jax.report.html import (
    heading,
    number_key,
    page_html,
    scrolled,
    table_html,
)
from nfp_jax.report.together.barrier import barrier, lines_of
from nfp_jax.report.together.effective import (
    HEADS,
    TITLE,
    effective_parameters,
    note,
    tables,
)
from nfp_jax.report.together.figures import (
    capacity_against_p_eff,
    gap_against_information,
)
from nfp_jax.results import (
    FORMATS,
    ResultsError,
    check_formats,
    read_launches,
    write_file,
)

# In words, of one claim and of several.
VERDICTS = {
    HOLDS: ("holds", "hold"),
    NOT: ("does not hold", "do not hold"),
    UNDECIDED: ("is undecided", "are undecided"),
    SHOWN: ("is shown and not judged", "are shown and not judged"),
}


def read_parts(directory: str | os.PathLike[str]) -> dict[str, Part]:
    """The parts of a collection that have rows, by name.

    Raises:
      ResultsError: the directory is no collection, or a part can't be read.
    """
    listed = read_collection(directory)
    if listed is None:
        raise ResultsError(f"{directory} is no collection: it has no collection.json")
    parts = {
        name: read_part(name, path)._replace(judged=name not in listed.shown)
        for name, path in listed.parts.items()
    }
    return {name: part for name, part in parts.items() if not part.rows.empty}


def read_claims(directory: str | os.PathLike[str]) -> list[Claim]:
    """The claims on file, as `write_page` judged them.

    Raises:
      ResultsError: there is no ``claims.csv``, or it can't be read.
    """
    file = Path(directory) / "claims.csv"
    kinds = get_type_hints(Claim)
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            heads, *rows = csv.reader(lines)
        if heads != list(Claim._fields):
            raise ValueError(f"its columns are {heads}, expected {Claim._fields}")
        return [
            Claim(*(kinds[x](y) for x, y in zip(heads, row, strict=True)))
            for row in rows
        ]
    except (OSError, ValueError) as error:
        raise ResultsError(f"can't read {file}: {error}") from error


def write_page(
    directory: str | os.PathLike[str], formats: Sequence[str] = ("svg",)
) -> Path:
    """Makes ``report.html``, a file by itself; ``claims.csv`` and figures beside it.

    Of a collection that is about a pruner also ``card.md``, its card for a README. The
    page has a run's figures and rows as far as there is room (`MOST`); a run's own page
    has them all.

    Args:
      directory: of the collection.
      formats: of the figures' files, some of `figures.FORMATS`; SVG is always there.

    Raises:
      ResultsError: no part has rows, a format is unknown, or a file can't be read or
        written.
    """
    formats = check_formats(formats)
    directory = Path(directory)
    parts = read_parts(directory)
    if not parts:
        raise ResultsError(f"{directory} has no rows yet")
    judged = claims(parts)
    write_file(directory / "claims.csv", claims_csv(judged).encode())
    together = _images(drawings(parts))
    write_figures(directory / "figures", together, formats)
    drawn = "".join(
        figure_html(each, name, files_of(each, f"figures/{name}", formats))
        for name, each in together.items()
    )
    head = f"""{_top(directory, parts)}{heading("Claims", "claims")}
<p>{html.escape(counted(judged))}</p>
{_table_html(judged)}
{heading("Runs read together", "together")}
{drawn}{_effective_html(effective_parameters(parts))}"""
    sections = _sections(directory, parts, MOST - len(head.encode()))
    runs = [run for part in parts.values() for run in read_launches(part.directory)]
    content = f"{head}{sections}{report.commands(runs)}"
    page = directory / "report.html"
    again = f"python -m nfp_jax.collection {directory}"
    files = [("claims.csv", "claims.csv: every claim, with its interval and p-value")]
    files += [
        (f"{_beside(directory, part)}report.html", f"{name}: the run's own page")
        for name, part in parts.items()
        if (Path(part.directory) / "report.html").exists()
    ]
    name = directory.resolve().name
    write_file(page, page_html(name, content, again, files).encode())
    return page


MOST = 1_900_000  # bytes of a page, but for its scripts and contents
ROWS = 30_000  # bytes of the rows of a part; its own page has more room


def _sections(directory: Path, parts: Mapping[str, Part], room: int) -> str:
    """What the page says of each part; figures as far as there is room.

    First the first figure of each part, then the second of each, and so on.
    """
    drawn = {
        name: images(part.rows, f"part-{i}-")
        for i, (name, part) in enumerate(parts.items(), 1)
    }
    bare = {
        name: _section(directory, i, parts[name], {}) for i, name in _numbered(parts)
    }
    room -= sum(len(text.encode()) for text in bare.values())
    kept: dict[str, dict[str, Image]] = {name: {} for name in parts}
    for turn in range(max(map(len, drawn.values()))):
        for name, figures in drawn.items():
            for figure, each in list(figures.items())[turn : turn + 1]:
                size = len(figure_html(each).encode()) + 500  # and its links
                if size <= room:
                    kept[name][figure] = each
                    room -= size
    return "".join(
        _section(directory, i, parts[name], kept[name], len(drawn[name]))
        for i, name in _numbered(parts)
    )


def _numbered(parts: Mapping[str, Part]) -> Iterator[tuple[int, str]]:
    return enumerate(parts, 1)


def _section(
    directory: Path,
    place: int,
    part: Part,
    figures: Mapping[str, Image],
    all_: int = 0,
) -> str:
    """A part's heading, links and section; ``all_``: how many figures it has."""
    folder = _beside(directory, part)
    title = html.escape(f"{part.name}: {part.where}")
    left = all_ - len(figures)
    more = f", with {left} more figures" if left > 0 else ""
    own = ""
    if (Path(part.directory) / "report.html").exists():
        page = html.escape(f"{folder}report.html")
        own = f'<p><a href="{page}">The run\'s own page</a>{more}.</p>'
    elif left > 0:
        own = f"<p>{left} figures are left out, to keep this page small.</p>"
    own_files = Path(part.directory)
    formats = [x for x in FORMATS if any(own_files.glob(f"figures/*.{x}"))]
    if not (own_files / "networks.csv").exists():  # its page is of an earlier version
        formats = []
    content = report.section(
        part.rows,
        figures,
        level=3,
        mark=f"part-{place}-",
        folder=folder,
        formats=formats,
        room=ROWS,
    )
    return f'<h2 id="part-{place}">{title}</h2>{own}{content}'


def _beside(directory: Path, part: Part) -> str:
    """Where a part's directory is from the collection's, as an address."""
    path = os.path.relpath(part.directory, directory).replace(os.sep, "/")
    return f"{quote(path)}/"


def _top(directory: Path, parts: Mapping[str, Part]) -> str:
    """What a page begins with: the card of a pruner, or what failed."""
    listed = read_collection(directory)
    assert listed is not None  # its parts were read
    if not listed.pruners:
        lines = [f"{x}: {line}" for x, said in listed.failed.items() for line in said]
        failed = "".join(f"<li>{html.escape(line)}" for line in lines)
        return f"{heading('What failed', 'failed')}<ul>{failed}</ul>" if failed else ""
    found = card.card_of(parts, listed.pruners, listed.failed)
    write_file(directory / "card.md", card.markdown(found).encode())
    return card.page(found)


def drawings(parts: Mapping[str, Part]) -> dict[str, Drawing]:
    """The figures of runs read together, by name; of those that are judged."""
    parts = {name: part for name, part in parts.items() if part.judged}
    of_data = beside_information(parts, "capacity", "capacity", "data")
    with matplotlib.style.context(["default", RC]):
        drawn = {
            "capacity_against_p_eff": capacity_against_p_eff(
                beside_information(parts, "capacity", "capacity")
            ),
            "gap_against_information": gap_against_information(
                beside_information(parts, "swap", "swap_gaps")
            ),
        }
        if not of_data.empty:
            name = "capacity_against_p_eff_of_data"
            drawn[name] = capacity_against_p_eff(of_data)
        drawn |= dict(barrier(lines_of(parts)))
    return drawn


def claims_text(judged: Sequence[Claim], width: int = 110) -> str:
    """The claims for a terminal: the verdict, the claim, its number and where from.

    And how many there are of each verdict.
    """
    lines: list[str] = []
    for claim in judged:
        number = f"{number_of(claim.measured)} [{ends_of(claim)}]"
        text = f"{claim.verdict:<14} {claim.claim}: {number} ({claim.what}; "
        text += f"{claim.where}){late_of(claim)}"
        lines += textwrap.wrap(text, width, subsequent_indent=" " * 15)
    return "\n".join([*lines, *textwrap.wrap(counted(judged), width)])


def counted(judged: Sequence[Claim]) -> str:
    """How many claims there are of each verdict, and how they were judged.

    >>> claim = Claim("It grows", "a run", "its slope", 1.0, 0.5, 1.5, verdict="holds")
    >>> counted([claim, claim._replace(verdict="undecided")]).split(". ")[0]
    '2 claims: 1 holds, 0 do not hold, 1 is undecided, 0 are shown and not judged'
    """
    if not judged:
        return "No claim can be judged from these rows."
    numbers = [sum(claim.verdict == v for claim in judged) for v in VERDICTS]
    words = [
        f"{number} {one if number == 1 else many}"
        for number, (one, many) in zip(numbers, VERDICTS.values(), strict=True)
    ]
    total = f"{len(judged)} claim{'s' * (len(judged) > 1)}"
    out = sum(claim.out_of_budget > 0 and claim.p <= LEVEL for claim in judged)
    return (
        f"{total}: {', '.join(words)}. Verdicts are corrected by Holm over all of them "
        f"(and so over all sparsities): the probability that any is wrong is at most "
        f"{LEVEL:.0%}, where differences between seeds are about normal. Intervals are "
        "those of each claim alone. No verdict rests on the points of a training that "
        f"used up its budget: for that alone {out} claims are undecided."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the page of a collection again; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.collection",
        description="Make the page of several runs again.",
    )
    parser.add_argument("directory", help="results/NAME-HASH, of a collection")
    report.add_formats(parser)
    given = parser.parse_args(argv)
    try:
        print(write_page(given.directory, given.formats.split(",")))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _images(drawn: Mapping[str, Drawing]) -> dict[str, Image]:
    return {name: image(drawing, name) for name, drawing in drawn.items()}


def claims_csv(judged: Sequence[Claim]) -> str:
    """The claims as a file that `read_claims` reads."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Claim._fields)
    writer.writerows(judged)
    return file.getvalue()


def _table_html(judged: Sequence[Claim]) -> str:
    if not judged:
        return ""
    heads = "".join(
        f'<th scope="col"{" class=name" if name in ("claim", "verdict") else ""}>{name}'
        for name in ("claim", "verdict", "measured", "interval", "p (Holm)")
    )
    lines = "".join(
        f'<tr><th scope="row" class="name wrap"><b>{html.escape(claim.claim)}</b><br>'
        f"{html.escape(claim.what)}. {html.escape(claim.where)}{late_of(claim)}."
        f"<td class=name>{claim.verdict}"
        f'<td data-sort="{number_key(claim.measured)}">{number_of(claim.measured)}'
        f'<td data-sort="{number_key(claim.lower)}">{ends_of(claim)}'
        f'<td data-sort="{number_key(claim.p)}">{number_of(claim.p)}'
        for claim in judged
    )
    return scrolled(
        '<table class="sortable asc n-last"><caption>Claims, as in claims.csv</caption>'
        f"<thead><tr>{heads}</thead><tbody>{lines}</tbody></table>"
    )


def _effective_html(lines: pd.DataFrame) -> str:
    """The tables of p_eff of either information; nothing where none is bounded."""
    if lines.empty:
        return ""
    parts = [f"<h3>{TITLE}</h3>", f"<p>{html.escape(note(lines))}</p>"]
    parts += [table_html(title, HEADS, body) for title, body in tables(lines)]
    return "".join(parts)


def late_of(claim: Claim) -> str:
    """How many of a claim's trainings used up their budget, where any did."""
    late = claim.out_of_budget + claim.left_out
    text = f"; {late} of its trainings used up their budget" if late else ""
    rest = claim.verdict in (HOLDS, NOT)
    return text + (", and the verdict does not rest on them" if late and rest else "")


def ends_of(claim: Claim) -> str:
    """The ends of a claim's interval; of one seed there is none.

    >>> ends_of(Claim("It grows", "a run", "its slope", 1.0, 0.5, 1.5))
    '0.5 to 1.5'
    >>> ends_of(Claim("It grows", "a run", "paired, 1 seeds", 1.0, math.nan, math.nan))
    'one seed'
    """
    if math.isnan(claim.lower) and math.isnan(claim.upper):
        return "one seed" if re.search(r"\b1 seeds?\b", claim.what) else "no interval"
    return f"{number_of(claim.lower)} to {number_of(claim.upper)}"


def number_of(x: float) -> str:
    """A number as pages and terminals have it: three digits.

    >>> number_of(1234.5), number_of(0.12345), number_of(math.nan)
    ('1,234', '0.123', '?')
    """
    if not math.isfinite(x):
        return "?" if math.isnan(x) else "∞" if x > 0 else "-∞"
    return f"{x:,.0f}" if abs(x) >= 999.5 else f"{x:.3g}"
