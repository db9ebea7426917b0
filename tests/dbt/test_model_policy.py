"""Rules of naming, documentation and testing that every dbt model keeps, read from the manifest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from souk.settings import REPOSITORY

pytestmark = pytest.mark.slow

PREFIXES = {"staging": ("stg_",), "intermediate": ("int_",), "marts": ("dim_", "fct_", "rpt_")}


def models_of(manifest: dict) -> list[dict]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]


def is_key_test(node: dict) -> bool:
    return (node.get("test_metadata") or {}).get("name") == "unique_key"


def has_primary_key(model: dict) -> bool:
    return any(constraint["type"] == "primary_key" for constraint in model["constraints"])


def broken_rules(manifest: dict) -> list[str]:
    """Every breach in a manifest, as one sentence."""
    keyed = {node["attached_node"] for node in manifest["nodes"].values() if is_key_test(node)}
    breaches = []
    for model in models_of(manifest):
        name, layer = model["name"], model["fqn"][1]
        if not name.startswith(PREFIXES[layer]):
            breaches.append(f"{name} lies in {layer} without one of its prefixes")
        if model["config"]["schema"] != layer:
            breaches.append(f"{name} is not in schema {layer}")
        if not model["description"].startswith("One row per "):
            breaches.append(f"{name} does not state its grain")
        # What the table enforces needs no test: on the largest, one took a fifth of the run.
        if not has_primary_key(model) and model["unique_id"] not in keyed:
            breaches.append(f"{name} has neither a primary key nor a unique_key test")
        if not model["patch_path"].endswith(f"/{name}.yml"):
            breaches.append(f"{name} is not described in a file of its name")
        if layer == "marts" and not model["contract"]["enforced"]:
            breaches.append(f"{name} has no contract")
        if not model["columns"]:
            breaches.append(f"{name} documents no column")
    for node in [*models_of(manifest), *manifest["sources"].values()]:
        blank = [column["name"] for column in node["columns"].values() if not column["description"]]
        breaches += [f"{node['name']}.{column} is undocumented" for column in blank]
    return breaches


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    target = tmp_path_factory.mktemp("manifest")
    names = ("HOST", "PORT", "USER", "PASSWORD", "DBNAME")
    # Parsing connects to nothing, so any value will do.
    environment = {f"SOUK_DBT_{name}": "1" for name in names} | {"PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"}
    project, output = str(REPOSITORY / "dbt"), str(target)
    # In another process and from the root of the repository: its folder `dbt` must not hide the package.
    done = subprocess.run(
        [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "--warn-error", "parse"]
        + ["--project-dir", project, "--profiles-dir", project, "--target-path", output, "--log-path", output],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((target / "manifest.json").read_text())


def test_every_model_keeps_the_rules(manifest):
    names = {model["name"] for model in models_of(manifest)}
    assert names >= {"stg_shop__events", "dim_items", "fct_interactions", "dim_user_profiles"}
    assert broken_rules(manifest) == []


def test_the_rules_can_be_broken(manifest):
    damaged = json.loads(json.dumps(manifest))
    model = damaged["nodes"]["model.souk.dim_items"]
    model["name"], model["description"], model["columns"]["price"]["description"] = "items", "Products.", ""
    model["constraints"] = []
    assert broken_rules(damaged) == [
        "items lies in marts without one of its prefixes",
        "items does not state its grain",
        "items has neither a primary key nor a unique_key test",
        "items is not described in a file of its name",
        "items.price is undocumented",
    ]


def test_logic_has_unit_tests(manifest):
    tested = {node["model"] for node in manifest["unit_tests"].values()}
    assert tested >= {
        "int_events__deduplicated",
        "int_interactions__decayed",
        "int_users__interests_summed",
        "dim_items",
        "fct_impressions",
        "fct_interactions",
        "rpt_item_text_quality",
    }


def test_the_api_depends_on_every_mart(manifest):
    marts = {model["unique_id"] for model in models_of(manifest) if model["fqn"][1] == "marts"}
    assert marts
    assert set(manifest["exposures"]["exposure.souk.sql_api"]["depends_on"]["nodes"]) == marts
