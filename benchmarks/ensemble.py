"""Network-steps a second, of many networks trained for a fixed number of steps.

    python benchmarks/ensemble.py
    python benchmarks/ensemble.py --networks=64 --dims=784 --rounds=5
    python benchmarks/ensemble.py --check
    python benchmarks/ensemble.py --show=benchmarks/results/MACHINE.json

N networks d-200-200-C (C is 2 at d = 50, else 10), batch 64, Adam 1e-3, each on its own
permutations of 2048 points, without any evaluation. The clock runs from initial weights
as numpy arrays to trained ones as numpy arrays; starting and compiling come before it.
Ratios are to the PyTorch
loop over networks in as many processes of one thread as there are cores.
Dense masks are trained by all contenders. At 95 % random sparsity, ours with the dead
neurons removed meets the same loop, whose work is dense there too.
Before that, all are checked to train the same networks: from the same weights, in the
same order of batches, to the same weights: all but ``SHARE`` of them up to
``TOLERANCE`` (Adam divides a gradient that is all rounding by its own size).
"""

import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import engine
import numpy as np
import problem
from contest import Answer, Contender, Machine, Part, Setting

POINTS, BATCH = 64 * 32, 64
# After the check's 32 steps a wrong mask, order or learning rate changes nearly all
# weights by some 1e-3.
TOLERANCE, SHARE = 1e-4, 1e-4


def contenders(machine: Machine) -> list[Contender]:
    """Returns the rows of the table; the first is the baseline."""
    processes, threads = machine.loop
    each = {"processes": processes, "threads": threads, "torch": True}
    name = f"{processes} x {threads or machine.cores} threads"
    return [
        Contender("torch_loop", f"PyTorch loop, {name}", "torch_loop", **each),
        Contender(
            "torch_loop_one_process",
            f"PyTorch loop, 1 x {machine.cores} threads",
            "torch_loop",
            torch=True,
        ),
        Contender(
            "torch_loop_fused",
            f"PyTorch loop, Adam(fused=True), {name}",
            "torch_loop",
            options={"adam": {"fused": True}},
            **each,
        ),
        Contender(
            "torch_vmap", "torch.func vmap, fused Adam", "torch_vmap", torch=True
        ),
        Contender(
            "torch_compile",
            "torch.func vmap, torch.compile of the whole step",
            "torch_vmap",
            options={"compile": True},
            torch=True,
        ),
        Contender("jax_vmap", "JAX jit(vmap(scan)), optax", "jax_vmap"),
        Contender("ours", "ours", "ours", threads=1),
        Contender(
            "ours_shrunk",
            "ours, dead neurons removed",
            "ours",
            threads=1,
            options={"shrink": True},
        ),
    ]


def steps_for(networks: int, dim: int, gflop: float) -> int:
    """Returns the steps of each network: 16 to 1024, for so much arithmetic in all.

    Within an epoch or whole epochs, which spares the vmapped contenders a remainder.

    >>> steps_for(8, 784, 100.0), steps_for(256, 3072, 100.0)
    (192, 16)
    """
    each = gflop * 1e9 / networks / contest.step_flops(dim, classes_of(dim))
    steps = min(max(int(each), 16), 1024)
    an_epoch = POINTS // BATCH
    return steps if steps < an_epoch else steps // an_epoch * an_epoch


def classes_of(dim: int) -> int:
    """Returns the number of classes that goes with an input dimension."""
    return 2 if dim == 50 else 10


def setting_of(
    networks: int, dim: int, sparsity: float, steps: int, points: int = POINTS
) -> Setting:
    """Returns what the workers are told."""
    return {
        "networks": networks,
        "dim": dim,
        "classes": classes_of(dim),
        "sparsity": sparsity,
        "steps": steps,
        "points": points,
        "save": None,
    }


# Workers


def _start(setting: Setting, part: Part) -> tuple[list[int], list[Any], Any]:
    """This process's networks, their numbers and the points."""
    mine = part.mine(range(setting["networks"]))
    dim, classes = setting["dim"], setting["classes"]
    networks = [problem.layers(i, dim, classes, setting["sparsity"]) for i in mine]
    return mine, networks, problem.points(0, setting["points"], dim, classes)


