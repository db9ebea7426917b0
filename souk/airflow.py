"""Airflow on this machine: its settings, one run of the DAG without the UI, and the UI.

Everything listens on loopback only; secrets are made once and kept under `home/airflow`, readable by the owner alone.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from souk.errors import SoukError
from souk.postgres import connect, create_database, is_port_taken, sqlalchemy_url
from souk.settings import REPOSITORY, Settings

DAG_ID = "recommendations"
DATABASE = "airflow"
USER = "admin"
# No triggerer, since no task defers, and no log servers, which would listen on every interface: logs are local files.
COMPONENTS = (["api-server"], ["scheduler", "--skip-serve-logs"], ["dag-processor"])
HEALTHY_WITHIN = 180
STOPPED_WITHIN = 15


@dataclass(frozen=True)
class Ui:
    """Where the UI is, and how to log in."""

    url: str
    user: str
    password: str

    def __str__(self) -> str:
        """Return all of it in one line."""
        return f"Airflow: {self.url} (user {self.user}, password {self.password})"


def airflow_environment(settings: Settings, dsn: str, dags: Path = REPOSITORY / "dags") -> dict[str, str]:
    """Return the variables under which Airflow and its tasks run.

    Args:
        settings: Handed on to the tasks as `SOUK_*`.
        dsn: A database of the server on which Airflow keeps its own.
        dags: Folder of DAG files.
    """
    home = settings.home / "airflow"
    keys = _secrets(home / "secrets.json")
    address = f"http://127.0.0.1:{settings.airflow_port}"
    url = sqlalchemy_url(make_conninfo(dsn, dbname=DATABASE))
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags,
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "executor": "LocalExecutor",
            # The default forks 32 workers.
            "parallelism": 4,
            "fernet_key": keys["fernet_key"],
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": home / "passwords.json",
            "execution_api_server_url": f"{address}/execution/",
        },
        "database": {"sql_alchemy_conn": url, "sql_alchemy_conn_async": url},
        "api": {
            "host": "127.0.0.1",
            "port": settings.airflow_port,
            "base_url": address,
            "workers": 1,
            "secret_key": keys["api_secret_key"],
        },
        "api_auth": {"jwt_secret": keys["jwt_secret"]},
        "dag_processor": {"parsing_processes": 1},
        "logging": {"base_log_folder": home / "logs"},
    }
    return {
        **{f"SOUK_{item.name.upper()}": _text(getattr(settings, item.name)) for item in fields(settings)},
        **{f"AIRFLOW__{section}__{key}".upper(): str(v) for section in options for key, v in options[section].items()},
        "AIRFLOW_HOME": str(home),
        # Tasks import souk; the folder of a DAG is all that Airflow adds by itself.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }


def prepare(settings: Settings, dsn: str, dags: Path = REPOSITORY / "dags") -> dict[str, str]:
    """Make and migrate Airflow's database, if that is not done yet, and return the environment.

    Raises:
        SoukError: The database cannot be made or migrated.
    """
    environment = airflow_environment(settings, dsn, dags)
    home = Path(environment["AIRFLOW_HOME"])
    try:
        create_database(dsn, DATABASE)
    except psycopg.Error as error:
        raise SoukError(
            f"Cannot make the database {DATABASE}: {error}", "Make it, owned by the user of SOUK_DATABASE_URL."
        ) from None
    done = home / "migrated"
    if not done.exists() or done.read_text() != _schema(dsn):
        log = home / "migrate.log"
        with log.open("w") as output:
            status = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if status != 0:
            raise SoukError(f"Airflow cannot migrate its database: {_last_line(log)}", f"Read {log}.")
        done.write_text(_schema(dsn))
    return environment


def run_dag(
    settings: Settings,
    dsn: str,
    params: Mapping[str, object],
    say: Callable[[str], None] | None = None,
    dags: Path = REPOSITORY / "dags",
) -> dict[str, Any]:
    """Run the DAG once: through Airflow's services where they run, else through Airflow in a process of its own.

    Args:
        settings: Handed on to the tasks.
        dsn: The souk database.
        params: Params of the run; the DAG's defaults fill in the rest.
        say: Called with a line whenever a task has got somewhere; prints it by default.
        dags: Folder of DAG files, for a run without services.

    Returns:
        What the last task returned.

    Raises:
        SoukError: A param is refused, or a task failed: the cause is that of the task.
    """
    environment = prepare(settings, dsn, dags)
    home = Path(environment["AIRFLOW_HOME"])
    if _services(home):
        from souk.airflow_api import follow

        return follow(_ui(environment), DAG_ID, params, say or _say)
    with _only_run(home):
        return _run_alone(environment, params, say or _say)


def start_ui(settings: Settings, dsn: str) -> Ui:
    """Start Airflow's services, if they do not run, and wait until they are healthy.

    Raises:
        SoukError: The port is taken, or a service does not come up.
    """
    environment = prepare(settings, dsn)
    home = Path(environment["AIRFLOW_HOME"])
    ui = _ui(environment)
    if _services(home) and _is_healthy(ui.url):
        return ui
    stop_ui(settings)
    if is_port_taken(settings.airflow_port):
        raise SoukError(f"Port {settings.airflow_port} is taken by another program", "Set SOUK_AIRFLOW_PORT.")
    _write_private(home / "passwords.json", json.dumps({USER: ui.password}))
    with _only_run(home):
        _close_interrupted_runs(dsn)
        services = _start_services(home, environment)
    deadline = time.monotonic() + HEALTHY_WITHIN
    while not _is_healthy(ui.url):
        dead = [name for name, service in services.items() if service.poll() is not None]
        if dead or time.monotonic() > deadline:
            stop_ui(settings)
            name = dead[0] if dead else "api-server"
            log = home / f"{name}.log"
            state = "ended" if dead else f"is not healthy after {HEALTHY_WITHIN} s"
            raise SoukError(f"Airflow's {name} {state}: {_last_line(log)}", f"Read {log}.")
        time.sleep(0.5)
    return ui


def stop_ui(settings: Settings) -> bool:
    """Stop Airflow's services and what they have started; tell whether there were any."""
    home = settings.home / "airflow"
    services = _services(home)
    _stop(services)
    (home / "services.json").unlink(missing_ok=True)
    return bool(services)


