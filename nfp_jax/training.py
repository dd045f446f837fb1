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
import numpy as np
import optax

from nfp_jax.masks import Mask, Params, apply_mask, named_leaves

Data = Any
Batch = Any
LossFn = Callable[[Params, Batch], jax.Array]
Metrics = dict[str, jax.Array]

# Steps of a training that ends by itself.
NO_LIMIT = 2**31 - 1


class Progress(NamedTuple):
    """What a stopping rule sees at the end of an epoch; scalars.

    ``epoch`` counts from 1, ``step`` the optimizer steps so far; ``still`` is the
    number of consecutive epochs over which the train accuracy has not changed;
    ``previous_loss`` is infinite at first. ``half_loss`` and ``half_accuracy`` are
    those at the end of epoch ``epoch // 2``, NaN at epoch 1.
    """

    epoch: jax.Array
    loss: jax.Array
    previous_loss: jax.Array
    accuracy: jax.Array
    still: jax.Array
    half_loss: Any = float("nan")
    half_accuracy: Any = float("nan")
    step: Any = 0


StopFn = Callable[[Progress], jax.Array]


class Examples(NamedTuple):
    """A training set as a lane takes it, padded: sets of many sizes share a program.

    Attributes:
      data: pytree of arrays ``[padded, ...]``, of which the first ``n`` rows count.
      n: int32, the number of examples.
      inputs: ``None``, or a pytree of arrays ``[pool, ...]`` that many sets share; then
        ``data`` is a tuple whose first entry holds rows of the pool, and batches hold
        the inputs of these rows in its place.
    """

    data: Data
    n: Any
    inputs: Any = None


class TrainState(NamedTuple):
    """One network on its way: what ``epoch`` takes and returns.

    ``step`` counts optimizer steps; ``limit`` is the number of them to take, or
    ``NO_LIMIT`` for a training to convergence.
    """

    params: Params
    mask: Mask
    opt_state: optax.OptState
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
    """

    params: Params
    metrics: Metrics
    history: Metrics
    epochs: jax.Array
    converged: jax.Array
    diverged: jax.Array
    seconds: float = float("nan")

    @property
    def out_of_budget(self) -> bool:
        """Whether the budget ended it, and neither the stopping rule nor a bad loss."""
        return not (self.converged or self.diverged)


class Training(NamedTuple):
    """The pure functions of one lane.

    ``init(params, mask, examples, key, limit=NO_LIMIT) -> state``;
    ``epoch(state, examples, count=None) -> state`` runs a whole epoch and its metrics;
    ``done(state) -> bool``; ``finish(state) -> result``. Lanes that run together pass
    ``epoch`` the same ``count`` of steps, an upper bound of their own: a lane that has
    fewer, or is done, stands still meanwhile. ``batch_size`` is the setting.
    """

    init: Callable[..., TrainState]
    epoch: Callable[..., TrainState]
    done: Callable[[TrainState], jax.Array]
    finish: Callable[[TrainState], TrainResult]
    batch_size: int


def stop_when_settled(
    *,
    share: float = 1.0,
    first: int = 50,
    rise: float = 0.005,
    fall: float = 0.05,
    min_steps: int = 1000,
) -> StopFn:
    """Stops when ``share`` of the labels is fitted, or once doubling changes little.

    The second is looked at when the number of epochs is ``2T`` with ``T = first``,
    ``2 * first``, ``4 * first``, …: the training has settled if from T to 2T the
    accuracy rose by less than ``rise`` and the loss fell by less than the fraction
    ``fall`` of its value at T. The rule of all claims of this project. Rules that look
    at a few epochs stop sparse networks while they still climb, and so measure how fast
    a network memorizes where how much was asked.

    Args:
      share: of the labels fitted, in (0, 1]; 1: all of them.
      first: the first T, in epochs, at least 1.
      rise: share of the labels, in (0, 1].
      fall: fraction of the loss, in (0, 1].
      min_steps: doublings that end before so many optimizer steps are not looked at:
        with one step an epoch, 100 epochs are few.

    Raises:
      ValueError: an argument out of its range.

    >>> stop = stop_when_settled()
    >>> slow = Progress(100, 0.58, 0.58, 0.7, 0, 0.6, 0.697, step=1600)
    >>> bool(stop(slow)), bool(stop(slow._replace(epoch=101)))
    (True, False)
    >>> bool(stop(slow._replace(half_accuracy=0.69)))  # it rose by 1 % of the labels
    False
    """
    for name, value in {"share": share, "rise": rise, "fall": fall}.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}, expected 0 < {name} <= 1")
    if first < 1:
        raise ValueError(f"first is {first}, expected at least 1")
    fitted = stop_when_fitted(share)

    def stop(progress: Progress) -> jax.Array:
        epoch, halves = progress.epoch, progress.epoch // first
        doubled = (epoch % first == 0) & (halves >= 2) & (halves & (halves - 1) == 0)
        # 5 labels of 1,000 are 0.5 % of them, whatever the rounding of two float32.
        rose = progress.accuracy - progress.half_accuracy >= rise - 1.5e-7
        fell = progress.loss <= (1 - fall) * progress.half_loss
        settled = doubled & (progress.step >= min_steps) & ~jnp.asarray(rose | fell)
        return fitted(progress) | settled

    return stop


def stop_when_still(*, patience: int = 3, min_epochs: int = 10) -> StopFn:
    """Stops at train accuracy 1, or when it has not changed for ``patience`` epochs.

    Either one only after ``min_epochs`` epochs. It measures speed: it stops sparse
    networks while they still climb (``stop_when_settled`` does not).

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


