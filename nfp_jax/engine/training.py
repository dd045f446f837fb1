"""The whole training of one masked network, to convergence, as pure functions.

``make_training`` fixes what is static and returns the four functions of one
lane: ``init``, ``epoch``, ``done``, ``finish``; ``alone`` strings them together in one
``jit``. An epoch is a permutation of the ``n`` points given by (key, epoch), in
batches; the last, smaller one counts by its own mean. Removed weights are 0 from the
start and get no gradient, so the forward pass needs no mask.
Depends on masks, jax and optax.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.engine.coupled import CoupledLoss
from nfp_jax.engine.examples import (
    Data,
    Padded,
    epoch_order,
    take_batch,
)
from nfp_jax.engine.metrics import Metrics, per_example
from nfp_jax.engine.programs import Kept
from nfp_jax.engine.stopping import Progress, StopFn, stop_when_settled
from nfp_jax.masks import apply_mask
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.types import Batch, LossFn, Mask, Params

# Steps of a training that ends by itself.
NO_LIMIT = 2**31 - 1


class TrainState(NamedTuple):
    """One network on its way: what ``epoch`` takes and returns.

    ``step`` counts optimizer steps; ``limit`` is the number of them to take, or
    ``NO_LIMIT`` for a training to convergence.
    """

    params: Params
    mask: Mask
    opt_state: optax.OptState
    moving: Any  # of the mask update
    key: jax.Array
    step: jax.Array
    limit: jax.Array
    progress: Progress
    history: Metrics
    converged: jax.Array
    diverged: jax.Array


class TrainResult(NamedTuple):
    """A trained network.

    Attributes:
      params: its weights; removed ones are exactly 0.
      metrics: those of the last epoch, scalars.
      history: the same at the end of every epoch, ``[max_epochs]``, NaN after the last.
      epochs: int32, epochs run.
      converged: bool, whether the stopping rule ended it (and not the budget).
      diverged: bool, whether the loss became NaN or infinite, which ended it.
      seconds: wall seconds of the training without compiling, where the caller
        measured them (``ensemble.run`` does); else NaN.
      mask: its mask at the end; that of the beginning, unless it moves.
      steps: int32, optimizer steps taken.
      summary: what the caller had measured of it, where it asked for that
        (``ensemble.run`` takes a ``summary``).
    """

    params: Params
    metrics: Metrics
    history: Metrics
    epochs: jax.Array
    converged: jax.Array
    diverged: jax.Array
    seconds: float = float("nan")
    mask: Mask = None
    steps: Any = None
    summary: Any = None

    @property
    def out_of_budget(self) -> bool:
        """Whether the budget ended it, and neither the stopping rule nor a bad loss."""
        return not (self.converged or self.diverged)


# What is measured of a network at its end: ``summary(result, data, measured_on)``, a
# pytree of small arrays, of its ``TrainResult``, its ``Padded`` data, and other arrays.
Summary = Callable[[TrainResult, Padded, Any], Any]


class Training(NamedTuple):
    """The pure functions of one lane.

    ``init(params, mask, data, key, limit=NO_LIMIT) -> state`` of ``Padded`` data;
    ``epoch(state, data, count=None) -> state`` runs a whole epoch and its metrics;
    ``done(state) -> bool``; ``finish(state) -> result``. Lanes that run together pass
    ``epoch`` the same ``count`` of steps, an upper bound of their own: a lane that has
    fewer, or is done, stands still meanwhile. ``batch_size`` is the setting; ``moves``
    says whether masks change on the way; ``kept`` has the programs of its lanes.
    """

    init: Callable[..., TrainState]
    epoch: Callable[..., TrainState]
    done: Callable[[TrainState], jax.Array]
    finish: Callable[[TrainState], TrainResult]
    batch_size: int
    moves: bool
    kept: Kept


def make_training(
    loss_fn: LossFn | CoupledLoss,
    optimizer: optax.GradientTransformation,
    *,
    metrics_fn: Callable[[Params, Data], Metrics],
    batch_size: int = 64,
    max_epochs: int = 3200,
    max_steps: int = NO_LIMIT,
    stop: StopFn | None = None,
    mask_update: MaskUpdate | None = None,
    evaluate_at_once: int = 2048,
) -> Training:
    """Returns the training of one network as the pure functions of a lane.

    ``loss_fn`` and ``metrics_fn`` are means over the examples they are given, and are
    called on single ones, weighed here: that is how networks trained on sets of
    different sizes share a program. A loss that couples the examples of a batch (batch
    normalization) is a ``CoupledLoss``, which weighs them itself.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar;
        ``batch`` is ``data`` with fewer examples. Or a ``CoupledLoss``.
      optimizer: any optax transformation.
      metrics_fn: ``metrics_fn(params, data)``: a dict of scalars, means over examples,
        with ``loss`` and ``accuracy``, taken over the training set at the end of every
        epoch; ``classification_metrics`` makes one.
      batch_size: examples a step; the whole set where that is smaller.
      max_epochs: the budget.
      max_steps: the budget in optimizer steps, looked at after each epoch: the same for
        sets of different sizes.
      stop: ``stop_when_settled()`` (the default), ``stop_when_still()``,
        ``stop_as_paper()``, or any function of a ``Progress``.
      mask_update: what moves the mask at the end of each epoch, before the metrics are
        taken; ``None``: the mask stays.
      evaluate_at_once: examples measured at once, which bounds the memory.

    Returns:
      A ``Training``. Its ``data`` is any pytree whose leaves share a leading axis of
      ``n`` examples.

    Raises:
      ValueError: ``batch_size``, ``max_epochs``, ``max_steps`` or ``evaluate_at_once``
        below 1.

    >>> from nfp_jax.engine.alone import train
    >>> loss_fn = lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2)
    >>> metrics_fn = lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0}
    >>> training = make_training(loss_fn, optax.sgd(0.1), metrics_fn=metrics_fn)
    >>> w, mask = jnp.zeros((2, 1)), jnp.array([[True], [False]])
    >>> data = (jnp.ones((8, 2)), jnp.ones((8, 1)))
    >>> result = train(training, w, mask, data, jax.random.key(0))
    >>> round(float(result.params[0, 0]), 2), float(result.params[1, 0])
    (1.0, 0.0)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """
    for name, value in {
        "batch_size": batch_size,
        "max_epochs": max_epochs,
        "max_steps": max_steps,
        "evaluate_at_once": evaluate_at_once,
    }.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    stop = stop_when_settled() if stop is None else stop

    given = _Given(
        loss_fn,
        optimizer,
        metrics_fn,
        batch_size,
        max_epochs,
        max_steps,
        stop,
        mask_update,
        evaluate_at_once,
    )
    return Training(
        functools.partial(_init, given),
        functools.partial(_epoch, given),
        functools.partial(_done, given),
        functools.partial(_finish, given),
        batch_size,
        mask_update is not None,
        Kept(),
    )


class _Given(NamedTuple):
    """What ``make_training`` is given, as its arguments say."""

    loss_fn: LossFn | CoupledLoss
    optimizer: optax.GradientTransformation
    metrics_fn: Callable[[Params, Data], Metrics]
    batch_size: int
    max_epochs: int
    max_steps: int
    stop: StopFn
    mask_update: MaskUpdate | None
    evaluate_at_once: int


def _init(
    given: _Given,
    params: Params,
    mask: Mask,
    data: Padded,
    key: jax.Array,
    limit: Any = NO_LIMIT,
) -> TrainState:
    """A network before its first epoch."""
    params = apply_mask(params, mask)
    each = jax.eval_shape(
        lambda params, examples: per_example(
            given.metrics_fn, params, take_batch(examples, examples.index)
        ),
        params,
        data.examples,
    )
    if not {"loss", "accuracy"} <= set(each):
        raise ValueError(
            f"metrics_fn returns {sorted(each)}, expected loss and accuracy"
        )
    nan = jnp.float32(jnp.nan)
    return TrainState(
        params,
        mask,
        given.optimizer.init(params),
        () if given.mask_update is None else given.mask_update.init(params, mask, key),
        key,
        jnp.int32(0),
        jnp.asarray(limit, jnp.int32),
        Progress(
            epoch=jnp.int32(0),
            loss=nan,
            previous_loss=jnp.float32(jnp.inf),
            accuracy=nan,
            still=jnp.int32(0),
            half_loss=nan,
            half_accuracy=nan,
            step=jnp.int32(0),
        ),
        {name: jnp.full(given.max_epochs, jnp.nan) for name in each},
        converged=jnp.bool_(False),
        diverged=jnp.bool_(False),
    )


def _batch_loss(
    given: _Given, params: Params, batch: Batch, counts: jax.Array
) -> jax.Array:
    """The mean over the examples that count."""
    if isinstance(given.loss_fn, CoupledLoss):
        return given.loss_fn.fn(params, batch, counts)
    losses = per_example(given.loss_fn, params, batch)
    if losses.ndim != 1:
        raise ValueError(f"loss_fn returns shape {losses.shape[1:]}, expected a scalar")
    return jnp.sum(jnp.where(counts, losses, 0)) / jnp.sum(counts)


def _epoch(
    given: _Given, state: TrainState, data: Padded, count: int | None = None
) -> TrainState:
    """A network after one more epoch, its metrics entered."""
    examples, n = data
    padded = len(examples.index)
    size = min(given.batch_size, padded)
    gradient_of = jax.grad(functools.partial(_batch_loss, given))
    order = epoch_order(state.key, state.progress.epoch, n, padded)
    steps = jnp.minimum((n + size - 1) // size, state.limit - state.step)
    running = ~_done(given, state)

    def step(i: jax.Array, carry: Any) -> Any:
        params, opt_state = carry
        counts = i * size + jnp.arange(size) < n
        # Padding is filled with a real example, which then counts for nothing.
        index = jnp.where(counts, order.reshape(-1, size)[i], order[0])
        gradient = gradient_of(params, take_batch(examples, index), counts)
        # Removed weights are 0 already: masking the gradient keeps them there.
        updates, stepped = given.optimizer.update(
            apply_mask(gradient, state.mask), opt_state, params
        )
        moved = apply_mask(optax.apply_updates(params, updates), state.mask)
        if count is None:
            return moved, stepped
        return _where(running & (i < steps), (moved, stepped), carry)

    # Every iteration of a fori_loop is cheaper than one of a scan on a CPU.
    carry = (state.params, state.opt_state)
    params, opt_state = jax.lax.fori_loop(
        0, steps if count is None else count, step, carry
    )
    if given.mask_update is not None:
        state, params, opt_state = _move(given, state, params, opt_state, data, order)
    metrics = _measure(given, params, data, count)
    after = _account(state._replace(step=state.step + steps), metrics, given.stop)
    if count is not None:
        still = state._replace(params=None, opt_state=None)
        after = _where(running, after._replace(params=None, opt_state=None), still)
    return after._replace(params=params, opt_state=opt_state)


def _move(
    given: _Given,
    state: TrainState,
    params: Params,
    opt_state: optax.OptState,
    data: Padded,
    order: jax.Array,
) -> tuple[TrainState, Params, optax.OptState]:
    """The network with its mask updated; what stands still keeps its own."""
    assert given.mask_update is not None
    gradient_of = jax.grad(functools.partial(_batch_loss, given))
    examples, n = data
    size = min(given.batch_size, len(examples.index))
    counts = jnp.arange(size) < n
    batch = take_batch(examples, jnp.where(counts, order[:size], order[0]))
    moving, mask = given.mask_update.update(
        state.moving,
        params,
        state.mask,
        lambda params: gradient_of(params, batch, counts),
        state.progress.epoch,
    )
    stayed = jax.tree.map(jnp.logical_and, mask, state.mask)

    def clear(leaf: Any, keep: jax.Array) -> jax.Array:
        return jnp.where(keep, leaf, jnp.zeros_like(leaf))

    # Where a weight left or came, its value and its moments are 0.
    moments = optax.tree_map_params(given.optimizer, clear, opt_state, stayed)
    cleared = (apply_mask(params, stayed), moments)
    return _where(
        ~_done(given, state),
        (state._replace(mask=mask, moving=moving), *cleared),
        (state, params, opt_state),
    )


def _measure(given: _Given, params: Params, data: Padded, count: int | None) -> Metrics:
    """The metrics over all examples, a chunk of them at a time."""
    examples, n = data
    padded = len(examples.index)
    size = min(given.evaluate_at_once, padded)

    def chunk(i: Any) -> Metrics:
        index = i * size + jnp.arange(size)
        counts = index < n
        part = take_batch(examples, jnp.where(counts, index, 0))
        each = per_example(given.metrics_fn, params, part)
        return {
            name: jnp.sum(jnp.where(counts, values, 0.0))
            for name, values in each.items()
        }

    sums = chunk(0)
    if size < padded:
        chunks = (n + size - 1) // size
        sums = jax.lax.fori_loop(
            1,
            chunks if count is None else -(-padded // size),
            lambda i, sums: jax.tree.map(jnp.add, sums, chunk(i)),
            sums,
        )
    return {name: total / n for name, total in sums.items()}


def _done(given: _Given, state: TrainState) -> jax.Array:
    ended = state.converged | (state.progress.epoch >= given.max_epochs)
    ended = ended | (state.step >= given.max_steps)
    ended = jnp.where(state.limit == NO_LIMIT, ended, state.step >= state.limit)
    return ended | state.diverged


def _finish(given: _Given, state: TrainState) -> TrainResult:
    last = jnp.maximum(state.progress.epoch - 1, 0)
    return TrainResult(
        state.params,
        {name: values[last] for name, values in state.history.items()},
        state.history,
        state.progress.epoch,
        state.converged,
        state.diverged,
        mask=state.mask if given.mask_update is not None else None,
        steps=state.step,
    )


def _account(state: TrainState, metrics: Metrics, stop: StopFn) -> TrainState:
    """The state with an epoch's metrics entered and its end judged."""
    before = state.progress
    loss, accuracy = metrics["loss"], metrics["accuracy"]
    same = accuracy == before.accuracy
    history = {
        name: values.at[before.epoch].set(metrics[name])
        for name, values in state.history.items()
    }
    epoch = before.epoch + 1
    half = jnp.maximum(epoch // 2 - 1, 0)
    progress = Progress(
        epoch,
        jnp.asarray(loss, jnp.float32),
        jnp.where(before.epoch == 0, jnp.inf, before.loss),
        jnp.asarray(accuracy, jnp.float32),
        jnp.where(same, before.still + 1, 0),
        half_loss=jnp.where(epoch < 2, jnp.nan, history["loss"][half]),
        half_accuracy=jnp.where(epoch < 2, jnp.nan, history["accuracy"][half]),
        step=state.step,
    )
    diverged = ~jnp.isfinite(progress.loss)
    return state._replace(
        progress=progress,
        history=history,
        converged=stop(progress) & ~diverged,
        diverged=diverged,
    )


def _where(condition: jax.Array, this: Any, that: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, that)
