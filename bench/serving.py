"""How fast, how exact and how large serving is, next to the bare pgvector query: `make bench-serving`.

Generates a shop, loads it with the real loader into an embedded Postgres of its own, and calls the api from other
processes. `--threshold` measures instead from how many matching products on the vector index beats exact search.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bench.clustered_shop import USERS, ClusteredShop, describe
from bench.serving_checks import event_to_visible, logging_while_reading, recall, threshold
from bench.serving_clients import Arm, measure, open_session
from ml.search import build_index
from souk import release
from souk.artefacts import write_release
from souk.postgres import EmbeddedPostgres, create_database
from souk.settings import Settings
from sql.migrate import migrate

RELEASE = "bench"
SAMPLES = 1000
PEER = "select item_no from serving.item where release_id = %s order by text_vector <=> %s limit 100"


@dataclass
class Report:
    """Rows of figures, printed as they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        items: int,
        name: str,
        ours: float,
        unit: str,
        peer: float | None = None,
        target: float | None = None,
        *,
        at_least: bool = False,
    ) -> None:
        """Add a figure; the target is for the ratio to the peer where there is one, else for the figure."""
        ratio = ours / peer if peer else None
        judged = ours if ratio is None else ratio
        met = None if target is None else bool(judged >= target if at_least else judged <= target)
        self.rows.append(
            {
                "items": items,
                "name": name,
                "ours": round(ours, 4),
                "peer": peer and round(peer, 4),
                "ratio": ratio and round(ratio, 3),
                "unit": unit,
                "target": target,
                "met": met,
            }
        )
        verdict = "" if met is None else f"  {'met' if met else 'MISSED'} ({'≥' if at_least else '≤'} {target:g})"
        against = f"  peer {peer:10.3f}  ratio {ratio:6.2f}" if ratio is not None else ""
        print(f"{items:>9,}  {name:44} {ours:12.3f} {unit:10}{against}{verdict}", flush=True)


