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
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

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
from nfp_jax.results import ResultsError, write_file

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


def write_page(directory: str | os.PathLike[str]) -> Path:
    """Makes ``claims.csv``, ``figures/*.svg`` and ``report.html``, a file by itself.

    Of a collection that is about a pruner also ``card.md``, its card for a README.

    Raises:
      ResultsError: no part has rows, or a file can't be read or written.
    """
    directory = Path(directory)
    parts = read_parts(directory)
    if not parts:
        raise ResultsError(f"{directory} has no rows yet")
    judged = claims(parts)
    write_file(directory / "claims.csv", claims_csv(judged).encode())
    together = _images(drawings(parts))
    sections = [
        f"<h2>{html.escape(name)}: {html.escape(part.where)}</h2>"
        + report.section(part.rows, report.images(part.rows, f"part-{i}-"), level=3)
        for i, (name, part) in enumerate(parts.items(), 1)
    ]
    figures = "".join(report.figure_html(image) for image in together.values())
    figures += _effective_html(effective_parameters(parts))
    content = f"""{_top(directory, parts)}<h2>Claims</h2>
<p>{html.escape(counted(judged))}</p>
{_table_html(judged)}
<h2>Runs read together</h2>
{figures}
{"".join(sections)}"""
    (directory / "figures").mkdir(exist_ok=True)
    for name, image in together.items():
        file = directory / "figures" / f"{name}.svg"
        if image.svg:
            write_file(file, image.svg.encode())
        else:
            file.unlink(missing_ok=True)  # an earlier page may have had it
    page = directory / "report.html"
    again = f"python -m nfp_jax.collection {directory}"
    name = directory.resolve().name
    write_file(page, report.page_html(name, content, again).encode())
    return page


def _top(directory: Path, parts: Mapping[str, Part]) -> str:
    """What a page begins with: the card of a pruner, or what failed."""
    listed = read_collection(directory)
    assert listed is not None  # its parts were read
    if not listed.pruners:
        lines = [f"{x}: {line}" for x, said in listed.failed.items() for line in said]
        failed = "".join(f"<li>{html.escape(line)}" for line in lines)
        return f"<h2>What failed</h2><ul>{failed}</ul>" if failed else ""
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
    try:
        print(write_page(parser.parse_args(argv).directory))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _images(drawn: Mapping[str, Drawing]) -> dict[str, report.Image]:
    return {name: report.image(drawing, name) for name, drawing in drawn.items()}


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
    heads = "<tr><th class=name>claim<th class=name>verdict<th>measured<th>interval"
    heads += "<th>p (Holm)"
    lines = "".join(
        f"<tr><td class='name wrap'><b>{html.escape(claim.claim)}</b><br>"
        f"{html.escape(claim.what)}. {html.escape(claim.where)}{late_of(claim)}."
        f"<td class=name>{claim.verdict}<td>{number_of(claim.measured)}"
        f"<td>{ends_of(claim)}<td>{number_of(claim.p)}"
        for claim in judged
    )
    return f"<div class=scroll><table>{heads}{lines}</table></div>"


def _effective_html(lines: pd.DataFrame) -> str:
    """The tables of p_eff of either information; nothing where none is bounded."""
    if lines.empty:
        return ""
    parts = [f"<h3>{TITLE}</h3>", f"<p>{html.escape(note(lines))}</p>"]
    heads = "".join(f"<th>{html.escape(head)}" for head in HEADS)
    for title, body in tables(lines):
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in line)
            for line in body
        )
        caption = f"<caption>{html.escape(title)}</caption>"
        inside = f"{caption}<tr>{heads}{cells}"
        parts.append(f"<div class=scroll><table>{inside}</table></div>")
    return "".join(parts)


def late_of(claim: Claim) -> str:
    """How many of a claim's trainings used up their budget, where any did."""
    late = claim.out_of_budget + claim.left_out
    text = f"; {late} of its trainings used up their budget" if late else ""
    rest = claim.verdict in (HOLDS, NOT)
    return text + (", and the verdict does not rest on them" if late and rest else "")


def ends_of(claim: Claim) -> str:
    """The ends of a claim's interval."""
    return f"{number_of(claim.lower)} to {number_of(claim.upper)}"


def number_of(x: float) -> str:
    """A number as pages and terminals have it: three digits.

    >>> number_of(1234.5), number_of(0.12345), number_of(math.nan)
    ('1,234', '0.123', '?')
    """
    if not math.isfinite(x):
        return "?" if math.isnan(x) else "∞" if x > 0 else "-∞"
    return f"{x:,.0f}" if abs(x) >= 999.5 else f"{x:.3g}"
