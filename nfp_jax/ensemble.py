"""Many trainings at once: a queue of jobs, and on each device the lanes they run in.

The face of ``engine``'s ``run``, ``jobs`` and ``devices``.
"""

from nfp_jax.cores import use_all_cores, workers
from nfp_jax.engine.devices import use_compilation_cache
from nfp_jax.engine.jobs import Job, Networks, ShrinkJob, Stats
from nfp_jax.engine.run import run

__all__ = [
    "Job",
    "Networks",
    "ShrinkJob",
    "Stats",
    "run",
    "use_all_cores",
    "use_compilation_cache",
    "workers",
]
