"""What an accelerator takes: training end to end, and the main experiment.

    benchmarks/gpu.sh
    python benchmarks/gpu.py --only=steps --networks=512 --steps=1024

``steps``: N networks d-200-200-C made on the device from seeds, trained for a fixed
number of steps, batch 64, Adam, and what was measured of them on the host; beside it
plain ``jit(vmap(scan))`` with optax, from the same seeds, in the same process. Its
seconds are those of the second run, without compiling. ``small`` and ``paper``:
``configs/gaussian.py`` and its preset ``paper`` from cells to rows, without the page:
once with an empty cache of compiled programs and once with what that left. Each part is
a process of its own with a limit of time; one that fails says why, and the others run.
With ``--quick`` all of it is tiny, and a CPU takes lanes, too: it shows that every part
runs, and its numbers mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
POINTS, BATCH, WIDTH = 2048, 64, 200
# Seconds that each part may take; together under six minutes.
PARTS = {"steps": 110, "small": 80, "paper": 130}


def steps(networks: int, count: int, moments: str) -> list[dict[str, Any]]:
    """Returns the network-steps a second of the engine, and of plain JAX beside it."""
    sizes = ((784, 10), (50, 2))
    return [steps_at(*size, networks, count, moments) for size in sizes]


def steps_at(
    dim: int, classes: int, networks: int, count: int, moments: str
) -> dict[str, Any]:
    """Returns the network-steps a second at one size of the inputs."""
    import jax
    import jax.numpy as jnp
    import optax

    import nfp_jax as nfp
    from nfp_jax import ensemble, models, training

    model = models.MLP(classes, (WIDTH, WIDTH))
    loss_fn = nfp.classification_loss(model.apply)
    nothing = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
    optimizer = optax.adam(1e-3)
    if moments == "bfloat16":
        optimizer = training.bfloat16_moments(optimizer)
    made = training.make_training(
        loss_fn,
        optimizer,
        metrics_fn=lambda params, data: nothing,  # only at the end, as beside it
        batch_size=BATCH,
        max_epochs=-(-count * BATCH // POINTS),
        stop=lambda progress: progress.epoch < 0,
    )
    key = jax.random.key(0)
    pool = jax.random.normal(key, (POINTS, dim))
    labels = jax.random.randint(key, (POINTS,), 0, classes)
    make = jax.jit(jax.vmap(_maker(model, dim, labels)))

    def at_end(result: Any, data: Any, labels: Any) -> Any:
        return loss_fn(result.params, (data.examples.inputs, labels))

    def ours() -> Any:
        stack = ensemble.Networks(*make(jnp.arange(networks)), count)
        options = {"inputs": pool, "summary": at_end, "measured_on": labels}
        return ensemble.run(made, [stack], lanes=networks, weights=False, **options)

    plain = _plain(loss_fn, make, pool, labels, networks, count)
    work = networks * count
    rates = {"ours": work / _second(ours), "plain": work / _second(plain)}
    return {
        "dim": dim,
        "networks": networks,
        "steps": count,
        "moments": moments,
        **{f"{name}_network_steps_a_second": rate for name, rate in rates.items()},
        "ratio": rates["ours"] / rates["plain"],
    }


def _maker(model: Any, dim: int, labels: Any) -> Callable[[Any], Any]:
    """What makes a network from its seed: weights, mask, examples and key."""
    import jax

    import nfp_jax as nfp
    from nfp_jax import models, training

    def make(seed: Any) -> Any:
        key = jax.random.key(seed)
        params = models.initialize(model, key, (dim,))
        index = jax.numpy.arange(POINTS)
        examples = training.Examples(None, index, (labels,))
        return params, nfp.masks.dense_mask(params), examples, key

    return make


def _plain(
    loss_fn: Any, make: Any, pool: Any, labels: Any, networks: int, count: int
) -> Callable[[], Any]:
    """The same trainings as ``jit(vmap(scan))``; losses come to the host."""
    import jax
    import optax

    optimizer = optax.adam(1e-3)

    def train(params: Any, key: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            params, state = carry
            gradient = jax.grad(loss_fn)(params, (pool[batch], labels[batch]))
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        def epoch(carry: Any, i: Any) -> Any:
            order = jax.random.permutation(jax.random.fold_in(key, i), POINTS)
            return jax.lax.scan(step, carry, order.reshape(-1, BATCH))

        epochs = jax.numpy.arange(count * BATCH // POINTS)
        carry = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(epoch, carry, epochs)
        return loss_fn(params, (pool, labels))

    trained = jax.jit(jax.vmap(train))

    def run() -> Any:
        params, _, _, key = make(jax.numpy.arange(networks))
        return jax.device_get(trained(params, key))

    return run


def _second(run: Callable[[], Any]) -> float:
    """Seconds of the second call: the first one compiles."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def grid(preset: str, quick: bool) -> dict[str, Any]:
    """Returns what the cells of ``configs/gaussian.py`` take until all are rows."""
    _stand_in_for_ml_collections()
    from nfp_jax import ensemble, experiments
    from nfp_jax.running import as_spec

    sys.path.insert(0, str(ROOT))
    from configs import gaussian

    start = time.perf_counter()
    ensemble.use_compilation_cache()
    config, rows = gaussian.get_config(preset), []
    if quick:
        _make_tiny(config)
    spec = as_spec(config)
    cells = experiments.all_cells(spec)
    failures, stats = experiments.run(spec, cells, rows.append)
    return {
        "rows": len(rows),
        "failures": len(failures),
        "seconds": time.perf_counter() - start,
        "compile_seconds": stats.compile_seconds,
        "train_seconds": stats.train_seconds,
        "wasted": stats.wasted,
    }


