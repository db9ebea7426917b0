"""Make and publish a release: from a shop's data to recommendations and search that SQL serves.

## What it does
Lands the data, builds profiles, encodes the texts that changed, refines poor ones, trains, loads a hidden release and
publishes it. Behind every stage is a gate: what does not pass goes no further, nor what measures worse than before.

## Inputs
The params of the form: a source and, for `amazon` and `files`, the path of its data.

## Outputs
A release in the schema `serving`, which the functions of `api` read, and asset events with rows, hash and release.

## If it fails
1. Open the red task: its log ends with the cause and what to do. Readers still see the release before.
2. A red gate counts the bad rows; `ops.quarantine` holds what landing turned away, with the reason.
3. Correct the input or the setting and trigger again, or clear the red task: what is landed and encoded is not redone.

## Owner
The data platform team.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Asset, ExceptionRetryPolicy, Param, RetryAction, RetryRule, TaskGroup, XComArg, dag, task

Stage = dict[str, Any]
QUESTION = "{{ ti.xcom_pull(task_ids='refine.generate')['question'] }}"
DAY, ANSWERS = timedelta(days=1), ["Publish", "Keep the originals"]
SHARE: Stage = {"type": "number", "minimum": 0, "maximum": 1}
FACTS = ("shop", "run_id", "release_id", "content_hash", "rows", "is_generated")
SOURCES = ["demo-shop", "amazon", "complete-journey", "files"]
PARAMS = {
    "source": Param("demo-shop", type="string", enum=SOURCES, description_md="`demo-shop` makes up a bilingual shop."),
    "path": Param(None, type=["null", "string"], minLength=1, description_md="For `amazon`, `files`: their data."),
    "scale": Param(1.0, type="number", minimum=0.01, description_md="For `demo-shop`: `1` is about 40,000 events."),
    "model": Param(None, type=["null", "string"], minLength=1, description_md="Encoder; null: `SOUK_ENCODER`."),
    "refine": Param(True, type="boolean", description_md="Replace poor descriptions where a better one is proven."),
    "refine_share": Param(0.1, **SHARE, description_md="The worst share of descriptions that may be replaced."),
    "refine_below": Param(1.0, **SHARE, description_md="Only descriptions of a lower quality than this."),
    "approve_above": Param(0.2, **SHARE, description_md="A person must approve if a larger share changes."),
    "accept_worse": Param(False, type="boolean", description_md="Publish a release that measures worse than the last."),
    "seed": Param(0, type="integer", minimum=0, description_md="For `demo-shop`: another seed, another shop."),
}


@task
def stage(name: str, *inputs: Stage, outlet_events: dict[Asset, Any], params: Stage | None = None) -> Stage:
    """Run a stage of `souk.pipeline`; the first has the params of the run for its input."""
    from souk import pipeline

    done = getattr(pipeline, name)(*inputs or [dict(params or {})])
    if name == "publish":
        outlet_events[asset("release")].extra = {fact: done[fact] for fact in FACTS}
    return done


@task.branch
def ask(generated: Stage) -> str:
    """Ask a person where much changes."""
    return "refine.approve" if generated["must_ask"] else "refine.settle"


@task
def gate(name: str, done: Stage, *, outlet_events: dict[Asset, Any]) -> Stage:
    """Hand on what a stage returned, if the data that it made passes the suite of this name."""
    from souk.gates import guard

    passed = guard(name, done)
    outlet_events[asset(name)].extra = {fact: done[fact] for fact in FACTS}
    return passed


def asset(name: str) -> Asset:
    """Return the data that has passed the gate of this name, or the `release` that is shown, as an asset."""
    return Asset(name=name, uri=f"souk://{name}")


def checked(suite: str, done: XComArg) -> XComArg:
    """Return what a stage returned, behind its gate."""
    return gate.override(task_id="gate", outlets=[asset(suite)])(suite, done)


@dag(
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    tags=["souk", "release"],
    params=PARAMS,
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(seconds=20),
        # What souk explains does not go away by itself; a lost connection or a killed worker may.
        "retry_policy": ExceptionRetryPolicy([RetryRule("souk.errors.SoukError", RetryAction.FAIL)]),
    },
)
def recommendations() -> None:
    """Order the stages, each behind the gate of the one before."""
    with TaskGroup("land", tooltip="Take the input in"):
        landed = checked("landed", stage.override(task_id="land")("land"))
    with TaskGroup("profiles", tooltip="What shoppers and items are like"):
        profiles = checked("profiles", stage.override(task_id="build")("build_profiles", landed))
    with TaskGroup("encode", tooltip="Texts to vectors, with Spark"):
        encoded = checked("encoded", encoding := stage.override(task_id="encode")("encode", landed))
    with TaskGroup("refine", tooltip="Better descriptions, with proof"):
        fitting = stage.override(task_id="fit")("fit_refiner", landed)
        generated = stage.override(task_id="generate")("generate", landed, fitting)
        approve = HITLOperator(
            task_id="approve", subject=QUESTION, options=ANSWERS, defaults=ANSWERS[1], response_timeout=DAY
        )
        settle = stage.override(task_id="settle", trigger_rule="none_failed_min_one_success")
        settled = settle("settle", landed, generated, approve.output)
        ask(generated) >> [approve, settled]
        refined = checked("refined", settled)
    with TaskGroup("train", tooltip="Learn from what shoppers did"):
        trained = checked("trained", training := stage.override(task_id="train")("train", landed))
    with TaskGroup("publish", tooltip="Load, check, show"):
        candidate = checked("candidate", stage.override(task_id="load")("load", landed, trained))
        better = stage.override(task_id="compare")("compare", landed, candidate)
        stage.override(task_id="publish", outlets=[asset("release")])("publish", better)
    profiles >> encoding
    encoded >> fitting
    refined >> training


recommendations()
