"""Masks a second by SNIP, GraSP and SynFlow (100 rounds), at sparsity 0.9.

    python benchmarks/scores.py
    python benchmarks/scores.py --dims=784 --chunks=1,4,16,64

256 data sets of 1000 Gaussian points with random labels, each with its own initial
weights (SynFlow takes those alone), d-200-200-2, scored on all points at once. The
clock runs from numpy arrays to masks as numpy arrays. Ours prunes chunks of data sets
under ``jax.vmap``, a thread a device, of each chunk size given; a chunk of 1 is without
``vmap``. Ratios are to the PyTorch loop in as many processes of one thread as there are
cores. ``agree`` is the share of mask entries, of the first data sets, that are those of
the loop: the same inputs, and no randomness.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import contest
import numpy as np
import problem
from contest import Answer, Contender, Machine, Part, Setting

CLASSES, POINTS, SPARSITY, ROUNDS = 2, 1000, 0.9, 100
PRUNERS = ("snip", "grasp", "synflow")
# Entries that must agree: a few scores at the threshold differ by rounding.
AGREEMENT = 0.999
# Data sets whose masks are compared.
COMPARED = 8


def contenders(machine: Machine, chunks: list[int]) -> list[Contender]:
    """Returns the rows of the table; the first is the baseline."""
    processes, threads = machine.loop
    label = f"PyTorch loop, {processes} x {threads or machine.cores} threads"
    loop = Contender("torch_loop", label, "torch_loop", processes, threads, torch=True)
    ours = [
        Contender(
            f"ours_{chunk}",
            f"ours, vmap over {chunk}" if chunk > 1 else "ours, one by one",
            "ours",
            threads=1,
            options={"chunk": chunk},
        )
        for chunk in chunks
    ]
    return [loop, *ours]


def _inputs(setting: Setting, i: int) -> tuple[list[problem.Layer], Any]:
    dim = setting["dim"]
    network = problem.layers(i, dim, CLASSES)
    if setting["pruner"] == "synflow":
        return network, None
    return network, problem.points(i, setting["points"], dim, CLASSES)


def _keeps(setting: Setting, network: list[problem.Layer]) -> np.ndarray:
    from nfp_jax.masks import keep_counts
    from nfp_jax.pruning import exponential

    total = sum(kernel.size for kernel, _, _ in network)
    rounds = setting["rounds"] if setting["pruner"] == "synflow" else 1
    return keep_counts(total, SPARSITY, rounds=rounds, schedule=exponential)


def _answer(setting: Setting, masks: dict[int, list[np.ndarray]]) -> Answer:
    """The work done; the first masks are saved for the parent, ``[in, out]``."""
    for i, layers in masks.items():
        if i < COMPARED:
            flat = np.concatenate([layer.ravel() for layer in layers]) > 0
            np.save(f"{setting['save']}.{i}.npy", flat)
    return {"work": len(masks)}


def torch_loop(setting: Setting, part: Part) -> Callable[[], Answer]:
    """One data set after the other, in plain PyTorch."""
    import torch
    import torch_networks as rival

    torch.set_num_threads(part.threads)
    torch.backends.cuda.matmul.allow_tf32 = False  # as ours scores
    mine = part.mine(range(setting["sets"]))
    inputs = {i: _inputs(setting, i) for i in mine}
    keeps = _keeps(setting, problem.layers(0, setting["dim"], CLASSES)).tolist()
    save = {**setting, "save": f"{setting['save']}/torch_loop"}

    def prune(i: int, keeps: list[int]) -> list[np.ndarray]:
        network, data = inputs[i]
        net = rival.Net(network)
        if data is None:
            masks = rival.synflow(net, keeps)
        else:
            pruner = getattr(rival, setting["pruner"])
            masks = pruner(net, *rival.place(*data), keeps[-1])
        return [mask.T.cpu().numpy() for mask in masks]

    prune(mine[0], keeps[-2:])
    return lambda: _answer(save, {i: prune(i, keeps) for i in mine})


_programs: dict[tuple[Any, ...], Any] = {}


def _program(setting: Setting, chunk: int) -> Any:
    """The jitted pruning of a chunk, kept from round to round."""
    import jax

    from nfp_jax import models, pruning, scores

    apply_fn = models.MLP(CLASSES, problem.WIDTHS).apply
    build = {
        "snip": lambda: scores.snip(scores.classification_loss(apply_fn)),
        "grasp": lambda: scores.grasp(
            scores.classification_loss(apply_fn, temperature=200.0)
        ),
        "synflow": lambda: scores.synflow(apply_fn, (setting["dim"],)),
    }
    score_fn = build[setting["pruner"]]()

    def prune(params: Any, batch: Any, keep: Any) -> Any:
        return pruning.prune(score_fn, params, batch, keep=keep)

    key = (setting["pruner"], setting["dim"], setting["points"], chunk)
    if key not in _programs:
        many = jax.vmap(prune, in_axes=(0, 0, None)) if chunk > 1 else prune
        _programs[key] = jax.jit(many)
    return _programs[key]


def ours(setting: Setting, part: Part) -> Callable[[], Answer]:
    """A chunk of data sets at a time, on every device."""
    from nfp_jax import ensemble

    ensemble.use_all_cores()
    import jax

    chunk = min(part.options["chunk"], setting["sets"])
    count = setting["sets"] // chunk * chunk
    inputs = [_inputs(setting, i) for i in range(count)]
    keeps = _keeps(setting, inputs[0][0])
    program, devices = _program(setting, chunk), ensemble.workers(jax.local_devices())
    save = {**setting, "save": f"{setting['save']}/ours_{part.options['chunk']}"}
    layers = range(len(problem.WIDTHS) + 1)

    def prune(start: int, device: Any) -> dict[int, list[np.ndarray]]:
        numbers = range(start, start + chunk)
        trees = [(problem.flax_params(inputs[i][0]), inputs[i][1]) for i in numbers]
        arguments = trees[0]
        if chunk > 1:
            arguments = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        masks = jax.device_get(program(*jax.device_put((*arguments, keeps), device)))
        kernels = [masks["params"][f"Dense_{i}"]["kernel"] for i in layers]
        if chunk == 1:
            return {start: kernels}
        return {i: [kernel[i - start] for kernel in kernels] for i in numbers}

    def work(device: Any, starts: Any) -> dict[int, list[np.ndarray]]:
        found: dict[int, list[np.ndarray]] = {}
        for start in starts:  # shared: each takes the next one
            found |= prune(start, device)
        return found

    def run() -> Answer:
        starts = iter(range(0, count, chunk))
        found: dict[int, list[np.ndarray]] = {}
        with ThreadPoolExecutor(len(devices)) as pool:
            for part_of_it in pool.map(lambda device: work(device, starts), devices):
                found |= part_of_it
        return _answer(save, found)

    for device in devices:
        prune(0, device)
    return run


WORKERS = {"torch_loop": torch_loop, "ours": ours}


def _agreement(folder: Path, name: str) -> float | None:
    """The share of the entries that are those of the loop, None without a loop."""
    pairs = [
        (np.load(folder / f"{name}.{i}.npy"), np.load(folder / f"torch_loop.{i}.npy"))
        for i in range(COMPARED)
        if (folder / f"{name}.{i}.npy").exists()
        and (folder / f"torch_loop.{i}.npy").exists()
    ]
    if not pairs:
        return None
    return float(np.mean([np.mean(a == b) for a, b in pairs]))


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    options = contest.parser(__doc__)
    options.add_argument("--dims", type=contest.numbers(int))
    options.add_argument("--chunks", type=contest.numbers(int))
    options.add_argument("--pruners", type=contest.numbers(str))
    options.add_argument("--sets", type=int, help="data sets to prune on")
    arguments = options.parse_args()
    if arguments.worker:
        return contest.serve(WORKERS, arguments.worker)
    quick = arguments.quick
    machine = contest.find_machine(arguments)
    chunks = arguments.chunks or ([1, 2] if quick else [1, 4, 16])
    rows = contest.present(contenders(machine, chunks), machine)
    rounds = arguments.rounds or (1 if quick else 3)
    found: dict[str, Any] = {"settings": []}
    agree = True
    with contest.start(__file__, arguments) as duel:
        pruners = arguments.pruners or PRUNERS
        for dim, pruner in itertools.product(arguments.dims or [50], pruners):
            setting = {
                "pruner": pruner,
                "dim": dim,
                "sets": arguments.sets or (4 if quick else 256),
                "points": 100 if quick else POINTS,
                "rounds": 5 if quick else ROUNDS,
                "sparsity": SPARSITY,
            }
            duel.log(f"{setting}")
            with tempfile.TemporaryDirectory() as folder:
                records = duel.run({**setting, "save": folder}, rows, rounds)
                shares = {name: _agreement(Path(folder), name) for name in records}
            entry = contest.entry(setting, records, "torch_loop")
            entry["agreement"] = shares
            found["settings"].append(entry)
            table = contest.rows(entry, "masks/s")
            table[0].append("agree")
            for line, (name, record) in zip(table[1:], records.items(), strict=True):
                share = shares[name]
                if not record.error:
                    line.append("-" if share is None else f"{share:.5f}")
                    agree &= share is None or share >= AGREEMENT
            title = f"{pruner}, d = {dim}, {setting['sets']} sets"
            contest.show(title, table, contest.torch_note(machine))
    print(f"\n{contest.write('scores', arguments, machine, found)}")
    if not agree:
        print(f"Masks agree in less than {AGREEMENT}: this compares nothing.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
