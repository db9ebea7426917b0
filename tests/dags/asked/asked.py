"""The DAG of souk with stages that do nothing, where a person is asked; the answer comes from the run's seed.

Settling keeps the answer as it always does. (Airflow looks for the word dag.)
"""

from __future__ import annotations

import threading
import time
from typing import Any

from dags.recommendations import ANSWERS, recommendations
from souk import gates, pipeline, refinement
from spark_jobs.refine_descriptions import RefineReport

Stage = dict[str, Any]
LANDED = {
    "shop": "asked", "release_id": "asked-1", "run_id": "run", "content_hash": "c", "is_generated": True, "rows": {},
    "events": 1, "refine": True, "refine_share": 0.5,
}  # fmt: skip


def land(params: Stage) -> Stage:
    """Take no data in."""
    return {**LANDED, "seed": params["seed"]}


def generate(landed: Stage, fitted: Stage) -> Stage:
    """Ask whether half of the catalogue may change, and answer from another thread, as the UI's server does."""
    report = RefineReport(2, 2, 0, 2, {}, "v1", f"texts-{landed['seed']}")
    threading.Thread(target=answer, args=[ANSWERS[landed["seed"]]], daemon=True).start()
    made = {"report": vars(report), "share": 0.5, "must_ask": True, "question": "2 descriptions would change."}
    return {**landed, **made, "version": "v1", "reason": ""}


def answer(choice: str) -> None:
    """Answer the question that waits, by the functions of Airflow's API for it."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils import timezone
    from airflow.utils.session import create_session
    from sqlalchemy import select

    while True:
        time.sleep(0.2)
        with create_session() as session:
            waiting = session.scalar(select(TaskInstance).where(TaskInstance.state == "awaiting_input"))
            if waiting is None:
                continue
            asked = session.get(HITLDetail, waiting.id)
            asked.responded_by = {"id": "anna", "name": "anna"}
            asked.responded_at, asked.chosen_options, asked.params_input = timezone.utcnow(), [choice], {}
            handle_event_submit(TriggerEvent(asked.as_resume_event_payload()), task_instance=waiting, session=session)
            return


def settle(*arguments: Any) -> dict[str, int]:  # noqa: ANN401
    """Say what would be in force."""
    return {"refined": 0 if arguments[-1] else 2}


def hand_on(*stages: Stage) -> Stage:
    """Do nothing."""
    return stages[-1]


for name in ("build_profiles", "encode", "fit_refiner", "train", "load", "compare", "publish"):
    setattr(pipeline, name, hand_on)
pipeline.land, pipeline.generate, gates.guard = land, generate, hand_on
refinement.settle, refinement.is_settled = settle, lambda *_: False
recommendations()
