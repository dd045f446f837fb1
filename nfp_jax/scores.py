"""Scores: how much each weight matters, before any is removed; higher is kept.

Each function builds a ``ScoreFn``::

    score(params, batch=None, key=None, *, mask=None, prunable=None) -> scores

with scores shaped like ``params``. ``mask`` is what earlier rounds left: the score is
that of the masked network. A ``ScoreFn`` is pure, for any params pytree of any
framework, and goes through ``jit``, ``vmap`` and ``grad``. Matrix products run at the
highest precision and data is taken in a fixed order and chunking, because a flipped
mask bit would read as information.
Depends on masks, jax and optax.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfp_jax.masks import (
    ApplyFn,
    Mask,
    Params,
    Prunable,
    Scores,
    apply_mask,
    has_x64,
    is_concrete,
    named_leaves,
    prunable_kernels,
)

Batch = Any
LossFn = Callable[[Params, Batch], jax.Array]


class ScoreFn(Protocol):
    """What every score is: parameters in, a pytree of the same shape out."""

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        """Returns scores like ``params``; the higher is kept."""
        ...


@functools.cache  # the same function each time: it is what `jit` goes by
def random() -> ScoreFn:
    """Scores each weight by uniform noise in [0, 1).

    Leaf ``i`` is drawn with ``fold_in(key, i)``, whatever the mask, so that with one
    key a sparser mask lies within a denser one.

    Returns:
      ``score(params, batch=None, key=key)``, float32 whatever the parameters' dtype;
      ``key`` is needed, ``batch`` ignored.

    >>> scores = random()({"w": jnp.ones((2, 2))}, key=jax.random.key(0))
    >>> scores["w"].shape
    (2, 2)
    """

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del batch, mask, prunable
        if key is None:
            raise ValueError("random scores need a key, got None")
        leaves, treedef = jax.tree.flatten(params)
        noise = [
            jax.random.uniform(jax.random.fold_in(key, i), jnp.shape(leaf), jnp.float32)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, noise)

    return score


@functools.cache
def magnitude() -> ScoreFn:
    """Scores each weight by its absolute value, ``|w|``.

    Returns:
      ``score(params)``: a pytree like ``params``, same shapes and dtypes,
      non-negative. ``batch`` and ``key`` are ignored.

    >>> magnitude()({"kernel": jnp.array([-2.0, 1.0])})["kernel"].tolist()
    [2.0, 1.0]

    Reference: Han et al. 2015, https://arxiv.org/abs/1506.02626, section 3.
    """

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del batch, key, prunable
        return jax.tree.map(jnp.abs, _mask_params(params, mask))

    return score


def snip(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by its connection sensitivity, ``|∂L/∂m|`` at ``m = 1``.

    That is ``|g ⊙ w|`` with ``g`` the gradient of the mean loss over the whole batch.
    The paper divides by the sum, which no ranking sees.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      chunk_size: examples taken at once, which bounds the memory; ``None``: all. The
        result is the same up to rounding. Leaves of ``batch`` then need a common
        leading axis of examples.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative; ``key`` is
      ignored.

    Raises:
      ValueError: leaves of ``batch`` of different leading sizes (names the path), or
        a ``chunk_size`` below 1.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2
    >>> snip(loss)(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [[6.0, 2.0]]

    Reference: Lee et al. 2019, https://arxiv.org/abs/1810.02340, equation 6.
    """
    _check_chunk_size(chunk_size)

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del key, prunable
        weights = _mask_params(params, mask)
        with jax.default_matmul_precision("highest"):
            gradient = _mean_over_chunks(
                lambda part: jax.grad(loss_fn)(weights, part), batch, chunk_size
            )
        return jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights)

    return score