def stop_when_fitted(share: float) -> StopFn:
    """Stops as soon as so many of the labels are predicted, whatever the loss.

    What a search for the memorization capacity asks; others end by their budget.

    >>> stop = stop_when_fitted(0.99)
    >>> bool(stop(Progress(1, loss=0.1, previous_loss=0.2, accuracy=0.99, still=0)))
    True
    """

    def stop(progress: Progress) -> jax.Array:
        # 1.5e-7: the rounding of two float32, the share and the mean. Were it more, a
        # label too few would do where share * n is just above an integer.
        return jnp.asarray(progress.accuracy >= share - 1.5e-7)

    return stop


def make_training(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    metrics_fn: Callable[[Params, Data], Metrics],
    batch_size: int = 64,
    max_epochs: int = 3200,
    max_steps: int = NO_LIMIT,
    stop: StopFn | None = None,
    evaluate_at_once: int = 2048,
) -> Training:
    """Returns the training of one network as the pure functions of a lane.

    ``loss_fn`` and ``metrics_fn`` are means over the examples they are given, and are
    called on single ones, weighed here: that is how networks trained on sets of
    different sizes share a program. What couples the examples of a batch (batch
    normalization, say) does not fit.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar;
        ``batch`` is ``data`` with fewer examples.
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
      evaluate_at_once: examples measured at once, which bounds the memory.

    Returns:
      A ``Training``. Its ``data`` is any pytree whose leaves share a leading axis of
      ``n`` examples.

    Raises:
      ValueError: ``batch_size``, ``max_epochs``, ``max_steps`` or ``evaluate_at_once``
        below 1.

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

    def init(
        params: Params,
        mask: Mask,
        examples: Examples,
        key: jax.Array,
        limit: Any = NO_LIMIT,
    ) -> TrainState:
        params = apply_mask(params, mask)
        each = jax.eval_shape(functools.partial(_each, metrics_fn), params, examples)
        if not {"loss", "accuracy"} <= set(each):
            raise ValueError(
                f"metrics_fn returns {sorted(each)}, expected loss and accuracy"
            )
        nan = jnp.float32(jnp.nan)
        return TrainState(
            params,
            mask,
            optimizer.init(params),
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
            {name: jnp.full(max_epochs, jnp.nan) for name in each},
            converged=jnp.bool_(False),
            diverged=jnp.bool_(False),
        )

    def batch_loss(params: Params, batch: Batch, counts: jax.Array) -> jax.Array:
        """The mean over the examples that count."""
        losses = _each(loss_fn, params, batch)
        if losses.ndim != 1:
            raise ValueError(
                f"loss_fn returns shape {losses.shape[1:]}, expected a scalar"
            )
        return jnp.sum(jnp.where(counts, losses, 0)) / jnp.sum(counts)

    def epoch(
        state: TrainState, examples: Examples, count: int | None = None
    ) -> TrainState:
        padded = _examples(examples.data)
        size = min(batch_size, padded)
        order = _order(state.key, state.progress.epoch, examples.n, padded)
        own = jnp.minimum((examples.n + size - 1) // size, state.limit - state.step)
        running = ~done(state)

        def step(i: jax.Array, carry: Any) -> Any:
            params, opt_state = carry
            counts = i * size + jnp.arange(size) < examples.n
            # Padding is filled with a real example, which then counts for nothing.
            index = jnp.where(counts, order.reshape(-1, size)[i], order[0])
            gradient = jax.grad(batch_loss)(params, _take(examples, index), counts)
            # Removed weights are 0 already: masking the gradient keeps them there.
            updates, stepped = optimizer.update(
                apply_mask(gradient, state.mask), opt_state, params
            )
            moved = apply_mask(optax.apply_updates(params, updates), state.mask)
            if count is None:
                return moved, stepped
            return _where(running & (i < own), (moved, stepped), carry)

        # Every iteration of a fori_loop is cheaper than one of a scan on a CPU.
        carry = (state.params, state.opt_state)
        params, opt_state = jax.lax.fori_loop(
            0, own if count is None else count, step, carry
        )
        metrics = measure(params, examples, count)
        after = _account(state._replace(step=state.step + own), metrics, stop)
        if count is not None:
            still = state._replace(params=None, opt_state=None)
            after = _where(running, after._replace(params=None, opt_state=None), still)
        return after._replace(params=params, opt_state=opt_state)

    def measure(params: Params, examples: Examples, count: int | None) -> Metrics:
        """The metrics over all examples, a chunk of them at a time."""
        padded = _examples(examples.data)
        size = min(evaluate_at_once, padded)

        def chunk(i: Any) -> Metrics:
            index = i * size + jnp.arange(size)
            counts = index < examples.n
            part = _take(examples, jnp.where(counts, index, 0))
            each = _each(metrics_fn, params, part)
            return {
                name: jnp.sum(jnp.where(counts, values, 0.0))
                for name, values in each.items()
            }

        sums = chunk(0)
        if size < padded:
            chunks = (examples.n + size - 1) // size
            sums = jax.lax.fori_loop(
                1,
                chunks if count is None else -(-padded // size),
                lambda i, sums: jax.tree.map(jnp.add, sums, chunk(i)),
                sums,
            )
        return {name: total / examples.n for name, total in sums.items()}

    def done(state: TrainState) -> jax.Array:
        ended = state.converged | (state.progress.epoch >= max_epochs)
        ended = ended | (state.step >= max_steps)
        ended = jnp.where(state.limit == NO_LIMIT, ended, state.step >= state.limit)
        return ended | state.diverged

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

    return Training(init, epoch, done, finish, batch_size)


def train(
    training: Training,
    params: Params,
    mask: Mask,
    data: Data,
    key: jax.Array,
    *,
    steps: Any = None,
    inputs: Any = None,
) -> TrainResult:
    """Returns one network, trained to its own convergence in one ``jit``.

    The outcome depends on the arguments alone. Works under ``vmap``, where all
    networks run until the slowest has converged (``ensemble.run`` does better), and
    differentiates nothing.

    Args:
      training: from ``make_training``; keep it, another one compiles again.
      params: initial weights.
      mask: bool pytree like ``params``.
      data: pytree of arrays with a common leading axis of examples, often ``(x, y)``.
        Sizes that pad to the same one share a program.
      key: decides the order of batches.
      steps: instead, exactly this many optimizer steps, an integer: the weights to
        rewind to. The last metrics may then be those of a part of an epoch.
      inputs: see ``Examples``.

    Returns:
      A ``TrainResult``.

    Raises:
      ValueError: a mask that does not fit (names the path), or leaves of ``data`` of
        different leading sizes.
    """
    limit = NO_LIMIT if steps is None else steps
    examples = pad(data, training.batch_size, inputs=inputs)
    return run_training(training, params, mask, examples, key, limit)


@functools.partial(jax.jit, static_argnums=0)
def run_training(
    training: Training,
    params: Params,
    mask: Mask,
    examples: Examples,
    key: jax.Array,
    limit: Any,
) -> TrainResult:
    """Returns what ``train`` does; jitted, so that it can be lowered ahead of time."""
    state = jax.lax.while_loop(
        lambda state: ~training.done(state),
        lambda state: training.epoch(state, examples),
        training.init(params, mask, examples, key, limit),
    )
    return training.finish(state)


def padded_size(n: int, batch_size: int) -> int:
    """Returns the size that ``n`` examples are padded to: one of four an octave.

    Whole batches, where there is more than one; in a single one powers of 2 from 8 on,
    since small programs take as long to compile and less to run.

    >>> [padded_size(n, 64) for n in (3, 9, 64, 65, 1000, 1025)]
    [8, 16, 64, 128, 1024, 1280]
    """
    if n <= batch_size:
        return min(max(8, 1 << (n - 1).bit_length()), batch_size)
    return _rounded(-(-n // batch_size)) * batch_size


def pad(data: Data, batch_size: int, *, inputs: Any = None) -> Examples:
    """Returns the examples of a data set, padded to ``padded_size``.

    Raises:
      ValueError: leaves of ``data`` of different leading sizes, or of none; with
        ``inputs``, data that is not a tuple that begins with integer rows.
    """
    n = _examples(data)
    if inputs is not None:
        rows = data[0] if isinstance(data, tuple) and data else None
        if not jnp.issubdtype(getattr(rows, "dtype", float), jnp.integer):
            raise ValueError(
                "inputs are given, expected data to be a tuple that begins with an "
                f"integer array of their rows, got {type(data).__name__}"
            )
    more = padded_size(n, batch_size) - n

    def longer(leaf: Any) -> Any:
        widths = [(0, more)] + [(0, 0)] * (jnp.ndim(leaf) - 1)
        on_host = isinstance(leaf, np.ndarray)
        return np.pad(leaf, widths) if on_host else jnp.pad(leaf, widths)

    padded = jax.tree.map(longer, data) if more else data
    return Examples(padded, np.int32(n), inputs)


def classification_metrics(
    apply_fn: Callable[[Params, jax.Array], jax.Array],
) -> Callable[[Params, Data], Metrics]:
    """Returns the metrics of a classifier: mean cross-entropy (nats) and accuracy.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [batch, classes]``.

    Returns:
      ``metrics_fn(params, (x, y))``: ``{"loss", "accuracy"}``, float scalars.

    >>> metrics_fn = classification_metrics(lambda params, x: x @ params)
    >>> metrics = metrics_fn(jnp.eye(2), (jnp.eye(2), jnp.array([0, 0])))
    >>> float(metrics["accuracy"])
    0.5
    """

    def metrics_fn(params: Params, data: Data) -> Metrics:
        x, y = data
        return label_metrics(apply_fn(params, x), y)

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


def _order(key: jax.Array, epoch: jax.Array, n: Any, padded: int) -> jax.Array:
    """A permutation of the first ``n``, whatever ``padded`` is, and then the rest."""
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (padded,), jnp.uint32)
    last = jnp.uint32(2**32 - 1)
    return jnp.argsort(jnp.where(jnp.arange(padded) < n, bits, last), stable=True)


def _take(examples: Examples, index: jax.Array) -> Batch:
    """The batch of these examples, their inputs fetched."""
    batch = jax.tree.map(lambda leaf: leaf[index], examples.data)
    if examples.inputs is None:
        return batch
    return (jax.tree.map(lambda leaf: leaf[batch[0]], examples.inputs), *batch[1:])


def _each(fn: Callable[[Params, Batch], Any], params: Params, batch: Batch) -> Any:
    """What ``fn`` returns for each example alone, along a leading axis."""
    if isinstance(batch, Examples):
        batch = _take(batch, jnp.arange(1))

    def of_one(example: Any) -> Any:
        return fn(params, jax.tree.map(lambda leaf: leaf[None], example))

    return jax.vmap(of_one)(batch)


def _where(condition: jax.Array, this: Any, that: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, that)


def _rounded(count: int) -> int:
    """The next number of the form (4, 5, 6 or 7) * 2**k, or one below 8 itself."""
    unit = 1 << max(count.bit_length() - 3, 0)
    return -(-count // unit) * unit


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
