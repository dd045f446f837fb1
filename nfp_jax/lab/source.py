"""Other points than a run's own, for initial weights to see: ``model.init="lsuv:…"``.

After the colon stands ``half``, for a half of the set that the run then does without
(of a synthetic set 1,024 other points), or the name of an image set of the same
shape. Weights that saw no point of the run's set say nothing about it.
"""

from typing import Any

import jax
import numpy as np

from nfp_jax import data, masks, models, training
from nfp_jax.fields import SpecError
from nfp_jax.lab.trainer import training_of
from nfp_jax.spec import Spec

SOURCE = 12  # the stream of randomness after those of draws
POINTS = 1024  # of a synthetic set, and of those that LSUV and MetaInit draw from
HALF = "half"


def source_name(spec: Spec) -> str:
    """Returns what stands after the colon of ``model.init``; "": no colon.

    >>> source_name(Spec())
    ''
    """
    return str(spec.model.settings.get("init", "")).partition(":")[2]


def split(
    spec: Spec, pool: data.Dataset | None, make: Any
) -> tuple[data.Dataset | None, data.Dataset | None]:
    """Returns the set of the run and that of the initial weights; ``None``: no such.

    Args:
      spec: the specification.
      pool: the image set of the run; ``None``: it is synthetic.
      make: ``make(key, n=n)``, where it is.

    Raises:
      SpecError: a set of another shape.
      data.DataError: a set that can't be read or downloaded.
    """
    name = source_name(spec)
    if not name:
        return pool, None
    key = key_of(spec, 0)
    if name == HALF:
        if pool is not None:
            return data.halves(pool, key)
        return None, jax.jit(make, static_argnames="n")(key, n=POINTS)
    source = data.load(name, directory=spec.data.dir, download=spec.data.download)
    own = pool if pool is not None else jax.eval_shape(lambda: make(key, n=1))
    shapes = source.x.shape[1:], own.x.shape[1:]
    if shapes[0] != shapes[1]:
        raise SpecError(
            f"model.init names {name!r}, whose points have shape {shapes[0]}, expected "
            f"{shapes[1]}, as {spec.data.name!r} has"
        )
    return pool, source


def key_of(spec: Spec, seed: int) -> jax.Array:
    """Returns a key of the stream of sources."""
    root = jax.random.key(spec.seed)
    return jax.random.fold_in(jax.random.fold_in(root, SOURCE), seed)


def source_of(spec: Spec, found: data.Dataset, *, train: bool = True) -> models.Source:
    """Returns what initial weights are made of: inputs, and weights trained on them.

    Weights are trained by the rule of the specification on clean labels, once for all
    ``init_seed``, where the initialization asks for them. Without ``train`` they are as
    they were before, which is enough for their shapes.
    """
    size = len(found.y)
    index = data.subset_index(size, min(size, POINTS), key_of(spec, 3))
    inputs = np.asarray(found.x)[np.asarray(index)]
    if not models.init_of(spec.model.settings["init"]).needs_weights:
        return models.Source(inputs)
    settings = {**spec.model.settings, "init": "he_normal"}
    model = models.build(spec.model.name, found.classes, **settings)
    shape = found.x.shape[1:]
    params = jax.jit(lambda key: models.initialize(model, key, shape))(key_of(spec, 1))
    if not train:
        return models.Source(inputs, params)
    made, _ = training_of(
        spec, model, shape, has_statistics=models.has_statistics(params)
    )
    points = tuple(map(np.asarray, (found.x, found.clean, found.z, found.redrawn)))
    mask = masks.dense_mask(params)
    result = training.train(made, params, mask, points, key_of(spec, 2))
    if result.diverged:
        raise SpecError("model.init: the training on other points diverged")
    return models.Source(inputs, jax.device_get(result.params))


def seen_of(spec: Spec, pool: data.Dataset | None, found: data.Dataset) -> str:
    """Returns what initial weights saw of the run's set, as cards of pruners say it."""
    own = pool is not None and models.shared_points(found.x, pool.x) > 0
    return models.init_of(spec.model.settings["init"]).sees if own else "nothing"