def grasp(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by the gradient flow it carries, ``w ⊙ (H g)``.

    ``g`` is the gradient of the mean loss over the whole batch, taken over the prunable
    weights that are left and 0 elsewhere; ``H`` the Hessian of the same loss. Signed:
    the highest are kept, since removing them would reduce the gradient flow most.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss, a scalar. The paper takes it
        on logits divided by 200: ``classification_loss(apply_fn, temperature=200)``;
        a temperature of 1 is warned of.
      chunk_size: as in ``snip``.

    Returns:
      ``score(params, batch)``: a pytree like ``params``; ``key`` is ignored.

    Raises:
      ValueError: leaves of ``batch`` of different leading sizes (names the path), or
        a ``chunk_size`` below 1.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2     # H = x xᵀ, g = (w·x) x
    >>> grasp(loss)(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 2.0]])).tolist()
    [[15.0, -10.0]]

    Reference: Wang et al. 2020, https://arxiv.org/abs/2002.07376, equation 8, whose
    score is the negative of this one.
    """
    _check_chunk_size(chunk_size)
    if getattr(loss_fn, "temperature", None) == 1.0:
        warnings.warn(
            "grasp on a loss at temperature 1; the paper softens the logits: "
            "classification_loss(apply_fn, temperature=200)",
            stacklevel=2,
        )

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del key
        prunable = prunable_kernels(params) if prunable is None else prunable
        weights = _mask_params(params, mask)

        def gradient(weights: Params, part: Batch) -> Params:
            return jax.grad(loss_fn)(weights, part)

        with jax.default_matmul_precision("highest"):
            g = _mean_over_chunks(
                lambda part: gradient(weights, part), batch, chunk_size
            )
            g = jax.tree.map(
                lambda p, leaf: leaf if p else jnp.zeros_like(leaf), prunable, g
            )
            g = _mask_params(g, mask)
            hg = _mean_over_chunks(
                lambda part: jax.jvp(
                    lambda weights: gradient(weights, part), (weights,), (g,)
                )[1],
                batch,
                chunk_size,
            )
        return jax.tree.map(jnp.multiply, weights, hg)

    return score


def synflow(
    apply_fn: ApplyFn, input_shape: Sequence[int], *, dtype: Any = None
) -> ScoreFn:
    """Scores each weight by its synaptic flow, ``|w ⊙ ∂R/∂w|``, without data.

    ``R = 1ᵀ f(1)``: the sum of the outputs of the network with absolute weights and
    biases, on an input of ones. Meant to be iterated: ``prune(..., rounds=100)``; with
    one round ``prune`` warns, since it may then empty a layer.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs``, in evaluation mode.
      input_shape: one example's shape, without the batch.
      dtype: floating dtype to compute in; ``None``: that of the parameters. ``R``
        overflows float32 from about 30 layers of width 200 (the scores are then NaN);
        with ``jnp.float64`` they are scaled by a power of two to fit and returned in
        the dtype of the parameters. It turns JAX's 64-bit mode on for itself, in
        ``prune`` too, but a transform around either must be called in that mode.

    Returns:
      ``score(params)``: a pytree like ``params``, non-negative; NaN where it
      overflowed. ``batch`` and ``key`` are ignored.

    Raises:
      ValueError: ``jnp.float64`` under a transform, outside JAX's 64-bit mode.

    >>> chain = lambda params, x: x @ params["a"] @ params["b"]
    >>> params = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([[3.0], [0.5]])}
    >>> scores = synflow(chain, (1,))(params)
    >>> scores["a"].tolist(), scores["b"].ravel().tolist()
    ([[3.0, 1.0]], [3.0, 1.0])

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, equation 3.
    """
    is_wide = dtype is not None and jnp.dtype(dtype) == np.float64

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del batch, key, prunable
        weights = jax.tree.map(jnp.abs, _mask_params(params, mask))
        if dtype is None:
            return _flow(apply_fn, weights, input_shape)
        if not is_wide:
            return _flow(
                apply_fn, jax.tree.map(lambda w: w.astype(dtype), weights), input_shape
            )
        if not has_x64() and not is_concrete(weights):
            # Lowering and batching come later, outside any context set here.
            raise ValueError(
                "synflow in float64 under a transform needs JAX's 64-bit mode: call "
                "the outermost jit, vmap or grad within jax.enable_x64(True)"
            )
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda w: w.astype(jnp.float64), weights)
            scores = _flow(apply_fn, wide, input_shape)
            scale = _power_of_two(scores)
            return jax.tree.map(
                lambda s, w: (s * scale).astype(w.dtype), scores, weights
            )

    # Read by prune, which knows the number of rounds and calls the outermost jit.
    score.needs_x64 = is_wide  # type: ignore[attr-defined]
    score.one_shot_warning = (  # type: ignore[attr-defined]
        "synflow in one round may empty a layer: pass rounds=100"
    )
    return score


def invert(score_fn: ScoreFn) -> ScoreFn:
    """Returns the score in reversed order, ``-score``: keeps what would be removed.

    Right for signed scores (GraSP) and for zeros, where a reciprocal is not.

    >>> invert(magnitude())(jnp.array([[-2.0, 0.0]])).tolist()
    [[-2.0, -0.0]]

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """

    @functools.wraps(score_fn)  # with what prune reads from it
    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        return jax.tree.map(
            jnp.negative, score_fn(params, batch, key, mask=mask, prunable=prunable)
        )

    return score


def classification_loss(apply_fn: ApplyFn, *, temperature: float = 1.0) -> LossFn:
    """Returns the mean softmax cross-entropy of a network, in nats.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [batch, classes]``.
      temperature: divides the logits; GraSP takes 200.

    Returns:
      ``loss_fn(params, (x, y))``: a scalar; ``y`` int ``[batch]``, or the probabilities
      of classes, float ``[batch, classes]``: the loss is linear in these.

    Raises:
      ValueError: a temperature that is not positive.

    >>> loss_fn = classification_loss(lambda params, x: x @ params)
    >>> float(loss_fn(jnp.zeros((3, 2)), (jnp.ones((1, 3)), jnp.array([1]))))
    0.6931471824645996

    Reference: Wang et al. 2020, https://arxiv.org/abs/2002.07376, section 5
    (the temperature).
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a positive number")

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        x, y = batch
        logits = apply_fn(params, x) / temperature
        if jnp.ndim(y) == 2:
            return jnp.mean(optax.softmax_cross_entropy(logits, y))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses)

    loss_fn.temperature = float(temperature)  # type: ignore[attr-defined]
    return loss_fn


