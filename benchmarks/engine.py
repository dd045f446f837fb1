"""Our engine as a contender: its runs timed without their compiling.

``nfp_jax.ensemble`` keeps its programs from one run to the next. A run of a few steps
compiles them first, on every device.
"""

from collections.abc import Sequence
from typing import Any


def timed_run(
    training: Any,
    jobs: Sequence[Any],
    warm_up: Sequence[Any],
    *,
    lanes: int | None = None,
    devices: Sequence[Any] | None = None,
    **options: Any,
) -> tuple[list[Any], dict[str, Any]]:
    """Returns the results of jobs and what they took.

    Args:
      training: from ``make_training``.
      jobs: the jobs; ``run`` takes the longest first.
      warm_up: jobs of a few steps, one of each shape.
      lanes: as in ``run``.
      devices: as in ``run``.
      options: others of ``run``.
    """
    import jax

    from nfp_jax import ensemble

    devices = jax.local_devices() if devices is None else devices
    options = {**options, "lanes": lanes}
    if lanes in (None, 1) and devices[0].platform == "cpu":
        for device in devices:
            ensemble.run(training, warm_up, devices=[device], **options)
    else:  # how many lanes there are may depend on how many jobs there are
        short = [job._replace(steps=1) for job in jobs]
        ensemble.run(training, short, devices=devices, **options)
    results, stats = ensemble.run(training, jobs, devices=devices, **options)
    at_once = len(ensemble.workers(devices))
    return results, _facts(stats, results, devices, at_once)


def _facts(
    stats: Any, results: Sequence[Any], devices: Sequence[Any], at_once: int
) -> dict[str, Any]:
    return {
        "seconds": stats.seconds,
        "devices": at_once,
        "device_kind": devices[0].device_kind,
        # Of the networks alone, summed over devices; the warm-up is not among them.
        "train_seconds": sum(result.seconds for result in results),
        "compile_seconds": stats.compile_seconds,
        "wasted": stats.wasted,
    }
