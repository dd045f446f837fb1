"""What masks of many data sets cost: making them, and bounding what they know.

    python benchmarks/information.py
    python benchmarks/information.py --pruners=snip --datasets=1024,8192
    python benchmarks/information.py --beside=<checkout of another commit>

The draw of ``configs/mask_information.py``: 50-200-200-2, n = 100, 90 % removed. Each
pruner and number of data sets K has a process of its own. With ``--beside`` another
checkout takes turns. Seconds are those of all threads of the process, those of
compiling among them. The peak is the most memory that the process had until then; at
the start, with JAX loaded and the run set up, it is about 350 MB. Masks and interval
are named, so that two checkouts can be compared: the masks by a hash of their bits.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PRUNERS = "random,magnitude_init,snip,grasp,synflow"
WIDTHS = "200,200"


def cost(
    root: Path, pruner: str, datasets: int, widths: tuple[int, ...]
) -> dict[str, Any]:
    """Returns what the masks of a pruner and their bounds cost, in this process."""
    sys.path.insert(0, str(root))
    from configs import mask_information
    from nfp_jax import experiments
    from nfp_jax.lab.setup import set_up
    from nfp_jax.questions.information.run import Information
    from nfp_jax.spec import Spec

    config = mask_information.get_config()
    config.information.datasets, config.model.widths = datasets, widths
    config.grid.pruner, config.grid.sparsity = (pruner,), (0.9,)
    spec = Spec.from_config(config)
    rows: list[dict[str, Any]] = []
    setup = set_up(spec, experiments.all_cells(spec))
    (cell,) = setup.todo

    class Watched(Information):
        """Notes when masks are made, before they are bounded."""

        def finish(self, family: Any, cell: Any, made: Any) -> None:
            """Hands over the row of a cell."""
            nonlocal masks
            marks.append(now())
            masks = hashlib.sha256(made.masks.tobytes()).hexdigest()[:12]
            super().finish(family, cell, made)

    masks, marks = "", [now()]
    Watched(setup, rows.append, None).do([cell], progress=False)
    marks.append(now())
    if setup.failures.kept:
        raise RuntimeError(setup.failures.kept[0].error)
    (row,) = rows
    (start, _), (made, masks_peak), (end, peak) = marks
    return {
        "masks_cpu_seconds": made - start,
        "masks_peak_mb": masks_peak,
        "bounds_cpu_seconds": end - made,
        "bounds_peak_mb": peak,
        "masks": masks,
        "lower": row["information_lower"],
        "upper": row["information_upper"],
        "lower_by": row["information_lower_by"],
    }


def now() -> tuple[float, float]:
    """Returns seconds of all threads, and the most memory so far in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return time.process_time(), most / (2**20 if sys.platform == "darwin" else 2**10)


def cost_in(
    root: Path, pruner: str, datasets: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Returns the cost in a checkout, from a process of its own."""
    command = [sys.executable, __file__, f"--root={root}", f"--pruners={pruner}"]
    command += [f"--datasets={datasets}", f"--widths={arguments.widths}"]
    path = f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measures, and prints what was found; with ``--write`` also to a file."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pruners", default=PRUNERS)
    options.add_argument("--datasets", default="1024")
    options.add_argument("--widths", default=WIDTHS, help="of the hidden layers")
    options.add_argument("--beside", type=Path, help="another checkout")
    options.add_argument("--write", type=Path, help="a JSON file of the results")
    options.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    pruners = arguments.pruners.split(",")
    datasets = [int(count) for count in arguments.datasets.split(",")]
    if arguments.root:
        widths = tuple(int(width) for width in arguments.widths.split(","))
        print(json.dumps(cost(arguments.root, pruners[0], datasets[0], widths)))
        return 0
    roots = {"this": ROOT}
    if arguments.beside:
        roots["beside"] = arguments.beside.resolve()
    from nfp_jax import running

    every = []
    for pruner in pruners:
        for count in datasets:
            for name, root in roots.items():
                found = cost_in(root, pruner, count, arguments)
                row = {"pruner": pruner, "datasets": count, "checkout": name, **found}
                print(json.dumps(row), flush=True)
                every.append(row)
    if arguments.write:
        whole = {"machine": running.processor(), "widths": arguments.widths}
        text = json.dumps({**whole, "rows": every}, indent=2)
        arguments.write.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
