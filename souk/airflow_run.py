"""One run of the DAG in a process of its own: `python -m souk.airflow_run PARAMS`, in the environment of Airflow.

Standard output carries a JSON object per line: a `line` of progress, and lastly the `result`, or the `cause` of the
failure and the `next_step`. Whatever Airflow and the tasks print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from pluggy import HookimplMarker

from souk.airflow import DAG_ID
from souk.errors import SoukError

if TYPE_CHECKING:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

hookimpl = HookimplMarker("airflow")


def main(argv: list[str]) -> int:
    """Run the DAG in this process, and report on standard output: a JSON object per line.

    Each holds a `line` of progress, or lastly the `result`, or the `cause` of the failure and the `next_step`.
    """
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    # Whatever Airflow and the tasks print goes to the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        report = _run_here(json.loads(argv[0]), channel)
    except Exception as error:
        logging.getLogger(__name__).exception("the run did not start")
        report = {"cause": f"Airflow refused the run: {_first_line(error)}", "next_step": None}
    _send(channel, report)
    return 0 if "result" in report else 1


def _run_here(params: dict[str, object], channel: TextIO) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.sdk.listener import get_listener_manager
    from airflow.utils.session import create_session

    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    dag = bag.dags.get(DAG_ID)
    if dag is None:
        causes = [text.strip().splitlines()[-1] for text in bag.import_errors.values()]
        return {"cause": f"There is no DAG {DAG_ID}: {causes or 'no file defines it'}", "next_step": None}
    progress = _Progress(channel)
    get_listener_manager().add_listener(progress)
    logging.getLogger("souk").addHandler(progress)
    logging.getLogger("spark_jobs").addHandler(progress)
    run = dag.test(run_conf=params)
    if run.state != "success":
        return progress.failure or {"cause": "The run failed before a task did", "next_step": None}
    last = dag.leaves[0].task_id
    with create_session() as session:
        found = session.scalars(
            XComModel.get_many(run_id=run.run_id, dag_ids=DAG_ID, task_ids=last, key="return_value")
        )
        return {"result": XComModel.deserialize_value(found.one())}


class _Progress(logging.Handler):
    """Listens to Airflow's tasks, and to what souk logs in them."""

    def __init__(self, channel: TextIO) -> None:
        super().__init__(logging.INFO)
        self.failure: dict[str, str | None] | None = None
        self._channel = channel
        self._started = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on what a stage says; its errors end up in the failure."""
        if record.levelno < logging.ERROR:
            _send(self._channel, {"line": f"    {_first_line(record.getMessage())}"})

    @hookimpl
    def on_task_instance_running(self, task_instance: RuntimeTaskInstance) -> None:
        """Start the clock of a task."""
        self._started = time.monotonic()

    @hookimpl
    def on_task_instance_success(self, task_instance: RuntimeTaskInstance) -> None:
        """Report a task that is done."""
        seconds = time.monotonic() - self._started
        _send(self._channel, {"line": f"{task_instance.task_id:<20} done in {seconds:.1f} s"})

    @hookimpl
    def on_task_instance_failed(self, task_instance: RuntimeTaskInstance, error: None | str | BaseException) -> None:
        """Report a task that failed, and keep the cause."""
        _send(self._channel, {"line": f"{task_instance.task_id:<20} failed"})
        if isinstance(error, SoukError):
            self.failure = {"cause": f"{task_instance.task_id}: {error.cause}", "next_step": error.next_step}
        else:
            self.failure = {"cause": f"{task_instance.task_id}: {_first_line(error)}", "next_step": None}


def _send(channel: TextIO, message: Mapping[str, object]) -> None:
    channel.write(json.dumps(message) + "\n")


def _first_line(problem: object) -> str:
    lines = str(problem).strip().splitlines()
    text = lines[0] if lines else "no message"
    return f"{type(problem).__name__}: {text}" if isinstance(problem, Exception) else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
