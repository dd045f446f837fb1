"""Seconds for a whole grid: every network to its own convergence.

    python benchmarks/grid.py
    python benchmarks/grid.py --part=grid --lanes=16
    python benchmarks/grid.py --part=gaussian --share=0.25

Two grids. ``grid``: 128 networks 50-200-200-2 on 128 to 1024 Gaussian points with
random labels, random masks of sparsity 0 to 0.9, Adam 1e-3, batch 64, until the
accuracy on the whole set, taken every epoch, stands still (60 epochs at most). Jobs and
stopping rule are the same for all; the order of batches is each contender's own. Also
the share of network-steps in which a network stood still or was already done.
Compiling comes before the clock.

``gaussian``: ``configs/gaussian.py`` as a whole, with the same stopping rule and
budget. Ours is the command, ``launch.py``, with its start, its compiling, its figures
and its page all counted; the PyTorch loop takes the cells one by one, each with its own
scoring, dense training or IMP rounds, as a grid is commonly written, its start not
counted. Ratios are to the PyTorch loop in as many processes of one thread as there are
cores, jobs dealt out longest first.
"""

import importlib.util
import itertools
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import engine
import numpy as np
import problem
from contest import Answer, Contender, Machine, Part, Setting

ROOT = Path(__file__).parent.parent
CLASSES, BATCH = 2, 64
DIM = 50


def contenders(machine: Machine, lanes: int | None) -> list[Contender]:
    """Returns the rows of the first table; the first is the baseline."""
    processes, threads = machine.loop
    name = f"{processes} x {threads or machine.cores} threads"
    rows = [
        Contender(
            "torch_loop",
            f"PyTorch loop, {name}",
            "torch_jobs",
            processes,
            threads,
            torch=True,
        ),
        Contender("ours", "ours", "ours", threads=1),
        Contender("sequential", "ours, one after the other", "sequential"),
        Contender("vmap_while", "vmap(while_loop), 1 round", "vmap_while", rounds=1),
    ]
    if lanes:
        options = {"lanes": lanes}
        label = f"ours, {lanes} lanes a device"
        rows.append(Contender("lanes", label, "ours", threads=1, options=options))
    return rows


def jobs_of(setting: Setting) -> list[tuple[int, int, float]]:
    """Returns the jobs, longest first by a guess: their number, n and sparsity."""
    axes = itertools.product(
        range(setting["seeds"]), setting["sizes"], setting["sparsities"]
    )
    jobs = [(i, n, sparsity) for i, (_, n, sparsity) in enumerate(axes)]
    return sorted(jobs, key=lambda job: -(job[1] ** 2) / (1 - job[2]))


def _steps(n: int, epochs: int) -> int:
    return epochs * math.ceil(n / BATCH)


def _answer(outcomes: list[tuple[int, int, float]], **facts: Any) -> Answer:
    """The work done, of ``(n, epochs, accuracy)`` of each network."""
    return {
        "work": len(outcomes),
        "steps": sum(_steps(n, epochs) for n, epochs, _ in outcomes),
        "epochs": [epochs for _, epochs, _ in outcomes],
        "accuracies": [accuracy for _, _, accuracy in outcomes],
        **facts,
    }


# Workers of the first grid


def torch_jobs(setting: Setting, part: Part) -> Callable[[], Answer]:
    """One network after the other, in plain PyTorch."""
    import torch
    import torch_networks as rival

    torch.set_num_threads(part.threads)
    jobs = part.mine(jobs_of(setting))

    def train(job: tuple[int, int, float], max_epochs: int) -> tuple[int, int, float]:
        i, n, sparsity = job
        net = rival.Net(problem.layers(i, DIM, CLASSES, sparsity))
        points = rival.place(*problem.points(i, n, DIM, CLASSES))
        return n, *rival.train(net, *points, max_epochs=max_epochs)

    train(jobs[0], 1)
    return lambda: _answer(
        [train(job, setting["max_epochs"]) for job in jobs], wasted=0.0
    )


_trainings: dict[int, Any] = {}


def _training(max_epochs: int) -> Any:
    """The training of our side, the same object in every round."""
    import optax

    from nfp_jax import models, scores, training

    if max_epochs not in _trainings:
        apply_fn = models.MLP(CLASSES, problem.WIDTHS).apply
        _trainings[max_epochs] = training.make_training(
            scores.classification_loss(apply_fn),
            optax.adam(1e-3),
            metrics_fn=training.classification_metrics(apply_fn),
            batch_size=BATCH,
            max_epochs=max_epochs,
            stop=training.stop_when_still(),
        )
    return _trainings[max_epochs]


