"""What the host costs a network beside the device, on a machine that has no GPU.

    python benchmarks/host.py
    python benchmarks/host.py --beside=<checkout of another commit>

Four counts, each in a process of its own; with ``--beside`` also of another checkout,
in the same run. ``lanes``: 2,000 networks 8-4-4-2 on 32 points each, 16 epochs, in 256
lanes on one CPU device: their training is next to nothing, so what is left is the host.
They are given as the checkout takes them best: as one stack made on the device, or else
as jobs. The host's milliseconds a network are wall time less compiling and less the
time in which lanes train, the median of five runs after one that compiled. ``grid``:
``gaussian.py:paper`` with 256 lanes, cut to one epoch a network: the programs that a
run compiles, and which of them are eager (one operation of JAX outside any program of
ours), by name. ``tail``: 256 networks 8-12-12-2 on 256 points with random labels, in 64
lanes, each until it has settled, which takes them from some hundred to thousands of
epochs: the lanes' steps in which they stood still. ``main``: the seconds of
``launch.py --config=configs/gaussian.py`` on all cores, its start and page included.
Bytes are those that go to the device and come from it by ``device_put`` and
``device_get``, a network. On a CPU they are views, and on an accelerator copies.
"""

import argparse
import ast
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COUNTS = ("lanes", "grid", "tail", "main")
FLAGS = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
TO_DEVICE, FROM_DEVICE = "bytes_to_device_a_row", "bytes_from_device_a_row"
NAME = re.compile(r"^Compiling (?:jit\()?([^\s()]+)")


class Counts:
    """Programs by name, and bytes to and from the device."""

    def __init__(self) -> None:
        self.programs: Counter[str] = Counter()
        self.to_device = self.from_device = 0

    def eager(self, ours: set[str]) -> dict[str, int]:
        """The programs that are none of ours: operations outside any."""
        return {x: count for x, count in self.programs.items() if x not in ours}


