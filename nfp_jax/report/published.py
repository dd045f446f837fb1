"""The published results, written from rows on file: Markdown, figures, ``claims.csv``.

``python -m nfp_jax.results_page results/paper-HASH --write docs/results.md`` writes the
page, ``claims.csv`` beside it and the figures into a folder named as the page is; with
``--readme README.md`` also the table between the two marks of that file. No number of
these is written by hand. ``publishing`` has the command, and sections of other runs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nfp_jax.pages.claim import SHOWN, Claim
from nfp_jax.pages.joined import Part
from nfp_jax.pages.pruners import labels_of
from nfp_jax.report import figures, targets
from nfp_jax.report import page as report
from nfp_jax.report.collection import (
    claims_csv,
    counted,
    drawings,
    ends_of,
    late_of,
    number_of,
    read_claims,
    read_parts,
    write_page,
)
from nfp_jax.report.kinds import kind_of
from nfp_jax.report.together.effective import (
    HEADS,
    TITLE,
    effective_parameters,
    note,
    tables,
)
from nfp_jax.results import ResultsError, read_launches, write_file

TARGETS_HEAD = "## Targets of information"
BARRIER_HEAD = "## Around the barrier"
AROUND = "around"  # what its figures' files begin with
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
# The first lines of the page, and the table of README: how much, and how fast.
HEADLINES = {
    "points": "points more (of {n})",
    "within": "some mask there memorizes as much, to within 2 % of n",
    "epochs": "times sooner at 99 %",
}
# Of which pruner these are: the paper's. The page has the claims of all.
LEAD = "imp"
LEAD_KEY = re.compile(
    rf"(?P<part>[^/]+)/(?P<what>[^/]+)/{LEAD}-rewind/n=(?P<n>\d+)/(?P<sparsity>.+)"
)


def write_results(
    directory: str | os.PathLike[str],
    file: str | os.PathLike[str],
    readme: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes the results of a collection as Markdown; returns the page's path.

    Sections of other runs (`nfp_jax.report.publishing`) that the page has stay there.

    Args:
      directory: ``results/NAME-HASH`` of a collection; its own page is made anew.
      file: the page; its figures go into a folder of that name without its ending, and
        ``claims.csv`` beside it.
      readme: a file with the two marks, between which the short table is written.

    Raises:
      ResultsError: the directory is no collection or has no rows, a file can't be
        written, or ``readme`` lacks a mark.
    """
    write_page(directory)
    parts, judged = read_parts(directory), read_claims(directory)
    file = Path(file)
    folder = file.with_suffix("")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    for old in folder.glob("*.svg"):
        if not old.name.startswith(AROUND):
            old.unlink()
    lines = [
        "# Results",
        "",
        f"Written by `python -m nfp_jax.results_page` from the rows of "
        f"`{Path(directory).resolve().name}`; nothing here is written by hand.",
        "",
        *_reading(),
        "## In short",
        "",
        *short_table(judged),
        "",
        *_sensitivity(judged),
        *(target_lines(parts) or section_of(before, TARGETS_HEAD)),
        *section_of(before, BARRIER_HEAD),
        "## Claims",
        "",
        counted(judged),
        "",
        *claim_lines(judged),
    ]
    together = {
        name: figures.image(each, name) for name, each in drawings(parts).items()
    }
    lines += ["## Runs read together", "", *figure_lines(together, folder, "together")]
    lines += _effective(effective_parameters(parts))
    for name, part in parts.items():
        lines += _part(name, part, folder)
    write_file(file, ("\n".join(lines).rstrip() + "\n").encode())
    write_file(file.parent / "claims.csv", claims_csv(judged).encode())
    if readme is not None:
        text = Path(readme).read_text(encoding="utf-8")
        write_file(Path(readme), with_table(text, judged, str(readme)).encode())
    return file


def section_of(page: str, head: str) -> list[str]:
    r"""Returns the lines of a section of a page, its head first; none without it.

    >>> section_of("# Page\n\n## One\n\nText.\n\n## Two\n", "## One")
    ['## One', '', 'Text.', '']
    """
    _, found, rest = page.partition(f"\n{head}\n")
    return [head, *rest.partition("\n## ")[0].splitlines(), ""] if found else []


