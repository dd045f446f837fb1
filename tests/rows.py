"""Rows as an experiment writes them, made up: what the tests of pages share."""

import itertools
import math
import re

import numpy as np
import pandas as pd

# What the cards of pruners say, as rows have it: label, and what is seen.
CARDS = {
    "dense": ("dense", ""),
    "random": ("random", "nothing"),
    "magnitude_init": ("magnitude at init", "nothing"),
    "snip": ("SNIP", "labels"),
    "grasp": ("GraSP", "labels"),
    "synflow": ("SynFlow", "nothing"),
    "magnitude_trained": ("magnitude after training", "training"),
    "imp": ("IMP", "training"),
}


def told(pruner):
    """What a row says of its pruner; of one without an entry above, its name."""
    label, sees = CARDS.get(pruner, (pruner, "labels"))
    return {"label": label, "sees": sees, "settings": "", "version": ""}


# Where memorization falls to a half: 0.4 of the way for random masks, 1 for IMP.
PRUNERS = {
    "random": 0.40,
    "magnitude_init": 0.44,
    "snip": 0.60,
    "grasp": 0.57,
    "synflow": 0.55,
    "magnitude_trained": 0.80,
    "imp": 1.00,
}
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
LAYERS = ["params/Dense_0/kernel", "params/Dense_1/kernel", "params/Dense_2/kernel"]
SIZES = np.array([20_000, 40_000, 400])


def make_row(pruner="snip", sparsity=0.9, seed=0, n=1000, noise=1.0, **changes):
    rng = np.random.default_rng([seed, n, int(100 * sparsity), len(pruner)])
    power = PRUNERS.get(pruner, 0.7)
    decades = -math.log10(1 - sparsity)
    share = 1 / (1 + math.exp(4 * (decades - 2 * power)))
    share = float(np.clip(share + rng.normal(0, 0.01), 0, 1))
    epochs = int(10 + 40 * sparsity + rng.integers(5))
    correlation = 0.5 * noise * share
    curve = correlation * (1 - np.exp(-4 * np.arange(1, epochs + 1) / epochs))
    kept = np.minimum(SIZES, SIZES * (1 - sparsity) * rng.uniform(0.8, 1.2, 3))
    kept = SIZES if pruner == "dense" else kept.astype(int)
    trained = pruner in ("imp", "magnitude_trained")
    return {
        "pruner": pruner,
        **told(pruner),
        "sparsity": sparsity,
        "n": n,
        "noise": noise,
        "select": "" if pruner == "dense" else "global",
        "resume": "rewind" if trained else "",
        "ablation": "",
        **dict.fromkeys(("init_seed", "data_seed", "train_seed"), seed),
        "train_accuracy": share,
        "test_accuracy": None,
        "memorized_points": n * share,
        "memorized_bits": None,
        "noise_correlation": correlation,
        "noise_correlation_normalized": share if noise else None,
        "loss": 1 - share,
        "epochs": epochs,
        "converged": True,
        "diverged": False,
        "collapsed": False,
        "kept": int(kept.sum()),
        "seconds": 0.1,
        "epochs_to_99": epochs,
        "memorization_area": 0.5,
        "loss_by_epoch": (1 - curve).tolist(),
        "train_accuracy_by_epoch": curve.tolist(),
        "noise_correlation_by_epoch": curve.tolist(),
        "layers": LAYERS,
        "kept_by_layer": kept.tolist(),
        "size_by_layer": SIZES.tolist(),
        **changes,
    }


def make_rows(pruners=tuple(PRUNERS), sparsities=SPARSITIES, seeds=3, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    rows = [make_row(*cell, **changes) for cell in grid]
    rows += [make_row("dense", 0.0, seed, **changes) for seed in range(seeds)]
    return pd.DataFrame(rows)


def make_noisy_rows(noises=(0.5, 1.0), **changes):
    return pd.concat([make_rows(noise=noise, **changes) for noise in noises])


# Of 144 weights and labels with n log 2 nats: the share of them that a mask knows.
KNOWS = {"random": 0.0, "snip": 0.5, "imp": 0.9}


def make_interval_row(pruner="snip", sparsity=0.9, seed=0, n=12, **changes):
    entropy, kept = n * math.log(2), round(144 * (1 - sparsity))
    nats = KNOWS.get(pruner, 0.3) * entropy
    row = {
        "pruner": pruner,
        **told(pruner),
        "sparsity": sparsity,
        "n": n,
        "noise": 1.0,
        "select": "global",
        "resume": "",
        "ablation": "",
        "init_seed": seed,
        "data_seed": 0,
        "train_seed": 0,
        "information_lower": 0.8 * nats + 0.1 * seed * (nats > 0),
        "information_upper": nats + 0.3 + 0.1 * seed,
        "information_exact": None,
        "information_lower_by": "decoding",
        "information_upper_by": "code length",
        "kept": kept,
        "prunable": 144,
        "datasets": 256,
        "conditioning": "labels",
        "confidence": 0.95,
        "irreproducible": 0.0,
        "distinct_masks": 200,
        "collapsed_share": 0.0,
        "label_entropy": entropy,
        "classes": 2,
        "seconds": 1.0,
        "bound_seconds": 0.5,
        **changes,
    }
    ends = ("lower", "upper")
    row |= {f"p_eff_{end}": kept + row[f"information_{end}"] for end in ends}
    return row


def make_interval_rows(pruners=tuple(KNOWS), sparsities=(0.5, 0.9), seeds=2, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    return pd.DataFrame([make_interval_row(*cell, **changes) for cell in grid])


def entries_of(page, label):
    """The entries of each line of a page's tables whose head is the label."""
    head = f'<th scope="row" class="name">{re.escape(label)}'
    lines = re.findall(f"{head}((?:<td[^>]*>[^<]*)*)", page)
    return [re.findall("<td[^>]*>([^<]*)", line) for line in lines]
