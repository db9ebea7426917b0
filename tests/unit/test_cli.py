from __future__ import annotations

import psycopg
import pytest

from souk import cli
from souk.errors import SoukError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SoukError("The cup is empty", "Fill it."), "souk: The cup is empty. Fill it."),
        (psycopg.errors.DiskFull("could not extend file"), "souk: could not extend file. Nothing was published"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(monkeypatch, capsys, error, told):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_status", fail)
    assert cli.main(["status"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--source", "amazon", "--path", "/nowhere"],
        ["evaluate", "--items", "/nowhere/items.jsonl", "--sequences", "/nowhere/sequences.txt"],
    ],
)
def test_a_missing_file_is_told_before_anything_starts(capsys, arguments):
    assert cli.main(arguments) == 1
    assert "/nowhere" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--source", "nothing"])
    assert stopped.value.code == 2
    assert "demo-shop" in capsys.readouterr().err


def test_settings_are_read_from_env_file_like_make_does(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "REPOSITORY", tmp_path)
    monkeypatch.setenv("SOUK_LATE_DAYS", "3")
    # Set and taken away again, so that what the file sets is taken away after the test.
    monkeypatch.setenv("SOUK_QUARANTINE_LIMIT", "")
    monkeypatch.delenv("SOUK_QUARANTINE_LIMIT")
    (tmp_path / ".env").write_text("SOUK_QUARANTINE_LIMIT=0.5\nSOUK_LATE_DAYS=9\n")
    seen = []
    monkeypatch.setattr(cli, "_status", lambda settings, _: seen.append(settings))
    assert cli.main(["status"]) == 0
    assert [(settings.quarantine_limit, settings.late_days) for settings in seen] == [(0.5, 3)]