def _set_precision(setting: Setting) -> None:
    """Full precision in a check; else TF32 on a GPU, JAX's default there."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.backends.cuda.matmul.allow_tf32 = not setting["save"]
    if (jax := sys.modules.get("jax")) is not None:
        full = "highest" if setting["save"] else None
        jax.config.update("jax_default_matmul_precision", full)


def _given_orders(setting: Setting, mine: list[int]) -> np.ndarray:
    """The check's orders of points, those of our engine, ``[networks, epochs, n]``."""
    n = setting["points"]
    epochs = math.ceil(setting["steps"] * BATCH / n)
    return np.array(
        [[problem.engine_order(i, e, n, BATCH) for e in range(epochs)] for i in mine]
    )


def _answer(setting: Setting, part: Part, trained: list[np.ndarray]) -> Answer:
    """The work done; in a check, the weights are saved for the parent."""
    if setting["save"]:
        np.save(f"{setting['save']}.{part.index}.npy", np.array(trained))
    return {"work": len(trained) * setting["steps"]}


def torch_loop(setting: Setting, part: Part) -> Callable[[], Answer]:
    """One network after the other, in plain PyTorch."""
    import torch
    import torch_networks as rival

    torch.set_num_threads(part.threads)
    _set_precision(setting)
    mine, networks, (x, y) = _start(setting, part)
    adam = part.options.get("adam", {})
    check = bool(setting["save"])
    orders = _given_orders(setting, mine) if check else None

    def train(k: int, steps: int) -> np.ndarray:
        net = rival.Net(networks[k])
        points = rival.place(x, y)
        order = rival.random_order(len(y))
        if orders is not None:
            order = lambda epoch: torch.from_numpy(orders[k, epoch])  # noqa: E731
        rival.train_steps(net, *points, steps=steps, batch=BATCH, order=order, **adam)
        return net.flat()

    if mine:
        train(0, 2)
    return lambda: _answer(
        setting, part, [train(k, setting["steps"]) for k in range(len(mine))]
    )


_compiled: dict[tuple[Any, ...], Any] = {}


def torch_vmap(setting: Setting, part: Part) -> Callable[[], Answer]:
    """All networks at once by ``torch.func``; with ``compile`` the step is compiled."""
    import torch
    import torch_networks as rival
    from torch.func import functional_call, grad, stack_module_state, vmap
    from torch.nn import functional as F

    torch.set_num_threads(part.threads)
    _set_precision(setting)
    mine, networks, (x, y) = _start(setting, part)
    an_epoch = math.ceil(len(y) / BATCH)
    check = bool(setting["save"])
    orders = torch.from_numpy(_given_orders(setting, mine)) if check else None
    base = rival.Net(networks[0]).to("meta")

    def loss(params: Any, buffers: Any, x: Any, y: Any) -> Any:
        return F.cross_entropy(functional_call(base, (params, buffers), (x,)), y)

    gradient = vmap(grad(loss))

    def adam_step(
        params: Any, buffers: Any, mean: Any, square: Any, count: Any, x: Any, y: Any
    ) -> None:
        count += 1
        first, second = 1 - 0.9**count, 1 - 0.999**count
        for name, g in gradient(params, buffers, x, y).items():
            mean[name].mul_(0.9).add_(g, alpha=0.1)
            square[name].mul_(0.999).addcmul_(g, g, value=0.001)
            size = (square[name] / second).sqrt_().add_(1e-8)
            params[name].sub_(1e-3 * (mean[name] / first) / size)

    if part.options.get("compile"):
        shape = (setting["networks"], setting["dim"])
        if shape not in _compiled:
            torch._dynamo.reset()
            _compiled.clear()
            _compiled[shape] = torch.compile(adam_step, dynamic=False)
        adam_step = _compiled[shape]

    def train(steps: int) -> list[np.ndarray]:
        params, buffers = stack_module_state([rival.Net(net) for net in networks])
        points_x, points_y = rival.place(x, y)
        if part.options.get("compile"):
            params = {name: leaf.detach() for name, leaf in params.items()}
            mean, square = (
                {name: torch.zeros_like(leaf) for name, leaf in params.items()}
                for _ in range(2)
            )
            count = torch.zeros((), device=rival.DEVICE)
        else:
            optimizer = torch.optim.Adam(params.values(), lr=1e-3, fused=True)
        for step in range(steps):
            epoch, i = divmod(step, an_epoch)
            if i == 0 and orders is not None:
                order = orders[:, epoch]
            elif i == 0:  # [networks, n], a permutation in each row
                noise = torch.rand(len(mine), len(y), device=rival.DEVICE)
                order = noise.argsort(dim=1)
            index = order[:, i * BATCH : (i + 1) * BATCH]
            batch = points_x[index], points_y[index]
            if part.options.get("compile"):
                with torch.no_grad():
                    adam_step(params, buffers, mean, square, count, *batch)
                continue
            for name, g in gradient(params, buffers, *batch).items():
                params[name].grad = g
            optimizer.step()
        places = [f"layers.{i}" for i in range(len(networks[0]))]
        whole = {
            name: leaf.detach().cpu() for name, leaf in {**params, **buffers}.items()
        }
        return [
            rival.flat(
                [
                    [whole[f"{place}.{name}"][k] for name in ("weight", "bias", "mask")]
                    for place in places
                ]
            )
            for k in range(len(mine))
        ]

    train(2)
    return lambda: _answer(setting, part, train(setting["steps"]))


