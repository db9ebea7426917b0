"""The `files` source: a shop's own export through a YAML mapping."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk.errors import SoukError
from souk.sources import Dataset, Row, open_dataset

FIXTURE = Path(__file__).parents[1] / "fixtures" / "shop-export"


def open_files(path: Path) -> Dataset:
    return open_dataset("files", path, 1, 0, Path("unused"))


def rows(dataset: Dataset, entity: str) -> list[Row]:
    return [row for chunk in getattr(dataset, entity)() for row in chunk]


def write(folder: Path, mapping: str, **files: str | bytes) -> Path:
    (folder / "souk.yml").write_text(mapping, encoding="utf-8")
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


PRODUCTS = "products: {file: goods.csv, columns: {item_id: sku, title: name}}\n"


def test_a_csv_and_json_lines_export() -> None:
    dataset = open_files(FIXTURE)
    assert (dataset.shop, dataset.source, dataset.has_clock) == ("corner-shop", "files", True)
    tea, pot = rows(dataset, "products")
    assert tea["categories"] == ["食品", "茶"]
    assert (tea["price"], tea["currency"], tea["attributes"]) == ("89.00", "CNY", {"colour": "green"})
    assert (pot["title"], pot["description"], pot["brand"]) == ("Pot, glass", "Two\nlines", None)
    view, buy, odd = rows(dataset, "events")
    assert (view["kind"], buy["kind"], odd["kind"]) == ("view", "purchase", "wink")
    assert view["event_at"].utcoffset() == timedelta(hours=8)
    assert view["event_at"].astimezone(UTC) == datetime(2026, 3, 1, 1, 30, tzinfo=UTC)
    assert odd["event_at"] == "yesterday", "landing judges it"
    assert view["contact"] == {"email": "ada@example.com"}
    assert "contact" not in buy
    assert len({view["event_id"], buy["event_id"], odd["event_id"]}) == 3
    assert [event["event_id"] for event in rows(open_files(FIXTURE / "souk.yml"), "events")] == [
        view["event_id"], buy["event_id"], odd["event_id"],
    ]  # fmt: skip


def test_parquet_and_gzip(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5)
    pq.write_table(pa.table({"sku": [1, 2], "name": ["Tea", "杯"], "path": [["Food"], None]}), tmp_path / "g.parquet")
    with gzip.open(tmp_path / "log.jsonl.gz", "wt") as file:
        file.write(f'{{"u": 5, "sku": 1, "t": {int(at.replace(tzinfo=UTC).timestamp() * 1000)}}}\n')
    mapping = (
        "products: {file: g.parquet, columns: {item_id: sku, title: name, categories: path}}\n"
        "events: {file: log.jsonl.gz, columns: {user_id: u, item_id: sku, event_at: t}, timestamp: unix_ms,\n"
        "  constants: {kind: purchase}}\n"
    )
    dataset = open_files(write(tmp_path, mapping))
    assert [(row["item_id"], row["title"], row["categories"]) for row in rows(dataset, "products")] == [
        ("1", "Tea", ["Food"]), ("2", "杯", []),
    ]  # fmt: skip
    (event,) = rows(dataset, "events")
    assert (event["user_id"], event["kind"], event["event_at"]) == ("5", "purchase", at.replace(tzinfo=UTC))


def test_nanosecond_parquet_times_become_plain_datetimes(tmp_path: Path) -> None:
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    pq.write_table(pa.table({"sku": ["1"], "name": ["Tea"], "t": times}), tmp_path / "g.parquet")
    mapping = "products: {file: g.parquet, columns: {item_id: sku, title: name, listed_at: t}}\n"
    (row,) = rows(open_files(write(tmp_path, mapping)), "products")
    assert type(row["listed_at"]) is datetime
    assert row["listed_at"] == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)


def test_bad_rows_cost_one_row_each(tmp_path: Path) -> None:
    goods = b"\xef\xbb\xbfsku,name\n1,Tea\n2,caf\xe9\n3\n4,Pot,extra\n" + b"5," + b"x" * 200_000 + b"\n6,Cup\n"
    found = rows(open_files(write(tmp_path, PRODUCTS, goods__csv=goods)), "products")
    assert [row.get("_unreadable", row.get("item_id")) for row in found] == [
        "1", "bad_utf8", "wrong_field_count", "wrong_field_count", "broken_csv", "6",
    ]  # fmt: skip


def test_an_open_quote_costs_the_rows_that_it_swallows(tmp_path: Path) -> None:
    lines = [f"{number},Tea {number}" for number in range(30)]
    lines[5], lines[15] = '5,"Tea', '15,"Tea" for two'
    found = rows(open_files(write(tmp_path, PRODUCTS, goods__csv="\n".join(["sku,name", *lines]))), "products")
    assert len(found) == 30
    assert sum(row.get("_unreadable") == "broken_csv" for row in found) == 11
    lines[15] = "15,Tea"
    found = rows(open_files(write(tmp_path, PRODUCTS, goods__csv="\n".join(["sku,name", *lines]))), "products")
    assert [row.get("_unreadable", row.get("item_id")) for row in found] == [*"01234", *["broken_csv"] * 25]


def test_what_data_frames_and_hives_write(tmp_path: Path) -> None:
    nan = float("nan")
    table = {
        "sku": pa.array([1.0, 2.0]),
        "name": pa.array([b"Tea", "杯".encode()], pa.binary()),
        "leaf": pa.array([7.0, nan]),
        "brand": pa.array([nan, nan]),
        "blob": pa.array([b"ok", b"\xff"], pa.binary()),
    }
    pq.write_table(pa.table(table), tmp_path / "g.parquet")
    columns = "{item_id: sku, title: name, categories: leaf, brand: brand}"
    mapping = f"products: {{file: g.parquet, columns: {columns}}}\n"
    first, second = rows(open_files(write(tmp_path, mapping)), "products")
    assert (first["item_id"], first["title"], first["categories"], first["brand"]) == ("1", "Tea", ["7"], None)
    assert second["_unreadable"] == "bad_utf8"


def test_a_field_that_few_objects_have_is_looked_for(tmp_path: Path) -> None:
    mapping = "products: {file: g.jsonl, columns: {item_id: sku, title: name, brand: maker}}\n"
    lines = ['{"sku": 1, "name": "Tea"}'] * 1_500 + ['{"sku": 2, "name": "Cup", "maker": "Kiln"}']
    found = rows(open_files(write(tmp_path, mapping, g__jsonl="\n".join(lines))), "products")
    assert (found[0]["brand"], found[-1]["brand"]) == (None, "Kiln")
    with pytest.raises(SoukError, match="has no column 'maker'"):
        open_files(write(tmp_path, mapping, g__jsonl="\n".join(lines[:-1])))


def test_seconds_read_as_milliseconds_are_no_time(tmp_path: Path) -> None:
    mapping = (
        "products: {file: g.jsonl, columns: {item_id: sku, title: name}}\n"
        "events: {file: e.jsonl, columns: {user_id: u, item_id: sku, event_at: t}, timestamp: unix_ms,\n"
        "  constants: {kind: view}}\n"
    )
    write(tmp_path, mapping, g__jsonl='{"sku": 1, "name": "Tea"}', e__jsonl='{"u": 1, "sku": 1, "t": 1700000000}')
    (event,) = rows(open_files(tmp_path), "events")
    assert event["event_at"] == 1700000000, "landing judges it"


@pytest.mark.parametrize("shop", ["50% off", "../other", "a/b", "'quoted'"])
def test_a_shop_is_named_by_letters_and_digits(tmp_path: Path, shop: str) -> None:
    write(tmp_path, f'shop: "{shop}"\n{PRODUCTS}', goods__csv="sku,name\n1,Tea\n")
    with pytest.raises(SoukError, match="cannot name a shop"):
        open_files(tmp_path)
    write(tmp_path, f"shop: 茶 shop_2.0\n{PRODUCTS}")
    assert open_files(tmp_path).shop == "茶 shop_2.0"


def test_a_table_without_a_header(tmp_path: Path) -> None:
    mapping = "products: {file: goods.csv, delimiter: ^, header: [sku, name], columns: {item_id: sku, title: name}}\n"
    (row,) = rows(open_files(write(tmp_path, mapping, goods__csv="1^华为 P20\n")), "products")
    assert (row["item_id"], row["title"]) == ("1", "华为 P20")


@pytest.mark.parametrize(
    ("mapping", "goods", "message"),
    [
        (PRODUCTS, "sku,title\n1,Tea\n", "goods.csv has no column 'name' (it has sku, title)"),
        (PRODUCTS, "", "goods.csv is empty"),
        (PRODUCTS, "sku,name\n", "goods.csv has no rows"),
        (PRODUCTS, None, "goods.csv does not exist"),
        ("products: {file: goods.csv, columns: {item_id: sku}}", "sku\n1\n", "gives no column for 'title' in products"),
        (PRODUCTS.replace("title", "titel"), "sku,name\n1,Tea\n", "unknown key 'titel' in the columns of products"),
        (PRODUCTS.replace("csv", "xlsx"), "x", "unknown format 'goods.xlsx'"),
        ("timezone: Mars/Base\n" + PRODUCTS, "sku,name\n1,Tea\n", "unknown timezone 'Mars/Base'"),
        ("events: {}", "x", "has no section 'products'"),
        ("products: [", "x", "is not valid YAML"),
        (PRODUCTS.replace("csv", "parquet"), "x", "is not readable as Parquet"),
    ],
)
def test_a_mistake_is_one_line_before_any_row(tmp_path: Path, mapping: str, goods: str | None, message: str) -> None:
    write(tmp_path, mapping)
    if goods is not None:
        for name in ("goods.csv", "goods.parquet"):
            (tmp_path / name).write_text(goods)
    with pytest.raises(SoukError) as error:
        open_files(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_mapping_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    before = open_files(write(tmp_path, PRODUCTS, goods__csv="sku,name\n1,Tea\n")).fingerprint
    after = open_files(write(tmp_path, PRODUCTS.replace("title: name", "title: sku"))).fingerprint
    assert before != after


def test_a_real_chinese_catalogue(data: Path, tmp_path: Path) -> None:
    mapping = (
        f"shop: zh-mall\nproducts:\n  file: {data / 'zh-products' / 'products.csv'}\n  delimiter: ^\n"
        "  header: [id, title, category_id, brand, image, subtitle, category]\n"
        "  columns: {item_id: id, title: title, description: subtitle, brand: brand, categories: category}\n"
    )
    found = rows(open_files(write(tmp_path, mapping)), "products")
    assert len(found) == 239
    assert sum("_unreadable" in row for row in found) == 0
    assert found[0]["brand"] == "华为"