def names_of_ours(root: Path) -> set[str]:
    """Returns the names of all functions of the package, which its programs have."""
    found = {"<lambda>", "_lambda_", "<lambda"}
    for file in (root / "nfp_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """Counts programs and bytes within."""
    import jax

    counts = Counts()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := NAME.match(record.getMessage()):
                counts.programs[found[1]] += 1

    def size(tree: Any) -> int:
        return sum(int(getattr(leaf, "nbytes", 8)) for leaf in jax.tree.leaves(tree))

    put, get, handler = jax.device_put, jax.device_get, Handler()

    def counted_put(x: Any, *arguments: Any, **options: Any) -> Any:
        there = (leaf for leaf in jax.tree.leaves(x) if isinstance(leaf, jax.Array))
        counts.to_device += size(x) - size(list(there))
        return put(x, *arguments, **options)

    def counted_get(x: Any) -> Any:
        counts.from_device += size(x)
        return get(x)

    logger = logging.getLogger("jax")
    level, propagate = logger.level, logger.propagate
    jax.config.update("jax_log_compiles", True)
    logger.addHandler(handler)
    logger.propagate = False
    jax.device_put, jax.device_get = counted_put, counted_get
    try:
        yield counts
    finally:
        jax.device_put, jax.device_get = put, get
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        jax.config.update("jax_log_compiles", False)


def small_networks(
    count: int, hidden: int, n: int, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """Returns a training with these options, networks 8-hidden-hidden-2 on n points
    with random labels, and options of the run.
    """
    import jax
    import jax.numpy as jnp
    import optax

    import nfp_jax as nfp
    from nfp_jax import ensemble, models
    from nfp_jax.training import classification_metrics, make_training

    model = models.MLP(2, (hidden, hidden))
    training = make_training(
        nfp.classification_loss(model.apply),
        optax.adam(options.pop("rate")),
        metrics_fn=classification_metrics(model.apply),
        **options,
    )

    def make(seed: jax.Array) -> Any:
        key = jax.random.key(seed)
        params = models.initialize(model, key, (8,))
        x = jax.random.normal(key, (n, 8))
        y = jax.random.bernoulli(key, shape=(n,)).astype(jnp.int32)
        return params, nfp.masks.dense_mask(params), (x, y), key

    if hasattr(ensemble, "Networks"):
        made = jax.jit(jax.vmap(make))(jnp.arange(count))
        networks = ensemble.Networks(*made, tags=range(count))
        return training, [networks], {"weights": False}
    jitted = jax.jit(make)
    jobs = [ensemble.Job(*jitted(seed), tag=seed) for seed in range(count)]
    return training, jobs, {}


def tail(count: int, width: int) -> dict[str, Any]:
    """Returns what networks waste in lanes that end at very different times."""
    import numpy as np

    from nfp_jax import ensemble
    from nfp_jax.training import stop_when_settled

    training, jobs, options = small_networks(
        count,
        12,
        256,
        rate=3e-3,
        batch_size=16,
        max_epochs=6400,
        stop=stop_when_settled(),
    )
    epochs: list[int] = []
    _, stats = ensemble.run(
        training,
        jobs,
        lanes=width,
        collect=False,
        on_finish=lambda job, result: epochs.append(int(result.epochs)),
        **options,
    )
    at = (0, 0.25, 0.5, 0.75, 0.95, 1)
    return {
        "networks": len(epochs),
        "lanes": width,
        "seconds": stats.seconds,
        "epochs": dict(zip(map(str, at), np.quantile(epochs, at), strict=True)),
        "wasted": stats.wasted,
    }


def lanes(count: int, width: int) -> dict[str, Any]:
    """Returns what many small networks in lanes cost the host."""
    from nfp_jax import ensemble
    from nfp_jax.training import stop_when_still

    training, jobs, options = small_networks(
        count, 4, 32, rate=1e-3, max_epochs=16, stop=stop_when_still(min_epochs=16)
    )
    options["lanes"] = width
    first, _ = ensemble.run(training, jobs, **options)  # compiles
    assert len(first) == count
    hosts = []
    for _ in range(5):
        with counting() as counts:
            start = time.perf_counter()
            _, stats = ensemble.run(training, jobs, **options)
            seconds = time.perf_counter() - start
        hosts.append(seconds - stats.compile_seconds - stats.train_seconds)
    return {
        "networks": count,
        "lanes": width,
        "seconds": seconds,
        "train_seconds": stats.train_seconds,
        "host_ms_a_network": 1e3 * sorted(hosts)[2] / count,
        "programs": sum(counts.programs.values()),
        "bytes_to_device_a_network": counts.to_device / count,
        "bytes_from_device_a_network": counts.from_device / count,
        "wasted": stats.wasted,
    }


def grid(root: Path, preset: str, width: int) -> dict[str, Any]:
    """Returns what a grid of ``gaussian.py``, cut to one epoch a network, compiles."""
    import nfp_jax as nfp

    sys.path.insert(0, str(root))
    from configs import gaussian

    config = gaussian.get_config(preset)
    config.train.max_epochs, config.train.stop = 1, "still"
    config.engine.lanes = width
    with tempfile.TemporaryDirectory() as folder, counting() as counts:
        config.out = folder
        start = time.perf_counter()
        run = nfp.run(config)
        seconds = time.perf_counter() - start
    eager = counts.eager(names_of_ours(root))
    return {
        "preset": preset,
        "rows": run.cells,
        "failures": len(run.failures),
        "seconds": seconds,
        "programs": sum(counts.programs.values()),
        "programs_by_name": dict(counts.programs.most_common()),
        "eager": sum(eager.values()),
        "eager_by_name": dict(Counter(eager).most_common()),
        TO_DEVICE: counts.to_device / run.cells,
        FROM_DEVICE: counts.from_device / run.cells,
    }


def launched(root: Path) -> dict[str, Any]:
    """Returns what the main experiment takes, with one network on each core."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "launch.py", "--config=configs/gaussian.py"]
        start = time.perf_counter()
        subprocess.run(
            [*command, f"--config.out={folder}"],
            cwd=root,
            env={**os.environ, "XLA_FLAGS": ""},
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - start
        (path,) = Path(folder).glob("*/run.json")
        [run] = json.loads(path.read_text("utf-8"))["runs"]
    shown = ("networks", "compile_seconds", "train_seconds")
    return {"seconds": seconds, **{name: run[name] for name in shown}}


def table(counts: dict[str, Any]) -> str:
    """Returns counts as a Markdown table, those of the other checkout first."""
    small, every, late, main = (counts[what] for what in COUNTS)

    def line(what: str, found: dict[str, Any], name: str, form: str, unit: str) -> str:
        values = [f"{found[x][name]:{form}}" for x in ("beside", "this")]
        shown = [value.replace("%", " %") + unit for value in values]
        return f"| {what} | {' | '.join(shown)} |"

    networks, rows, tail = small["this"], every["this"], late["this"]
    times = [main[x]["seconds"] for x in ("beside", "this")]
    some = f"{networks['networks']:,} networks 8-4-4-2 in {networks['lanes']} lanes"
    grid = f"`gaussian.py:{rows['preset']}` ({rows['rows']:,} rows), one epoch each"
    slow = (
        f"{tail['networks']} networks of {tail['epochs']['0']:,.0f} to "
        f"{tail['epochs']['1']:,.0f} epochs in {tail['lanes']} lanes"
    )
    lines = [
        "| | before | now |",
        "| --- | --- | --- |",
        line(f"{some}: host time", small, "host_ms_a_network", ".3f", " ms a network"),
        line("the same: seconds in all", small, "seconds", ".2f", ""),
        line("the same: lane-steps wasted", small, "wasted", ".0%", ""),
        line(f"{grid}: programs compiled", every, "programs", "d", ""),
        line("the same: of these eager", every, "eager", "d", ""),
        line("the same: bytes to the device", every, TO_DEVICE, ",.0f", " a row"),
        line("the same: bytes from the device", every, FROM_DEVICE, ",.0f", " a row"),
        line(f"{slow}: lane-steps wasted", late, "wasted", ".0%", ""),
        line("the same: seconds in all", late, "seconds", ".0f", ""),
        line("`configs/gaussian.py`: seconds in all", main, "seconds", ".1f", ""),
        f"| the same: how many times faster | | {times[0] / times[1]:.2f} |",
    ]
    return "\n".join(lines)


def count_in(root: Path, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns one of the counts, of a checkout, from a process of its own."""
    command = [sys.executable, __file__, f"--count={what}", f"--root={root}"]
    command += [f"--networks={arguments.networks}", f"--lanes={arguments.lanes}"]
    command += [f"--preset={arguments.preset}"]
    path = f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "XLA_FLAGS": FLAGS, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Counts, and prints what was found; with ``--write`` also to a file."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--networks", type=int, default=2000)
    options.add_argument("--lanes", type=int, default=256)
    options.add_argument("--preset", default="paper", help="of configs/gaussian.py")
    options.add_argument("--only", choices=COUNTS)
    options.add_argument("--beside", type=Path, help="another checkout")
    options.add_argument("--show", type=Path, help="print the table of such a file")
    options.add_argument("--write", type=Path, help="a JSON file: what is counted now")
    options.add_argument("--count", choices=COUNTS, help=argparse.SUPPRESS)
    options.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.show:
        print(table(json.loads(arguments.show.read_text("utf-8"))))
        return 0
    if arguments.count == "lanes":
        print(json.dumps(lanes(arguments.networks, arguments.lanes)))
        return 0
    if arguments.count == "main":
        print(json.dumps(launched(arguments.root)))
        return 0
    if arguments.count == "tail":
        print(json.dumps(tail(256, 64)))
        return 0
    if arguments.count == "grid":
        found = grid(arguments.root, arguments.preset, arguments.lanes)
        print(json.dumps(found))
        return 0
    counts = [arguments.only] if arguments.only else COUNTS
    roots = {"this": ROOT}
    if arguments.beside:
        roots["beside"] = arguments.beside.resolve()
    every: dict[str, Any] = {}
    if arguments.write and arguments.write.exists():  # what is not counted now stays
        every = json.loads(arguments.write.read_text("utf-8"))
    every["machine"] = machine()
    for what in counts:
        every[what] = {x: count_in(root, what, arguments) for x, root in roots.items()}
    text = json.dumps(every, indent=2)
    print(text)
    if arguments.write:
        arguments.write.write_text(text + "\n", encoding="utf-8")
    return 0


def machine() -> str:
    """Returns the machine in words."""
    from nfp_jax import running

    return running.processor()


if __name__ == "__main__":
    sys.exit(main())
