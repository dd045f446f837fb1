"""The whole training of one masked network, to convergence, as pure functions.

``make_training`` closes over what is static and returns the four functions of one
lane: ``init``, ``epoch``, ``done``, ``finish``. ``train`` strings them together in one
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

from nfp_jax.masks import Mask, Params, apply_mask, named_leaves

Data = Any
Batch = Any
LossFn = Callable[[Params, Batch], jax.Array]
Metrics = dict[str, jax.Array]


class Progress(NamedTuple):
    """What a stopping rule sees at the end of an epoch; scalars.

    ``epoch`` counts from 1; ``still`` is the number of consecutive epochs over which
    the train accuracy has not changed; ``previous_loss`` is infinite at first.
    """

    epoch: jax.Array
    loss: jax.Array
    previous_loss: jax.Array
    accuracy: jax.Array
    still: jax.Array


StopFn = Callable[[Progress], jax.Array]


class TrainState(NamedTuple):
    """One network on its way: what ``epoch`` takes and returns."""

    params: Params
    mask: Mask
    opt_state: optax.OptState
    key: jax.Array
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
    """

    params: Params
    metrics: Metrics
    history: Metrics
    epochs: jax.Array
    converged: jax.Array
    diverged: jax.Array
    seconds: float = float("nan")


class Training(NamedTuple):
    """The pure functions of one lane.

    ``init(params, mask, data, key) -> state``; ``epoch(state, data) -> state`` runs a
    whole epoch and its metrics; ``done(state) -> bool``; ``finish(state) -> result``;
    ``steps(state, data, count) -> state`` runs the first ``count`` optimizer steps of
    the same order of batches, without metrics, for rewinding.
    """

    init: Callable[[Params, Mask, Data, jax.Array], TrainState]
    epoch: Callable[[TrainState, Data], TrainState]
    done: Callable[[TrainState], jax.Array]
    finish: Callable[[TrainState], TrainResult]
    steps: Callable[[TrainState, Data, jax.Array], TrainState]


def stop_when_still(*, patience: int = 3, min_epochs: int = 10) -> StopFn:
    """Stops at train accuracy 1, or when it has not changed for ``patience`` epochs.

    Either one only after ``min_epochs`` epochs. The default of this project: the loss
    rule of the paper alone would stop sparse networks at epoch 2, at chance.

    >>> stop = stop_when_still(patience=3, min_epochs=10)
    >>> bool(stop(Progress(12, loss=0.7, previous_loss=0.7, accuracy=0.5, still=3)))
    True
    """

    def stop(progress: Progress) -> jax.Array:
        settled = (progress.accuracy >= 1.0) | (progress.still >= patience)
        return settled & (progress.epoch >= min_epochs)

    return stop


def stop_as_paper(*, tolerance: float = 0.01, patience: int = 3) -> StopFn:
    """Stops when the loss changed by less than ``tolerance`` from epoch to epoch.

    Or when the train accuracy has not changed for ``patience`` consecutive epochs.

    >>> stop = stop_as_paper()
    >>> bool(stop(Progress(2, loss=0.69, previous_loss=0.693, accuracy=0.5, still=0)))
    True

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """

    def stop(progress: Progress) -> jax.Array:
        change = jnp.abs(progress.loss - progress.previous_loss)
        return (change < tolerance) | (progress.still >= patience)

    return stop


