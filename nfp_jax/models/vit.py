"""Vision transformers for small images."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.fields import check, require
from nfp_jax.models.attention import NORMS, TransformerBlock, layer_norm
from nfp_jax.models.contract import Model
from nfp_jax.models.convolution import patches_as_matmul
from nfp_jax.models.init import initializer


class ViT(nn.Module):
    """A vision transformer: patches, a class token, positions, blocks, logits.

    The defaults are ViT-Ti with patches of 4×4 pixels. Norms stand before attention and
    before the dense layers, and before the head, which reads the class token. Inputs
    ``[batch, height, width, channels]``, whose sides are multiples of ``patch``.

    Attributes:
      classes: how many.
      depth: blocks.
      width: numbers a token, a multiple of ``heads``.
      heads: of attention.
      mlp: width of the hidden dense layer of a block.
      patch: side of a patch, pixels.
      norm: ``"layer"``: layer normalization. ``"none"``: without.
      init_name: of kernels.
      flow: whether every part is homogeneous; see ``without_norm``.

    >>> x = jnp.zeros((1, 32, 32, 3))
    >>> params = jax.eval_shape(ViT(classes=10).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    5362762

    Reference: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.1;
    Touvron et al. 2021, https://arxiv.org/abs/2012.12877, table 1 (the size "Ti").
    """

    classes: int
    depth: int = 12
    width: int = 192
    heads: int = 3
    mlp: int = 768
    patch: int = 4
    norm: str = "layer"
    init_name: str = "he_normal"
    flow: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits ``[batch, classes]`` of images ``[batch, h, w, c]``."""
        if x.ndim != 4 or x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"ViT got inputs of shape {x.shape}, expected [batch, h, w, c] with "
                f"sides that are multiples of patch = {self.patch}"
            )
        kernel_init = initializer(self.init_name)
        x = nn.Conv(
            self.width,
            (self.patch, self.patch),
            strides=(self.patch, self.patch),
            padding="VALID",
            kernel_init=kernel_init,
            conv_general_dilated=patches_as_matmul,
            name="embedding",
        )(x)
        x = x.reshape(x.shape[0], -1, self.width)  # [batch, patches, width]
        cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], axis=1)
        # 0.02: as in the reference.
        positions = nn.initializers.normal(0.02)
        x = x + self.param("pos_embedding", positions, (1, *x.shape[1:]))
        for i in range(self.depth):
            x = TransformerBlock(
                self.heads,
                self.mlp,
                self.norm,
                self.flow,
                kernel_init,
                name=f"block_{i}",
            )(x)
        x = layer_norm(self.norm, self.flow, "norm")(x)[:, 0]
        return nn.Dense(self.classes, kernel_init=kernel_init, name="head")(x)

    def without_norm(self) -> "ViT":
        """Returns a network of the same parameters without normalization, for SynFlow.

        Softmax is one too. See `attention.flow_attention`.
        """
        return self.clone(flow=True)


def _build(
    classes: int,
    *,
    depth: int = 12,
    width: int = 192,
    heads: int = 3,
    mlp: int = 768,
    patch: int = 4,
    norm: str = "layer",
    init: str = "he_normal",
) -> ViT:
    sizes = {"depth": depth, "width": width, "heads": heads, "mlp": mlp, "patch": patch}
    named = {f"model.{name}": size for name, size in sizes.items()}
    check(named, lambda size: size >= 1, "{} >= 1")
    expected = f"a multiple of heads = {heads}"
    require(width % heads == 0, "model.width", width, expected)
    require(norm in NORMS, "model.norm", norm, f"one of {NORMS}")
    initializer(init)  # refuses an unknown one
    return ViT(classes, depth, width, heads, mlp, patch, norm, init)


CARD = Model("vit", _build)
