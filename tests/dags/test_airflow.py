"""Airflow as souk runs it: without the UI, with it, and stopped by a red gate."""

from __future__ import annotations

import json
import stat
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from souk.airflow import airflow_environment, run_dag, start_ui, stop_ui
from souk.errors import SoukError
from souk.settings import Settings
from tests.dags.conftest import Installation

LOST_TITLES = Path(__file__).parent / "lost_titles"
ASKED = Path(__file__).parent / "asked"
DSN = "host=127.0.0.1 port=5 user=souk password=secret dbname=souk"


def test_tasks_read_the_settings_that_they_are_given(tmp_path: Path) -> None:
    settings = replace(Settings.from_env({}), home=tmp_path, encoder="some/encoder", quarantine_limit=0.25)
    environment = airflow_environment(settings, DSN)
    assert Settings.from_env(environment) == settings


def test_airflow_stays_on_loopback_and_small(tmp_path: Path) -> None:
    environment = airflow_environment(replace(Settings.from_env({}), home=tmp_path), DSN)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "4"
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(
        "postgresql+psycopg://souk:secret@127.0.0.1:5/airflow"
    )
    off = {name: environment[name] for name in ("DO_NOT_TRACK", "SCARF_NO_ANALYTICS", "GX_ANALYTICS_ENABLED")}
    assert off == {"DO_NOT_TRACK": "1", "SCARF_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}


def test_secrets_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    settings = replace(Settings.from_env({}), home=tmp_path)
    first = airflow_environment(settings, DSN)
    assert airflow_environment(settings, DSN) == first
    other = airflow_environment(replace(settings, home=tmp_path / "other"), DSN)
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert first[name] != other[name]
    assert stat.S_IMODE((tmp_path / "airflow" / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_red_gate_stops_the_run_and_the_pointer_stays(installation: Installation) -> None:
    installation.rows(
        "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock)"
        " values ('r0', 'demo-shop-s0.02-seed0', 'published', 'h', 'e', true, true);"
        " insert into serving.pointer (shop, release_id) values ('demo-shop-s0.02-seed0', 'r0')"
    )
    lines: list[str] = []
    with pytest.raises(SoukError) as failed:
        run_dag(installation.settings, installation.dsn, {"scale": 0.02}, lines.append, dags=LOST_TITLES)
    assert failed.value.cause.startswith("land.gate: Blocked: 3 of ")
    assert failed.value.cause.endswith(" products have no title")
    assert failed.value.next_step.startswith("Release r0 keeps serving.")
    tasks = [line.split()[0] for line in lines if not line.startswith(" ")]
    # Once: what souk explains is not tried again.
    assert tasks == ["land.land", "land.gate"]
    assert installation.rows("select release_id from serving.pointer") == [("r0",)]
    assert installation.rows("select count(*) from serving.publication") == [(0,)]
    assert installation.rows("select gate, is_passed from ops.gate_result") == [("landed", False)]
    states = dict(installation.metadata("select task_id, state from task_instance"))
    assert states.pop("land.land") == "success"
    assert states.pop("land.gate") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    assert installation.metadata("select count(*) from asset_event") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "is_approved", "refined"), [(0, True, 2), (1, False, 0)])
def test_a_person_is_asked_and_both_answers_count(
    installation: Installation, seed: int, is_approved: bool, refined: int
) -> None:
    run_dag(installation.settings, installation.dsn, {"seed": seed}, [].append, dags=ASKED)
    settled = "select value -> 'rows' ->> 'refined' from xcom where task_id = 'refine.settle' order by timestamp desc"
    assert installation.metadata(settled)[0] == (str(refined),)
    said = (
        f"select is_approved, release_id, decided_by from ops.refinement_approval where content_hash = 'texts-{seed}'"
    )
    assert installation.rows(said) == [(is_approved, "asked-1", "anna")]
    asked = installation.metadata("select subject, chosen_options from hitl_detail order by created_at desc limit 1")
    assert asked == [("2 descriptions would change.", ["Publish" if is_approved else "Keep the originals"])]


@pytest.mark.slow
def test_a_bad_param_starts_no_run(installation: Installation) -> None:
    before = installation.metadata("select count(*) from dag_run")
    with pytest.raises(SoukError, match="refused the run: .*'nowhere' is not one of"):
        run_dag(installation.settings, installation.dsn, {"source": "nowhere"}, [].append)
    assert installation.metadata("select count(*) from dag_run") == before


@pytest.mark.slow
def test_the_ui_starts_runs_the_dag_and_stops(installation: Installation) -> None:
    settings = installation.settings
    # What a run that was killed leaves behind.
    installation.metadata("update dag_run set state = 'running'")
    try:
        ui = start_ui(settings, installation.dsn)
        assert installation.metadata("select distinct state from dag_run") in ([], [("failed",)])
        login = urllib.request.Request(
            f"{ui.url}/auth/token",
            json.dumps({"username": ui.user, "password": ui.password}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(login) as answer:
            assert json.load(answer)["access_token"]
        services = [psutil.Process(pid) for pid, _ in json.loads((settings.home / "airflow/services.json").read_text())]
        family = {process for service in services for process in [service, *service.children(recursive=True)]}
        listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        assert start_ui(settings, installation.dsn) == ui
        with pytest.raises(SoukError, match=r"land.land: /nowhere does not exist. Correct --path. See http"):
            run_dag(settings, installation.dsn, {"source": "files", "path": "/nowhere"}, [].append)
    finally:
        assert stop_ui(settings)
    assert [process for process in family if process.is_running()] == []
    assert not stop_ui(settings)