def make_training(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    metrics_fn: Callable[[Params, Data], Metrics],
    batch_size: int = 64,
    max_epochs: int = 100,
    stop: StopFn | None = None,
) -> Training:
    """Returns the training of one network as the pure functions of a lane.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch; ``batch`` is
        ``data`` with fewer examples.
      optimizer: any optax transformation.
      metrics_fn: ``metrics_fn(params, data)``: a dict of scalars over the whole
        training set, with ``loss`` and ``accuracy``, taken at the end of every epoch;
        ``classification_metrics`` makes one.
      batch_size: examples a step; the whole set where that is smaller.
      max_epochs: the budget.
      stop: ``stop_when_still()`` (the default), ``stop_as_paper()``, or any function
        of a ``Progress``.

    Returns:
      A ``Training``. Its ``data`` is any pytree whose leaves share a leading axis of
      ``n`` examples.

    Raises:
      ValueError: ``batch_size`` or ``max_epochs`` below 1.

    >>> loss_fn = lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2)
    >>> metrics_fn = lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0}
    >>> training = make_training(loss_fn, optax.sgd(0.1), metrics_fn=metrics_fn)
    >>> w, mask = jnp.zeros((2, 1)), jnp.array([[True], [False]])
    >>> data = (jnp.ones((8, 2)), jnp.ones((8, 1)))
    >>> result = train(training, w, mask, data, jax.random.key(0))
    >>> round(float(result.params[0, 0]), 2), float(result.params[1, 0])
    (0.89, 0.0)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    if max_epochs < 1:
        raise ValueError(f"max_epochs is {max_epochs}, expected at least 1")
    stop = stop_when_still() if stop is None else stop

    def init(params: Params, mask: Mask, data: Data, key: jax.Array) -> TrainState:
        _examples(data)  # refused here, before a gather would clamp what is missing
        params = apply_mask(params, mask)
        metrics = jax.eval_shape(metrics_fn, params, data)
        if not {"loss", "accuracy"} <= set(metrics):
            raise ValueError(
                f"metrics_fn returns {sorted(metrics)}, expected loss and accuracy"
            )
        nan = jnp.float32(jnp.nan)
        return TrainState(
            params,
            mask,
            optimizer.init(params),
            key,
            Progress(jnp.int32(0), nan, jnp.float32(jnp.inf), nan, jnp.int32(0)),
            {name: jnp.full(max_epochs, jnp.nan) for name in metrics},
            converged=jnp.bool_(False),
            diverged=jnp.bool_(False),
        )

    def step(carry: tuple[Any, Any], batch: Batch, mask: Mask) -> tuple[Any, Any]:
        params, opt_state = carry
        # Removed weights are 0 already: masking the gradient keeps them there.
        gradient = apply_mask(jax.grad(loss_fn)(params, batch), mask)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return apply_mask(optax.apply_updates(params, updates), mask), opt_state

    def batches(state: TrainState, data: Data, epoch: jax.Array) -> Any:
        """The order of an epoch: whole batches ``[count, size]``, and the rest."""
        n = _examples(data)
        size = min(batch_size, n)
        order = jax.random.permutation(jax.random.fold_in(state.key, epoch), n)
        whole = n // size * size
        return order[:whole].reshape(-1, size), order[whole:]

    def epoch(state: TrainState, data: Data) -> TrainState:
        whole, rest = batches(state, data, state.progress.epoch)

        def one(carry: Any, index: jax.Array) -> tuple[Any, None]:
            return step(carry, _take(data, index), state.mask), None

        carry, _ = jax.lax.scan(one, (state.params, state.opt_state), whole)
        if rest.size:
            carry, _ = one(carry, rest)
        state = state._replace(params=carry[0], opt_state=carry[1])
        return _account(state, metrics_fn(state.params, data), stop)

    def done(state: TrainState) -> jax.Array:
        ended = state.converged | state.diverged
        return ended | (state.progress.epoch >= max_epochs)

    def finish(state: TrainState) -> TrainResult:
        last = jnp.maximum(state.progress.epoch - 1, 0)
        return TrainResult(
            state.params,
            {name: values[last] for name, values in state.history.items()},
            state.history,
            state.progress.epoch,
            state.converged,
            state.diverged,
        )

    def steps(state: TrainState, data: Data, count: jax.Array) -> TrainState:
        n = _examples(data)
        an_epoch = -(-n // min(batch_size, n))

        def one(i: jax.Array, carry: Any) -> Any:
            whole, rest = batches(state, data, i // an_epoch)
            j = i % an_epoch

            def of_whole(carry: Any) -> Any:
                return step(carry, _take(data, whole[j]), state.mask)

            if not rest.size:
                return of_whole(carry)
            return jax.lax.cond(
                j < whole.shape[0],
                of_whole,
                lambda carry: step(carry, _take(data, rest), state.mask),
                carry,
            )

        carry = (state.params, state.opt_state)
        carry = jax.lax.fori_loop(0, count, one, carry)
        return state._replace(params=carry[0], opt_state=carry[1])

    return Training(init, epoch, done, finish, steps)


def train(
    training: Training,
    params: Params,
    mask: Mask,
    data: Data,
    key: jax.Array,
    *,
    steps: Any = None,
) -> TrainResult:
    """Returns one network, trained to its own convergence in one ``jit``.

    The outcome depends on the arguments alone. Works under ``vmap``, where all
    networks run until the slowest has converged, and differentiates nothing.

    Args:
      training: from ``make_training``; keep it, another one compiles again.
      params: initial weights.
      mask: bool pytree like ``params``.
      data: pytree of arrays with a common leading axis of examples, often ``(x, y)``.
      key: decides the order of batches.
      steps: instead, exactly this many optimizer steps, an integer, without metrics
        (which are then NaN): the weights to rewind to.

    Returns:
      A ``TrainResult``.

    Raises:
      ValueError: a mask that does not fit (names the path), or leaves of ``data`` of
        different leading sizes.
    """
    return run_training(training, params, mask, data, key, steps)


@functools.partial(jax.jit, static_argnums=0)
def run_training(
    training: Training,
    params: Params,
    mask: Mask,
    data: Data,
    key: jax.Array,
    steps: Any,
) -> TrainResult:
    """Returns what ``train`` does; jitted, so that it can be lowered ahead of time."""
    state = training.init(params, mask, data, key)
    if steps is not None:
        return training.finish(training.steps(state, data, steps))
    state = jax.lax.while_loop(
        lambda state: ~training.done(state),
        lambda state: training.epoch(state, data),
        state,
    )
    return training.finish(state)


def classification_metrics(
    apply_fn: Callable[[Params, jax.Array], jax.Array], *, chunk_size: int = 2048
) -> Callable[[Params, Data], Metrics]:
    """Returns the metrics of a classifier: mean cross-entropy (nats) and accuracy.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [batch, classes]``.
      chunk_size: examples taken at once, which bounds the memory.

    Returns:
      ``metrics_fn(params, (x, y))``: ``{"loss", "accuracy"}``, float scalars.

    >>> metrics_fn = classification_metrics(lambda params, x: x @ params)
    >>> metrics = metrics_fn(jnp.eye(2), (jnp.eye(2), jnp.array([0, 0])))
    >>> float(metrics["accuracy"])
    0.5
    """

    def metrics_fn(params: Params, data: Data) -> Metrics:
        x, y = data
        return label_metrics(logits_in_chunks(apply_fn, params, x, chunk_size), y)

    return metrics_fn


def label_metrics(logits: jax.Array, y: jax.Array) -> Metrics:
    """Returns mean cross-entropy (nats) and accuracy of logits ``[n, classes]``.

    >>> float(label_metrics(jnp.zeros((1, 2)), jnp.array([0]))["loss"])
    0.6931471824645996
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    correct = jnp.argmax(logits, axis=-1) == y
    return {"loss": jnp.mean(losses), "accuracy": jnp.mean(correct.astype(jnp.float32))}


