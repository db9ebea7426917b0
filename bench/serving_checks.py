"""What the serving benchmark checks beside speed: recall, full lists, events that show at once, reads under writes."""

from __future__ import annotations

import json
import multiprocessing
import time
from contextlib import closing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from bench.clustered_shop import BRANDS, ClusteredShop, user_key
from bench.serving_clients import Arm, measure, open_session

if TYPE_CHECKING:
    from bench.serving import Report

K = 10
SAMPLES = 200
EVENTS_PER_SECOND, BATCH = 2000, 100
LOG_BATCH = (
    "select count(*) filter (where l.outcome = 'recorded')"
    " from unnest(%s::text[], %s::text[]) as e (user_id, item_id)"
    " cross join lateral api.log_event(e.user_id, e.item_id, 'view') as l (outcome)"
)


def recall(shop: ClusteredShop, arm: Arm, report: Report) -> None:
    """Compare api.similar with exact search: at defaults, and with filters of several shares."""
    rng = np.random.default_rng(11)
    some = rng.integers(0, shop.size, SAMPLES).tolist()
    brand = np.array(list(BRANDS), dtype=object)
    filters: dict[str, list[tuple[dict[str, str], NDArray[np.bool_]]]] = {
        "defaults": [({}, np.ones(shop.size, bool))],
        **{
            f"brand of {share:.1%}": [({"brand": name}, shop.brand == place)]
            for place, (name, share) in enumerate(zip(brand, BRANDS.values(), strict=True))
        },
        # Their products lie anywhere but near the one that is asked for.
        "one department": [
            ({"category": f"Department {number}"}, shop.cluster % 20 == number) for number in range(0, 20, 4)
        ],
        "one category": [
            ({"category": f"Shelf {number}"}, shop.cluster == number)
            for number in rng.integers(0, len(shop.centres), 10).tolist()
        ],
        "max_price of 30%": [
            ({"max_price": float(np.quantile(shop.price, 0.3))}, shop.price <= np.quantile(shop.price, 0.3))
        ],
    }
    with closing(open_session(arm)) as session:
        for name, cases in filters.items():
            hits = wanted = short = 0
            seconds = []
            for turn, item in enumerate(some):
                chosen, mask = cases[turn % len(cases)]
                expected = _exact(shop, item, mask)
                start = time.perf_counter()
                rows = session.execute(
                    "select item_id, fewer_because from api.similar(%s, %s, %s::jsonb)",
                    [shop.item_ids[item], K, json.dumps(chosen)],
                ).fetchall()
                seconds.append(time.perf_counter() - start)
                found = {int(row[0][1:]) for row in rows}
                hits += len(found & expected)
                wanted += len(expected)
                short += len(rows) < K and not (rows and rows[0][1])
            report.add(
                shop.size,
                f"similar, {name}: recall@10",
                hits / wanted,
                "share",
                target=0.99 if name == "defaults" else 0.95,
                at_least=True,
            )
            report.add(shop.size, f"similar, {name}: short lists without reason", short, "lists", target=0)
            report.add(shop.size, f"similar, {name}: p50", float(np.median(seconds)) * 1000, "ms")


def _exact(shop: ClusteredShop, item: int, mask: NDArray[np.bool_]) -> set[int]:
    numbers = np.flatnonzero(mask)
    cosine = np.empty(len(numbers), np.float32)
    query = shop.vectors[item].astype(np.float32)
    for first in range(0, len(numbers), 100_000):
        part = numbers[first : first + 100_000]
        cosine[first : first + len(part)] = shop.vectors[part].astype(np.float32) @ query
    cosine[numbers == item] = -np.inf
    wanted = min(K, len(numbers) - bool(mask[item]))
    return set(numbers[np.argsort(-cosine, kind="stable")[:wanted]].tolist())


def event_to_visible(shop: ClusteredShop, application: str, report: Report) -> None:
    """Log a click on the first recommended product, and look whether the next statement takes it into account."""
    seconds, unseen = [], 0
    with closing(psycopg.connect(application, autocommit=True)) as session:
        for user in range(0, 1000, 20):
            rows = session.execute("select item_id from api.recommend(%s)", [user_key(user)]).fetchall()
            first = rows[0][0]
            start = time.perf_counter()
            session.execute("select api.log_event(%s, %s, 'click')", [user_key(user), first])
            rows = session.execute("select item_id, reasons from api.recommend(%s)", [user_key(user)]).fetchall()
            seconds.append(time.perf_counter() - start)
            is_reason = any(
                because["item_id"] == first
                for _, reasons in rows
                for reason in reasons
                for because in reason.get("because", [])
            )
            unseen += first in {row[0] for row in rows} or not is_reason
    report.add(shop.size, "clicks that the next statement did not reflect", unseen, "of 50", target=0)
    report.add(shop.size, "log an event and get the new list, p50", float(np.median(seconds)) * 1000, "ms")


