"""One network's training, as a specification has it: the rule, the metrics of a row.

``training_of`` makes the optimizer, the loss, the metrics and the rule that ends a
training, and what removes dead neurons from jobs where that pays. A
question may have another rule, its ``Budget``, in place of ``train.stop``.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax import capacity, compaction, ensemble, masks, models, scores, training
from nfp_jax.engine.jobs import size_of
from nfp_jax.fields import SpecError
from nfp_jax.lab.limits import check_optimizer, check_options
from nfp_jax.lab.names import STOPS
from nfp_jax.masks import Params
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.spec import Spec

EVALUATED_AT_ONCE = 2048  # examples; bounds the memory of a forward pass


class Budget(NamedTuple):
    """What ends a training, beside ``train.max_epochs``.

    Attributes:
      stop: the rule, at the end of an epoch.
      max_steps: of the optimizer, whatever n.
    """

    stop: training.StopFn
    max_steps: int = training.NO_LIMIT


def training_of(
    spec: Spec,
    model: Any,
    input_shape: tuple[int, ...],
    budget: Budget | None = None,
    mask_update: MaskUpdate | None = None,
    *,
    has_statistics: bool = False,
) -> tuple[training.Training, ensemble.ShrinkJob | None]:
    """The training of the specification, with the metrics of a row, and what removes
    dead neurons for it, where that changes nothing and pays.

    A network that has statistics of batches is trained by those of each batch, and
    measured by the running ones.

    Raises:
      SpecError: the optimizer does not take ``train.options``.
    """
    stop, max_steps = budget or Budget(STOPS[spec.train.stop](spec.train))
    make = getattr(optax, spec.train.optimizer)
    rate: Any = spec.train.learning_rate
    if spec.train.decay_steps:
        rate = optax.cosine_decay_schedule(rate, spec.train.decay_steps)
    check_options(dict(spec.train.options))
    try:
        optimizer = make(rate, **spec.train.options)
    except TypeError as error:
        raise SpecError(f"train.options do not fit the optimizer: {error}") from error
    check_optimizer(spec.train.optimizer, optimizer)
    shrink, apply_fn = None, model.apply
    # A weight that may come back is not dead.
    if math.isfinite(spec.engine.shrink_from) and mask_update is None:
        if shrink := _shrink(spec, model, input_shape, optimizer, max_steps):
            apply_fn = models.apply_at_any_width(model)
    if spec.train.moments == "bfloat16":
        # Rounded each by itself, and 0 stays 0: what the probe of dead weights said of
        # the optimizer still holds.
        optimizer = training.bfloat16_moments(optimizer)
    loss_fn = scores.classification_loss(apply_fn)

    def batch_loss(params: Params, batch: tuple[Any, ...]) -> jax.Array:
        return loss_fn(params, batch[:2])

    loss: Any = batch_loss
    if has_statistics:
        loss = training.statistics_loss(models.TrainingApply(model))
        optimizer = training.carry_statistics(optimizer)

    def metrics_fn(params: Params, data: tuple[Any, ...]) -> training.Metrics:
        x, y, z, redrawn = data
        logits = apply_fn(params, x)
        correct = jnp.argmax(logits, axis=-1) == y
        return {
            **training.label_metrics(logits, y),
            "noise_correlation": capacity.noise_correlation(jax.nn.softmax(logits), z),
            "redrawn_and_correct": jnp.mean((correct & redrawn).astype(jnp.float32)),
        }

    made = training.make_training(
        loss,
        optimizer,
        metrics_fn=metrics_fn,
        batch_size=spec.train.batch_size,
        max_epochs=spec.train.max_epochs,
        max_steps=max_steps,
        stop=stop,
        mask_update=mask_update,
        evaluate_at_once=EVALUATED_AT_ONCE,
    )
    return made, shrink


def _shrink(
    spec: Spec,
    model: Any,
    input_shape: tuple[int, ...],
    optimizer: Any,
    max_steps: int,
) -> ensemble.ShrinkJob | None:
    """What removes dead neurons from jobs whose training is worth the compiling."""
    try:
        chain = models.layer_chain(model)
        positions = models.layer_positions(model, input_shape)
    except ValueError:  # a network that is no chain of layers
        return None
    if not compaction.keeps_dead_weights(optimizer):
        return None
    small = compaction.make_shrink(
        chain,
        dead_inputs=compaction.is_dead_at_zero(model.activation),
        positions=positions,
    )

    def shrink(job: ensemble.Job) -> compaction.Shrunk | None:
        leaves = dict(masks.named_leaves(job.params))
        sizes = [leaves[f"{layer}/kernel"].size for layer in chain]
        products = sum(n * size for n, size in zip(positions, sizes, strict=True))
        # Two operations a product, forward, and twice as much backward.
        n = size_of(job)
        points = min(n * spec.train.max_epochs, max_steps * spec.train.batch_size)
        work = 6 * products * points
        if work < spec.engine.shrink_from:
            return None
        return small(*jax.device_get((job.params, job.mask)))

    return shrink
