"""The trainings of a run, handed to the engine as its specification says."""

from collections.abc import Iterable
from typing import Any

from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import Summary, TrainResult
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.setup import Setup


def train_stacks(
    setup: Setup,
    networks: Iterable[Networks],
    total: int | None,
    *,
    summary: Summary | None = None,
    measured_on: Any = None,
    progress: bool,
) -> Stats:
    """Trains stacks of networks and those that follow; each one's tag is its ``Step``.

    Args:
      setup: of the run.
      networks: made as the engine asks for them.
      total: how many there will be with those that follow, where that is known.
      summary: what is measured of each at its end, on the device; ``None``: nothing.
      measured_on: what it is measured on.
      progress: whether to show a bar.
    """

    def ended(steps: list[Step], results: TrainResult) -> list[Networks]:
        further: list[Networks] = []
        for then, places in groupby_then(steps).items():
            same = [steps[place] for place in places]
            with setup.failures.reporting([cell for x in same for cell in x.cells]):
                further += then(same, places, results)
        return further

    _, stats = setup.engine(
        setup.training,
        networks,
        on_ended=ended,
        on_error=lambda job, error: setup.failures.add(job.tag.cells, error),
        lanes=setup.spec.engine.lanes or None,
        shrink=setup.shrink,
        inputs=setup.inputs,
        summary=summary,
        measured_on=measured_on,
        collect=False,
        total=total,
        progress=progress,
    )
    found: Stats = stats
    return found


def groupby_then(steps: list[Step]) -> dict[Any, list[int]]:
    """Returns the places of steps by what is to be done with them."""
    found: dict[Any, list[int]] = {}
    for place, step in enumerate(steps):
        found.setdefault(step.then, []).append(place)
    return found