_programs: dict[tuple[Any, ...], Any] = {}


def jax_vmap(setting: Setting, part: Part) -> Callable[[], Answer]:
    """All networks at once by ``jit(vmap(scan))``, as one would write it for one."""
    import jax
    import jax.numpy as jnp
    import optax

    from nfp_jax import models

    _set_precision(setting)
    mine, networks, (x, y) = _start(setting, part)
    steps, n = setting["steps"], setting["points"]
    check = bool(setting["save"])
    model = models.MLP(setting["classes"], problem.WIDTHS)
    optimizer = optax.adam(1e-3)
    epochs = max(steps * BATCH // n, 1)

    def loss_fn(params: Any, mask: Any, x: Any, y: Any) -> Any:
        masked = jax.tree.map(jnp.multiply, params, mask)
        logits = model.apply(masked, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean()

    def train_one(params: Any, mask: Any, orders: Any, x: Any, y: Any) -> Any:
        def step(carry: Any, index: Any) -> Any:
            params, state = carry
            gradient = jax.grad(loss_fn)(params, mask, x[index], y[index])
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        def epoch(carry: Any, e: Any) -> Any:
            if check:
                order = orders[e]
            else:
                order = jax.random.permutation(jax.random.fold_in(orders, e), n)
            batches = order.reshape(-1, BATCH)[: steps // epochs]
            return jax.lax.scan(step, carry, batches)

        start = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(epoch, start, jnp.arange(epochs))
        return jax.tree.map(jnp.multiply, params, mask)

    def arguments() -> tuple[Any, ...]:
        params = _stacked([problem.flax_params(net) for net in networks])
        masks = _stacked([problem.flax_mask(net) for net in networks])
        masks = jax.tree.map(np.float32, masks)
        keys = jax.vmap(jax.random.key)(np.array(mine))
        orders = _given_orders(setting, mine) if check else keys
        return params, masks, orders, x, y

    shape = (len(mine), setting["dim"], steps, n, check)
    if shape not in _programs:
        _programs.clear()
        train = jax.vmap(train_one, in_axes=(0, 0, 0, None, None))
        _programs[shape] = jax.jit(train).lower(*arguments()).compile()

    def run() -> Answer:
        trained = jax.device_get(_programs[shape](*arguments()))
        flat = [problem.flat(_at(trained, k)) for k in range(len(mine))]
        return _answer(setting, part, flat)

    return run


def _at(trees: Any, k: int) -> Any:
    import jax

    return jax.tree.map(lambda leaf: leaf[k], trees)


def _stacked(trees: list[Any]) -> Any:
    import jax

    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def ours(setting: Setting, part: Part) -> Callable[[], Answer]:
    """The engine; with ``shrink``, dead neurons are removed first."""
    from nfp_jax import ensemble

    ensemble.use_all_cores(part.options.get("devices"))
    import jax
    import jax.numpy as jnp
    import optax

    from nfp_jax import models, scores, training

    _set_precision(setting)
    mine, networks, data = _start(setting, part)
    model = models.MLP(setting["classes"], problem.WIDTHS)
    options: dict[str, Any] = {}
    if part.options.get("shrink"):
        from nfp_jax import compaction

        chain = models.layer_chain(model)
        small_of = compaction.make_shrink(chain, dead_inputs=True)
        options["shrink"] = lambda job: small_of(job.params, job.mask)
        apply_fn = models.apply_at_any_width(model)
    else:
        apply_fn = model.apply
    nothing = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
    trained = training.make_training(
        scores.classification_loss(apply_fn),
        optax.adam(1e-3),
        metrics_fn=lambda params, data: nothing,  # no forward pass to measure
        batch_size=BATCH,
        max_epochs=math.ceil(setting["steps"] * BATCH / setting["points"]),
        stop=lambda progress: jnp.bool_(False),
    )
    devices = jax.local_devices()[: part.options.get("devices")]

    jobs = [
        ensemble.Job(
            problem.flax_params(net),
            problem.flax_mask(net),
            data,
            jax.random.key(i),
            setting["steps"],
        )
        for i, net in zip(mine, networks, strict=True)
    ]
    shapes: dict[Any, ensemble.Job] = {}  # one job of each shape that is trained
    for job in jobs if options else jobs[:1]:
        small = options["shrink"](job) if options else None
        params = small.params if small else job.params
        key = tuple(leaf.shape for leaf in jax.tree.leaves(params))
        shapes.setdefault(key, job._replace(steps=1))

    def run() -> Answer:
        results, facts = engine.timed_run(
            trained, jobs, list(shapes.values()), devices=devices, **options
        )
        answer = _answer(setting, part, [problem.flat(r.params) for r in results])
        return {**answer, **facts, "shapes": len(shapes)}

    return run


WORKERS = {
    "torch_loop": torch_loop,
    "torch_vmap": torch_vmap,
    "jax_vmap": jax_vmap,
    "ours": ours,
}


# The parent


def check(duel: contest.Contest, rows: list[Contender], *, quick: bool) -> Any:
    """Returns how far weights are from the baseline's, by setting and contender."""
    found: dict[str, Any] = {}
    networks = 2 if quick else 4
    settings = [(50, 0.95)] if quick else itertools.product((50, 784), (0.0, 0.95))
    for dim, sparsity in settings:
        setting = setting_of(networks, dim, sparsity, steps=32, points=BATCH * 8)
        weights = {}
        with tempfile.TemporaryDirectory() as folder:
            for contender in rows:
                save = str(Path(folder) / contender.name)
                told = {**setting, "save": save}
                record = duel.run(told, [contender], 1)[contender.name]
                if record.error:
                    weights[contender.name] = record.error
                    continue
                whole = np.zeros((networks, _size(setting)), np.float32)
                for i in range(contender.processes):
                    whole[i :: contender.processes] = np.load(f"{save}.{i}.npy")
                weights[contender.name] = whole
        reference = weights[rows[0].name]
        found[f"d={dim}, sparsity {sparsity}"] = {
            name: value if isinstance(value, str) else _distance(value, reference)
            for name, value in weights.items()
        }
    return found


def _distance(weights: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    difference = np.abs(weights - reference)
    return {
        "largest": float(difference.max()),
        "beyond_tolerance": float(np.mean(difference > TOLERANCE)),
    }


def _size(setting: Setting) -> int:
    sizes = (setting["dim"], *problem.WIDTHS, setting["classes"])
    return sum((rows + 1) * columns for rows, columns in itertools.pairwise(sizes))


def main() -> int:
    """Checks, measures, prints and writes; returns the exit code."""
    options = contest.parser(__doc__)
    options.add_argument("--networks", type=contest.numbers(int))
    options.add_argument("--dims", type=contest.numbers(int))
    options.add_argument("--sparsities", type=contest.numbers(float))
    options.add_argument("--gflop", type=float, help="arithmetic of each run")
    options.add_argument("--only", type=contest.numbers(str), help="contenders by name")
    options.add_argument("--check", action="store_true", help="check, and end")
    options.add_argument("--show", type=Path, help="print the table of such a file")
    arguments = options.parse_args()
    if arguments.worker:
        return contest.serve(WORKERS, arguments.worker)
    if arguments.show:
        print(table(json.loads(arguments.show.read_text("utf-8"))))
        return 0
    quick = arguments.quick
    networks = arguments.networks or ([2] if quick else [1, 8, 64, 256])
    dims = arguments.dims or ([50] if quick else [50, 784, 3072])
    sparsities = arguments.sparsities or ([0.95] if quick else [0.0, 0.95])
    rounds = arguments.rounds or (1 if quick else 3)
    gflop = arguments.gflop or (1.0 if quick else 100.0)
    machine = contest.find_machine(arguments)
    known = contest.present(contenders(machine), machine)
    if arguments.only:
        known = [c for c in known if c.name in arguments.only]
    with contest.start(__file__, arguments) as duel:
        duel.log("check")
        found = check(duel, known, quick=quick)
        agrees = _show_check(found)
        contest.write("ensemble, check", arguments, machine, {"weights": found})
        if arguments.check:
            return 0 if agrees else 1
        for dim, count, sparsity in itertools.product(dims, networks, sparsities):
            steps = steps_for(count, dim, gflop)
            setting = setting_of(count, dim, sparsity, steps)
            duel.log(f"{setting}")
            if sparsity:
                rows = [c for c in known if c.name in ("torch_loop", *_OURS)]
            else:
                rows = [c for c in known if c.name != "ours_shrunk"]
            records = duel.run(setting, rows, rounds)
            entry = contest.entry(setting, records, "torch_loop")
            title = f"{count} networks, d = {dim}, sparsity {sparsity}"
            contest.show(
                f"{title}, {steps} steps each",
                contest.rows(entry, "network-steps/s"),
                contest.torch_note(machine),
            )
            # Each on its own, so that another call adds settings to these.
            path = contest.write(f"ensemble, {title}", arguments, machine, entry)
            duel.log(f"{path}")
    return 0 if agrees else 1


_OURS = ("ours", "ours_shrunk")


def table(found: dict[str, Any]) -> str:
    """Returns ratios to the loop as Markdown: a line a setting and contender."""
    lines = [
        "| networks | d | removed | steps | | network-steps a second, to the loop's |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in found.values():
        for name, row in entry.get("contenders", {}).items():
            if name != entry["baseline"] and not row["error"]:
                told, ratio = entry["setting"], row["ratio"]
                lines.append(
                    f"| {told['networks']} | {told['dim']} | {told['sparsity']:.0%} "
                    f"| {told['steps']} | {row['label']} | {ratio['median']:.2f} "
                    f"({ratio['min']:.2f} to {ratio['max']:.2f}) |".replace("%", " %")
                )
    return "\n".join(lines)


def _show_check(found: Any) -> bool:
    """Prints the differences; returns whether all who took part agree."""
    agrees = True
    for title, differences in found.items():
        table = [["", "largest difference", f"share above {TOLERANCE}"]]
        for name, value in differences.items():
            if isinstance(value, str):
                table.append([name, value])
                continue
            largest, beyond = value.values()
            table.append([name, f"{largest:.1e}", f"{beyond:.1e}"])
            agrees &= beyond <= SHARE
        first = next(iter(differences))
        contest.show(f"Weights after 32 steps against {first}'s, {title}", table)
    if not agrees:
        print(f"More than {SHARE} of the weights differ: this compares nothing.")
    return agrees


if __name__ == "__main__":
    sys.exit(main())
