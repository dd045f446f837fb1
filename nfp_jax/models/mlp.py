"""Fully connected networks."""

from collections.abc import Callable, Sequence

import jax
from flax import linen as nn

from nfp_jax.fields import check, items
from nfp_jax.models.contract import Model
from nfp_jax.models.init import initializer


class MLP(nn.Module):
    """A fully connected network: ReLU layers of the given widths, then logits.

    Inputs of any shape are flattened, ``[batch, ...]`` to ``[batch, d]``; outputs are
    ``[batch, classes]``. The paper's is ``widths=(200, 200)``.

    >>> import jax.numpy as jnp
    >>> model = MLP(classes=2)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 50)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    50400

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """

    classes: int
    widths: Sequence[int] = (200, 200)
    init_name: str = "he_normal"
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits ``[batch, classes]`` of inputs ``[batch, ...]``."""
        x = x.reshape(x.shape[0], -1)
        kernel_init = initializer(self.init_name)
        for width in self.widths:
            x = self.activation(nn.Dense(width, kernel_init=kernel_init)(x))
        return nn.Dense(self.classes, kernel_init=kernel_init)(x)

    def layers(self) -> tuple[str, ...]:
        """Returns the paths of its layers, from input to output."""
        return tuple(f"params/Dense_{i}" for i in range(len(self.widths) + 1))

    def positions(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns at how many places of an example each layer's kernel is applied."""
        return (1,) * len(self.layers())

    def with_widths(self, widths: Sequence[int]) -> "MLP":
        """Returns the same network with other widths of its hidden layers."""
        return self.clone(widths=tuple(widths))


def _build(
    classes: int, *, widths: tuple[int, ...] = (200, 200), init: str = "he_normal"
) -> MLP:
    check({**items("model.widths", widths)}, lambda width: width >= 1, "{} >= 1")
    initializer(init)  # refuses an unknown one
    return MLP(classes, widths, init)


CARD = Model("mlp", _build)
