"""How masked networks are trained: one, or thousands one after the other.

``training`` is one network's training as pure functions, over ``stopping``,
``examples`` and ``metrics``. ``run`` trains a ``queue`` of ``jobs``, with a worker for
each device. A lane is a place in which one network after the other is trained. A CPU
device has one lane (``one_lane``): a jitted call trains one network until it stops,
with its weights and moments in cache. ``devices.use_all_cores`` makes a device of every
core. An accelerator has hundreds of lanes (``many_lanes``), under ``vmap``. After a
chunk of whole epochs, finished networks leave their ``lanes``, which are refilled from
the queue while the device already works on the next chunk. Depends on masks, compaction
(a type), jax and optax.
"""
