"""Transformer blocks, and their attention without its normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.models.flow import in_range

NORMS = ("layer", "none")


class TransformerBlock(nn.Module):
    """Self-attention, then two dense layers, each with its input added.

    Each is ``x + f(norm(x))``. Inputs and outputs are ``[batch, tokens, width]``.

    Attributes:
      heads: of attention.
      mlp: width between the two dense layers; 0: attention alone.
      norm: ``"layer"`` or ``"none"``.
      flow: whether every part is homogeneous, as SynFlow needs it: no norm, ReLU in
        place of GELU, and `flow_attention`. It takes the same parameters.
      kernel_init: of all kernels.
    """

    heads: int
    mlp: int
    norm: str
    flow: bool
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns tokens ``[batch, tokens, width]``."""
        width = x.shape[-1]
        attend = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            kernel_init=self.kernel_init,
            attention_fn=flow_attention if self.flow else nn.dot_product_attention,
            name="attention",
        )
        out = self._norm("norm1")(x)
        # Flow reaches tokens through the values alone, so that none is counted twice.
        held = jax.lax.stop_gradient(out) if self.flow else out
        x = x + attend(held, held, out)
        if self.mlp:
            out = self._norm("norm2")(x)
            out = nn.Dense(self.mlp, kernel_init=self.kernel_init, name="mlp1")(out)
            out = nn.relu(out) if self.flow else nn.gelu(out)
            x = x + nn.Dense(width, kernel_init=self.kernel_init, name="mlp2")(out)
        # 40: products of queries and keys square it.
        return in_range(x, 40) if self.flow else x

    def _norm(self, name: str) -> Any:
        return layer_norm(self.norm, self.flow, name)


def layer_norm(norm: str, flow: bool, name: str) -> Any:
    """Returns a layer normalization, or the identity."""
    return (lambda x: x) if flow or norm == "none" else nn.LayerNorm(name=name)


def flow_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, **options: Any
) -> jax.Array:
    """Returns attention by products in place of their softmax, with fixed sums.

    Token i takes ``Σ_j q_i·k_j v_j / Σ_j q_i·k_j``, where the sum below counts as a
    constant when it is differentiated. So the value stays an average of the values,
    and the derivative is that of a product: of non-negative weights as much flows
    through the queries as through the keys, the values and the output. Where softmax
    normalizes, the flow of queries and keys would sum to 0, as that of every layer
    before a normalization does.

    Args:
      query: ``[batch, tokens, heads, dim]``, non-negative; ``key`` and ``value`` too.
      key: see ``query``.
      value: see ``query``.
      options: of ``nn.dot_product_attention``; none counts.

    Returns:
      ``[batch, tokens, heads, dim]``; 0 for tokens whose products are all 0.

    >>> one = jnp.ones((1, 2, 1, 3))
    >>> flow_attention(one, one, 5 * one)[0, 0, 0].tolist()
    [5.0, 5.0, 5.0]
    """
    del options
    products = jnp.einsum("bihd,bjhd->bhij", query, key)
    total = jax.lax.stop_gradient(jnp.sum(products, axis=-1, keepdims=True))
    weights = products / jnp.where(total > 0, total, 1)
    return jnp.einsum("bhij,bjhd->bihd", weights, value)