def _make_tiny(config: Any) -> None:
    """Cuts a configuration to what a CPU does in seconds, in lanes."""
    from configs.start import end_soon, set_seeds

    config.model.widths = (16, 16)
    config.grid.n, config.grid.sparsity = (64, 128), (0.5, 0.9)
    set_seeds(config, 1)
    end_soon(config)
    config.engine.lanes = config.engine.score_at_once = 4


def _stand_in_for_ml_collections() -> None:
    """Lets configurations be read where ml-collections is not installed."""
    try:
        import ml_collections  # noqa: F401
    except ImportError:
        module: Any = types.ModuleType("ml_collections")
        module.ConfigDict = Nested
        module.config_dict = types.SimpleNamespace(placeholder=lambda kind: None)
        sys.modules["ml_collections"] = module


class Nested(dict):  # type: ignore[type-arg]
    """A nested mapping whose entries are attributes, too."""

    def __init__(self, values: Any) -> None:
        plain = {
            name: Nested(value) if isinstance(value, dict) else value
            for name, value in dict(values).items()
        }
        super().__init__(plain)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def part(name: str, arguments: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Returns what a part found, in a process of its own; or why there is nothing."""
    command = [sys.executable, __file__, f"--part={name}"]
    command += [f"--networks={arguments.networks}", f"--steps={arguments.steps}"]
    command += [f"--moments={arguments.moments}"]
    command += ["--quick"] if arguments.quick else []
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    for field in ("MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES"):
        environment[f"JAX_PERSISTENT_CACHE_{field}"] = "0"
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PARTS[name] * (5 if arguments.quick else 1),  # a CPU compiles long
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
    return {"found": found, "process_seconds": time.perf_counter() - start}


def measure(name: str, arguments: argparse.Namespace) -> Any:
    """Returns what one part measures, in this process."""
    if name == "steps":
        return steps(arguments.networks, arguments.steps, arguments.moments)
    return grid({"small": "", "paper": "paper"}[name], arguments.quick)


def device() -> str:
    """Returns the device in words; asked in another process, that lets go of it."""
    code = "import jax; print(jax.devices()[0].device_kind, 'jax', jax.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def main() -> int:
    """Measures all parts, prints what was found, and writes it to a file."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--networks", type=int, default=512)
    options.add_argument("--steps", type=int, default=1024)
    options.add_argument(
        "--moments",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of our engine in the part steps; beside it they are float32",
    )
    options.add_argument("--only", choices=tuple(PARTS))
    options.add_argument("--quick", action="store_true", help="tiny, and no numbers")
    options.add_argument("--write", type=Path, help="a JSON file of the results")
    options.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.networks, arguments.steps = 4, 32
    if arguments.part:
        print(json.dumps(measure(arguments.part, arguments)))
        return 0
    found: dict[str, Any] = {"device": device()}
    for name in [arguments.only] if arguments.only else PARTS:
        with tempfile.TemporaryDirectory() as cache:
            times = ("cold",) if name == "steps" else ("cold", "cached")
            found[name] = {time: part(name, arguments, cache) for time in times}
    text = json.dumps(found, indent=2)
    print(text)
    slug = "-".join(found["device"].lower().split())
    target = arguments.write or ROOT / f"benchmarks/results/{slug}.json"
    target.write_text(text + "\n", encoding="utf-8")
    parts = [run for name in PARTS for run in found.get(name, {}).values()]
    return int(any(isinstance(run["found"], str) for run in parts))


if __name__ == "__main__":
    sys.exit(main())