def logging_while_reading(shop: ClusteredShop, arms: dict[str, Arm], report: Report) -> None:
    """Read with and without a connection that logs 2,000 events a second, in turns."""
    context = multiprocessing.get_context("spawn")
    quiet: dict[str, list[float]] = {name: [] for name in arms}
    busy: dict[str, list[float]] = {name: [] for name in arms}
    rates = []
    for turn in range(4):
        for name, timing in measure(arms, 1, 2, 0.7).items():
            quiet[name].extend(timing.seconds)
        stop, results = context.Event(), context.Queue()
        dsn = next(iter(arms.values())).dsn
        writer = context.Process(target=_log, args=(dsn, shop.size, turn, stop, results))
        writer.start()
        results.get(timeout=60)
        for name, timing in measure(arms, 1, 2, 0.7).items():
            busy[name].extend(timing.seconds)
        stop.set()
        rates.append(results.get(timeout=60))
        writer.join()
    report.add(
        shop.size,
        "events logged on one connection",
        float(np.mean(rates)),
        "1/s",
        target=EVENTS_PER_SECOND * 0.99,
        at_least=True,
    )
    for name in arms:
        report.add(
            shop.size,
            f"{name}, p50 while events are logged",
            float(np.median(busy[name])) * 1000,
            "ms",
            float(np.median(quiet[name])) * 1000,
            1.2,
        )


def _log(dsn: str, items: int, seed: int, stop: Event, results: Queue[Any]) -> None:
    """Log batches at the wanted rate until told to stop; report readiness, then the events per second."""
    rng = np.random.default_rng(100 + seed)
    recorded = 0
    with closing(psycopg.connect(dsn, autocommit=True)) as session:
        start = time.perf_counter()
        results.put("ready")
        while not stop.is_set():
            users = [user_key(user) for user in rng.integers(0, 50_000, BATCH).tolist()]
            chosen = [f"p{item}" for item in rng.integers(0, items, BATCH).tolist()]
            row = session.execute(LOG_BATCH, [users, chosen], prepare=True).fetchone()
            recorded += int(row[0]) if row else 0
            ahead = start + recorded / EVENTS_PER_SECOND - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
        results.put(recorded / (time.perf_counter() - start))


def threshold(connection: psycopg.Connection[Any], release_id: str, shop: ClusteredShop) -> None:
    """Print the time of exact search and of the index, by how many products pass a filter."""
    register_vector(connection)
    rng = np.random.default_rng(13)
    some = [HalfVector(shop.vectors[item]) for item in rng.integers(0, shop.size, 20).tolist()]
    connection.execute("set hnsw.ef_search = 200; set hnsw.iterative_scan = relaxed_order")
    statements = {
        "exact": "select i.item_no from unnest(internal.matching(%(release)s, %(filters)s, %(size)s)) as w (item_no)"
        " inner join serving.item as i on i.release_id = %(release)s and i.item_no = w.item_no"
        " order by i.text_vector <#> %(vector)s limit 10",
        "index": "select item_no from serving.item where release_id = %(release)s and price <= %(price)s"
        " order by text_vector <=> %(vector)s limit 10",
    }
    # Whoever asks the index has seen that it is worth it: no other plan for that statement.
    plans = {"exact": "on", "index": "off"}
    print(f"{'matching':>9} {'exact ms':>9} {'index ms':>9}")
    for matching in (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000):
        if matching > shop.size:
            break
        price = float(np.sort(shop.price)[matching - 1])
        times = {}
        for name, statement in statements.items():
            connection.execute(f"set enable_sort = {plans[name]}; set enable_bitmapscan = {plans[name]}")
            seconds = []
            for vector in [*some[:3], *some]:
                values = {"release": release_id, "size": shop.size, "vector": vector, "price": price}
                values["filters"] = Jsonb({"max_price": price})
                start = time.perf_counter()
                connection.execute(statement, values, prepare=False).fetchall()
                seconds.append(time.perf_counter() - start)
            times[name] = float(np.median(seconds[3:])) * 1000
        print(f"{matching:>9,} {times['exact']:9.2f} {times['index']:9.2f}", flush=True)
