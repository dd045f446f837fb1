"""How many weights both masks of each pair keep: the K²P part of decoding.

Blocks of masks are multiplied on the device, packed until then, and cores or devices
share the blocks. Depends on cores, jax and numpy.
"""

import itertools
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.cores import workers

# Masks in a block, at most, and weights of them that are floats at a time: 64 MiB.
MOST_ROWS, CHUNK = 1024, 16_384


def pair_overlaps(masks: np.ndarray) -> np.ndarray:
    """Returns how many weights both masks of each pair keep, int32 ``[K, K]``.

    ``m_i · m_j``, exactly. Within a chunk of at most 16,384 weights, products of 0s and
    1s are added in float32, which holds every whole number up to 2^24; chunks are added
    as integers. 0 and 1 are exact in the shorter floats, too, that an accelerator may
    multiply. Each pair of blocks is multiplied once, since the result is symmetric.
    A worker holds two blocks of a chunk and their product, at most 132 MiB, and a
    device ``K P / 8`` bytes of packed masks; the result has ``4 K²`` bytes.

    Args:
      masks: ``bool[K, P]``, P below 2^31.

    >>> pair_overlaps(np.array([[1, 1, 0], [0, 1, 1]], bool)).tolist()
    [[2, 1], [1, 2]]
    """
    count, weights = masks.shape
    rows = min(MOST_ROWS, 1 << (count - 1).bit_length())
    chunks, starts = -(-weights // CHUNK), range(0, count, rows)
    size = -(-weights // (8 * chunks))  # bytes of a chunk, all alike
    devices = workers(jax.local_devices())
    places = list(dict.fromkeys(devices))
    packed = [_blocks(masks, starts, (rows, chunks, size), d) for d in places]
    found = np.empty((count, count), np.int32)
    pairs = list(itertools.combinations_with_replacement(range(len(starts)), 2))

    def part(worker: int) -> None:
        blocks = packed[places.index(devices[worker])]
        for i, j in pairs[worker :: len(devices)]:
            a, b = starts[i], starts[j]
            product = np.asarray(_product(blocks[i], blocks[j]))
            product = product[: count - a, : count - b]
            found[a : a + rows, b : b + rows] = product
            found[b : b + rows, a : a + rows] = product.T

    with futures.ThreadPoolExecutor(len(devices)) as pool:
        list(pool.map(part, range(len(devices))))
    return found


def _blocks(
    masks: np.ndarray, starts: range, shape: tuple[int, ...], device: jax.Device
) -> list[jax.Array]:
    """Blocks of packed masks on a device, uint8 ``[rows, chunks, bytes]``."""
    blocks = []
    for start in starts:
        bits = np.packbits(masks[start : start + shape[0]], axis=1)
        block = np.zeros((shape[0], shape[1] * shape[2]), np.uint8)
        block[: len(bits), : bits.shape[1]] = bits
        blocks.append(jax.device_put(block.reshape(shape), device))
    return blocks


@jax.jit
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The products of two blocks of masks, int32 ``[rows, rows]``."""

    def add(total: jax.Array, parts: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        x, y = (jnp.unpackbits(part, axis=1).astype(jnp.float32) for part in parts)
        return total + (x @ y.T).astype(jnp.int32), None

    start = jnp.zeros((len(a), len(b)), jnp.int32)
    chunks = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
    return jax.lax.scan(add, start, chunks)[0]
