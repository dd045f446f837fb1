"""What bfloat16 moments do to trainings, paired by seed with float32 moments.

    python benchmarks/moments.py                # 32 seeds; kinds on file are kept
    python benchmarks/moments.py --show=benchmarks/results/moments-….json --short

Each seed has weights, Gaussian points with random labels, a mask and an order of
batches. Each variant trains that same network: Adam at 1e-3, batches of 64, until all
labels are fitted or it has settled. ``magnitude_trained`` cuts its mask, layer by
layer, from the dense network that the same variant trained.

``mu``: the first moment in bfloat16, rounded to nearest. ``nearest``: both, rounded to
nearest. ``hashed``: both, rounded at random by a hash of step and place. ``dithered``:
both, by a threshold that all weights of a step share, as ``train.moments="bfloat16"``
has it. ``reordered`` is float32 with another order of batches: its differences are the
noise of a seed.

A variant passes a measure of a cell if the 95 % interval of its mean paired difference
lies within one standard deviation of the differences of ``reordered``.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("jax", "jaxlib", "optax", "numpy")
ROOT = Path(__file__).parent.parent
DIM = 50
BASELINE, NOISE = "float32", "reordered"
VARIANTS = (BASELINE, NOISE, "mu", "nearest", "hashed", "dithered")


class Cell(NamedTuple):
    """Networks of one kind; ``fixed`` goes on for all epochs, whatever is fitted.

    ``measure`` is the one that the short table shows.
    """

    name: str
    pruner: str
    sparsity: float
    n: int
    widths: tuple[int, ...]
    measure: str
    epochs: int = 3200
    fixed: bool = False


WIDE = (200, 200)
CELLS = (
    Cell("dense", "dense", 0.0, 1000, WIDE, "epochs_to_99"),
    Cell("random 0.9", "random", 0.9, 1000, WIDE, "epochs_to_99"),
    # All fitted early; then gradients vanish for thousands of steps.
    Cell("narrow, 8,000 steps", "dense", 0.0, 500, (32, 32), "loss", 1000, True),
    # Settled where capacity binds, after up to 25,000 and 12,800 steps.
    Cell("narrow, snip 0.5", "snip", 0.5, 512, (16, 16), "epochs_to_99"),
    Cell("narrow, random 0.8", "random", 0.8, 256, (16, 16), "points"),
    Cell("snip 0.95", "snip", 0.95, 500, WIDE, "epochs_to_99"),
    Cell("trained 0.9", "magnitude_trained", 0.9, 500, WIDE, "epochs_to_99"),
)

# How two trainings of a pair are compared: as a ratio or as a difference.
MEASURES = {
    "epochs_to_99": "ratio",
    "epochs_to_100": "ratio",
    "points": "difference",
    "loss": "ratio",
}


def hashed(values: Any, step: Any) -> Any:
    """Returns values rounded at random by a hash of the step and of each place."""
    import jax.numpy as jnp

    from nfp_jax.engine.moments import round_by

    place = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
    x = place * jnp.uint32(0x9E3779B1) + step.astype(jnp.uint32) * jnp.uint32(
        0x85EBCA77
    )
    for factor in (0x7FEB352D, 0x846CA68B):  # Wellons' 32-bit finalizer
        x = (x ^ (x >> 16)) * jnp.uint32(factor)
    return round_by(values, (x ^ (x >> 16)) & 0xFFFF)


def optimizer_of(variant: str) -> Any:
    """Returns Adam with its moments as a variant keeps them."""
    import jax.numpy as jnp
    import optax

    from nfp_jax.engine import moments

    adam = optax.adam(1e-3)
    if variant in (BASELINE, NOISE):
        return adam
    if variant == "mu":
        return optax.adam(1e-3, mu_dtype=jnp.bfloat16)
    rounding = {
        "nearest": lambda values, step: values.astype(jnp.bfloat16),
        "hashed": hashed,
        "dithered": moments.dithered,
    }
    return moments.bfloat16_moments(adam, round_fn=rounding[variant])


def mask_of(cell: Cell, model: Any, params: Any, data: Any, key: Any) -> Any:
    """Returns the mask of a network; a dense one where training has yet to tell."""
    import nfp_jax as nfp

    if cell.pruner in ("dense", "magnitude_trained"):
        return nfp.masks.dense_mask(params)
    score = {
        "random": nfp.random(),
        "snip": nfp.snip(nfp.classification_loss(model.apply)),
    }[cell.pruner]
    return nfp.prune(score, params, data, key, sparsity=cell.sparsity)


def networks_of(cell: Cell, model: Any, seeds: range) -> Any:
    """Returns the stack of a cell's networks, one a seed."""
    import jax
    import jax.numpy as jnp

    from nfp_jax import ensemble, models

    def make(seed: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(0), seed)
        weights, points, labels, chance, order = jax.random.split(key, 5)
        params = models.initialize(model, weights, (DIM,))
        x = jax.random.normal(points, (cell.n, DIM))
        y = jax.random.bernoulli(labels, shape=(cell.n,)).astype(jnp.int32)
        return params, mask_of(cell, model, params, (x, y), chance), (x, y), order

    made = jax.jit(jax.vmap(make))(jnp.arange(seeds.start, seeds.stop))
    return ensemble.Networks(*made, tags=seeds)


