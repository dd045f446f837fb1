"""A pruner of one's own: a score, what is built from it, and its card.

The square of weight times gradient: what removing a weight adds to the loss, to second
order, with the Fisher information in place of the Hessian. Copy this file and change
the score::

    python launch.py --config=configs/pruner_card.py --config.pruner=my/fisher.py
"""

import jax

from nfp_jax.pruning import Pruner, by_score


def fisher(loss_fn):
    """Scores each weight by ``(w ∂L/∂w)²``, of the mean loss over the batch.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative.
    """

    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        gradient = jax.grad(loss_fn)(params, batch)
        return jax.tree.map(lambda g, w: (g * w) ** 2, gradient, params)

    return score


def build(net, *, rounds=10):
    """Returns the pruner of a network; ``rounds`` is a setting of the card."""
    return by_score(fisher(net.loss_fn), rounds=rounds)


CARD = Pruner("fisher", label="Fisher", sees="labels", build=build)
