"""What share of a run's time is training, compiling, its page, and the rest.

    python launch.py --config=configs/paper.py:quick --config.out=OUT
    python benchmarks/shares.py OUT/*/ --write=FILE

Of each directory of results it reads what its launches took (``run.json``), and makes
the page again to time it. Times are those of threads: a run keeps a thread busy on each
core. "Rest" is all else: draws, scores and masks, reading masks, rows, and waiting for
the last network. Pages are made by one thread while the others stand still.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADS = ("part", "rows", "wall", "training", "compiling", "page", "rest")


def shares_of(runs: list[Mapping[str, Any]], page: float) -> dict[str, float]:
    """Returns seconds of threads by what they did, and of the wall.

    Args:
      runs: what the launches into a directory took; those that ended early are left
        out.
      page: seconds of its page.
    """
    found = {"wall": page, "training": 0.0, "compiling": 0.0, "rest": 0.0}
    for run in runs:
        if "seconds" in run:
            cores = int(re.match(r"\d+", run["processor"])[0])  # type: ignore[index]
            threads = cores * run["seconds"]
            found["wall"] += run["seconds"]
            found["training"] += run["train_seconds"]
            found["compiling"] += run["compile_seconds"]
            found["rest"] += threads - run["train_seconds"] - run["compile_seconds"]
            found["page"] = cores * page
    return found


def measured(directory: Path) -> dict[str, Any]:
    """Returns the shares of a directory of results, whose page is made again."""
    from nfp_jax import report, results

    name = results.read_json(directory / "config.json")["name"]
    runs = results.read_launches(directory)
    start = time.process_time()  # whatever else the machine does
    report.write_report(directory)
    page = time.process_time() - start
    rows = len(results.read_rows(directory))
    return {"part": name, "rows": rows, **shares_of(runs, page)}


def table(parts: list[dict[str, Any]]) -> str:
    """Returns a line a part, and one for all if there are several, in Markdown."""
    whole = {"part": "all"} | {x: sum(p[x] for p in parts) for x in HEADS[1:]}
    lines = [f"| {' | '.join(HEADS)} |", "| --- " * len(HEADS) + "|"]
    for part in [*parts, whole] if len(parts) > 1 else parts:
        threads = sum(part[x] for x in HEADS[3:])
        shown = [f"{part[x] / threads:.0%}".replace("%", " %") for x in HEADS[3:]]
        cells = [part["part"], str(part["rows"]), f"{part['wall']:.0f} s", *shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, and prints the table; with ``--write`` also to a JSON file."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("directories", type=Path, nargs="*")
    options.add_argument("--show", type=Path, help="print the table of such a file")
    options.add_argument("--write", type=Path, help="a JSON file of the results")
    arguments = options.parse_args()
    if arguments.show:
        parts = json.loads(arguments.show.read_text("utf-8"))["parts"]
    else:
        from nfp_jax import running

        there = [x for x in arguments.directories if (x / "run.json").exists()]
        parts = [measured(directory) for directory in there]
        text = json.dumps({"machine": running.processor(), "parts": parts}, indent=2)
        if arguments.write:
            arguments.write.write_text(text + "\n", encoding="utf-8")
    print(table(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