def _close_interrupted_runs(dsn: str) -> None:
    """Mark runs that were killed as failed: the scheduler would go on with them."""
    unfinished = "triggered_by = 'TEST' and state in ('queued', 'running')"
    with closing(connect(make_conninfo(dsn, dbname=DATABASE))) as connection, connection.transaction():
        connection.execute(
            "update task_instance set state = 'failed', end_date = now()"
            " where (state is null or state not in ('success', 'failed', 'skipped', 'upstream_failed'))"
            f" and (dag_id, run_id) in (select dag_id, run_id from dag_run where {unfinished})"
        )
        connection.execute(f"update dag_run set state = 'failed', end_date = now() where {unfinished}")


def _ui(environment: Mapping[str, str]) -> Ui:
    password = _secrets(Path(environment["AIRFLOW_HOME"]) / "secrets.json")["password"]
    return Ui(environment["AIRFLOW__API__BASE_URL"], USER, password)


def _run_alone(
    environment: Mapping[str, str], params: Mapping[str, object], say: Callable[[str], None]
) -> dict[str, Any]:
    log = Path(environment["AIRFLOW_HOME"]) / "run.log"
    message: dict[str, Any] = {}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "souk.airflow_run", json.dumps(dict(params))],
            env={**os.environ, **environment},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        assert process.stdout is not None
        with _ended(process), process.stdout:
            for line in process.stdout:
                message = json.loads(line)
                if "line" in message:
                    say(message["line"])
    if "result" in message:
        return dict(message["result"])
    if "cause" in message:
        raise SoukError(message["cause"], message["next_step"] or f"Read {log}.")
    raise SoukError(f"The run ended without a result (exit status {process.returncode})", f"Read {log}.")


@contextmanager
def _only_run(home: Path) -> Iterator[None]:
    """Hold the lock of the run: an Airflow scheduler would take over what it finds running."""
    with (home / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SoukError("A run is in progress", "Wait until it has ended.") from None
        yield


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for a process, and do not leave it behind when interrupted."""
    try:
        yield
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()


def _start_services(home: Path, environment: Mapping[str, str]) -> dict[str, subprocess.Popen[bytes]]:
    services = {}
    for component in COMPONENTS:
        with (home / f"{component[0]}.log").open("wb") as log:
            services[component[0]] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *component],
                env={**os.environ, **environment},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    # With the time of creation, since the system gives the number of a process that has ended to another one.
    record = [[service.pid, psutil.Process(service.pid).create_time()] for service in services.values()]
    _write_private(home / "services.json", json.dumps(record))
    return services


def _services(home: Path) -> list[psutil.Process]:
    """Return the services of this home that run."""
    record = home / "services.json"
    found = []
    for pid, created in json.loads(record.read_text()) if record.exists() else []:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == created:
                found.append(process)
    return found


def _stop(processes: Iterable[psutil.Process]) -> None:
    """Ask processes to end, and kill those that do not. Whoever only stops the parent leaves its children behind."""
    family = set(processes)
    for process in list(family):
        with suppress(psutil.NoSuchProcess):
            family.update(process.children(recursive=True))
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(family, STOPPED_WITHIN)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, 5)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:
            health = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(
        (health.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")
    )


def _schema(dsn: str) -> str:
    """Return which Airflow could use the database as it is: its version, and the migration that was applied last."""
    with closing(connect(make_conninfo(dsn, dbname=DATABASE))) as connection:
        found = connection.execute("select to_regclass('alembic_version')").fetchone()
        applied = connection.execute("select version_num from alembic_version").fetchall() if found and found[0] else []
    return f"{version('apache-airflow-core')} {applied}"


def _secrets(file: Path) -> dict[str, str]:
    """Return the secrets of this home, made on first use."""
    if not file.exists():
        made = {
            "fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "api_secret_key": secrets.token_urlsafe(32),
            "jwt_secret": secrets.token_urlsafe(64),
            "password": secrets.token_urlsafe(12),
        }
        # Whoever comes second takes what the first has made.
        with suppress(FileExistsError):
            _write_private(file, json.dumps(made), os.link)
    return dict(json.loads(file.read_text()))


def _write_private(file: Path, text: str, put: Callable[[Path, Path], None] = os.replace) -> None:
    """Write a file that only its owner can read; it appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as partial:
        partial.write(text)
    try:
        put(Path(partial.name), file)
    finally:
        Path(partial.name).unlink(missing_ok=True)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
