"""Land a data set in `raw.*`: checked, pseudonymised, resumable, and all at once.

Chunks are staged, each in a transaction of its own; when the last one is in, one transaction moves them to their
tables. A landing is named by the fingerprint of its input: the same input lands once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from souk.contracts import COLUMNS, KEYS, Contract, RejectedError, redacted, row_hash
from souk.errors import SoukError
from souk.postgres import connect
from souk.privacy import KEY_VERSION, Keys
from souk.settings import Settings
from souk.sources import Dataset
from souk.sources.contract import Row

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]
ENTITIES = ("product", "event", "query", "review")
DUPLICATE = "duplicate_id"


@dataclass(frozen=True)
class Landing:
    """A complete landing.

    Attributes:
        shop: The shop.
        landing_no: Its number: later ones are higher.
        fingerprint: Hash of the input.
        is_generated: Whether the data was made up.
        rows: Rows of the shop in each raw table, all landings together.
        rejected: Rows of the input that did not land, by reason.
        is_new: False where the same input had landed before.
    """

    shop: str
    landing_no: int
    fingerprint: str
    is_generated: bool
    rows: dict[str, int]
    rejected: dict[str, int]
    is_new: bool


def land(dsn: str, settings: Settings, dataset: Dataset) -> Landing:
    """Land a data set.

    Args:
        dsn: A migrated database.
        settings: Keys, and the share of bad rows that stops a landing.
        dataset: What to land.

    Raises:
        SoukError: Too many rows are bad, there are none, or another process lands the same shop.
    """
    contract = Contract(Keys(settings), datetime.now(UTC))
    with closing(connect(dsn)) as connection:
        only_landing(connection, dataset.shop)
        landing_no, state = _open(connection, dataset)
        if state == "started":
            for entity in ENTITIES:
                _stage(connection, dataset, entity, landing_no, contract, Keys(settings))
            _set_aside(connection, landing_no)
            _refuse_bad_input(connection, dataset, landing_no, settings.quarantine_limit)
            _move(connection, landing_no)
        else:
            log.info("this input has landed before, as landing %s; what has landed since stays in force", landing_no)
        return Landing(
            shop=dataset.shop,
            landing_no=landing_no,
            fingerprint=dataset.fingerprint,
            is_generated=dataset.is_generated,
            rows=_count(connection, dataset.shop),
            rejected=_by_reason(_rejected(connection, landing_no)),
            is_new=state == "started",
        )


def only_landing(connection: Connection, shop: str) -> None:
    """Hold the lock of a shop's landings as long as the connection is open.

    Raises:
        SoukError: Another process holds it.
    """
    taken = connection.execute("select pg_try_advisory_lock(hashtext('souk.land'), hashtext(%s))", [shop]).fetchone()
    if taken is None or not taken[0]:
        raise SoukError(f"Another process lands the shop {shop}", "Wait for it to end.")


def _open(connection: Connection, dataset: Dataset) -> tuple[int, str]:
    connection.execute(
        "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state)"
        " values (%s, %s, %s, %s, %s, 'started') on conflict (shop, manifest_hash) do nothing",
        [dataset.shop, dataset.source, dataset.fingerprint, dataset.is_generated, dataset.has_clock],
    )
    row = connection.execute(
        "select landing_no, state from raw.landing where shop = %s and manifest_hash = %s",
        [dataset.shop, dataset.fingerprint],
    ).fetchone()
    connection.commit()
    assert row is not None
    return row[0], row[1]


def _chunks(dataset: Dataset, entity: str) -> Iterator[list[Row]]:
    return {
        "product": dataset.products,
        "event": dataset.events,
        "query": dataset.queries,
        "review": dataset.reviews,
    }[entity]()


def _stage(
    connection: Connection, dataset: Dataset, entity: str, landing_no: int, contract: Contract, keys: Keys
) -> None:
    row = connection.execute(
        "select coalesce((chunks ->> %s)::integer, 0) from raw.landing where landing_no = %s", [entity, landing_no]
    ).fetchone()
    done = row[0] if row else 0
    rows = 0
    for number, chunk in enumerate(_chunks(dataset, entity)):
        rows += len(chunk)
        if number < done:
            continue
        rejected = _stage_chunk(connection, dataset.shop, entity, landing_no, chunk, contract, keys)
        connection.execute(
            "update raw.landing set chunks = chunks || jsonb_build_object(%s::text, %s::integer),"
            " row_counts = row_counts || jsonb_build_object(%s::text, %s::integer) where landing_no = %s",
            [entity, number + 1, entity, rows, landing_no],
        )
        _count_rejected(connection, landing_no, entity, rejected)
        connection.commit()
        log.info("landed %s: %s rows", entity, f"{rows:,}")


def _stage_chunk(
    connection: Connection,
    shop: str,
    entity: str,
    landing_no: int,
    chunk: list[Row],
    contract: Contract,
    keys: Keys,
) -> Counter[str]:
    """Stage the good rows of a chunk and set the others aside; return how many, by reason."""
    columns = COLUMNS[entity]
    rejects: list[tuple[str, Row]] = []
    contacts: dict[str, object] = {}
    staging, names = f"raw.{entity}_staging", ", ".join(("shop", "landing_no", *columns))
    with connection.cursor() as cursor:
        # COPY into a table with row-level security is refused to all but superusers.
        cursor.execute(f"create temporary table chunk on commit drop as select {names} from {staging} with no data")
        with cursor.copy(f"copy chunk ({names}) from stdin") as copy:
            for row in chunk:
                try:
                    checked = contract.check(entity, row)
                except RejectedError as rejection:
                    rejects.append((str(rejection), row))
                    continue
                copy.write_row((shop, landing_no, *(checked[column] for column in columns)))
                if row.get("contact") and checked.get("user_key"):
                    contacts[checked["user_key"]] = row["contact"]
        cursor.execute(f"insert into {staging} ({names}) select {names} from chunk")
        cursor.executemany(
            "insert into ops.quarantine (shop, entity, reason, row_hash, row_key, payload, landing_no)"
            " values (%s, %s, %s, %s, %s, %s::jsonb, %s) on conflict do nothing",
            [
                (shop, entity, why, row_hash(row), _printable(row.get(KEYS[entity])), redacted(entity, row), landing_no)
                for why, row in rejects
            ],
        )
        cursor.executemany(
            "insert into vault.person_staging (shop, user_key, key_version, sealed, landing_no)"
            " values (%s, %s, %s, %s, %s)",
            [(shop, user, KEY_VERSION, keys.seal(user, contact), landing_no) for user, contact in contacts.items()],
        )
    return Counter(why for why, _ in rejects)


def _printable(value: object) -> str | None:
    if value is None:
        return None
    return str(value)[:200].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _refuse_bad_input(connection: Connection, dataset: Dataset, landing_no: int, limit: float) -> None:
    row = connection.execute("select row_counts from raw.landing where landing_no = %s", [landing_no]).fetchone()
    totals: dict[str, int] = row[0] if row else {}
    rejected = _rejected(connection, landing_no)
    for entity in ENTITIES:
        total = totals.get(entity, 0)
        # Of two versions of a row the later one lands: nothing is lost.
        reasons = {reason: count for reason, count in rejected.get(entity, {}).items() if reason != DUPLICATE}
        bad = sum(reasons.values())
        problem = None
        if entity == "product" and total == 0:
            problem = f"{dataset.source} has no products"
        elif bad > limit * total:
            listing = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            problem = f"{bad:,} of {total:,} {entity} rows are bad, more than {limit:.0%}: {listing}"
        if problem:
            _forget(connection, landing_no)
            raise SoukError(
                problem, "Look at ops.quarantine, correct the input or SOUK_QUARANTINE_LIMIT, and land it again."
            )


def _forget(connection: Connection, landing_no: int) -> None:
    """Take back what was staged, so that nothing half-landed stays; the quarantine keeps the evidence."""
    for table in (*(f"raw.{entity}_staging" for entity in ENTITIES), "vault.person_staging"):
        connection.execute(f"delete from {table} where landing_no = %s", [landing_no])
    connection.execute("delete from raw.landing where landing_no = %s", [landing_no])
    connection.commit()


def _set_aside(connection: Connection, landing_no: int) -> None:
    """Put staged rows that cannot be moved into the quarantine, in one transaction.

    Of rows with the same key the last one stays; an earlier one counts where it differs. Events and reviews of products
    that the shop does not have go.
    """
    for entity in ENTITIES:
        key, staging = KEYS[entity], f"raw.{entity}_staging"
        rejected = {
            DUPLICATE: _quarantine(
                connection,
                entity,
                DUPLICATE,
                f"from {staging} as s inner join (select {key}, max(row_no) as last_no from {staging}"
                f" where landing_no = %(landing_no)s group by {key} having count(*) > 1) as w on w.{key} = s.{key}"
                f" inner join {staging} as k on k.row_no = w.last_no"
                " where s.landing_no = %(landing_no)s and s.row_no < w.last_no"
                " and to_jsonb(s) - 'row_no' <> to_jsonb(k) - 'row_no'",
                landing_no,
            )
        }
        connection.execute(
            f"delete from {staging} as s using {staging} as later where s.landing_no = %s"
            f" and later.landing_no = s.landing_no and later.{key} = s.{key} and later.row_no > s.row_no",
            [landing_no],
        )
        if entity in ("event", "review"):
            unknown = f"from {staging} as s where s.landing_no = %(landing_no)s" + "".join(
                f" and not exists (select from {products} as p where p.shop = s.shop and p.item_id = s.item_id{ours})"
                for products, ours in (
                    ("raw.product", ""),
                    ("raw.product_staging", " and p.landing_no = s.landing_no"),
                )
            )
            rejected["unknown_item"] = _quarantine(connection, entity, "unknown_item", unknown, landing_no)
            connection.execute(f"delete {unknown}", {"landing_no": landing_no})
        _count_rejected(connection, landing_no, entity, Counter(rejected))
    connection.commit()


def _quarantine(connection: Connection, entity: str, reason: str, bad: str, landing_no: int) -> int:
    """Copy the staged rows `s` that `bad` finds, a query from its from clause on, and return how many they are."""
    row = connection.execute(
        f"with bad as materialized (select s.* {bad}), kept as ("
        "insert into ops.quarantine (shop, entity, reason, row_hash, row_key, payload, landing_no)"
        f" select s.shop, '{entity}', '{reason}', md5((to_jsonb(s) - 'row_no')::text), s.{KEYS[entity]},"
        " to_jsonb(s) - 'user_key' - 'row_no', s.landing_no from bad as s on conflict do nothing)"
        " select count(*) from bad",
        {"landing_no": landing_no},
    ).fetchone()
    return int(row[0]) if row else 0


def _count_rejected(connection: Connection, landing_no: int, entity: str, found: Counter[str]) -> None:
    """Add to the counts of the landing, in the transaction in which the rows were set aside."""
    if found := +found:
        rejected = _rejected(connection, landing_no)
        rejected[entity] = dict(Counter(rejected.get(entity, {})) + found)
        connection.execute(
            "update raw.landing set reject_counts = %s where landing_no = %s", [Jsonb(rejected), landing_no]
        )


def _move(connection: Connection, landing_no: int) -> None:
    """Move everything staged to its tables, in one transaction."""
    for entity in ENTITIES:
        key, columns = KEYS[entity], ("shop", "landing_no", *COLUMNS[entity])
        names, staging = ", ".join(columns), f"raw.{entity}_staging"
        # A product has versions; what has happened does not change.
        update = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("shop", key))
        action = f"update set {update}" if entity == "product" else "nothing"
        moved = connection.execute(
            f"insert into raw.{entity} ({names}) select {names} from {staging} where landing_no = %s"
            f" on conflict (shop, {key}) do {action}",
            [landing_no],
        ).rowcount
        staged = connection.execute(f"delete from {staging} where landing_no = %s", [landing_no]).rowcount
        if staged > moved:
            log.info("%s of the %s rows have landed before, and stay as they are", f"{staged - moved:,}", entity)
    connection.execute(
        "insert into vault.person (shop, user_key, key_version, sealed)"
        " select distinct on (shop, user_key) shop, user_key, key_version, sealed from vault.person_staging"
        " where landing_no = %s order by shop, user_key"
        " on conflict (shop, user_key) do update set sealed = excluded.sealed, key_version = excluded.key_version",
        [landing_no],
    )
    connection.execute("delete from vault.person_staging where landing_no = %s", [landing_no])
    connection.execute(
        "update raw.landing set state = 'complete', completed_at = now(),"
        " watermark = (select max(event_at) from raw.event where landing_no = %s) where landing_no = %s",
        [landing_no, landing_no],
    )
    # Without statistics the first build of the marts picks nested loops.
    connection.execute("analyze raw.landing, raw.product, raw.event, raw.query, raw.review")
    connection.commit()


def count_rows(dsn: str, shop: str) -> dict[str, int]:
    """Return the rows of a shop in each raw table."""
    with closing(connect(dsn)) as connection:
        return _count(connection, shop)


def _count(connection: Connection, shop: str) -> dict[str, int]:
    counts = {}
    for entity in ENTITIES:
        row = connection.execute(f"select count(*) from raw.{entity} where shop = %s", [shop]).fetchone()
        counts[entity] = row[0] if row else 0
    return counts


def _rejected(connection: Connection, landing_no: int) -> dict[str, dict[str, int]]:
    """Return how many rows of a landing were set aside: entity, reason, rows."""
    row = connection.execute("select reject_counts from raw.landing where landing_no = %s", [landing_no]).fetchone()
    return dict(row[0]) if row else {}


def _by_reason(rejected: dict[str, dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = sum(map(Counter, rejected.values()), Counter())
    return dict(sorted(total.items()))
