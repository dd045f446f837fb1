"""A transformer of one hidden layer, for sequences of tokens."""

import jax
from flax import linen as nn

from nfp_jax.fields import check, require
from nfp_jax.models.attention import TransformerBlock
from nfp_jax.models.contract import Model
from nfp_jax.models.init import initializer


class Transformer(nn.Module):
    """A transformer of one hidden layer without norms, to recall values by keys.

    Tokens are embedded and positions added; a block of attention and two dense layers
    follows; the last token gives the logits. Inputs ``[batch, tokens, vocabulary]``,
    one-hot or any numbers, as `nfp_jax.data.recall` makes.

    Attributes:
      classes: how many values there are.
      width: numbers a token, a multiple of ``heads``.
      heads: of attention.
      mlp: width of the hidden dense layer; 0: attention alone.
      init_name: of kernels.
      flow: whether every part is homogeneous; see ``without_norm``.

    >>> import jax.numpy as jnp
    >>> model = Transformer(classes=4, width=8, heads=2, mlp=0)
    >>> x = jnp.zeros((1, 3, 5))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    388

    Reference: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Nichani et al.
    2024, https://arxiv.org/abs/2412.06538.
    """

    classes: int
    width: int = 64
    heads: int = 4
    mlp: int = 128
    init_name: str = "he_normal"
    flow: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits ``[batch, classes]`` of ``[batch, tokens, vocabulary]``."""
        if x.ndim != 3:
            raise ValueError(
                f"Transformer got inputs of shape {x.shape}, expected [batch, tokens, "
                "vocabulary]"
            )
        kernel_init = initializer(self.init_name)
        embed = nn.Dense(
            self.width, use_bias=False, kernel_init=kernel_init, name="embedding"
        )
        x = embed(x)
        # 0.02: as in ViT's reference.
        positions = nn.initializers.normal(0.02)
        x = x + self.param("pos_embedding", positions, (1, *x.shape[1:]))
        x = TransformerBlock(
            self.heads,
            self.mlp,
            "none",
            self.flow,
            kernel_init,
            name="block",
        )(x)
        return nn.Dense(self.classes, kernel_init=kernel_init, name="head")(x[:, -1])

    def without_norm(self) -> "Transformer":
        """Returns a network of the same parameters without softmax, for SynFlow.

        See `attention.flow_attention`.
        """
        return self.clone(flow=True)


def _build(
    classes: int,
    *,
    width: int = 64,
    heads: int = 4,
    mlp: int = 128,
    init: str = "he_normal",
) -> Transformer:
    sizes = {"model.width": width, "model.heads": heads}
    check(sizes, lambda size: size >= 1, "{} >= 1")
    require(mlp >= 0, "model.mlp", mlp, "mlp >= 0")
    expected = f"a multiple of heads = {heads}"
    require(width % heads == 0, "model.width", width, expected)
    initializer(init)  # refuses an unknown one
    return Transformer(classes, width, heads, mlp, init)


CARD = Model("transformer", _build)
