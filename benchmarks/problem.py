"""The networks, masks and points that all contenders start from, as numpy arrays.

Network i depends on the seed and on i alone, so that processes share the work out and
the first N of many are the same N. Layers are ``(kernel [in, out], bias, mask)``.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

WIDTHS = (200, 200)
Layer = tuple[np.ndarray, np.ndarray, np.ndarray]


def layers(
    i: int,
    dim: int,
    classes: int,
    sparsity: float = 0.0,
    *,
    widths: Sequence[int] = WIDTHS,
    seed: int = 0,
) -> list[Layer]:
    """Returns network i: He-normal kernels, zero biases, uniformly random masks."""
    random = np.random.Generator(np.random.SFC64([seed, i]))
    sizes = (dim, *widths, classes)
    found = []
    for rows, columns in itertools.pairwise(sizes):
        kernel = random.standard_normal((rows, columns), np.float32)
        kernel *= np.float32(np.sqrt(2 / rows))
        mask = np.ones((rows, columns), bool)
        if sparsity:
            mask = random.random((rows, columns), np.float32) >= sparsity
        found.append((kernel, np.zeros(columns, np.float32), mask))
    return found


def points(
    i: int, n: int, dim: int, classes: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns data set i: Gaussian points with labels uniform over the classes."""
    random = np.random.Generator(np.random.SFC64([seed, i, 1]))
    x = random.standard_normal((n, dim), np.float32)
    return x, random.integers(0, classes, n, np.int32)


def flax_params(network: list[Layer]) -> Any:
    """Returns the weights as the pytree that ``nfp_jax.models.MLP`` takes."""
    return {
        "params": {
            f"Dense_{i}": {"kernel": kernel, "bias": bias}
            for i, (kernel, bias, _) in enumerate(network)
        }
    }


def flax_mask(network: list[Layer]) -> Any:
    """Returns the masks as a pytree like the weights, biases all kept."""
    return {
        "params": {
            f"Dense_{i}": {"kernel": mask, "bias": np.ones(bias.shape, bool)}
            for i, (_, bias, mask) in enumerate(network)
        }
    }


def flat(params: Any) -> np.ndarray:
    """Returns a Flax pytree's weights as one vector: kernel, bias, layer by layer."""
    found = params["params"]
    return np.concatenate(
        [
            np.ravel(np.asarray(found[f"Dense_{i}"][name]))
            for i in range(len(found))
            for name in ("kernel", "bias")
        ]
    )


def engine_order(i: int, epoch: int, n: int, batch: int) -> np.ndarray:
    """Returns the order of the points in which our engine trains network i."""
    import jax

    from nfp_jax.engine.examples import epoch_order, padded_size

    padded = padded_size(n, batch)
    return np.asarray(epoch_order(jax.random.key(i), epoch, n, padded))[:n]
