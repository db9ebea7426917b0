"""Which product follows which, as training takes it: from the mart, or counted by Spark from the lake."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.recommender.edges import NEIGHBOURS, Edges, strongest
from souk.event_lake import export_events
from souk.settings import Settings
from souk.shoppers import Connection, stream


def read_transitions(
    connection: Connection, settings: Settings, shop: str, item_ids: Sequence[str]
) -> tuple[Edges, Edges]:
    """Return the transitions without each shopper's last new product, and all.

    Products without a vector keep their places in the sequences; their edges are left out.

    Args:
        connection: Where `place_items` was called.
        settings: What counts them, and where the lake is.
        shop: The shop.
        item_ids: The products, in the order of their positions.
    """
    events = settings.lake / shop / "events"
    if settings.edges == "spark":
        export_events(connection, shop, events)
        table = _counted_by_spark(settings, shop, events)
        return _of_table(table, "held", item_ids), _of_table(table, "all", item_ids)
    if events.exists():
        # No export would take an erased shopper out of it.
        shutil.rmtree(events)
    return _of_mart(connection, shop, "held"), _of_mart(connection, shop, "all")


def _of_mart(connection: Connection, shop: str, cut: str) -> Edges:
    rows = list(
        stream(
            connection,
            "select a.place, array_agg(b.place order by b.place), array_agg(t.val order by b.place)"
            " from marts.fct_item_transitions as t inner join item_place as a on a.item_id = t.item_id"
            " inner join item_place as b on b.item_id = t.next_item_id"
            " where t.shop = %s and t.cut = %s group by a.place",
            [shop, cut],
        )
    )
    return strongest(
        np.repeat(np.array([place for place, _, _ in rows], int), [len(places) for _, places, _ in rows]),
        np.array([place for _, places, _ in rows for place in places], int),
        np.array([value for _, _, values in rows for value in values], np.float32),
        NEIGHBOURS,
    )


def _counted_by_spark(settings: Settings, shop: str, events: Path) -> pa.Table:
    from spark_jobs.item_transitions import item_transitions
    from spark_jobs.session import session

    with (
        session("souk transitions", settings) as spark,
        tempfile.TemporaryDirectory(dir=settings.lake / shop, prefix="transitions-") as scratch,
    ):
        edges = Path(scratch) / "edges"
        item_transitions(spark, events, edges)
        return pq.read_table(sorted(edges.glob("*.parquet")))


def _of_table(table: pa.Table, cut: str, item_ids: Sequence[str]) -> Edges:
    own = table.filter(pc.equal(table["cut"], cut))
    places = pa.array(item_ids, pa.string())
    src, dst = (pc.index_in(own[name], value_set=places).combine_chunks() for name in ("item_id", "next_item_id"))
    kept = pc.and_(pc.is_valid(src), pc.is_valid(dst)).to_numpy(zero_copy_only=False)
    return strongest(
        src.fill_null(0).to_numpy()[kept], dst.fill_null(0).to_numpy()[kept], own["val"].to_numpy()[kept], NEIGHBOURS
    )
