"""The files of the event lake, without a database: what is written again, what is shown, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk import event_lake
from souk.errors import SoukError
from souk.event_lake import EVENTS, Content, by_partition, update, verified_files
from tests.event_lakes import contents, write_lake

DAY = 86_400_000_000
THREE_DAYS = [(f"u{n % 4}", f"i{n % 5}", DAY * (n % 3) + n, f"e{n:03}", n % 3) for n in range(60)]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Events of the first three days of 1970."""
    folder = tmp_path / "events"
    assert write_lake(folder, THREE_DAYS) == ["date=1970-01-01", "date=1970-01-02", "date=1970-01-03"]
    return folder


def state(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def events(folder: Path) -> list[tuple[object, ...]]:
    """What a reader gets, in the order of the events' ids."""
    tables = [pq.read_table(path, partitioning=None) for path in verified_files(folder)]
    table = pa.concat_tables([EVENTS.empty_table(), *tables]).sort_by("event_id")
    table = table.set_column(2, "event_at", table["event_at"].cast(pa.int64()))
    return list(zip(*table.to_pydict().values(), strict=True))


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def edit(folder: Path, **changes: object) -> None:
    """Change the manifest, or the line of the second day."""
    said = manifest(folder)
    line = said["partitions"]["date=1970-01-02"]
    for name, value in changes.items():
        (line if name in line and name != "rows" else said)[name] = value
    (folder / "manifest.json").write_text(json.dumps(said))


def second(folder: Path) -> Path:
    return folder / manifest(folder)["partitions"]["date=1970-01-02"]["file"]


def test_a_date_is_a_file_and_the_manifest_names_it(lake):
    said = manifest(lake)
    assert (said["version"], said["rows"]) == (2, 60)
    assert {name: line["rows"] for name, line in said["partitions"].items()} == {
        f"date=1970-01-0{day}": 20 for day in (1, 2, 3)
    }
    assert sorted(state(lake)) == sorted(["manifest.json", *(line["file"] for line in said["partitions"].values())])
    assert events(lake) == THREE_DAYS
    of_second = pq.read_table(second(lake), partitioning=None)
    assert of_second.schema.equals(EVENTS)
    assert {f"{at:%F}" for at in of_second["event_at"].to_pylist()} == {"1970-01-02"}


def test_the_same_events_write_nothing(lake, caplog):
    caplog.set_level(logging.INFO, logger="souk.event_lake")
    before = state(lake)
    assert write_lake(lake, THREE_DAYS[::-1]) == []
    assert state(lake) == before
    assert "60 events in 3 partitions, 0 of them written" in caplog.text


def test_a_late_event_writes_its_date_alone(lake):
    before = state(lake)
    late = ("u9", "i1", 2 * DAY - 1, "e900", 1)
    assert write_lake(lake, [*THREE_DAYS, late]) == ["date=1970-01-02"]
    after = state(lake)
    assert len(after) == len(before)
    changed = {name.split("/")[0] for name, written in before.items() if after.get(name) != written}
    assert changed == {"manifest.json", "date=1970-01-02"}
    assert events(lake) == [*THREE_DAYS, late]


def test_an_erased_shopper_leaves_no_file_that_knows_him(lake):
    left = [event for event in THREE_DAYS if event[0] != "u1"]
    assert len(write_lake(lake, left)) == 3
    found = [pq.read_table(path, partitioning=None) for path in lake.rglob("*.parquet")]
    assert {user for table in found for user in table["user_key"].to_pylist()} == {"u0", "u2", "u3"}


def test_a_date_without_events_loses_its_file(lake):
    first = [event for event in THREE_DAYS if event[2] < DAY]
    assert write_lake(lake, first) == []
    assert sorted(path.name for path in lake.iterdir()) == ["date=1970-01-01", "manifest.json"]
    assert events(lake) == first
    assert write_lake(lake, []) == []
    assert (sorted(state(lake)), verified_files(lake)) == (["manifest.json"], [])


def test_a_shop_where_nothing_happened_has_a_manifest(tmp_path):
    assert write_lake(tmp_path / "events", []) == []
    assert verified_files(tmp_path / "events") == []


def test_a_killed_export_shows_nothing_and_the_next_one_clears_up(lake, monkeypatch):
    grown = [(user, item, at, f"{name}x", says) for user, item, at, name, says in THREE_DAYS]
    before = state(lake)
    written = []

    def killed_at_the_third(folder, content, rows):
        if len(written) == 2:
            (folder / f"{content.digest}.partial").write_bytes(b"PAR1")
            raise KeyboardInterrupt
        written.append(folder.name)
        return write(folder, content, rows)

    write = event_lake._write
    monkeypatch.setattr(event_lake, "_write", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_lake(lake, grown)
    monkeypatch.undo()
    assert len(state(lake)) == len(before) + 3
    assert {name: state(lake)[name] for name in before} == before
    assert events(lake) == THREE_DAYS
    assert write_lake(lake, grown) == ["date=1970-01-01", "date=1970-01-02", "date=1970-01-03"]
    assert events(lake) == grown
    assert len(state(lake)) == len(before)


def test_a_kill_after_the_manifest_is_cleared_up_by_an_export_that_writes_nothing(lake, monkeypatch):
    left = [event for event in THREE_DAYS if event[0] != "u1"]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(event_lake, "_clear", killed)
    with pytest.raises(KeyboardInterrupt):
        write_lake(lake, left)
    monkeypatch.undo()
    assert events(lake) == left
    assert len(list(lake.rglob("*.parquet"))) == 6
    assert write_lake(lake, left) == []
    assert len(list(lake.rglob("*.parquet"))) == 3


def test_a_file_that_is_not_named_is_not_read(lake):
    stray = lake / "date=1970-01-02" / f"{'0' * 32}.parquet"
    stray.write_bytes(second(lake).read_bytes())
    assert events(lake) == THREE_DAYS
    assert write_lake(lake, THREE_DAYS) == []
    assert not stray.exists()


def test_a_date_is_written_before_the_next_is_read_in_groups_of_rows(lake, monkeypatch):
    monkeypatch.setattr(event_lake, "ROWS_PER_GROUP", 8)
    grown = [(user, item, at, f"{name}x", says) for user, item, at, name, says in THREE_DAYS]
    wanted = {f"date={date}": content for date, content in contents(grown).items()}
    there = []

    def read(names):
        for name in names:
            there.append([(lake / other / f"{wanted[other].digest}.parquet").exists() for other in names])
            yield from ((name, *event) for event in grown if event[2] // DAY == names.index(name))

    assert update(lake, wanted, read) == list(wanted)
    # The first row of a date is what tells that the one before has ended.
    assert there == [[False, False, False], [False, False, False], [True, False, False]]
    with pq.ParquetFile(second(lake)) as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [8, 8, 4]
    assert events(lake) == grown


@pytest.mark.parametrize(
    ("events_read", "said"),
    [
        ([("date=1970-01-01", "u", "i", 0, "e", 1)], "1 events were read of date=1970-01-01, but 2 counted"),
        ([], "No events were read"),
    ],
)
def test_what_was_not_counted_is_not_shown(lake, events_read, said):
    before = manifest(lake)
    with pytest.raises(SoukError, match=said):
        update(lake, {"date=1970-01-01": Content(2, 1, 1)}, lambda names: iter(events_read))
    assert manifest(lake) == before
    assert events(lake) == THREE_DAYS


def truncate(path: Path, size: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def tamper(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def forge(folder: Path, table: pa.Table) -> None:
    """Put another table in the place of the second day, and name it."""
    pq.write_table(table, second(folder))
    edit(folder, sha256=event_lake._sha256(second(folder)))


DAMAGE = {
    "manifest_missing": (lambda lake: (lake / "manifest.json").unlink(), "There is no manifest of events"),
    "manifest_cut": (lambda lake: truncate(lake / "manifest.json", 9), "is damaged"),
    "manifest_not_json": (lambda lake: (lake / "manifest.json").write_bytes(b"\xff{"), "is damaged"),
    "manifest_a_list": (lambda lake: (lake / "manifest.json").write_text("[]"), "is damaged"),
    "manifest_of_another_version": (lambda lake: edit(lake, version=1), "is of version 1, not 2"),
    "manifest_does_not_add_up": (lambda lake: edit(lake, rows=59), "is damaged"),
    "manifest_names_a_file_elsewhere": (lambda lake: edit(lake, file="../events.parquet"), "is damaged"),
    "manifest_names_another_date": (lambda lake: edit(lake, file=f"date=1970-01-01/{'0' * 32}.parquet"), "is damaged"),
    "file_missing": (lambda lake: second(lake).unlink(), "parquet is missing"),
    "file_cut": (lambda lake: truncate(second(lake)), "is not the file that the manifest names"),
    "file_tampered_with": (lambda lake: tamper(second(lake)), "is not the file that the manifest names"),
    "file_of_other_rows": (
        lambda lake: forge(lake, pq.read_table(second(lake), partitioning=None).slice(1)),
        "has 19 rows, the manifest says 20",
    ),
    "file_of_other_columns": (
        lambda lake: forge(lake, pq.read_table(second(lake), partitioning=None).drop_columns(["event_id"])),
        "has other columns",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused_with_what_to_do(lake, damage, said):
    assert events(lake) == THREE_DAYS
    damage(lake)
    with pytest.raises(SoukError, match=said) as refusal:
        verified_files(lake)
    assert f"Remove {lake} and run" in str(refusal.value)


def test_a_file_that_is_no_parquet_is_refused_even_if_it_is_named(lake):
    second(lake).write_bytes(b"PAR1")
    edit(lake, sha256=event_lake._sha256(second(lake)))
    with pytest.raises(SoukError, match="is not a Parquet file"):
        verified_files(lake)


def test_several_damaged_files_are_counted(lake):
    for path in lake.rglob("*.parquet"):
        truncate(path)
    with pytest.raises(SoukError, match="and 2 more files are damaged"):
        verified_files(lake)


@pytest.mark.parametrize(
    "name", [n for n in DAMAGE if n.split("_")[0] == "manifest" or n in ("file_missing", "file_cut")]
)
def test_the_next_export_mends_what_it_can_see(lake, name):
    DAMAGE[name][0](lake)
    write_lake(lake, THREE_DAYS)
    assert events(lake) == THREE_DAYS


def test_many_thin_dates_lie_by_month(tmp_path):
    thin = [("u", f"i{n}", DAY * n, f"e{n:05}", 1) for n in range(event_lake.MAX_DATES + 1)]
    kind, wanted = by_partition(contents(thin[:-1]))
    assert (kind, len(wanted)) == ("date", event_lake.MAX_DATES)
    kind, wanted = by_partition(contents(thin))
    assert (kind, list(wanted)[0], len(wanted)) == ("month", "month=1970-01", 33)
    assert sum(content.rows for content in wanted.values()) == len(thin)
    dates = {f"{n}": Content(event_lake.ROWS_PER_DATE, n, n) for n in range(event_lake.MAX_DATES + 1)}
    assert by_partition(dates)[0] == "date"

    folder = tmp_path / "events"
    assert len(write_lake(folder, thin[:-1])) == event_lake.MAX_DATES
    assert len(write_lake(folder, thin)) == 33
    assert events(folder) == thin
    assert len(list(folder.iterdir())) == 34
    late = [*thin, ("u", "i", DAY * 40, "x", 1)]
    assert write_lake(folder, late) == ["month=1970-02"]
    assert events(folder) == late
