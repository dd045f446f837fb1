"""What this machine can do, and what share of it the engine reaches.

    python benchmarks/limits.py

On CPUs: floating-point operations a second of matrix products, large and square and of
the shapes of a training step (batch 64), by numpy and by XLA, with one thread, one on
each core, and all threads together; bytes a second of a copy that no cache holds (read
and written both counted). Then the engine on the workload of ``ensemble.py``, its
arithmetic a second as a share of the large product's with a process a core: the ceiling
of a step that were nothing but large products.
On an accelerator: XLA's products and copy on it, and the memory's ceiling in
network-steps a second, where weights, two moments and gradients are read and written
once a step and a mask is read, a byte a weight.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import contest
import ensemble as ensemble_benchmark
import numpy as np
from contest import Answer, Contender, Machine, Part, Setting

BATCH, WIDTH = 64, 200


def step_bytes(dim: int, classes: int, *, width: int = WIDTH) -> int:
    """Returns the bytes that a step of one network moves at least, in float32.

    ``P·(4·2·4 + 1)``: weights, two moments and gradients read and written, and a mask.

    >>> step_bytes(1, 1, width=1)
    99
    """
    weights = dim * width + width * width + width * classes
    return weights * (4 * 2 * 4 + 1)


def shapes(dims: list[int], large: int) -> list[tuple[str, int, int, int]]:
    """Returns the products ``[m, k] @ [k, n]`` to measure, with their names."""
    found = [("large", large, large, large)]
    for dim in dims:
        found.append((f"forward {dim}", BATCH, dim, WIDTH))
        found.append((f"weight gradient {dim}", dim, BATCH, WIDTH))
    found.append((f"forward {WIDTH}", BATCH, WIDTH, WIDTH))
    found.append((f"weight gradient {WIDTH}", WIDTH, BATCH, WIDTH))
    found.append((f"input gradient {WIDTH}", BATCH, WIDTH, WIDTH))
    return found


def contenders(machine: Machine) -> list[Contender]:
    """Returns who multiplies: by library, processes and threads."""
    alone = {"environment": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}}
    if machine.platform != "cpu":
        return [Contender("xla", f"XLA, {machine.kind}", "xla")]
    many = machine.cores
    return [
        Contender("numpy_1", "numpy, 1 thread", "plain", threads=1),
        Contender("numpy_each", f"numpy, {many} x 1 thread", "plain", many, 1),
        Contender("numpy_all", f"numpy, 1 x {many} threads", "plain"),
        Contender("xla_1", "XLA, 1 thread", "xla", threads=1, **alone),
        Contender("xla_each", f"XLA, {many} x 1 thread", "xla", many, 1, **alone),
        Contender("xla_all", f"XLA, 1 x {many} threads", "xla"),
    ]


# Workers


def _repeat(setting: Setting, call: Callable[[], Any], amount: float) -> Answer:
    """The amount of work that a call does, times the calls that fit into the time."""
    begin, calls = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begin) < setting["for"]:
        call()
        calls += 1
    return {"work": calls * amount, "seconds": seconds}


def _matrices(setting: Setting) -> tuple[np.ndarray, np.ndarray, float]:
    random = np.random.default_rng(0)
    m, k, n = setting["shape"]
    a = random.standard_normal((m, k), np.float32)
    b = random.standard_normal((k, n), np.float32)
    return a, b, 2e-9 * m * k * n


def plain(setting: Setting, part: Part) -> Callable[[], Answer]:
    """Numpy's product or copy."""
    if setting["shape"] is None:
        a = np.ones(setting["bytes"] // 4, np.float32)
        b = np.zeros_like(a)
        return lambda: _repeat(setting, lambda: np.copyto(b, a), 2e-9 * a.nbytes)
    a, b, gflop = _matrices(setting)
    out = a @ b
    return lambda: _repeat(setting, lambda: np.matmul(a, b, out=out), gflop)


def xla(setting: Setting, part: Part) -> Callable[[], Answer]:
    """XLA's product or copy."""
    import jax
    import jax.numpy as jnp

    if setting["shape"] is None:
        a = jnp.ones(setting["bytes"] // 4)
        step = jax.jit(lambda a: a + 1)  # read once, written once
        step(a).block_until_ready()
        copy = lambda: step(a).block_until_ready()  # noqa: E731
        return lambda: _repeat(setting, copy, 2e-9 * a.nbytes)
    a, b, gflop = _matrices(setting)
    a, b = jax.device_put((a, b))
    many = 1 if gflop > 1 else 50  # a call costs some microseconds by itself

    @jax.jit
    def products(a: Any, b: Any) -> Any:
        def again(_: Any, carry: Any) -> Any:
            total, b = carry
            product = a @ b
            # A new b each time, of which only one entry changes: nothing is hoisted.
            return total + product[0, 0], b.at[0, 0].add(1e-9 * product[0, 0])

        return jax.lax.fori_loop(0, many, again, (jnp.float32(0), b))

    jax.block_until_ready(products(a, b))
    call = lambda: jax.block_until_ready(products(a, b))  # noqa: E731
    return lambda: _repeat(setting, call, many * gflop)


WORKERS = {"plain": plain, "xla": xla, "ours": ensemble_benchmark.ours}


# The parent


def _rate(record: contest.Record) -> float | None:
    return contest.summary(record.rates())["median"] if record.seconds else None


def _limits(
    duel: contest.Contest, machine: Machine, arguments: Any, dims: list[int]
) -> dict[str, Any]:
    """Rates by measure and contender: GFLOP/s of products, GB/s of the copy."""
    quick = arguments.quick
    rounds = arguments.rounds or (1 if quick else 3)
    rows = contenders(machine)
    large = 512 if quick else 2048 if machine.platform == "cpu" else 8192
    found = {}
    once = {"for": 0.02 if quick else 0.3}  # seconds that a call is repeated
    products = shapes(dims, large)[: 2 if quick else None]
    settings = [{"name": name, "shape": shape, **once} for name, *shape in products]
    size = 2**24 if quick else 2**28
    settings.append({"name": "copy", "shape": None, "bytes": size, **once})
    for setting in settings:
        duel.log(f"{setting}")
        records = duel.run(setting, rows, rounds)
        entry = contest.entry(setting, records, rows[0].name)
        found[setting["name"]] = {
            **entry,
            "rates": {name: _rate(record) for name, record in records.items()},
        }
    head = ["", *(f"{s['name']} {_text(s['shape'])}" for s in settings)]
    table = [[title] for title in head]
    for contender in rows:
        table[0].append(contender.label)
        for line, setting in zip(table[1:], settings, strict=True):
            rate = found[setting["name"]]["rates"][contender.name]
            line.append("failed" if rate is None else f"{rate:,.1f}")
    contest.show("GFLOP/s of products, GB/s of the copy", table)
    return found


def _text(shape: list[int] | None) -> str:
    return "(GB/s)" if shape is None else "{}x{}x{}".format(*shape)


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    options = contest.parser(__doc__)
    options.add_argument("--dims", type=contest.numbers(int))
    options.add_argument("--networks", type=int)
    arguments = options.parse_args()
    if arguments.worker:
        return contest.serve(WORKERS, arguments.worker)
    quick = arguments.quick
    machine = contest.find_machine(arguments)
    dims = arguments.dims or ([50] if quick else [50, 784, 3072])
    on_cpu = machine.platform == "cpu"
    networks = arguments.networks or (2 if quick else 64 if on_cpu else 512)
    found: dict[str, Any] = {}
    with contest.start(__file__, arguments) as duel:
        found["limits"] = _limits(duel, machine, arguments, dims)
        peak = found["limits"]["large"]["rates"]["xla_each" if on_cpu else "xla"]
        if on_cpu:  # whichever library is the faster
            numpy = found["limits"]["large"]["rates"]["numpy_each"]
            peak = max(peak or 0.0, numpy or 0.0)
        copy = found["limits"]["copy"]["rates"]["xla_each" if on_cpu else "xla"]
        table = [["", "network-steps/s", "GFLOP/s", "of the large product"]]
        if not on_cpu:
            table[0] += ["memory's ceiling", "of it"]
        found["engine"] = []
        ours = Contender("ours", "ours", "ours", threads=1)
        for dim in dims:
            classes = ensemble_benchmark.classes_of(dim)
            gflop = 0.1 if quick else 100.0 if on_cpu else 10_000.0
            steps = ensemble_benchmark.steps_for(networks, dim, gflop)
            setting = ensemble_benchmark.setting_of(networks, dim, 0.0, steps)
            duel.log(f"{setting}")
            rounds = arguments.rounds or (1 if quick else 3)
            records = duel.run(setting, [ours], rounds)
            rate = _rate(records["ours"])
            title = f"{networks} networks, d = {dim}"
            if rate is None:
                table.append([title, records["ours"].error])
                continue
            done = 1e-9 * rate * contest.step_flops(dim, classes)
            ceiling = 1e9 * copy / step_bytes(dim, classes)
            line = [title, f"{rate:,.0f}", f"{done:,.1f}", f"{done / peak:.0%}"]
            if not on_cpu:
                line += [f"{ceiling:,.0f}", f"{rate / ceiling:.0%}"]
            table.append(line)
            found["engine"].append(
                {
                    **contest.entry(setting, records, "ours"),
                    "gflop_per_second": done,
                    "share_of_large_product": done / peak,
                    "memory_ceiling": None if on_cpu else ceiling,
                }
            )
    contest.show("The engine", table)
    print(f"\n{contest.write('limits', arguments, machine, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
