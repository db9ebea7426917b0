"""Client processes of the serving benchmark: each its own connection, prepared statements, binary results."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

WARM_UP = 8


@dataclass(frozen=True)
class Arm:
    """A statement with its parameters, one set for each call.

    Attributes:
        statement: What is prepared and executed.
        parameters: Taken in turn, from a place of its own by each client.
        settings: Of the session.
        dsn: Whose login calls it.
    """

    statement: str
    parameters: Sequence[Sequence[Any]]
    settings: Mapping[str, str]
    dsn: str


@dataclass(frozen=True)
class Timing:
    """What the clients saw of an arm: seconds of each call, and calls a second of all clients together."""

    seconds: np.ndarray
    rate: float

    def percentile(self, share: float) -> float:
        """Return a percentile in milliseconds."""
        return float(np.percentile(self.seconds, share) * 1000)


def measure(arms: Mapping[str, Arm], clients: int, blocks: int, block_seconds: float) -> dict[str, Timing]:
    """Time the arms in turn (A B C A B C …), all clients on the same arm at the same time.

    Args:
        arms: By name.
        clients: Processes that call at once.
        blocks: How often each arm has its turn.
        block_seconds: Length of a turn.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(clients)
    results = context.Queue()
    processes = [
        context.Process(target=_client, args=(dict(arms), number, barrier, blocks, block_seconds, results))
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60 + 20 * blocks * len(arms) * block_seconds) for _ in processes]
    for process in processes:
        process.join()
    if any(isinstance(part, str) for part in found):
        raise RuntimeError(next(part for part in found if isinstance(part, str)))
    return {
        name: Timing(
            np.concatenate([part[name][0] for part in found]),
            sum(len(part[name][0]) / part[name][1] for part in found),
        )
        for name in arms
    }


def open_session(arm: Arm) -> psycopg.Connection[Any]:
    """Return a connection with the settings of an arm."""
    connection = psycopg.connect(arm.dsn, autocommit=True, prepare_threshold=1)
    # The settings of pgvector are known once it is loaded, and registering its types loads it.
    register_vector(connection)
    connection.execute("select '[1]'::vector")
    for name, value in arm.settings.items():
        connection.execute("select set_config(%s, %s, false)", [name, value])
    return connection


def _client(
    arms: dict[str, Arm], number: int, barrier: Barrier, blocks: int, block_seconds: float, results: Queue[Any]
) -> None:
    try:
        results.put(_run(arms, number, barrier, blocks, block_seconds))
    except Exception as error:
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")


def _run(
    arms: dict[str, Arm], number: int, barrier: Barrier, blocks: int, block_seconds: float
) -> dict[str, tuple[np.ndarray, float]]:
    sessions = {name: open_session(arm) for name, arm in arms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    spent = dict.fromkeys(arms, 0.0)
    # Each asks for other things: what one arm or client has just read would lie warm for the next.
    place = {name: number * 1009 + turn * 57 for turn, name in enumerate(arms)}
    for block in range(blocks + 1):
        for name, arm in arms.items():
            barrier.wait()
            start = time.perf_counter()
            calls = 0
            while True:
                parameters = arm.parameters[place[name] % len(arm.parameters)]
                place[name] += 1
                before = time.perf_counter()
                sessions[name].execute(arm.statement, parameters, prepare=True, binary=True).fetchall()
                after = time.perf_counter()
                calls += 1
                if block:
                    seconds[name].append(after - before)
                # The first block only warms up: it ends after a few calls, however slow.
                if calls >= WARM_UP if not block else after - start >= block_seconds:
                    break
            if block:
                spent[name] += time.perf_counter() - start
    for session in sessions.values():
        session.close()
    return {name: (np.array(seconds[name]), spent[name]) for name in arms}
