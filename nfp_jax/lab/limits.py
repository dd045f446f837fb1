"""What can't be run, found before anything is: optimizers, and sizes beyond memory."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfp_jax.fields import SpecError

# Options of optimizers by name, and what they must lie in: [least, most).
RANGES = {
    **dict.fromkeys(("b1", "b2", "b3", "beta", "decay", "momentum"), (0.0, 1.0)),
    **dict.fromkeys(("eps", "eps_root", "weight_decay"), (0.0, np.inf)),
}


def check_options(options: dict[str, Any]) -> None:
    """Raises for an option of the optimizer of a wrong type, or out of range.

    Raises:
      SpecError: names ``train.options`` and the option.
    """
    for name, value in options.items():
        path = f"train.options.{name}"
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise SpecError(f"{path} is {value!r}, expected a number, a text or a bool")
        if name in RANGES and value is not None:  # None: as the optimizer has it
            least, most = RANGES[name]
            number = not isinstance(value, (bool, str))
            if not number or not least <= float(value) < most:
                expected = f"{least:g} <= {name} < {most:g}"
                raise SpecError(f"{path} is {value!r}, expected {expected}")


def check_optimizer(name: str, optimizer: optax.GradientTransformation) -> None:
    """Raises for an optimizer that needs more than gradients, as lbfgs does.

    Raises:
      SpecError: names ``train.optimizer``.
    """

    def step(weights: jax.Array) -> Any:
        return optimizer.update(weights, optimizer.init(weights), weights)

    try:
        jax.eval_shape(step, jnp.zeros((2, 2)))
    except TypeError as error:
        raise SpecError(
            f"train.optimizer is {name!r}, expected one that needs gradients alone: "
            f"{error}"
        ) from error


def check_sizes(
    shapes: Any,
    input_shape: Sequence[int],
    n: int,
    *,
    memory: float | None = None,
) -> None:
    """Raises where one network and its points can't fit the machine.

    Counted are four times the weights (gradients and two moments beside them) and the
    points twice, once on the host: the least that any run takes.

    Args:
      shapes: the params, or their shapes.
      input_shape: of one point.
      n: the most points of a cell.
      memory: in bytes; ``None``: that of the devices, or of the machine.

    Raises:
      SpecError: names the fields, the bytes and the memory.
    """
    weights = sum(int(np.prod(x.shape, dtype=float)) for x in jax.tree.leaves(shapes))
    if weights >= 2**31:
        raise SpecError(
            f"model: a network has {weights:,} weights, expected fewer than 2^31"
        )
    memory = memory_of() if memory is None else memory
    one = float(np.prod(input_shape, dtype=float))
    for what, needed in (
        (f"grid.n is {n:,}: points take", 2 * 4 * n * one),
        (f"model: training {weights:,} weights takes", 4 * 4.0 * weights),
    ):
        if needed > memory:
            raise SpecError(
                f"{what} {needed / 2**30:,.1f} GiB, and the machine has "
                f"{memory / 2**30:,.1f}"
            )


def memory_of() -> float:
    """Returns the memory of an accelerator, or of the machine, in bytes."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