def _arguments(job: tuple[int, int, float]) -> tuple[Any, ...]:
    """Weights, mask, data and key of a job."""
    import jax

    i, n, sparsity = job
    network = problem.layers(i, DIM, CLASSES, sparsity)
    data = problem.points(i, n, DIM, CLASSES)
    key = jax.random.key(i)
    return problem.flax_params(network), problem.flax_mask(network), data, key


def _outcome(n: int, result: Any) -> tuple[int, int, float]:
    return n, int(result.epochs), float(result.metrics["accuracy"])


def ours(setting: Setting, part: Part) -> Callable[[], Answer]:
    """The queue."""
    from nfp_jax import ensemble

    ensemble.use_all_cores()
    lanes = part.options.get("lanes")
    trained, jobs = _training(setting["max_epochs"]), jobs_of(setting)

    warm_up = [
        ensemble.Job(*_arguments((0, n, 0.0)), steps=1) for n in setting["sizes"]
    ]

    def run() -> Answer:
        todo = [ensemble.Job(*_arguments(job)) for job in jobs]
        results, facts = engine.timed_run(trained, todo, warm_up, lanes=lanes)
        outcomes = [
            _outcome(n, result) for (_, n, _), result in zip(jobs, results, strict=True)
        ]
        return _answer(outcomes, **facts)

    return run


def sequential(setting: Setting, part: Part) -> Callable[[], Answer]:
    """One training after the other, on one device with all threads."""
    import jax

    from nfp_jax import training

    trained, jobs = _training(setting["max_epochs"]), jobs_of(setting)

    def train(job: tuple[int, int, float], **options: Any) -> tuple[int, int, float]:
        result = training.train(trained, *_arguments(job), **options)
        return _outcome(job[1], jax.device_get(result))

    for n in setting["sizes"]:
        train((0, n, 0.0), steps=1)
    return lambda: _answer([train(job) for job in jobs], wasted=0.0)


_programs: dict[int, Any] = {}


def vmap_while(setting: Setting, part: Part) -> Callable[[], Answer]:
    """All networks of one size at once, until the slowest of them is done."""
    import jax

    from nfp_jax import training

    trained, jobs = _training(setting["max_epochs"]), jobs_of(setting)
    train = jax.jit(jax.vmap(lambda *arguments: training.train(trained, *arguments)))

    def stacked(n: int) -> Any:
        parts = [_arguments(job) for job in jobs if job[1] == n]
        plain = jax.tree.map(
            lambda *leaves: np.stack(leaves), *[part[:3] for part in parts]
        )
        return *plain, jax.numpy.stack([part[3] for part in parts])

    for n in setting["sizes"]:
        if n not in _programs:
            _programs[n] = train.lower(*stacked(n)).compile()

    def run() -> Answer:
        outcomes, taken = [], 0
        for n in setting["sizes"]:
            results = jax.device_get(_programs[n](*stacked(n)))
            epochs, accuracies = results.epochs, results.metrics["accuracy"]
            outcomes += [
                (n, int(e), float(a)) for e, a in zip(epochs, accuracies, strict=True)
            ]
            taken += len(epochs) * _steps(n, int(epochs.max()))
        useful = sum(_steps(n, epochs) for n, epochs, _ in outcomes)
        return _answer(outcomes, wasted=1 - useful / taken)

    return run


# Workers of the second grid