def main() -> None:
    """Measure, print and write var/bench/serving.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes of the catalogue")
    parser.add_argument("--threshold", action="store_true", help="compare exact search with the index, and end")
    parser.add_argument("--blocks", type=int, default=8, help="turns of each statement")
    arguments = parser.parse_args()
    settings = Settings.from_env()
    report = Report()
    for items in arguments.items:
        home = settings.home / "bench" / "serving"
        server = EmbeddedPostgres(home, settings.postgres_port + 1)
        shutil.rmtree(server.root, ignore_errors=True)
        try:
            server.start()
            _bench(server, home, items, arguments, report)
        finally:
            server.stop()
            shutil.rmtree(server.root, ignore_errors=True)
            shutil.rmtree(home, ignore_errors=True)
    if not arguments.threshold:
        target = settings.home / "bench" / "serving.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"name": "serving", "generated": True, "rows": report.rows}, indent=2) + "\n")
        missed = [row["name"] for row in report.rows if row["met"] is False]
        print(f"{target}: {len(report.rows)} figures" + (f", missed: {', '.join(missed)}" if missed else ""))


def _bench(server: EmbeddedPostgres, home: Path, items: int, arguments: argparse.Namespace, report: Report) -> None:
    shop = ClusteredShop(items)
    print(describe(shop), flush=True)
    dsn = _publish(server, shop, home, report)
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        application = _application(connection, dsn)
        if arguments.threshold:
            threshold(connection, RELEASE, shop)
            return
        _sizes(connection, items, report)
        _warm(connection)
    arms = _arms(shop, dsn, application)
    _speed(arms, items, arguments.blocks, report)
    recall(shop, arms["similar"], report)
    event_to_visible(shop, application, report)
    logging_while_reading(shop, {name: arms[name] for name in ("recommend", "search", "similar")}, report)


def _publish(server: EmbeddedPostgres, shop: ClusteredShop, home: Path, report: Report) -> str:
    create_database(server.dsn("postgres"), RELEASE)
    dsn = server.dsn(RELEASE)
    migrate(dsn)
    start = time.perf_counter()
    documents = [shop.document(item) for item in range(shop.size)]
    index = build_index(documents, shop.vectors.astype(np.float32), shop.encode)
    del documents
    report.add(shop.size, "build the search index", time.perf_counter() - start, "s")
    start = time.perf_counter()
    folder = home / "release"
    write_release(
        folder, RELEASE, shop.items(), shop.catalogue(), shop.recommender(), index, shop.shoppers(), shop.categories()
    )
    del index
    report.add(shop.size, "draw the graph and write the release", time.perf_counter() - start, "s")
    start = time.perf_counter()
    release.load(dsn, release.Release(RELEASE, RELEASE, RELEASE, None, "generated", True, False), folder, 0)
    report.add(shop.size, "load and index the release", time.perf_counter() - start, "s")
    with closing(psycopg.connect(dsn)) as connection:
        [(found,)] = connection.execute(
            "select metrics from serving.release where release_id = %s", [RELEASE]
        ).fetchall()
    for index, name in (("index", "texts"), ("sequence", "sequence model")):
        report.add(shop.size, f"index of the {name}: hnsw.ef_search", found[f"{index}_effort"], "")
        report.add(shop.size, f"index of the {name}: recall@10 with it", found[f"{index}_recall"], "share")
    release.mark_audited(dsn, RELEASE)
    release.publish(dsn, RELEASE)
    shutil.rmtree(folder)
    return dsn


def _application(connection: psycopg.Connection[Any], dsn: str) -> str:
    """Return the DSN of a login that may call the api and nothing else."""
    password = os.urandom(12).hex()
    connection.execute(sql.SQL("create role bench_application login password {}").format(sql.Literal(password)))
    connection.execute("grant souk_app to bench_application")
    connection.execute("insert into ops.tenant_role (role_name, shop) values ('bench_application', %s)", [RELEASE])
    return make_conninfo(dsn, user="bench_application", password=password)


def _warm(connection: psycopg.Connection[Any]) -> None:
    connection.execute("create extension if not exists pg_prewarm")
    connection.execute(
        "select sum(pg_prewarm(c.oid::regclass, case when c.relkind = 'i' then 'buffer' else 'read' end))"
        " from pg_class as c where c.relnamespace = 'serving'::regnamespace and c.relkind in ('r', 'i')"
    )


def _arms(shop: ClusteredShop, dsn: str, application: str) -> dict[str, Arm]:
    rng = np.random.default_rng(7)
    some = rng.integers(0, shop.size, SAMPLES).tolist()
    users = list(shop.shoppers())
    chosen = [users[place] for place in rng.integers(0, len(users), SAMPLES).tolist()]
    queries = shop.queries(SAMPLES)
    near_items = [(RELEASE, HalfVector(shop.vectors[item])) for item in some]
    with closing(open_session(Arm("", [], {}, application))) as session:
        vectors = [session.execute("select api.encode(%s)", [query]).fetchone() for query in queries]
    near_queries = [(RELEASE, row[0]) for row in vectors if row and row[0] is not None]
    with closing(psycopg.connect(dsn)) as connection:
        [(effort,)] = connection.execute(
            "select metrics ->> 'index_effort' from serving.release where release_id = %s", [RELEASE]
        ).fetchall()
    served = {"hnsw.ef_search": effort, "hnsw.iterative_scan": "relaxed_order"}
    return {
        "peer": Arm(PEER, near_items, served, dsn),
        "recommend": Arm("select * from api.recommend(%s)", [(user,) for user in chosen], {}, application),
        "similar": Arm("select * from api.similar(%s)", [(shop.item_ids[item],) for item in some], {}, application),
        # The vector of a query lies between products: the index looks at more of them than for a product's own.
        "peer of search": Arm(PEER, near_queries, served, dsn),
        "search": Arm("select * from api.search(%s)", [(query,) for query in queries], {}, application),
        "encode": Arm("select api.encode(%s)", [(query,) for query in queries], {}, application),
        "peer, ef 100": Arm(PEER, near_items, {"hnsw.ef_search": "100"}, dsn),
    }


def _speed(arms: dict[str, Arm], items: int, blocks: int, report: Report) -> None:
    targets = {"recommend": ("peer", 2.0), "similar": ("peer", 1.3), "search": ("peer of search", 2.0)}
    for clients in (1, 2, 4):
        timings = measure(arms, clients, blocks if clients == 1 else max(2, blocks // 2), 0.5)
        for name, timing in timings.items():
            label = f"{name}, {clients} client{'s' if clients > 1 else ''}"
            if clients == 1:
                peer, target = targets.get(name, ("", 1.0 if name == "encode" else None))
                limit = 25.0 if name in ("recommend", "search") and items <= 100_000 else None
                against = timings[peer].percentile(50) if peer else None
                report.add(items, f"{label}, p50", timing.percentile(50), "ms", against, target)
                report.add(items, f"{label}, p95", timing.percentile(95), "ms", target=limit)
                report.add(items, f"{label}, p99", timing.percentile(99), "ms")
            report.add(items, f"{label}, calls per second", timing.rate, "1/s")


def _sizes(connection: psycopg.Connection[Any], items: int, report: Report) -> None:
    for table in ("item", "edge", "term", "spelling", "user_profile"):
        row = connection.execute(
            "select pg_table_size(c), pg_indexes_size(c) from to_regclass(%s) as c",
            [f"serving.{release.partition(table, RELEASE)}"],
        ).fetchone()
        owners = ("shoppers", USERS) if table == "user_profile" else ("items", items)
        for what, size in zip(("table", "indexes"), row or (0, 0), strict=True):
            report.add(items, f"{table}, {what}, per million {owners[0]}", size / owners[1] * 1e6 / 2**20, "MB")
    vectors = connection.execute(
        "select pg_relation_size(i.indexrelid) from pg_index as i inner join pg_class as c on c.oid = i.indexrelid"
        " inner join pg_am as a on a.oid = c.relam where a.amname = 'hnsw' and i.indrelid = to_regclass(%s)",
        [f"serving.{release.partition('item', RELEASE)}"],
    ).fetchone()
    report.add(items, "of these, vector index, per million items", (vectors or (0,))[0] / items * 1e6 / 2**20, "MB")


if __name__ == "__main__":
    main()
