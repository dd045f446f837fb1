"""ProsPr: what the removal of a weight does to the loss after a few training steps."""

from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.losses import example_count
from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn, mask_params
from nfp_jax.types import Batch, LossFn


def prospr(
    loss_fn: LossFn,
    *,
    steps: int = 3,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
    batch_size: int | None = None,
) -> ScoreFn:
    """Scores each weight by ``|∂L(θ_k; B_k)/∂m|`` at ``m = 1``, through ``k`` steps.

    ``θ_0 = w ⊙ m`` and ``θ_{i+1} = θ_i - α v_i``, with ``v_i = μ v_{i-1} + g_i``, ``v_0
    = g_0`` and ``g_i = ∇L(θ_i; B_i)``, over all weights that are left. The derivative
    is taken through all steps. Of no step it is SNIP.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      steps: ``k``, of training.
      learning_rate: ``α``.
      momentum: ``μ``.
      batch_size: examples of each ``B_i``: those that follow those of ``B_{i-1}`` in
        ``batch``, from its beginning again after its end. ``None``, or more than there
        are: each ``B_i`` is the whole batch.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative; ``key`` is
      ignored. It takes ``k + 1`` gradients and ``k`` Hessian-vector products, and the
      memory of ``k`` copies of the weights and of one step.

    Raises:
      ValueError: a setting out of range; leaves of ``batch`` of different leading
        sizes (names the path), where ``batch_size`` is given.

    >>> loss = lambda w, c: jnp.sum((w - c) ** 2) / 2
    >>> score_fn = prospr(loss, steps=1, learning_rate=0.5)    # (1 - α)² |(w - c) w|
    >>> score_fn(jnp.array([[2.0]]), jnp.array([[1.0]])).tolist()
    [[0.5]]

    Reference: Alizadeh et al. 2022, https://arxiv.org/abs/2202.12002.
    """
    train = _Training(loss_fn, steps, learning_rate, momentum, batch_size)

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key, prunable
        weights = mask_params(params, mask)

        def loss_after(weights: Params) -> jax.Array:
            return loss_fn(train(weights, mask, batch), train.part(batch, steps))

        with jax.default_matmul_precision("highest"):
            gradient = jax.grad(loss_after)(weights)
        return jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights)

    return Score(score, loss_fn=loss_fn)


def prospr_first_order(
    loss_fn: LossFn,
    *,
    steps: int = 3,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
    batch_size: int | None = None,
) -> ScoreFn:
    """Scores each weight by ``|w ⊙ ∇L(θ_k; B_k)|``: ProsPr as if ``∂θ_k/∂θ_0 = 1``.

    Arguments and errors are those of ``prospr``; it takes ``k + 1`` gradients.

    >>> loss = lambda w, c: jnp.sum((w - c) ** 2) / 2
    >>> score_fn = prospr_first_order(loss, steps=1, learning_rate=0.5)
    >>> score_fn(jnp.array([[2.0]]), jnp.array([[1.0]])).tolist()    # (1 - α) |(w-c) w|
    [[1.0]]

    Reference: Alizadeh et al. 2022, https://arxiv.org/abs/2202.12002.
    """
    train = _Training(loss_fn, steps, learning_rate, momentum, batch_size)

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key, prunable
        weights = mask_params(params, mask)
        with jax.default_matmul_precision("highest"):
            trained = train(weights, mask, batch)
            gradient = jax.grad(loss_fn)(trained, train.part(batch, steps))
        return jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights)

    return Score(score, loss_fn=loss_fn)


class _Training:
    """``k`` steps of gradient descent with momentum, each on the next examples."""

    def __init__(
        self,
        loss_fn: LossFn,
        steps: int,
        learning_rate: float,
        momentum: float,
        batch_size: int | None,
    ) -> None:
        for name, value, wrong, expected in (
            ("steps", steps, steps < 0, "at least 0"),
            ("learning_rate", learning_rate, not learning_rate >= 0, "at least 0"),
            ("momentum", momentum, not 0 <= momentum < 1, "0 <= momentum < 1"),
            (
                "batch_size",
                batch_size,
                batch_size is not None and batch_size < 1,
                "1 or more",
            ),
        ):
            if wrong:
                raise ValueError(f"{name} is {value}, expected {expected}")
        self.loss_fn, self.steps, self.batch_size = loss_fn, steps, batch_size
        self.learning_rate, self.momentum = learning_rate, momentum

    def part(self, batch: Batch, i: Any) -> Batch:
        """The batch of a step."""
        if self.batch_size is None:
            return batch
        size = example_count(batch)
        if self.batch_size >= size:
            return batch
        rows = (i * self.batch_size + jnp.arange(self.batch_size)) % size
        return jax.tree.map(lambda leaf: leaf[rows], batch)

    def __call__(self, weights: Params, mask: Mask, batch: Batch) -> Params:
        """The weights after the steps; those that the mask removed stay 0."""

        def step(state: tuple[Params, Params], i: Any) -> tuple[Any, None]:
            weights, velocity = state
            gradient = jax.grad(self.loss_fn)(weights, self.part(batch, i))
            gradient = mask_params(gradient, mask)
            velocity = jax.tree.map(
                lambda v, g: self.momentum * v + g, velocity, gradient
            )
            weights = jax.tree.map(
                lambda w, v: w - self.learning_rate * v, weights, velocity
            )
            return (weights, velocity), None

        # A step's own values are computed again on the way back, and not kept.
        again = jax.checkpoint(step, prevent_cse=False)
        still = jax.tree.map(jnp.zeros_like, weights)
        (weights, _), _ = jax.lax.scan(again, (weights, still), jnp.arange(self.steps))
        return weights


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    steps: int = 3,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
    batch_size: int = 512,
    first_order: bool = False,
) -> ByScore:
    build = prospr_first_order if first_order else prospr
    score_fn = build(
        net.loss_fn,
        steps=steps,
        learning_rate=learning_rate,
        momentum=momentum,
        batch_size=batch_size,
    )
    return by_score(score_fn, rounds=rounds, schedule=schedule)


def _gradients(*, rounds: int, steps: int, first_order: bool, **_: Any) -> int:
    return rounds * (steps + 1 if first_order else 3 * steps + 1)


CARD = Pruner(
    "prospr", label="ProsPr", sees="labels", build=_build, gradients=_gradients
)
