from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from souk.airflow import Ui
from souk.airflow_api import follow
from souk.errors import SoukError


class Airflow(BaseHTTPRequestHandler):
    """Answers as Airflow's services do; a token serves for three calls."""

    calls = 0
    tokens = 0
    serves = 3

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/auth/token"):
            type(self).tokens += 1
            type(self).calls = 0
            return self.tell({"access_token": f"t{self.tokens}"})
        return self.tell({"dag_run_id": "run"})

    def do_GET(self) -> None:
        if "taskInstances" not in self.path:
            return self.tell({"state": "success"})
        if "xcomEntries" in self.path:
            return self.tell({"value": {"release_id": "r1"}})
        task = {"task_id": "publish", "state": "success", "end_date": "2026", "duration": 1.0, "try_number": 1}
        return self.tell({"task_instances": [task]})

    def tell(self, answer: object) -> None:
        is_login = self.path.endswith("/auth/token")
        if not is_login:
            type(self).calls += 1
        is_known = is_login or (self.headers["Authorization"] == f"Bearer t{self.tokens}" and self.calls <= self.serves)
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(answer if is_known else {"detail": "Token Expired"}).encode())


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    for name, value in (("calls", 0), ("tokens", 0), ("serves", 3)):
        monkeypatch.setattr(Airflow, name, value)
    server = HTTPServer(("127.0.0.1", 0), Airflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Ui(f"http://127.0.0.1:{server.server_port}", "admin", "secret")
    server.shutdown()
    server.server_close()


def test_a_run_is_followed_beyond_the_life_of_a_token(airflow: Ui) -> None:
    lines: list[str] = []
    assert follow(airflow, "recommendations", {}, lines.append) == {"release_id": "r1"}
    assert Airflow.tokens == 2
    assert lines == ["publish              done in 1.0 s"]


def test_a_login_that_is_never_known_is_told(airflow: Ui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Airflow, "serves", 0)
    with pytest.raises(SoukError, match="does not let souk in: Token Expired"):
        follow(airflow, "recommendations", {}, print)
