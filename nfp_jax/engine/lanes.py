"""The lanes of a device: networks of one shape, stacked, and their programs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.engine.devices import MEMORY_SHARE, bytes_of, footprint, memory_of
from nfp_jax.engine.examples import Examples, Padded, as_examples, pad
from nfp_jax.engine.jobs import Job, limit_of
from nfp_jax.engine.shapes import abstract, repeated, shapes_of, stacked_on_host
from nfp_jax.engine.training import Training, TrainResult, TrainState

# Steps between two looks at which lanes are done, about.
CHUNK_STEPS = 48

# Lanes that are refilled or read in one call; so one program serves any number of them.
AT_ONCE = 16


class LanePrograms(NamedTuple):
    """The compiled programs for the lanes of one shape.

    Attributes:
      width: number of lanes.
      at_once: number of lanes that ``refill`` and ``read`` take in a call.
      steps: optimizer steps of an epoch, at most.
      turns: epochs of a chunk.
      held: the shapes of (state, data) of all lanes.
      turn: trains all lanes for a chunk, and says which are done.
      refill: puts new networks into lanes.
      read: returns the results of lanes.
    """

    width: int
    at_once: int
    steps: int
    turns: int
    held: Any
    turn: Callable[..., Any]
    refill: Callable[..., Any]
    read: Callable[..., Any]


@functools.lru_cache(maxsize=256)
def _lane_programs(
    training: Training, device: jax.Device, shapes: Any, width: int, room: float | None
) -> LanePrograms:
    """Returns the programs for ``width`` lanes, or for fewer where memory lacks.

    ``shapes`` are of a job's ``(params, mask, data, key, limit)``, each with an axis
    in front, and of the inputs that jobs share, whose data then have none.
    """
    sample, inputs = abstract(shapes)
    shared = sample[2].examples.inputs is None
    padded = sample[2].examples.index.shape[1]
    steps = -(-padded // min(training.batch_size, padded))
    turns = max(round(CHUNK_STEPS / steps), 1)
    every: Any = 0  # in_axes of all labels
    axes = Padded(Examples(None if shared else 0, 0, every), 0)

    def whole(data: Padded, inputs: Any) -> Padded:
        if not shared:
            return data
        return data._replace(examples=data.examples._replace(inputs=inputs))

    def begin(new: Any, inputs: Any) -> Any:
        params, mask, data, key, limit = new
        init = jax.vmap(training.init, in_axes=(0, 0, axes, 0, 0))
        return init(params, mask, whole(data, inputs), key, limit), data

    def refill(held: Any, lane: Any, new: Any, inputs: Any) -> Any:
        fresh = begin(new, inputs)
        return jax.tree.map(functools.partial(_put, lane), held, fresh)

    def turn(state: Any, data: Padded, inputs: Any) -> Any:
        one = jax.vmap(training.epoch, in_axes=(0, axes, None))
        complete = whole(data, inputs)
        state = jax.lax.fori_loop(
            0, turns, lambda _, state: one(state, complete, steps), state
        )
        return state, jax.vmap(training.done)(state)

    def read(state: TrainState, lane: jax.Array) -> TrainResult:
        taken = jax.tree.map(lambda leaf: leaf[lane], state)
        return jax.vmap(training.finish)(taken)

    single = jax.eval_shape(begin, sample, inputs)
    # A guess saves compiling for too many lanes: weights and moments, and as much again
    # for gradients and activations. Then the compiler tells what is needed.
    guess = 2 * sum(bytes_of(leaf) for leaf in jax.tree.leaves(single))
    while room is not None and width > 1 and width * guess > room:
        width //= 2
    with jax.default_device(device):
        while True:
            held = repeated(single, width)
            turning = jax.jit(turn, donate_argnums=0).lower(*held, inputs).compile()
            if room is None or width == 1 or footprint(turning) <= room:
                break
            width //= 2
        at_once = min(AT_ONCE, width)
        lane = jax.ShapeDtypeStruct((at_once,), jnp.int32)
        filling = jax.jit(refill, donate_argnums=0)
        new = repeated(sample, at_once)
        return LanePrograms(
            width=width,
            at_once=at_once,
            steps=steps,
            turns=turns,
            held=held,
            turn=turning,
            refill=filling.lower(held, lane, new, inputs).compile(),
            read=jax.jit(read).lower(held[0], lane).compile(),
        )


class Lanes:
    """The lanes of one shape on a device: their state and their programs."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        job: Job,
        width: int,
        fit: bool,
    ) -> None:
        self.training, self.device, self.inputs = training, device, inputs
        sample = self._host([job])
        room = MEMORY_SHARE * memory_of(device) if fit else None
        self.programs = _lane_programs(
            training, device, shapes_of((sample, inputs)), width, room
        )
        self.seconds = np.zeros(self.programs.width)

        def blank(leaf: jax.ShapeDtypeStruct) -> jax.Array:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jnp.broadcast_to(sample[3], leaf.shape)
            return jnp.zeros(leaf.shape, leaf.dtype)

        with jax.default_device(device):
            # A blank lane has a limit of no steps, and so is done; n is a divisor.
            state, data = jax.tree.map(blank, self.programs.held)
            self.held = (state, data._replace(n=jnp.ones_like(data.n)))

    def _host(self, jobs: list[Job]) -> Any:
        """The arguments of ``begin``, stacked over jobs."""
        parts = []
        for job in jobs:
            data = pad(job.data, self.training.batch_size, inputs=self.inputs)
            if as_examples(job.data).inputs is None:
                data = data._replace(examples=data.examples._replace(inputs=None))
            parts.append((job.params, job.mask, data, job.key))
        stacked = jax.tree.map(lambda *leaves: stacked_on_host(leaves), *parts)
        limits = np.array([limit_of(job) for job in jobs], np.int32)
        return (*stacked, limits)

    def refill(self, new: dict[int, Job]) -> None:
        """Puts a job into each of these lanes."""
        lanes, jobs = list(new), list(new.values())
        width, size = self.programs.width, self.programs.at_once
        for start in range(0, len(lanes), size):
            part = jobs[start : start + size]
            lane = np.full(size, width, np.int32)  # no such lane, so it is dropped
            lane[: len(part)] = lanes[start : start + size]
            part += [part[0]] * (size - len(part))
            arguments = jax.device_put((lane, self._host(part)), self.device)
            self.held = self.programs.refill(self.held, *arguments, self.inputs)
        self.seconds[lanes] = 0.0  # each lane's share of the time of every turn

    def turn(self) -> Any:
        """Starts a chunk of epochs in all lanes; which are done, once it has ended."""
        state, data = self.held
        state, done = self.programs.turn(state, data, self.inputs)
        self.held = (state, data)
        return done

    def read(self, lanes: list[int]) -> list[Callable[[], TrainResult]]:
        """Returns a function for each lane that fetches its result from the device."""
        results: list[Callable[[], TrainResult]] = []
        size = self.programs.at_once
        for start in range(0, len(lanes), size):
            part = lanes[start : start + size]
            lane = np.full(size, part[0], np.int32)
            lane[: len(part)] = part
            read = self.programs.read(self.held[0], jax.device_put(lane, self.device))
            fetch = functools.cache(functools.partial(jax.device_get, read))
            results += [functools.partial(_at, fetch, i) for i in range(len(part))]
        return results


def _put(lane: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    return old.at[lane].set(new, mode="drop")


def _at(fetch: Callable[[], TrainResult], i: int) -> TrainResult:
    """Result i, copied, so that it does not keep the others in memory."""
    results = fetch()
    arrays: Any = results._asdict()
    seconds = arrays.pop("seconds")  # not known yet, and no array
    taken = jax.tree.map(lambda leaf: np.array(leaf[i]), arrays)
    return TrainResult(**taken, seconds=seconds)