def training_of(cell: Cell, model: Any, variant: str) -> Any:
    """Returns the training of a variant."""
    import nfp_jax as nfp
    from nfp_jax import training

    return training.make_training(
        nfp.classification_loss(model.apply),
        optimizer_of(variant),
        metrics_fn=training.classification_metrics(model.apply),
        max_epochs=cell.epochs,
        stop=(lambda progress: progress.epoch < 0) if cell.fixed else None,
    )


def trained(cell: Cell, variant: str, seeds: range) -> dict[str, list[Any]]:
    """Returns what came of the networks of a cell under a variant, by seed."""
    import jax
    import jax.numpy as jnp

    import nfp_jax as nfp
    from nfp_jax import ensemble, models

    model = models.MLP(2, cell.widths)
    networks = networks_of(cell, model, seeds)
    if variant == NOISE:
        again = jax.vmap(lambda key: jax.random.fold_in(key, 1))(networks.key)
        networks = networks._replace(key=again)
    training = training_of(cell, model, variant)
    if cell.pruner == "magnitude_trained":
        results, _ = ensemble.run(training, [networks])
        params = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *(r.params for r in results)
        )
        # Over all layers, the smaller weights of the second would all be removed.
        options = {"sparsity": cell.sparsity, "select": nfp.top_k_per_layer}
        cut = nfp.prune_many(nfp.magnitude(), params, **options)
        networks = networks._replace(mask=cut)
    results, _ = ensemble.run(training, [networks], weights=False)
    return {
        "epochs_to_99": [first_at(r.history["accuracy"], 0.99) for r in results],
        "epochs_to_100": [first_at(r.history["accuracy"], 1.0) for r in results],
        "points": [round(cell.n * float(r.metrics["accuracy"])) for r in results],
        "loss": [float(r.metrics["loss"]) for r in results],
        "epochs": [int(r.epochs) for r in results],
        "out_of_budget": [r.out_of_budget and not cell.fixed for r in results],
        "diverged": [bool(r.diverged) for r in results],
    }


def first_at(accuracy: Any, share: float) -> int | None:
    """Returns the first epoch, from 1, at whose end a share is fitted.

    >>> first_at([0.5, 1.0, 0.9], 0.99), first_at([0.5], 0.99)
    (2, None)
    """
    # 1.5e-7: the rounding of two float32, as in the engine's rules.
    epochs = (i for i, x in enumerate(accuracy, 1) if x >= share - 1.5e-7)
    return next(epochs, None)


def differences(found: dict[str, Any], variant: str, measure: str) -> list[float]:
    """Returns those of a variant from float32 by seed: of logarithms for a ratio.

    Seeds are left out where one of the two has no value: labels that it never fitted.
    """
    scale = math.log if MEASURES[measure] == "ratio" else float
    pairs = zip(found[variant][measure], found[BASELINE][measure], strict=True)
    return [scale(a) - scale(b) for a, b in pairs if a is not None and b is not None]


