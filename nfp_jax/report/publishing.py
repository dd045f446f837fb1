"""The command that publishes results, and sections that come from other runs.

``python -m nfp_jax.results_page DIRECTORY --write docs/results.md`` writes the whole
page (``published``). With ``--targets`` or ``--barrier`` it writes one section into a
page that is there already, and leaves the rest as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nfp_jax.pages.joined import read_part
from nfp_jax.report import figures
from nfp_jax.report.collection import counted, drawings, read_claims, read_parts
from nfp_jax.report.published import (
    AROUND,
    BARRIER_HEAD,
    TARGETS_HEAD,
    claim_lines,
    figure_lines,
    machines,
    table_lines,
    target_lines,
    write_results,
)
from nfp_jax.report.together.barrier import lines_of, tables
from nfp_jax.results import ResultsError, read_launches, write_file


def write_targets(
    directories: Sequence[str | os.PathLike[str]], file: str | os.PathLike[str]
) -> Path:
    """Writes the targets' table into results that are published already.

    For runs that no collection has. Nothing else of the page changes.

    Args:
      directories: results of the information question, finished or not.
      file: the page: its section of targets is replaced, or put before the claims.

    Raises:
      ResultsError: a directory has no rows of a target, or the page has no claims.
    """
    parts = {}
    for directory in directories:
        part = read_part("", Path(directory))
        name = str(part.config.get("name", Path(directory).name))
        parts[name] = part._replace(name=name)
    section = target_lines(parts)
    if not section:
        names = ", ".join(map(str, directories))
        raise ResultsError(f"{names}: no rows that a target is about")
    return _with_section(Path(file), TARGETS_HEAD, section)


def write_barrier(
    directory: str | os.PathLike[str], file: str | os.PathLike[str]
) -> Path:
    """Writes what criteria and initializations do into results that are published.

    The figures of criteria by initializations, and all claims of the collection.

    Args:
      directory: results of a collection as ``configs/barrier.py`` has it, whose page
        was made.
      file: the page: its section is replaced, or put before the claims; figures go
        into the folder named as the page is.

    Raises:
      ResultsError: the collection has no two initializations of one network, or the
        page has no claims.
    """
    file = Path(file)
    parts, judged = read_parts(directory), read_claims(directory)
    images = {
        name: figures.image(drawing, name)
        for name, drawing in drawings(parts).items()
        if name.startswith("barrier")
    }
    if not images:
        raise ResultsError(f"{directory}: no two initializations of one network")
    lines = [BARRIER_HEAD, "", counted(judged), ""]
    lines += figure_lines(images, file.with_suffix(""), AROUND)
    for title, heads, body in tables(lines_of(parts)):
        lines += [f"**{title}.**", "", *table_lines(heads, body), ""]
    runs = [run for part in parts.values() for run in read_launches(part.directory)]
    lines += [f"The machines: {'; '.join(machines(runs)) or 'not known'}.", ""]
    return _with_section(file, BARRIER_HEAD, [*lines, *claim_lines(judged)])


def _with_section(path: Path, head: str, section: Sequence[str]) -> Path:
    """Replaces a section of a page, or puts it before the claims."""
    before, mark, after = path.read_text(encoding="utf-8").partition("\n## Claims\n")
    if not mark:
        raise ResultsError(f"{path} has no section Claims: it is no page of results")
    before, _, rest = before.partition(f"\n{head}\n")
    # What follows the section that is replaced, up to the claims, stays.
    _, next_head, rest = rest.partition("\n## ")
    text = "\n".join([before.rstrip(), "", *section]).rstrip()
    if next_head:
        text += f"\n{next_head}{rest.rstrip()}"
    write_file(path, f"{text}\n{mark}{after}".encode())
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the published results; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.results_page",
        description="Write the results of a collection as Markdown.",
    )
    parser.add_argument(
        "directory",
        nargs="+",
        help="results/NAME-HASH, of a collection; with --targets of single runs",
    )
    parser.add_argument("--write", required=True, help="the page, docs/results.md")
    parser.add_argument("--readme", help="a file whose short table is written too")
    section = parser.add_mutually_exclusive_group()
    section.add_argument(
        "--targets", action="store_true", help="write the targets' table alone"
    )
    section.add_argument(
        "--barrier",
        action="store_true",
        help="write the figures and claims of configs/barrier.py alone",
    )
    given = parser.parse_args(argv)
    if not given.targets and len(given.directory) > 1:
        parser.error("one collection is published, or several runs with --targets")
    try:
        if given.targets:
            print(write_targets(given.directory, given.write))
        elif given.barrier:
            print(write_barrier(given.directory[0], given.write))
        else:
            print(write_results(given.directory[0], given.write, given.readme))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