def launch(setting: Setting, part: Part) -> Callable[[], Answer]:
    """The command a user types, in an empty directory of results."""

    def run() -> Answer:
        with tempfile.TemporaryDirectory() as out:
            begin = time.perf_counter()
            done = subprocess.run(
                [
                    sys.executable,
                    "launch.py",
                    f"--config={setting['config']}",
                    "--config.train.stop=still",
                    f"--config.train.max_epochs={setting['max_epochs']}",
                    f"--config.out={out}",
                ],
                cwd=ROOT,
                check=False,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - begin
            if done.returncode:
                raise RuntimeError(f"launch.py: {done.stderr.splitlines()[-1:]}")
            (page,) = Path(out).glob("*/run.json")
            (facts,) = json.loads(page.read_text())["runs"]
        return {
            "work": len(cells_of(setting["config"])[1]),
            "seconds": seconds,
            "run_seconds": facts["seconds"],
            "compile_seconds": facts["compile_seconds"],
            "train_seconds": facts["train_seconds"],
            "networks": facts["networks"],
        }

    return run


def cells_of(config: str) -> tuple[Any, list[dict[str, Any]]]:
    """Returns the specification of a configuration and its cells."""
    from nfp_jax.experiments import all_cells
    from nfp_jax.spec import Spec

    file, _, preset = config.partition(":")
    found = importlib.util.spec_from_file_location("config", ROOT / file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    spec = Spec.from_config(module.get_config(preset))
    return spec, all_cells(spec)


def sample(cells: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Returns a share of the cells of each pruner, evenly over its sparsities.

    Seeded; at least one of each.
    """
    draw, chosen = random.Random(0), []
    key = lambda cell: (cell["pruner"], cell["sparsity"])  # noqa: E731
    for _, group in itertools.groupby(sorted(cells, key=key), lambda c: c["pruner"]):
        all_of_it = list(group)
        count = max(round(share * len(all_of_it)), 1)
        offset = draw.random()
        chosen += [
            all_of_it[int((i + offset) * len(all_of_it) / count)] for i in range(count)
        ]
    return chosen


def torch_cells(setting: Setting, part: Part) -> Callable[[], Answer]:
    """One cell after the other, in plain PyTorch, nothing shared between them."""
    import torch
    import torch_networks as rival

    torch.set_num_threads(part.threads)
    spec, cells = cells_of(setting["config"])
    # Longest first: IMP's many trainings, then the others, sparser ones being slower.
    mine = part.mine(
        sorted(
            sample(cells, setting["share"]),
            key=lambda cell: (_trainings_of(cell), cell["sparsity"]),
            reverse=True,
        )
    )

    def run() -> Answer:
        done = [_torch_cell(rival, spec, cell, setting["max_epochs"]) for cell in mine]
        return {"work": len(mine), "cells": done}

    warm = next(cell for cell in cells if cell["pruner"] == "grasp")
    _torch_cell(rival, spec, warm, 1)
    return run


def _trainings_of(cell: dict[str, Any]) -> int:
    """About how many trainings a cell takes."""
    if cell["pruner"] == "imp":
        return 1 + math.ceil(math.log(1 - cell["sparsity"]) / math.log(0.8))
    return 2 if cell["pruner"] == "magnitude_trained" else 1


def _torch_cell(
    rival: Any, spec: Any, cell: dict[str, Any], max_epochs: int
) -> dict[str, Any]:
    """A cell from its scores to its trained network, with what it took."""
    from nfp_jax.masks import keep_count, keep_counts
    from nfp_jax.pruning import exponential

    begin = time.perf_counter()
    dim, classes = spec.data.settings["dim"], spec.data.settings["classes"]
    widths = spec.model.settings["widths"]
    settings = json.loads(cell["settings"] or "{}")
    x, y = rival.place(*problem.points(cell["data_seed"], cell["n"], dim, classes))
    initial = problem.layers(cell["init_seed"], dim, classes, widths=widths)
    total = sum(kernel.size for kernel, _, _ in initial)
    sparsity, pruner = cell["sparsity"], cell["pruner"]
    keep = keep_count(total, sparsity)

    def trained(masks: Any) -> tuple[Any, int, float]:
        net = rival.Net(initial)
        if masks is not None:
            net.set_masks(masks)
        epochs, accuracy = rival.train(net, x, y, max_epochs=max_epochs)
        return net, epochs, accuracy

    net, masks, steps = rival.Net(initial), None, 0
    if pruner == "random":
        masks = rival.random(net, keep)
    elif pruner == "magnitude_init":
        masks = rival.magnitude(net, keep)
    elif pruner == "snip":
        masks = rival.snip(net, x, y, keep)
    elif pruner == "grasp":
        temperature = settings["temperature"]
        masks = rival.grasp(net, x, y, keep, temperature=temperature)
    elif pruner == "synflow":
        rounds = settings["rounds"]
        keeps = keep_counts(total, sparsity, rounds=rounds, schedule=exponential)
        masks = rival.synflow(net, keeps)
    elif pruner in ("magnitude_trained", "imp"):
        left, turns = total, 0
        while masks is None or left > keep:
            turns += 1
            found, epochs, _ = trained(masks)
            steps += _steps(cell["n"], epochs)
            left = keep
            if pruner == "imp":
                kept = settings["keep_per_round"] ** turns
                left = max(keep, total - math.floor((1 - kept) * total))
            masks = rival.magnitude(found, left)
    _, epochs, accuracy = trained(masks)
    return {
        "pruner": pruner,
        "sparsity": sparsity,
        "accuracy": accuracy,
        "epochs": epochs,
        "steps": steps + _steps(cell["n"], epochs),
        "seconds": time.perf_counter() - begin,
    }


def scaled(
    cells: list[dict[str, Any]], counts: dict[str, int], processes: int
) -> float:
    """Returns the seconds of all cells from those of a sample, evenly dealt out.

    >>> cells = [{"pruner": "imp", "seconds": 3.0}, {"pruner": "imp", "seconds": 5.0}]
    >>> scaled(cells, {"imp": 4}, processes=2)
    8.0
    """
    whole = 0.0
    for pruner, count in counts.items():
        seconds = [cell["seconds"] for cell in cells if cell["pruner"] == pruner]
        whole += count * sum(seconds) / len(seconds)
    return whole / processes


WORKERS = {
    "torch_jobs": torch_jobs,
    "ours": ours,
    "sequential": sequential,
    "vmap_while": vmap_while,
    "launch": launch,
    "torch_cells": torch_cells,
}


# The parent


def run_grid(duel: contest.Contest, machine: Machine, arguments: Any) -> Any:
    """Measures and prints the first grid."""
    quick = arguments.quick
    setting = {
        "seeds": 2 if quick else 8,
        "sizes": [128] if quick else [128, 256, 512, 1024],
        "sparsities": [0.0, 0.9] if quick else [0.0, 0.5, 0.8, 0.9],
        "max_epochs": 12 if quick else 60,
    }
    rows = contest.present(contenders(machine, arguments.lanes), machine)
    rounds = arguments.rounds or (1 if quick else 3)
    records = duel.run(setting, rows, rounds)
    entry = contest.entry(setting, records, "torch_loop")
    table = contest.rows(entry, "networks/s")
    table[0] += ["seconds", "wasted", "mean epochs", "accuracy"]
    for line, record in zip(table[1:], records.values(), strict=True):
        if not record.error:
            parts = record.answers[-1]
            line += [
                f"{np.median(record.seconds):.1f}",
                f"{parts[0]['wasted']:.0%}",
                f"{np.mean([e for part in parts for e in part['epochs']]):.1f}",
                f"{np.mean([a for part in parts for a in part['accuracies']]):.3f}",
            ]
    count = len(jobs_of(setting))
    contest.show(f"{count} networks to convergence", table, contest.torch_note(machine))
    return entry


def run_gaussian(duel: contest.Contest, machine: Machine, arguments: Any) -> Any:
    """Measures and prints the second grid."""
    config = "configs/gaussian.py" + (":smoke" if arguments.quick else "")
    processes, threads = machine.loop
    share = arguments.share
    rows = [
        Contender(
            "torch_loop",
            f"PyTorch loop, {processes} x {threads or machine.cores} threads",
            "torch_cells",
            processes,
            threads,
            torch=True,
        ),
        Contender("launch", "ours, the whole command", "launch"),
    ]
    rows = contest.present(rows, machine)
    epochs = 12 if arguments.quick else 60
    setting = {"config": config, "share": share, "max_epochs": epochs}
    records = duel.run(setting, rows, arguments.rounds or 1)
    _, cells = cells_of(config)
    note = [contest.torch_note(machine)]
    loop = records.get("torch_loop")
    if loop and not loop.error and share < 1:
        counts = {}
        for cell in cells:
            counts[cell["pruner"]] = counts.get(cell["pruner"], 0) + 1
        for i, answers in enumerate(loop.answers):
            done = [cell for answer in answers for cell in answer["cells"]]
            loop.seconds[i] = scaled(done, counts, processes)
            loop.work[i] = len(cells)
        note.append(
            f"The loop's seconds are scaled from {len(done)} of {len(cells)} cells, "
            "evenly over pruners and sparsities."
        )
    ours = records["launch"]
    if not ours.error:
        (facts,) = ours.answers[-1]
        note.append(
            f"Of ours, {facts['run_seconds']:.1f} s are the networks, with "
            f"{facts['compile_seconds']:.1f} s of compiling summed over devices; the "
            "rest is Python's start, the figures and the page."
        )
    entry = contest.entry(setting, records, "torch_loop")
    table = contest.rows(entry, "cells/s")
    table[0].append("seconds")
    for line, record in zip(table[1:], records.values(), strict=True):
        if not record.error:
            line.append(f"{np.median(record.seconds):.1f}")
    contest.show(f"{config}, {len(cells)} cells", table, "\n".join(filter(None, note)))
    return entry


PARTS = {"grid": run_grid, "gaussian": run_gaussian}


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    options = contest.parser(__doc__)
    options.add_argument("--part", choices=PARTS, help="one of the two grids alone")
    options.add_argument("--lanes", type=int, help="also ours with so many lanes")
    options.add_argument(
        "--share", type=float, default=1.0, help="of the loop's cells, in (0, 1]"
    )
    arguments = options.parse_args()
    if arguments.worker:
        return contest.serve(WORKERS, arguments.worker)
    machine = contest.find_machine(arguments)
    for name in [arguments.part] if arguments.part else PARTS:
        with contest.start(__file__, arguments) as duel:
            duel.log(name)
            found = PARTS[name](duel, machine, arguments)
        print(f"\n{contest.write(name, arguments, machine, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
