"""PX: paths through open gates, times paths of large weights, in dense ReLU chains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn, mask_params
from nfp_jax.trees import named_leaves
from nfp_jax.types import Batch


def px(layers: Sequence[str]) -> ScoreFn:
    """Scores each weight by its part of ``Σ_x J(x) · K``, ``θ² ⊙ |∂(Σ J·K)/∂θ²|``.

    ``J(x)`` is the chain on ``x²`` with all weights that are left 1, and with the ReLU
    gates that the masked network has at x. ``K`` is the chain on ones with the weights
    ``θ²``, and without ReLU. Both have no biases, and both give a number a class. So
    the scores of each layer add up to the same ``Σ J·K``. Of the trace of the tangent
    kernel, a sum over paths, it is an upper bound. Meant for rounds: ``prune(...,
    rounds=100)``.

    Args:
      layers: the paths of its kernels, ``[in, out]``, from input to output: a chain of
        dense layers with ReLU between, as ``Network.layers``. A leaf ``bias`` beside a
        kernel moves its gates. What else the network does would not be seen.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative; 0 on leaves that
      are no kernels of the chain. ``batch`` is inputs ``[n, ...]``, or a tuple that
      begins with them; ``key`` is ignored. It sees no labels.

    Raises:
      ValueError: a path that params have not, or a kernel of other axes than two; when
        it is called, no inputs.

    >>> params = {"a": {"kernel": jnp.array([[1.0, -2.0]])},
    ...           "b": {"kernel": jnp.array([[3.0], [1.0]])}}
    >>> scores = px(("a/kernel", "b/kernel"))(params, jnp.array([[1.0]]))
    >>> scores["a"]["kernel"].tolist()  # one gate is open: J = 1; K = 1·9 + 4·1
    [[9.0, 4.0]]

    Reference: Iurada, Ciccone and Tommasi 2024, https://arxiv.org/abs/2406.01820. Their
    code at https://github.com/iurada/px-ntk-pruning squares the slope of each batch;
    this is the score of the paper.
    """
    chain = tuple(layers)

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key, prunable
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        if x is None:
            raise ValueError("px needs a batch of inputs, got None")
        weights = dict(named_leaves(mask_params(params, mask)))
        kernels, biases = _layers_of(weights, chain)
        ones = jax.tree.map(jnp.ones_like, params)
        left = dict(named_leaves(mask_params(ones, mask)))
        with jax.default_matmul_precision("highest"):
            x = x.reshape(len(x), -1)
            gates = _gates(kernels, biases, x)
            present = [left[path] for path in chain]
            paths = jnp.sum(_gated(present, gates, x**2), axis=0)  # [classes]

            def total(squares: list[jax.Array]) -> jax.Array:
                inputs = jnp.ones((1, x.shape[1]), x.dtype)
                return jnp.sum(_gated(squares, None, inputs) * paths[None])

            squares = [kernel**2 for kernel in kernels]
            slopes = jax.grad(total)(squares)
        found = dict(zip(chain, map(jnp.multiply, squares, slopes), strict=True))
        new = [found.get(path, jnp.zeros_like(leaf)) for path, leaf in weights.items()]
        return jax.tree.unflatten(jax.tree.structure(params), new)

    return Score(
        score, one_shot_warning="px in one round may empty a layer: pass rounds=100"
    )


def _layers_of(
    leaves: dict[str, jax.Array], chain: Sequence[str]
) -> tuple[list[jax.Array], list[jax.Array | None]]:
    """The kernels of a chain, and the bias of each where it has one."""
    for path in chain:
        if path not in leaves or jnp.ndim(leaves[path]) != 2:
            shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
            raise ValueError(
                f"px needs a chain of dense layers, and {path!r} is no kernel of two "
                f"axes among {shapes}"
            )
    kernels = [leaves[path] for path in chain]
    return kernels, [leaves.get(f"{path.rpartition('/')[0]}/bias") for path in chain]


def _gates(
    kernels: Sequence[jax.Array], biases: Sequence[jax.Array | None], x: jax.Array
) -> list[jax.Array]:
    """Which hidden units are on, 0 or 1, ``[n, width]`` of each hidden layer."""
    gates, h = [], x
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        h = h @ kernel
        h = h if bias is None else h + bias[None]
        gates.append((h > 0).astype(h.dtype))
        h = h * gates[-1]
    return gates


def _gated(
    kernels: Sequence[jax.Array], gates: Sequence[jax.Array] | None, x: jax.Array
) -> jax.Array:
    """The outputs of a linear chain whose hidden units count by their gates."""
    h = x @ kernels[0]
    for i, kernel in enumerate(kernels[1:]):
        h = (h if gates is None else h * gates[i]) @ kernel
    return h


def check_chain(net: Network) -> tuple[str, ...]:
    """Returns the kernels of a network that is a chain of dense layers with ReLU.

    Whether it is one is tried on random weights and inputs: what the layers alone
    compute must be what the network does.

    Raises:
      ValueError: it is another network.
    """
    said = "chain: px needs a network that is a chain of dense layers with ReLU between"
    if net.layers is None:
        raise ValueError(f"{said}, and this one declares none")
    shapes = jax.eval_shape(net.init_fn, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(shapes)))
    drawn = [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, jax.tree.leaves(shapes), strict=True)
    ]
    params: Any = jax.tree.unflatten(jax.tree.structure(shapes), drawn)
    x = jax.random.normal(jax.random.key(2), (8, *net.input_shape))
    kernels, biases = _layers_of(dict(named_leaves(params)), net.layers)
    h = x.reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        h = (jax.nn.relu(h) if i else h) @ kernel
        h = h if bias is None else h + bias[None]
    given = net.apply_fn(params, x)
    # 1e-3: of sums in another order; another activation is far off.
    if not jnp.allclose(given, h, rtol=1e-3, atol=1e-3 * jnp.max(jnp.abs(h))):
        raise ValueError(f"{said}, and this one computes something else")
    return net.layers


def _build(
    net: Network, *, rounds: int = 100, schedule: str = "exponential"
) -> ByScore:
    return by_score(px(check_chain(net)), rounds=rounds, schedule=schedule)


CARD = Pruner(
    "px",
    label="PX",
    sees="inputs",
    build=_build,
    gradients=lambda *, rounds, **_: rounds,
)