def _check_chunk_size(chunk_size: int | None) -> None:
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected at least 1 or None")


def _mask_params(params: Params, mask: Mask) -> Params:
    return params if mask is None else apply_mask(params, mask)


def _flow(apply_fn: ApplyFn, weights: Params, input_shape: Sequence[int]) -> Scores:
    """``w ⊙ ∂R/∂w`` of non-negative weights, in their dtype; NaN for an overflow."""
    dtype = jnp.result_type(*jax.tree.leaves(weights))
    ones = jnp.ones((1, *input_shape), dtype)
    with jax.default_matmul_precision("highest"):
        gradient = jax.grad(lambda w: jnp.sum(apply_fn(w, ones)))(weights)
    flow = jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights)
    return jax.tree.map(lambda s: jnp.where(jnp.isfinite(s), s, jnp.nan), flow)


def _power_of_two(scores: Scores) -> jax.Array:
    """The power of two, float64, that takes the highest score into 2^-20 to 2^100."""
    highest = jnp.nanmax(jnp.stack([jnp.nanmax(s) for s in jax.tree.leaves(scores)]))
    _, exponent = jnp.frexp(highest)
    shift = jnp.clip(exponent, -20, 100) - exponent
    # Its bits, since exp2 and ldexp round: an exponent, biased by 1023, and no more.
    bits = (jnp.clip(shift, -1000, 1000).astype(jnp.int64) + 1023) << 52
    return jax.lax.bitcast_convert_type(bits, jnp.float64)


def _mean_over_chunks(
    fn: Callable[[Batch], Any], batch: Batch, chunk_size: int | None
) -> Any:
    """The mean over all examples of a function that takes the mean over a batch."""
    if chunk_size is None:
        return fn(batch)
    size = _examples(batch)
    if size <= chunk_size:
        return fn(batch)
    chunks, rest = divmod(size, chunk_size)
    head = jax.tree.map(
        lambda leaf: leaf[: chunks * chunk_size].reshape(
            chunks, chunk_size, *leaf.shape[1:]
        ),
        batch,
    )
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, fn(part)), None),
        jax.tree.map(
            jnp.zeros_like, jax.eval_shape(fn, jax.tree.map(lambda x: x[0], head))
        ),
        head,
    )
    total = jax.tree.map(lambda t: t * (chunk_size / size), total)
    if rest == 0:
        return total
    tail = fn(jax.tree.map(lambda leaf: leaf[chunks * chunk_size :], batch))
    return jax.tree.map(lambda t, last: t + last * (rest / size), total, tail)


def _examples(batch: Batch) -> int:
    """The common leading size of a batch."""
    leaves = named_leaves(batch)
    if not leaves:
        raise ValueError("batch has no leaves, expected examples to score on")
    (first, leaf), *others = leaves
    for path, other in others:
        if jnp.shape(other)[:1] != jnp.shape(leaf)[:1]:
            raise ValueError(
                f"batch at {path!r} has shape {jnp.shape(other)}, expected a leading "
                f"size of {jnp.shape(leaf)[:1]}, as at {first!r}"
            )
    if jnp.ndim(leaf) == 0:
        raise ValueError(
            f"batch at {first!r} is a scalar, expected an axis of examples"
        )
    return int(jnp.shape(leaf)[0])