def logits_in_chunks(
    apply_fn: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    x: jax.Array,
    chunk_size: int,
) -> jax.Array:
    """Returns ``apply_fn(params, x)``, computed ``chunk_size`` examples at a time.

    >>> double = lambda params, x: 2 * x
    >>> logits_in_chunks(double, None, jnp.ones((3, 1)), 2).tolist()
    [[2.0], [2.0], [2.0]]
    """
    n = x.shape[0]
    if n <= chunk_size:
        return apply_fn(params, x)
    whole = n // chunk_size * chunk_size
    chunks = x[:whole].reshape(-1, chunk_size, *x.shape[1:])
    logits = jax.lax.map(lambda chunk: apply_fn(params, chunk), chunks)
    logits = logits.reshape(whole, *logits.shape[2:])
    if whole == n:
        return logits
    return jnp.concatenate([logits, apply_fn(params, x[whole:])])


def _account(state: TrainState, metrics: Metrics, stop: StopFn) -> TrainState:
    """The state with an epoch's metrics entered and its end judged."""
    before = state.progress
    loss, accuracy = metrics["loss"], metrics["accuracy"]
    same = accuracy == before.accuracy
    progress = Progress(
        before.epoch + 1,
        jnp.asarray(loss, jnp.float32),
        jnp.where(before.epoch == 0, jnp.inf, before.loss),
        jnp.asarray(accuracy, jnp.float32),
        jnp.where(same, before.still + 1, 0),
    )
    history = {
        name: values.at[before.epoch].set(metrics[name])
        for name, values in state.history.items()
    }
    diverged = ~jnp.isfinite(progress.loss)
    return state._replace(
        progress=progress,
        history=history,
        converged=stop(progress) & ~diverged,
        diverged=diverged,
    )


def _take(data: Data, index: jax.Array) -> Batch:
    return jax.tree.map(lambda leaf: leaf[index], data)


def _examples(data: Data) -> int:
    """The number of examples, the common leading size of the leaves."""
    leaves = named_leaves(data)
    sizes = {path: jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(sizes.values())) != 1 or () in sizes.values() or (0,) in sizes.values():
        raise ValueError(
            f"data has leaves of leading sizes {sizes}, expected one common size of at "
            "least 1"
        )
    return int(next(iter(sizes.values()))[0])
