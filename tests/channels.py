"""Small pruners of which everything can be counted, for the decoders of data."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import nfp_jax as nfp
from nfp_jax.decoding import Stack
from nfp_jax.decoding.bits import Signed
from nfp_jax.models import MLP


@functools.cache
def network(dim, widths, sparsity, seed=0):
    """A network's params, its loss, and SNIP as decoders see it."""
    model = MLP(classes=2, widths=widths)
    params = model.init(jax.random.key(seed), jnp.zeros((1, dim)))
    loss_fn = nfp.classification_loss(model.apply)

    def score(q, x):
        gradient = jax.grad(loss_fn)(params, (x, q))
        return jax.tree.map(jnp.multiply, gradient, params)

    def mask(y, x):
        return nfp.prune(nfp.snip(loss_fn), params, (x, y), sparsity=sparsity)

    return params, loss_fn, Signed(score, mask)


def gaussian(dim):
    """Draws of Gaussian inputs with fair labels."""

    def draw(key, count):
        x_key, y_key = jax.random.split(key)
        x = jax.random.normal(x_key, (count, dim))
        return x, jax.random.randint(y_key, (count,), 0, 2)

    return draw


def signs(dim):
    """Draws of inputs of ±1 with fair labels: ``2^(dim + 1)`` equal examples."""

    def draw(key, count):
        x, y = gaussian(dim)(key, count)
        return jnp.where(x > 0, 1.0, -1.0), y

    return draw


def all_signs(dim, n):
    """All data sets of n examples of ``signs``: ``[sets, n, dim]``, ``[sets, n]``."""
    one = np.array(list(itertools.product((-1.0, 1.0), repeat=dim)), np.float32)
    x, y = np.repeat(one, 2, axis=0), np.tile([0, 1], len(one))
    which = np.array(list(itertools.product(range(len(x)), repeat=n)))
    return x[which], y[which]


def masks_of(signed, x, y):
    """The masks of data sets, one after the other: ``bool[K, P]``."""
    each = jax.jit(lambda x, y: jax.lax.map(lambda d: signed.mask(d[1], d[0]), (x, y)))
    return np.asarray(each(jnp.asarray(x), jnp.asarray(y)))


def drawn(signed, draw, n, count, seed=0):
    """A stack of masks of data sets that are drawn."""
    keys = jax.random.split(jax.random.key(1000 + seed), count)
    x, y = jax.device_get(jax.vmap(lambda key: draw(key, n))(keys))
    return Stack(masks_of(signed, x, y), y, np.full((n, 2), 0.5), x, True)


def entropy(masks):
    """The entropy of a mask that is one of these, nats."""
    _, counts = np.unique(np.packbits(masks, axis=1), axis=0, return_counts=True)
    share = counts / counts.sum()
    return -np.sum(share * np.log(share))


def pool(dim, size, seed=0):
    """Draws of one of a few Gaussian inputs, with fair labels: ``2 size`` examples."""
    inputs = jax.random.normal(jax.random.key(seed), (size, dim))

    def draw(key, count):
        x_key, y_key = jax.random.split(key)
        which = jax.random.randint(x_key, (count,), 0, size)
        return inputs[which], jax.random.randint(y_key, (count,), 0, 2)

    return draw
