"""What training learns from: what each shopper did, and which product follows which; of the marts, or of the lake."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.recommender.edges import NEIGHBOURS, Edges, strongest
from souk.event_lake import export_events
from souk.settings import Settings
from souk.shoppers import Behaviour, Connection, History, read_behaviour, read_histories, stream

SHOPPERS_PER_BATCH = 2_000
DAY = 86_400


def read_interactions(
    connection: Connection, settings: Settings, shop: str, item_ids: Sequence[str], gaps: NDArray[np.float64]
) -> tuple[Behaviour, tuple[Edges, Edges]]:
    """Return what shoppers did, and the transitions without each shopper's last new product, and all.

    Products without a vector keep their places in the sequences that transitions are counted in; their edges, and
    their events, are left out.

    Args:
        connection: Where `place_items` was called.
        settings: Whether Spark reads the lake, or Postgres its marts; and where the lake is.
        shop: The shop.
        item_ids: The products, in the order of their positions.
        gaps: As for `souk.shoppers.past`.
    """
    events = settings.lake / shop / "events"
    if settings.edges == "spark":
        export_events(connection, shop, events)
        return _of_lake(connection, settings, shop, events, item_ids, gaps)
    if events.exists():
        # No export would take an erased shopper out of it.
        shutil.rmtree(events)
    behaviour = read_behaviour(connection, shop, gaps, read_histories(connection, shop))
    return behaviour, (_of_mart(connection, shop, "held"), _of_mart(connection, shop, "all"))


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


def _of_lake(
    connection: Connection,
    settings: Settings,
    shop: str,
    events: Path,
    item_ids: Sequence[str],
    gaps: NDArray[np.float64],
) -> tuple[Behaviour, tuple[Edges, Edges]]:
    from spark_jobs.item_transitions import item_transitions
    from spark_jobs.session import session
    from spark_jobs.shopper_histories import shopper_histories

    with tempfile.TemporaryDirectory(dir=settings.lake / shop, prefix="interactions-") as scratch:
        edges, histories = Path(scratch) / "edges", Path(scratch) / "histories"
        with session("souk interactions", settings, is_heavy=True) as spark:
            item_transitions(spark, events, edges)
            shopper_histories(spark, events, histories)
        table = pq.read_table(sorted(edges.glob("*.parquet")))
        behaviour = read_behaviour(connection, shop, gaps, _histories(histories, item_ids))
    return behaviour, (_of_table(table, "held", item_ids), _of_table(table, "all", item_ids))


def _histories(folder: Path, item_ids: Sequence[str]) -> Iterator[History]:
    """Yield what Spark has put together of each shopper, as `read_histories` does."""
    places = {item: place for place, item in enumerate(item_ids)}
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(SHOPPERS_PER_BATCH):
                for user, items, signals, instants in zip(*batch.to_pydict().values(), strict=True):
                    placed = [
                        (places[item], signal, instant / 1_000_000 / DAY)
                        for item, signal, instant in zip(items, signals, instants, strict=True)
                        if item in places
                    ]
                    if placed:
                        yield user, *zip(*placed, strict=True)


def _of_table(table: pa.Table, cut: str, item_ids: Sequence[str]) -> Edges:
    own = table.filter(pc.equal(table["cut"], cut))
    places = pa.array(item_ids, pa.string())
    src, dst = (pc.index_in(own[name], value_set=places).combine_chunks() for name in ("item_id", "next_item_id"))
    kept = pc.and_(pc.is_valid(src), pc.is_valid(dst)).to_numpy(zero_copy_only=False)
    return strongest(
        src.fill_null(0).to_numpy()[kept], dst.fill_null(0).to_numpy()[kept], own["val"].to_numpy()[kept], NEIGHBOURS
    )
