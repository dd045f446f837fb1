"""How masked networks are trained: one, or thousands one after the other.

``training`` is one network's training as pure functions, over ``stopping``,
``examples`` and ``metrics``. ``run`` works off a ``queue`` of ``jobs``, a worker a
device. A lane is a place that trains one network after the other. A CPU device has one
(``one_lane``): each network runs to its own convergence in one jitted call, its weights
and moments in cache (``devices.use_all_cores`` makes a device of every core). An
accelerator has hundreds (``many_lanes``), under ``vmap``: after a chunk of whole
epochs, finished networks are retired and their ``lanes`` refilled from the queue, while
the device is at the next chunk already. Depends on masks, compaction (a type), jax and
optax.
"""
