from __future__ import annotations

import os
import signal
import socket

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk.errors import SoukError
from souk.postgres import EmbeddedPostgres, check_pgvector, connect, create_database, probe
from tests.conftest import free_port, server_home


@pytest.fixture
def own_server():
    with server_home() as home:
        server = EmbeddedPostgres(home, free_port())
        server.start()
        yield server
        server.stop()


def test_rows_survive_kill_9(own_server):
    create_database(own_server.dsn("postgres"), "kept")
    with psycopg.connect(own_server.dsn("kept")) as connection:
        connection.execute("create table kept as select 42 as answer")
    pid = int((own_server.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)
    own_server.start()
    with psycopg.connect(own_server.dsn("kept")) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_it_listens_on_loopback_and_asks_for_a_password(own_server):
    with psycopg.connect(own_server.dsn("postgres")) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("show password_encryption").fetchone() == ("scram-sha-256",)
    wrong = make_conninfo(own_server.dsn("postgres"), password="wrong")
    with pytest.raises(SoukError, match="password authentication failed.*SOUK_DATABASE_URL"):
        connect(wrong)
    assert own_server.password_file.stat().st_mode & 0o077 == 0


def test_a_taken_port_is_told():
    with server_home() as home, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SoukError, match=rf"Port {port} is taken.*SOUK_POSTGRES_PORT"):
            EmbeddedPostgres(home, port).start()


def test_a_server_that_is_down_is_told():
    with pytest.raises(SoukError, match="Cannot connect to Postgres at 127.0.0.1"):
        connect(f"postgresql://souk:x@127.0.0.1:{free_port()}/souk")


def test_the_server_passes_the_probe(server):
    probe(server.dsn("postgres"))


@pytest.mark.parametrize("locale", ["encoding 'UTF8' locale 'C'", "encoding 'LATIN1' locale_provider libc locale 'C'"])
def test_a_database_in_which_words_are_not_found_is_refused(server, locale):
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"create database test_letters template template0 {locale}")
        try:
            with pytest.raises(SoukError, match="Words would not be found.*C.UTF-8"):
                probe(server.dsn("test_letters"))
        finally:
            connection.execute("drop database test_letters")


@pytest.mark.parametrize(("version", "message"), [(None, "has no pgvector"), ("0.8.5", "0.8.5 is older than 0.8.6")])
def test_a_server_that_would_lose_rows_is_refused(version, message):
    check_pgvector("0.8.6")
    with pytest.raises(SoukError, match=message):
        check_pgvector(version)
