"""The DAG of souk, on this occasion with a fault: titles get lost after landing. (Airflow looks for the word dag.)"""

from __future__ import annotations

from typing import Any

import psycopg

from dags.recommendations import recommendations
from souk import pipeline
from souk.settings import Settings

land = pipeline.land


def land_and_lose_titles(params: dict[str, Any]) -> dict[str, Any]:
    """Land, then blank the titles of three products."""
    landed = land(params)
    with psycopg.connect(str(Settings.from_env().database_url)) as connection:
        connection.execute(
            "update raw.product set title = ' ' where item_id in (select item_id from raw.product order by 1 limit 3)"
        )
    return landed


pipeline.land = land_and_lose_titles
recommendations()
