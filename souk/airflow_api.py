"""One run of the DAG through Airflow's services, by its REST API."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from souk.errors import SoukError

if TYPE_CHECKING:
    from souk.airflow import Ui

SECONDS_BETWEEN_LOOKS = 2.0
ENDED = ("success", "failed")
UNAUTHORIZED = 401


def follow(ui: Ui, dag_id: str, params: Mapping[str, object], say: Callable[[str], None]) -> dict[str, Any]:
    """Trigger the DAG and follow the run to its end.

    Args:
        ui: Where the services are.
        dag_id: The DAG.
        params: Params of the run.
        say: Called with a line whenever a task has ended.

    Returns:
        What the last task returned.

    Raises:
        SoukError: A param is refused, or a task failed: the cause is that of the task.
    """
    ask = _Session(ui).ask
    runs = f"{ui.url}/api/v2/dags/{dag_id}/dagRuns"
    run_id = ask(runs, {"logical_date": None, "conf": dict(params)})["dag_run_id"]
    run = f"{runs}/{quote(run_id, safe='')}"
    told: set[str] = set()
    while True:
        # The state first: when the run has ended, so have the tasks that are looked at next.
        state = ask(run)["state"]
        tasks = sorted(
            (task for task in ask(f"{run}/taskInstances")["task_instances"] if task["state"] in ENDED),
            key=lambda task: task["end_date"],
        )
        for task in tasks:
            if task["task_id"] not in told:
                told.add(task["task_id"])
                done = f"done in {task['duration']:.1f} s" if task["state"] == "success" else "failed"
                say(f"{task['task_id']:<20} {done}")
        if state in ENDED:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    page = f"{ui.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
    failed = [task for task in tasks if task["state"] == "failed"]
    if failed:
        cause = _cause(f"{run}/taskInstances/{failed[0]['task_id']}/logs/{failed[0]['try_number']}", ask)
        raise SoukError(f"{failed[0]['task_id']}: {cause}", f"See {page}.")
    if state == "failed":
        raise SoukError("The run failed", f"See {page}.")
    last = f"{run}/taskInstances/{tasks[-1]['task_id']}/xcomEntries/return_value"
    return dict(ask(f"{last}?stringify=false")["value"])


class _Session:
    """Calls with a token, which is asked for again when it has run out: a person is waited for as long as it lasts."""

    def __init__(self, ui: Ui) -> None:
        self._login = f"{ui.url}/auth/token", {"username": ui.user, "password": ui.password}
        self._token = self._new_token()

    def ask(self, url: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        try:
            return _call(url, self._token, body)
        except _TokenExpired:
            self._token = self._new_token()
            return _call(url, self._token, body)

    def _new_token(self) -> str:
        url, body = self._login
        return str(_call(url, body=body)["access_token"])


class _TokenExpired(SoukError):
    """Airflow does not know the token any more."""


def _cause(log: str, ask: Callable[[str], Any]) -> str:
    """Return what the exception that ended a task said, in one line."""
    events = ask(f"{log}?full_content=true")["content"]
    errors = [error["exc_value"] for event in events for error in event.get("error_detail") or []]
    return errors[0].strip().splitlines()[0].rstrip(".") if errors and errors[0].strip() else "failed without a message"


def _call(url: str, token: str | None = None, body: object = None) -> Any:  # noqa: ANN401 - JSON
    """GET, or POST where there is a body, and return the JSON that is answered."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        try:
            detail = str(json.loads(text)["detail"]).strip().splitlines()[0]
        except (ValueError, KeyError, TypeError):
            detail = f"HTTP {error.code}"
        if error.code == UNAUTHORIZED:
            raise _TokenExpired(
                f"Airflow does not let souk in: {detail}", "Start it again: make down, then make up."
            ) from None
        raise SoukError(f"Airflow refused the run: {detail}", "Correct the params.") from None
    except OSError as error:
        raise SoukError(f"Airflow does not answer: {error}", "Start it again: make down, then make up.") from None
