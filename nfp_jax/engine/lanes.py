"""The lanes of a run: networks of one shape, stacked over devices, and their programs.

All lanes live on the devices. Networks come in from stacks by gather, and their results
go out by gather; the host sees which lanes are done, and what was measured of networks
that ended.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nfp_jax.engine import programs
from nfp_jax.engine.devices import bytes_of, footprint
from nfp_jax.engine.examples import Padded
from nfp_jax.engine.shapes import abstract, shapes_of
from nfp_jax.engine.stacks import Stack, network_at
from nfp_jax.engine.training import Summary, Training, TrainResult, TrainState

# Steps between two looks at which lanes are done, about.
CHUNK_STEPS = 48

# Lanes that are read in one call: so one program serves any number of them.
READ_AT_ONCE = 32


class LanePrograms(NamedTuple):
    """The compiled programs for the lanes of one shape.

    Attributes:
      width: number of lanes, on all devices together.
      steps: optimizer steps of an epoch, at most.
      turns: epochs of a chunk, at most: fewer where all lanes are done.
      blank: makes the lanes, none of which has anything to do.
      turn: trains all lanes for a chunk, and says which are done.
      fill: returns what puts networks of stacks of these shapes into lanes.
      read: returns the results of lanes.
      take: returns the lanes at these places, fewer or more; compiled when called.
    """

    width: int
    steps: int
    turns: int
    blank: Callable[..., Any]
    turn: Callable[..., Any]
    fill: Callable[[Any], Callable[..., Any]]
    read: Callable[..., Any]
    take: Callable[..., Any]


@functools.lru_cache(maxsize=256)
def lane_programs(
    training: Training,
    devices: tuple[jax.Device, ...],
    shapes: Any,
    width: int,
    room: float | None,
    summary: Summary | None,
) -> LanePrograms:
    """Returns the programs for ``width`` lanes, or for fewer where memory lacks.

    Args:
      training: of one lane.
      devices: which share the lanes.
      shapes: of a network's ``(params, mask, data, key, limit)``, the data without the
        inputs that all share; of these inputs; and of what the summary is given.
      width: number of lanes, a multiple of the devices.
      room: bytes that a device has for them; ``None``: enough.
      summary: what is measured of each network at its end.
    """
    network, inputs, measured_on = abstract(shapes)
    data = network[2]
    shared = data.examples.inputs is None
    padded = data.examples.index.shape[0]
    steps = -(-padded // min(training.batch_size, padded))
    turns = max(round(CHUNK_STEPS / steps), 1)
    mesh = Mesh(np.array(devices), ("lanes",))
    apart = NamedSharding(mesh, PartitionSpec("lanes"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def whole(data: Padded, inputs: Any) -> Padded:
        if not shared:
            return data
        return data._replace(examples=data.examples._replace(inputs=inputs))

    def begin(network: Any, inputs: Any) -> tuple[TrainState, Padded]:
        params, mask, data, key, limit = network
        return training.init(params, mask, whole(data, inputs), key, limit), data

    single = jax.eval_shape(begin, network, inputs)

    def blank() -> Any:
        # A lane with a limit of no steps is done; n is a divisor.
        state, data = jax.tree.map(
            lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), single
        )
        return state, data._replace(n=jnp.ones_like(data.n))

    def fill(held: Any, source: jax.Array, stack: Stack, inputs: Any) -> Any:
        def put(old: Any, source: jax.Array) -> Any:
            row = jnp.maximum(source, 0)
            fresh = begin(network_at(stack, row, padded), inputs)
            return jax.tree.map(lambda a, b: jnp.where(source < 0, a, b), old, fresh)

        return jax.vmap(put)(held, source)

    def turn(state: TrainState, data: Padded, inputs: Any) -> Any:
        def one(state: TrainState, data: Padded) -> TrainState:
            return training.epoch(state, whole(data, inputs), steps)

        def some_left(carry: tuple[Any, TrainState]) -> jax.Array:
            return (carry[0] < turns) & ~jnp.all(jax.vmap(training.done)(carry[1]))

        def further(carry: tuple[Any, TrainState]) -> tuple[Any, TrainState]:
            return carry[0] + 1, jax.vmap(one)(carry[1], data)

        taken, state = jax.lax.while_loop(some_left, further, (jnp.int32(0), state))
        return state, jax.vmap(training.done)(state), taken

    def read(held: Any, lane: jax.Array, inputs: Any, measured_on: Any) -> TrainResult:
        def one(lane: jax.Array) -> TrainResult:
            state, data = jax.tree.map(lambda leaf: leaf[lane], held)
            result = training.finish(state)._replace(mask=state.mask)
            if summary is None:
                return result
            found = summary(result, whole(data, inputs), measured_on)
            return result._replace(summary=found)

        return jax.vmap(one)(lane)

    def take(held: Any, lane: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[lane], held)

    # A guess saves compiling for too many lanes: weights and moments, and as much again
    # for gradients and activations. Then the compiler tells what is needed.
    least = len(devices)
    guess = 2 * sum(bytes_of(leaf) for leaf in jax.tree.leaves(single)) / least
    while room is not None and width > least and width * guess > room:
        width = _halved(width, least)
    while True:
        held = jax.tree.map(
            lambda x, width=width: jax.ShapeDtypeStruct((width, *x.shape), x.dtype),
            single,
        )
        turning = (
            jax.jit(
                turn,
                donate_argnums=0,
                in_shardings=(apart, apart, everywhere),
                out_shardings=(apart, everywhere, everywhere),
            )
            .lower(*held, inputs)
            .compile()
        )
        if room is None or width <= least or footprint(turning) <= room:
            break
        width = _halved(width, least)
    reading = jax.jit(
        read,
        in_shardings=(apart, everywhere, everywhere, everywhere),
        out_shardings=everywhere,
    )
    filling = jax.jit(
        fill,
        donate_argnums=0,
        in_shardings=(apart, apart, everywhere, everywhere),
        out_shardings=apart,
    )
    lanes, lock = jax.ShapeDtypeStruct((width,), jnp.int32), threading.Lock()
    fills: dict[Any, Callable[..., Any]] = {}

    def fill_for(stack: Any) -> Callable[..., Any]:
        with lock:  # of threads that want it one compiles it
            if stack not in fills:
                shapes = abstract(stack)
                fills[stack] = filling.lower(held, lanes, shapes, inputs).compile()
            return fills[stack]

    lane = jax.ShapeDtypeStruct((READ_AT_ONCE,), jnp.int32)
    return LanePrograms(
        width=width,
        steps=steps,
        turns=turns,
        blank=jax.jit(blank, out_shardings=apart).lower().compile(),
        turn=turning,
        fill=fill_for,
        read=reading.lower(held, lane, inputs, measured_on).compile(),
        take=jax.jit(take, out_shardings=apart),
    )


programs.also_free(lane_programs.cache_clear)


def _halved(width: int, least: int) -> int:
    """Half as many lanes, the same number on each device, and at least one."""
    return max(width // least // 2, 1) * least


class Lanes:
    """The lanes of one shape: their state and their programs."""

    def __init__(
        self,
        programs: LanePrograms,
        inputs: Any,
        measured_on: Any,
    ) -> None:
        self.programs, self.inputs, self.measured_on = programs, inputs, measured_on
        self.seconds = np.zeros(self.programs.width)
        self.held = self.programs.blank()

    def fill(self, stack: Stack, rows: dict[int, int]) -> None:
        """Puts networks of a stack into lanes: ``rows`` has the row for each lane."""
        source = np.full(self.programs.width, -1, np.int32)
        source[list(rows)] = list(rows.values())
        fill = self.programs.fill(shapes_of(stack))
        self.held = fill(self.held, source, stack, self.inputs)
        self.seconds[list(rows)] = 0.0  # each lane's share of the time of every turn

    def turn(self) -> tuple[Any, Any]:
        """Starts a chunk of epochs in all lanes.

        Returns which are done, and how many epochs it took, once it has ended.
        """
        state, data = self.held
        state, done, epochs = self.programs.turn(state, data, self.inputs)
        self.held = (state, data)
        return done, epochs

    def read(self, lanes: list[int]) -> TrainResult:
        """Returns the results of up to ``READ_AT_ONCE`` lanes, stacked, on the device.

        The stack is filled up with copies.
        """
        lane = np.full(READ_AT_ONCE, lanes[0], np.int32)
        lane[: len(lanes)] = lanes
        result: TrainResult = self.programs.read(
            self.held, lane, self.inputs, self.measured_on
        )
        return result

    def resize(self, programs: LanePrograms, kept: list[int]) -> None:
        """Goes on with other programs, of fewer lanes or more, from the lanes kept.

        Lane ``kept[i]`` becomes lane i. The others hold copies, that nobody reads.
        """
        places = np.zeros(programs.width, np.int32)
        places[: len(kept)] = kept
        self.held = self.programs.take(self.held, places)
        self.seconds = self.seconds[places]
        self.programs = programs
