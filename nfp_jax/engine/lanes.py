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


def lane_programs(
    training: Training,
    devices: tuple[jax.Device, ...],
    shapes: Any,
    width: int,
    room: float | None,
    summary: Summary | None,
) -> LanePrograms:
    """Returns the programs for ``width`` lanes, or for fewer where memory lacks.

    They are kept for the next run of this training, and no longer than it.

    Args:
      training: of one lane.
      devices: which share the lanes.
      shapes: of a network's ``(params, mask, data, key, limit)``, the data without the
        inputs that all share; of these inputs; and of what the summary is given.
      width: number of lanes, a multiple of the devices.
      room: bytes that a device has for them; ``None``: enough.
      summary: what is measured of each network at its end.
    """
    kept, key = training.kept.programs, (devices, shapes, width, room, summary)
    if key not in kept:
        kept[key] = _compiled(training, devices, shapes, width, room, summary)
    found: LanePrograms = kept[key]
    return found


def _compiled(
    training: Training,
    devices: tuple[jax.Device, ...],
    shapes: Any,
    width: int,
    room: float | None,
    summary: Summary | None,
) -> LanePrograms:
    network, inputs, measured_on = abstract(shapes)
    padded = network[2].examples.index.shape[0]
    steps = -(-padded // min(training.batch_size, padded))
    turns = max(round(CHUNK_STEPS / steps), 1)
    mesh = Mesh(np.array(devices), ("lanes",))
    apart = NamedSharding(mesh, PartitionSpec("lanes"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    single = jax.eval_shape(functools.partial(_begin, training), network, inputs)
    turn = jax.jit(
        functools.partial(_turn, training, steps, turns),
        donate_argnums=0,
        in_shardings=(apart, apart, everywhere),
        out_shardings=(apart, everywhere, everywhere),
    )
    width, turning = _fitted(turn, single, inputs, width, len(devices), room)
    held = _lanes_of(single, width)
    filling = jax.jit(
        functools.partial(_fill, training, padded),
        donate_argnums=0,
        in_shardings=(apart, apart, everywhere, everywhere),
        out_shardings=apart,
    )
    reading = jax.jit(
        functools.partial(_read, training, summary),
        in_shardings=(apart, everywhere, everywhere, everywhere),
        out_shardings=everywhere,
    )
    blank = jax.jit(functools.partial(_blank, single, width), out_shardings=apart)
    lane = jax.ShapeDtypeStruct((READ_AT_ONCE,), jnp.int32)
    return LanePrograms(
        width=width,
        steps=steps,
        turns=turns,
        blank=blank.lower().compile(),
        turn=turning,
        fill=_once_a_shape(filling, held, width, inputs),
        read=reading.lower(held, lane, inputs, measured_on).compile(),
        take=jax.jit(_take, out_shardings=apart),
    )


def _fitted(
    turn: Any, single: Any, inputs: Any, width: int, least: int, room: float | None
) -> tuple[int, Any]:
    """How many lanes memory holds, and the program that trains them.

    A guess saves compiling for too many lanes: weights and moments, and as much again
    for gradients and activations. Then the compiler tells what is needed.
    """
    guess = 2 * sum(bytes_of(leaf) for leaf in jax.tree.leaves(single)) / least
    while room is not None and width > least and width * guess > room:
        width = _halved(width, least)
    while True:
        turning = turn.lower(*_lanes_of(single, width), inputs).compile()
        if room is None or width <= least or footprint(turning) <= room:
            return width, turning
        width = _halved(width, least)


def _lanes_of(single: Any, width: int) -> Any:
    """The shapes of so many lanes, of those of a single one."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape), leaf.dtype), single
    )


def _once_a_shape(
    filling: Any, held: Any, width: int, inputs: Any
) -> Callable[[Any], Callable[..., Any]]:
    """What compiles ``filling`` for stacks of these shapes, once for each."""
    lanes, lock = jax.ShapeDtypeStruct((width,), jnp.int32), threading.Lock()
    fills: dict[Any, Callable[..., Any]] = {}

    def fill_for(stack: Any) -> Callable[..., Any]:
        with lock:  # of threads that want it one compiles it
            if stack not in fills:
                shapes = abstract(stack)
                fills[stack] = filling.lower(held, lanes, shapes, inputs).compile()
            return fills[stack]

    return fill_for


# ---- What is compiled


def _whole(data: Padded, inputs: Any) -> Padded:
    """The data of a network, with the inputs that all share, if it has none."""
    if data.examples.inputs is not None:
        return data
    return data._replace(examples=data.examples._replace(inputs=inputs))


def _begin(training: Training, network: Any, inputs: Any) -> tuple[TrainState, Padded]:
    """The state of a network at its start, and its data."""
    params, mask, data, key, limit = network
    return training.init(params, mask, _whole(data, inputs), key, limit), data


def _blank(single: Any, width: int) -> Any:
    """Lanes that have nothing to do: with a limit of no steps each is done."""
    state, data = jax.tree.map(
        lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), single
    )
    return state, data._replace(n=jnp.ones_like(data.n))  # n is a divisor


def _fill(
    training: Training,
    padded: int,
    held: Any,
    source: jax.Array,
    stack: Stack,
    inputs: Any,
) -> Any:
    """The lanes, with row ``source`` of the stack in each where it is not negative."""

    def put(old: Any, source: jax.Array) -> Any:
        row = jnp.maximum(source, 0)
        fresh = _begin(training, network_at(stack, row, padded), inputs)
        return jax.tree.map(lambda a, b: jnp.where(source < 0, a, b), old, fresh)

    return jax.vmap(put)(held, source)


def _turn(
    training: Training,
    steps: int,
    turns: int,
    state: TrainState,
    data: Padded,
    inputs: Any,
) -> Any:
    """The lanes after a chunk of epochs; which are done; how many epochs it took."""

    def one(state: TrainState, data: Padded) -> TrainState:
        return training.epoch(state, _whole(data, inputs), steps)

    def some_left(carry: tuple[Any, TrainState]) -> jax.Array:
        return (carry[0] < turns) & ~jnp.all(jax.vmap(training.done)(carry[1]))

    def further(carry: tuple[Any, TrainState]) -> tuple[Any, TrainState]:
        return carry[0] + 1, jax.vmap(one)(carry[1], data)

    taken, state = jax.lax.while_loop(some_left, further, (jnp.int32(0), state))
    return state, jax.vmap(training.done)(state), taken


def _read(
    training: Training,
    summary: Summary | None,
    held: Any,
    lane: jax.Array,
    inputs: Any,
    measured_on: Any,
) -> TrainResult:
    """The results of lanes, stacked, with what is measured of each."""

    def one(lane: jax.Array) -> TrainResult:
        state, data = _take(held, lane)
        result = training.finish(state)._replace(mask=state.mask)
        if summary is None:
            return result
        found = summary(result, _whole(data, inputs), measured_on)
        return result._replace(summary=found)

    return jax.vmap(one)(lane)


def _take(held: Any, lane: jax.Array) -> Any:
    """The lanes at these places."""
    return jax.tree.map(lambda leaf: leaf[lane], held)


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
