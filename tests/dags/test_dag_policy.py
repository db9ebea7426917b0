"""What every DAG file keeps to, judged from outside: parsed in a fresh process without a database or connections."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from souk.settings import REPOSITORY
from souk.sources import SOURCES
from souk.suites import SUITES

DAGS = REPOSITORY / "dags"
HEADINGS = ["What it does", "Inputs", "Outputs", "If it fails", "Owner"]
TAGS = {"souk", "release"}
HEAVY = {"torch", "transformers", "pyspark", "great_expectations", "pandas", "dbt", "psycopg"}
LINES = 130
REPORT = """
import copy, json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError

start = time.monotonic()
bag = DagBag(sys.argv[1])
seconds = time.monotonic() - start
heavy = sorted(set(json.loads(sys.argv[2])) & set(sys.modules))

def refused(dag, params):
    asked = copy.deepcopy(dag.params)
    try:
        asked.update(params)
        asked.validate()
    except ParamValidationError:
        return True
    return False

print(json.dumps({
    "seconds": seconds, "heavy": heavy, "errors": bag.import_errors,
    "dags": {dag_id: {
        "doc": dag.doc_md, "tags": sorted(dag.tags), "runs": dag.max_active_runs, "schedule": dag.schedule,
        "docs": {name: dag.params.get_param(name).schema.get("description_md") for name in dag.params},
        "sources": dag.params.get_param("source").schema["enum"] if "source" in dag.params else [],
        "refused": [refused(dag, params) for params in json.loads(sys.argv[3])],
        "tasks": {task.task_id: {
            "upstream": sorted(task.upstream_task_ids), "rule": task.trigger_rule, "owner": task.owner, "retries": task.retries,
            "outlets": [asset.uri for asset in task.outlets],
        } for task in dag.tasks},
    } for dag_id, dag in bag.dags.items()},
}))
"""
BAD_PARAMS = [
    {"source": "nowhere"},
    {"path": ""},
    {"path": 3},
    {"scale": 0},
    {"scale": "large"},
    {"model": ""},
    {"model": 7},
    {"seed": 1.5},
    {"seed": -1},
    {"refine": "yes"},
    {"refine_share": 1.5},
    {"refine_below": -0.1},
    {"approve_above": "much"},
]
GOOD_PARAMS = [
    {},
    {"model": None},
    {"source": "amazon", "path": "/data/shop"},
    {"scale": 0.01, "seed": 7, "model": "some/encoder"},
]


def parse(folder: Path, home: Path) -> dict[str, Any]:
    """Return what Airflow makes of a folder of DAG files."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "AIRFLOW_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    arguments = [str(folder), json.dumps(sorted(HEAVY)), json.dumps(BAD_PARAMS + GOOD_PARAMS)]
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        env={**environment, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def faults(report: dict[str, Any]) -> list[str]:
    """Return how DAG files break the policy."""
    found = [f"{file}: {error}" for file, error in report["errors"].items()]
    found += [f"parsing imports {module}" for module in report["heavy"]]
    for name, dag in report["dags"].items():
        headings = [line[3:] for line in (dag["doc"] or "").splitlines() if line.startswith("## ")]
        found += [f"{name}: no heading {heading}" for heading in HEADINGS if heading not in headings]
        found += [f"{name}: no tag"] * (not dag["tags"]) + [
            f"{name}: unknown tag {t}" for t in dag["tags"] if t not in TAGS
        ]
        found += [f"{name}: param {param} has no description" for param, text in dag["docs"].items() if not text]
        found += [
            f"{name}: task {task} has no owner" for task, facts in dag["tasks"].items() if facts["owner"] == "airflow"
        ]
    return found


def foreign_imports(source: str) -> set[str]:
    """Return the packages that a DAG file imports, anywhere in it, and may not."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or ".")
    return {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"airflow", "souk"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse(DAGS, tmp_path_factory.mktemp("home"))


@pytest.fixture
def tasks(report: dict[str, Any]) -> dict[str, Any]:
    return report["dags"]["recommendations"]["tasks"]


def test_the_policy_holds(report: dict[str, Any]) -> None:
    assert set(report["dags"]) == {"recommendations"}
    assert faults(report) == []


def test_parsing_is_quick(report: dict[str, Any]) -> None:
    assert report["seconds"] < 2


def test_a_bad_dag_breaks_the_policy(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    source = (DAGS / "recommendations.py").read_text()
    broken = (
        source.replace("## If it fails", "Failure:").replace('"release"]', '"relaese"]').replace('"owner"', '"owned"')
    )
    (folder / "broken.py").write_text(
        broken.replace("from typing import Any\n", "from typing import Any\nimport pandas\n")
    )
    (folder / "unreadable.py").write_text("from airflow.sdk import dag, no_such_thing\n")
    found = "\n".join(faults(parse(folder, tmp_path)))
    for fault in ("no heading If it fails", "unknown tag relaese", "imports pandas", "no_such_thing", "no owner"):
        assert fault in found


def test_dag_files_only_state_what_runs_when() -> None:
    files = sorted(DAGS.glob("*.py"))
    assert files
    for file in files:
        text = file.read_text()
        assert foreign_imports(text) == set(), file
        assert len(text.splitlines()) <= LINES, file
        assert not file.name.startswith("dbt_")


@pytest.mark.parametrize("line", ["import pandas", "from ml.text import words", "def f():\n    import sql.migrate"])
def test_a_foreign_import_is_found(line: str) -> None:
    assert foreign_imports(line)


def test_params_are_checked_before_a_run_starts(report: dict[str, Any]) -> None:
    refused = report["dags"]["recommendations"]["refused"]
    assert refused == [True] * len(BAD_PARAMS) + [False] * len(GOOD_PARAMS)


def test_the_form_offers_every_source(report: dict[str, Any]) -> None:
    assert set(report["dags"]["recommendations"]["sources"]) == set(SOURCES)


def test_runs_are_manual_and_one_at_a_time(report: dict[str, Any]) -> None:
    dag = report["dags"]["recommendations"]
    assert (dag["runs"], dag["schedule"]) == (1, None)


def test_every_stage_is_behind_the_gate_of_the_one_before(tasks: dict[str, Any]) -> None:
    work = ["land.land", "profiles.build", "encode.encode", "refine.settle", "train.train"]
    work += ["publish.load", "publish.publish"]
    gates = [f"{name.split('.')[0]}.gate" for name in work[:-1]]
    refine = {f"refine.{name}" for name in ("fit", "generate", "ask", "approve")}
    assert set(tasks) == {*work, *gates, *refine, "publish.compare"}
    after_gates = ["refine.fit" if name == "refine.settle" else name for name in work[1:-1]]
    for before, gate, after in zip(work, gates, [*after_gates, "publish.compare"], strict=False):
        assert before in tasks[gate]["upstream"]
        assert gate in tasks[after]["upstream"]
    assert "publish.compare" in tasks["publish.publish"]["upstream"]


def test_a_person_is_asked_only_on_the_way_to_what_is_settled(tasks: dict[str, Any]) -> None:
    assert tasks["refine.approve"]["upstream"] == ["refine.ask"]
    assert {"refine.generate", "refine.ask", "refine.approve"} <= set(tasks["refine.settle"]["upstream"])
    assert tasks["refine.settle"]["rule"] == "none_failed_min_one_success"


def test_every_gate_makes_an_asset(tasks: dict[str, Any]) -> None:
    made = [uri.strip("/").removeprefix("souk://") for task in tasks.values() for uri in task["outlets"]]
    assert sorted(made) == sorted([*SUITES, "release"])
