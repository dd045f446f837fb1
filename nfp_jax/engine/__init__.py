"""How masked networks are trained: one, or thousands one after the other.

``training`` is one network's training as pure functions, over ``stopping``,
``examples`` and ``metrics``. ``run`` trains a ``queue`` of ``jobs``. A lane is a place
in which one network after the other is trained. A core of a CPU has one lane
(``one_lane``): a jitted call trains one network until it stops, with its weights and
moments in cache. Accelerators have hundreds of ``lanes`` (``many_lanes``), under
``vmap``: networks come in from ``stacks`` on the device, after a chunk of whole epochs
those that ended leave, and the host finishes them while the device already works on
the next chunk. Depends on masks, compaction (a type), cores, jax and optax.
"""
