"""Progress of a long Spark job as log lines."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

if TYPE_CHECKING:
    from pyspark.sql.connect.shell.progress import StageInfo

logger = logging.getLogger(__name__)


class Progress:
    """While the block runs, log every 5 % or 30 s how far its last stage is.

    Args:
        spark: Where the job runs.
        what: What the rows are, in the plural.
        rows: Number of rows of the job.
        tasks: Number of tasks of the stage to watch, which hold equally many rows.
    """

    def __init__(self, spark: SparkSession, what: str, rows: int, tasks: int) -> None:
        self._spark, self._what, self._rows, self._tasks = spark, what, rows, tasks
        self._told = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        """Start to watch."""
        logger.info("%s: %d to do in %d tasks", self._what, self._rows, self._tasks)
        if is_remote():
            self._spark.registerProgressHandler(self._hear)  # type: ignore[arg-type]
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch."""
        self._done.set()
        self._thread.join()
        if is_remote():
            self._spark.removeProgressHandler(self._hear)  # type: ignore[arg-type]

    def _watch(self) -> None:
        started = said_at = time.monotonic()
        said = 0
        while not self._done.wait(1.0):
            now = time.monotonic()
            tasks = self._told if is_remote() else self._asked()
            if 20 * (tasks - said) >= self._tasks or now - said_at >= 30:
                logger.info("%s: %s", self._what, line(self._rows, tasks / self._tasks, now - started))
                said, said_at = tasks, now

    def _asked(self) -> int:
        """Return the finished tasks, as the context of this process counts them."""
        tracker = self._spark.sparkContext.statusTracker()
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return max((stage.numCompletedTasks for stage in stages if stage and stage.numTasks == self._tasks), default=0)

    def _hear(
        self, stages: Iterable[StageInfo] | None, inflight_tasks: int, operation_id: str | None, done: bool
    ) -> None:
        """Keep the finished tasks that a server of Spark Connect tells of."""
        told = (stage.num_completed_tasks for stage in stages or () if stage.num_tasks == self._tasks)
        self._told = max(told, default=self._told)


def line(rows: int, share: float, seconds: float) -> str:
    """Return one line: rows done of all, their share, the rate, the time left (unknown before the first task ends)."""
    done = round(rows * share)
    if not done:
        return f"0 of {rows} after {seconds:.0f} s"
    return f"{done} of {rows} ({share:.0%}), {done / seconds:.1f}/s, {seconds / share - seconds:.0f} s left"