def judged(found: dict[str, Any], variant: str, measure: str) -> dict[str, Any] | None:
    """Returns the mean paired difference with its interval, and whether it passes.

    ``None`` where fewer than half of the seeds have the measure.
    """
    from nfp_jax.measures.student_t import paired_gap

    mine = differences(found, variant, measure)
    noise = differences(found, NOISE, measure)
    if min(len(mine), len(noise)) < max(2, len(found[variant][measure]) / 2):
        return None
    gap = paired_gap(mine, [0.0] * len(mine))
    mean = sum(noise) / len(noise)
    spread = math.sqrt(sum((x - mean) ** 2 for x in noise) / (len(noise) - 1))
    unit = math.exp if MEASURES[measure] == "ratio" else float
    return {
        "pairs": len(mine),
        "mean": unit(gap.mean),
        "lower": unit(gap.lower),
        "upper": unit(gap.upper),
        "noise": unit(spread),
        "passes": -spread <= gap.lower and gap.upper <= spread,
    }


def table(rows: dict[str, Any], measures: Sequence[str] = ()) -> str:
    """Returns the comparison as a Markdown table, a line a cell and measure.

    Without ``measures`` each cell has its own.
    """
    variants = [variant for variant in VARIANTS if variant != BASELINE]
    lines = [f"| kind | measure | {' | '.join(variants)} |"]
    lines.append("| --- " * (2 + len(variants)) + "|")
    for cell in CELLS:
        for measure in measures or (cell.measure,):
            if found := rows.get(cell.name):
                entries = (entry(found, variant, measure) for variant in variants)
                what = measure.replace("_", " ")
                lines.append(f"| {cell.name} | {what} | {' | '.join(entries)} |")
    return "\n".join(lines)


def entry(found: dict[str, Any], variant: str, measure: str) -> str:
    """Returns a difference with its interval; in bold where it does not pass."""
    judgement = judged(found, variant, measure)
    if judgement is None:
        return ""
    digits = ".3f" if MEASURES[measure] == "ratio" else ".2f"
    mean, lower, upper = (
        f"{judgement[x]:{digits}}" for x in ("mean", "lower", "upper")
    )
    text = f"{mean} ({lower} to {upper})"
    return text if judgement["passes"] else f"**{text}**"


def main() -> int:
    """Trains all cells under all variants, prints the table, writes the rows."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=32)
    options.add_argument("--only", help="cells whose name holds this")
    options.add_argument("--show", type=Path, help="print the table of such a file")
    options.add_argument("--write", type=Path, help="a JSON file of the results")
    options.add_argument("--short", action="store_true", help="one measure a kind")
    arguments = options.parse_args()
    measures = () if arguments.short else tuple(MEASURES)
    if arguments.show:
        print(table(json.loads(arguments.show.read_text("utf-8"))["rows"], measures))
        return 0
    from nfp_jax import ensemble, running

    ensemble.use_all_cores()
    machine = running.processor()
    slug = "-".join("".join(c if c.isalnum() else " " for c in machine).lower().split())
    target = arguments.write or ROOT / f"benchmarks/results/moments-{slug}.json"
    rows = json.loads(target.read_text("utf-8"))["rows"] if target.exists() else {}
    for cell in CELLS:
        if cell.name in rows or (arguments.only or "") not in cell.name:
            continue
        rows[cell.name] = {}
        for variant in VARIANTS:
            start = time.perf_counter()
            found = trained(cell, variant, range(arguments.seeds))
            seconds = time.perf_counter() - start
            print(f"{cell.name}, {variant}: {seconds:.0f} s", file=sys.stderr)
            rows[cell.name][variant] = found
        text = json.dumps(
            {
                "machine": machine,
                "versions": {x: metadata.version(x) for x in PACKAGES},
                "cells": {x.name: x._asdict() for x in CELLS if x.name in rows},
                "rows": rows,
            }
        )
        target.write_text(text + "\n", encoding="utf-8")
    print(table(rows, measures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
