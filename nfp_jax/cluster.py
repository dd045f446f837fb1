"""Which of how many processes this is: a shard named by hand, or a process of JAX's.

The processes of a run need one another only to learn their numbers. So they meet
through ``jax.distributed`` and part again before they work. A process that ends or is
killed then takes no other with it. Each has a separate JAX, whose ``process_index()``
is 0. Only the hosts of a TPU pod stay together, as their devices do. Depends on spec
and jax; importing it starts no backend.
"""

import concurrent.futures
import importlib.util
import re
import socket
from typing import Any, NamedTuple

import jax
from jax._src.distributed import global_state  # known before a backend is started

from nfp_jax.fields import SpecError

# Seconds. When JAX's time limits pass, they abort the process; ours do not.
FOREVER = 10**7


class Place(NamedTuple):
    """Process ``process`` of ``processes``, counted from 0."""

    process: int
    processes: int

    def __str__(self) -> str:
        return f"{self.process}/{self.processes}"


class UnreachableError(SpecError):
    """The processes did not all meet in time.

    A thread still waits for the others and can't be stopped: leave with ``os._exit``.
    """


def find_place(
    *,
    shard: str | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    cluster: bool = False,
    timeout: float = 120.0,
) -> Place:
    """Returns this process's place, which is ``0/1`` if no argument says otherwise.

    Call it before JAX's first computation. The arguments are flags of ``launch.py``.

    Args:
      shard: ``i/n``; this process then meets no other.
      coordinator: ``host:port``, where process 0 listens; needs the next two.
      num_processes: how many processes there are.
      process_id: which of them this is, from 0.
      cluster: whether JAX recognizes Slurm, GKE or a TPU pod by itself.
      timeout: seconds to wait until all processes have met.

    Raises:
      SpecError: names the flag and what was expected.
      UnreachableError: the processes did not all meet in time.

    >>> find_place(shard="7/8")
    Place(process=7, processes=8)
    """
    by_hand = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    given = [flag for flag, value in by_hand.items() if value is not None]
    ways = ["--shard"] * (shard is not None) + ["--cluster"] * cluster + given[:1]
    if len(ways) > 1:
        raise SpecError(f"{ways[0]} and {ways[1]} are both there, expected one of them")
    if not timeout > 0:
        raise SpecError(f"--timeout is {timeout:g}, expected seconds > 0")
    if shard is not None:
        return parse_shard(shard)
    if cluster:
        return _meet("--cluster: this process", (None, None, None), timeout)
    if coordinator is None or num_processes is None or process_id is None:
        if not given:
            return Place(0, 1)
        absent = next(flag for flag in by_hand if flag not in given)
        raise SpecError(f"{absent} is missing, expected together with {given[0]}")
    _check(coordinator, num_processes, process_id)
    who = f"--coordinator: process {process_id} of {num_processes} at {coordinator}"
    return _meet(who, (coordinator, num_processes, process_id), timeout)


def parse_shard(text: str) -> Place:
    """Returns the place that ``i/n`` stands for.

    Raises:
      SpecError: not two numbers, or not ``0 <= i < n``.

    >>> str(parse_shard("0/8"))
    '0/8'
    """
    numbers = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    place = Place(int(numbers[1]), int(numbers[2])) if numbers else Place(0, 0)
    if place.process >= place.processes:
        raise SpecError(
            f"--shard is {text!r}, expected i/n with 0 <= i < n, as in 0/8 to 7/8"
        )
    return place


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    """Raises for flags that JAX would refuse less clearly, or crash on."""
    address = re.fullmatch(r"(\S+):(\d{1,5})", coordinator, re.ASCII)
    if not address or not 0 < int(address[2]) < 2**16:
        raise SpecError(
            f"--coordinator is {coordinator!r}, expected host:port, as in node7:5000"
        )
    if num_processes < 1:
        raise SpecError(f"--num_processes is {num_processes}, expected at least 1")
    if not 0 <= process_id < num_processes:
        raise SpecError(
            f"--process_id is {process_id}, expected 0 <= process_id < {num_processes}"
        )
    if process_id == 0:
        try:
            socket.create_server(("", int(address[2]))).close()
        except OSError as error:
            raise SpecError(
                f"--coordinator is {coordinator}, expected a free port: "
                f"{error.strerror}"
            ) from error


def _meet(who: str, address: tuple[Any, Any, Any], timeout: float) -> Place:
    """The place, once all processes have met; JAX finds out what is ``None``."""
    # In a thread, since JAX can't be interrupted while it waits.
    thread = concurrent.futures.ThreadPoolExecutor(1)
    try:
        return thread.submit(_meet_and_part, *address).result(timeout)
    except TimeoutError as error:
        raise UnreachableError(
            f"{who} did not meet the others within {timeout:g} s (--timeout); are all "
            "of them started, and can this host reach process 0 and its port?"
        ) from error
    except ValueError as error:  # of --cluster: by hand, no value is missing
        raise SpecError(
            "--cluster: JAX recognizes none here, expected Slurm, GKE or a TPU pod: "
            f"{error}"
        ) from error
    except Exception as error:  # whatever JAX raises while it recognizes a cluster
        reason = " ".join(str(error).split())
        raise SpecError(f"{who} can't meet the others: {reason}") from error


def _meet_and_part(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Place:
    # Off, since the service that watches for preemptions would catch SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=FOREVER,
        shutdown_timeout_seconds=FOREVER,
    )
    place = Place(global_state.process_id, global_state.num_processes)
    if importlib.util.find_spec("libtpu") is None:
        jax.distributed.shutdown()  # returns when all processes have called it
        global_state.process_id, global_state.num_processes = 0, 1
    return place