def with_table(text: str, judged: Sequence[Claim], name: str) -> str:
    """Returns a text with the short table between its two marks.

    Raises:
      ResultsError: a mark is missing; names the file.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"{name} has no lines {BEGIN!r} and {END!r}, in this order")
    return before + "\n".join([BEGIN, *short_table(judged), END]) + after


def short_table(judged: Sequence[Claim]) -> list[str]:
    """How much and how fast IMP memorizes against the best mask at initialization.

    A line a run and measure, a column a sparsity: the difference in points at settled,
    whether it is within the margin, and the ratio of epochs to 99 %, each with its
    interval and verdict. Of runs that are judged.
    """
    shown = _shown(judged)
    return _headlines([x for x in judged if _part_of(x) not in shown])


def _part_of(claim: Claim) -> str:
    return claim.key.partition("/")[0]


def _shown(judged: Sequence[Claim]) -> set[str]:
    """The runs of which no claim is judged: those of sensitivity."""
    tested = {_part_of(claim) for claim in judged if claim.verdict != SHOWN}
    return {_part_of(claim) for claim in judged} - tested


def _sensitivity(judged: Sequence[Claim]) -> list[str]:
    """The same of runs that are shown and not judged; nothing where there is none."""
    shown = _shown(judged)
    table = _headlines(
        [x for x in judged if _part_of(x) in shown and "/within/" not in x.key],
        judged=False,
    )
    if len(table) == 2:
        return []
    words = (
        "The same in runs with another learning rate, schedule, length of IMP's rounds "
        "or first look at whether a network has settled: shown and not judged."
    )
    return [words, "", *table, ""]


def _headlines(claims: Sequence[Claim], *, judged: bool = True) -> list[str]:
    """The lines of such a table, of these claims."""
    cells: dict[tuple[str, int, str], dict[float, str]] = {}
    for claim in claims:
        found = LEAD_KEY.fullmatch(claim.key)
        if not found or found["what"] not in HEADLINES:
            continue
        data = claim.where.partition(": ")[2].partition(",")[0]
        name = found["part"]
        name += f" ({data})" if data and data != name else ""
        line = name, int(found["n"]), found["what"]
        text = f"{number_of(claim.measured)} ({ends_of(claim)})"
        if judged:
            text += f" {claim.verdict}"
        if found["what"] == "within":  # its numbers are those of the line before
            text = claim.verdict
        if judged and claim.verdict == SHOWN:
            text = "both fit all"
        cells.setdefault(line, {})[float(found["sparsity"])] = text
    sparsities = sorted({x for line in cells.values() for x in line})
    heads = ["run", "IMP, rewound, against the best mask at initialization"]
    heads += [f"{100 * x:g} % removed" for x in sparsities]
    lines = [
        [f"{part}, n = {n:,}", HEADLINES[what].format(n=f"{n:,}")]
        + [line.get(x, "") for x in sparsities]
        for (part, n, what), line in cells.items()
    ]
    return table_lines(heads, lines)


def target_lines(parts: Mapping[str, Part]) -> list[str]:
    """Returns the targets' table, and which machines its runs were on.

    Nothing where no run has rows of a target.
    """
    lines = targets.targets(parts)
    if not lines:
        return []
    made = []
    for name in targets.runs_of(lines):
        known = machines(read_launches(parts[name].directory))
        made.append(f"- {name}: {'; '.join(known) or 'not known'}")
    table = table_lines(targets.HEADS, lines)
    made = ["", "The machines:", "", *made, ""]
    return [TARGETS_HEAD, "", targets.WORDS, "", *table, *made]


def _reading() -> list[str]:
    return [
        "Every training ends when it has *settled under doubling*: at train accuracy "
        "1, or after 2T epochs where from T to 2T the points memorized rose by less "
        "than 0.5 % of n and the loss fell by less than 5 % (T = 50, 100, 200, …, and "
        "not before 1,000 optimizer steps), or with its budget. *How much* a network "
        "memorizes is its points at settled; *how fast* is the number of epochs until "
        "a share of the labels is fitted. No verdict rests on the points, or the "
        "correlation, of a training that used up its budget. Differences are against "
        "every rival, never against one chosen for its result; p-values are corrected "
        "by Holm over all claims of this page. "
        "Points are not compared where a trained mask and one at initialization fit "
        "all labels: there capacity does not bind. A time to memorize counts as "
        "infinite where a network settles without it, and as anything beyond the "
        "budget where that was used up first: a verdict on times holds for all of "
        "these. "
        "*Gains nothing* and *as much* are equivalence tests with a margin of 2 % of "
        "n, fixed beforehand. Intervals of means are 95 % Student-t intervals over "
        "seeds. p_eff (labels) is the weights kept plus the information about the "
        "labels with the inputs known: a lower bound of the paper's effective "
        "parameter count, whose data are inputs and labels, which is p_eff (data).",
        "",
    ]


def claim_lines(judged: Sequence[Claim]) -> Iterator[str]:
    """Yields claims as Markdown, folded by the run that their keys begin with."""
    by_part: dict[str, list[Claim]] = {}
    for claim in judged:
        by_part.setdefault(_part_of(claim), []).append(claim)
    for name, mine in by_part.items():
        verdicts = Counter(claim.verdict for claim in mine)
        words = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        yield f"<details><summary><b>{name}</b>: {words}</summary>\n"
        yield from table_lines(
            ["claim", "verdict", "measured", "interval", "p (Holm)"],
            [
                [
                    f"**{claim.claim}**<br>{claim.what}. "
                    f"{claim.where}{late_of(claim)}.",
                    claim.verdict,
                    number_of(claim.measured),
                    ends_of(claim),
                    number_of(claim.p),
                ]
                for claim in mine
            ],
        )
        yield "\n</details>\n"


def _effective(lines: pd.DataFrame) -> Iterator[str]:
    """The tables of p_eff of either information; nothing where none is bounded."""
    if lines.empty:
        return
    yield from [f"**{TITLE}.** {note(lines)}", ""]
    for title, body in tables(lines):
        yield f"<details><summary>{title}</summary>\n"
        yield from table_lines(HEADS, body)
        yield "\n</details>\n"


def _part(name: str, part: Part, folder: Path) -> list[str]:
    kind, rows, labels = kind_of(part.rows), part.rows, labels_of(part.rows)
    lines = [f"## {name}: {part.where}", "", kind.headline(rows), "", *_made(part)]
    if part.judged:
        lines += figure_lines(figures.images(rows, f"{name}-"), folder, name)
    lines += [f"Entries of the tables: {kind.entries(rows)}.", ""]
    for measure in kind.tables:
        for title, heads, body in kind.grids(rows, measure):
            caption = f"{kind.title(rows, measure)}. {title}"
            lines += [f"<details><summary>{caption}</summary>\n"]
            lines += table_lines(
                [*heads[0], *heads[1]],
                [[labels[x], *names, *entries] for (x, *names), entries in body],
            )
            lines += ["\n</details>\n"]
    failed = report.failures(rows)
    if failed:
        lines += ["Warnings:", "", *(f"- {line}" for line in failed), ""]
    return lines


def _made(part: Part) -> Iterator[str]:
    """Budget, machine and time of a run, from what its launches said of themselves."""
    train = part.config.get("train", {})
    words = []
    if "max_epochs" in train:
        words.append(
            f"{train['optimizer']} at {train['learning_rate']:g}, batches of "
            f"{train['batch_size']}, budget {train['max_epochs']:,} epochs"
        )
    runs = read_launches(part.directory)
    words += machines(runs)
    seconds = sum(float(run.get("seconds", 0)) for run in runs)
    networks = sum(int(run.get("networks", 0)) for run in runs)
    if seconds:
        words.append(f"{networks:,} trainings in {seconds / 60:.0f} minutes")
    yield f"Made with: {'; '.join(words)}."
    yield ""


def machines(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The machines of launches, and the versions of JAX, in words, each once."""
    return sorted(
        {
            f"{run['device']} on {run.get('processor', 'a machine not named')}, jax "
            f"{run['versions']['jax']}"
            for run in runs
        }
    )


def figure_lines(
    images: Mapping[str, figures.Image], folder: Path, prefix: str
) -> Iterator[str]:
    """Writes figures into a folder, and yields what shows and explains them."""
    for name, image in images.items():
        if image.svg is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{prefix}_{name}.svg"
        write_file(file, image.svg.encode())
        yield f"![{image.title}]({folder.name}/{file.name})"
        yield ""
        yield f"**{image.title}.** {image.caption}"
        yield ""


def table_lines(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in rows
    ]
