"""An encoder's int8 form: made once from its safetensors, kept beside it, and run by ONNX Runtime.

Matrices become int8 by output channel, activations int8 as they come (dynamic quantisation); what is between them stays
float32. The scale of the activations is that of all texts in a pass: so each text is a pass of its own, and its vector
is the same to the last bit whatever else is encoded, and where. Texts per core-second, against passes of 512 tokens: 43
and 44 (107 tokens each), 209 and 359 (16 tokens each; fp32 124). The embeddings stay outside, mapped into memory: all
workers of a machine share them, and the rest takes 23 MB. Fusing attention before quantising was slower.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Raise it with any change to how the file is made: vectors of another recipe are those of another model.
RECIPE = 1
MODEL, EMBEDDINGS, HASHES = "model.onnx", "embeddings.npy", "sha256.json"


def prepare(folder: Path, name: str, cache_dir: Path) -> Path:
    """Return the folder with the int8 form, made when it is not there; of processes that make it at once, one wins.

    Args:
        folder: A Hugging Face model with safetensors.
        name: Name and content of the model.
        cache_dir: Where it is kept.

    Raises:
        ValueError: The model cannot be exported.
    """
    target = cache_dir / f"{name.replace('/', '--')}-int8-{RECIPE}"
    if not target.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".int8-") as scratch:
            unfinished = Path(scratch) / "made"
            unfinished.mkdir()
            try:
                _quantise(folder, Path(scratch) / "fp32.onnx", unfinished)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"the encoder {name} has no int8 form: {error}") from error
            (unfinished / HASHES).write_text(json.dumps(_hashes(unfinished)))
            try:
                unfinished.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    return target


class Int8Model:
    """A session of ONNX Runtime on the CPU.

    Args:
        folder: As `prepare` made it.
        threads: Threads of each operation; all cores when None.

    Raises:
        ValueError: The files are not those that were made.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        try:
            is_whole = json.loads((folder / HASHES).read_text()) == _hashes(folder)
        except (OSError, ValueError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"the int8 encoder {folder} is damaged; remove the folder, and it is made anew")
        options = SessionOptions()
        options.intra_op_num_threads = threads or 0
        # A waiting thread would keep a core from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        self._embeddings = np.load(folder / EMBEDDINGS, mmap_mode="r")

    def __call__(self, token_ids: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return the mean over the tokens of each text of the states of the last layer, (texts, dimension)."""
        means = np.empty((len(token_ids), self._embeddings.shape[1]), np.float32)
        for row, tokens in enumerate(token_ids):
            embedded = self._embeddings[tokens].astype(np.float32)
            (means[row],) = self._session.run(None, {"embeddings": embedded[None]})[0]
        return means


def _quantise(folder: Path, whole: Path, target: Path) -> None:
    """Write the matrices and the embeddings of a model into `target`, by way of the file `whole`."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from ml.encoder import load_transformer

    transformer = load_transformer(folder, "fp32", attn_implementation="eager")
    table = transformer.get_input_embeddings().weight.detach().numpy()
    np.save(target / EMBEDDINGS, table.astype(np.float16))
    # Else the exporter would write them as well.
    transformer.set_input_embeddings(torch.nn.Embedding(1, table.shape[1]))

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
            mean: torch.Tensor = self.transformer(inputs_embeds=embeddings).last_hidden_state.mean(1)
            return mean

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        # The newer exporter needs a package more (onnxscript) for the same graph.
        torch.onnx.export(
            Mean().eval(),
            (torch.zeros(1, 9, table.shape[1]),),
            str(whole),
            dynamo=False,
            opset_version=17,
            input_names=["embeddings"],
            output_names=["mean"],
            dynamic_axes={"embeddings": {1: "tokens"}},
        )
    # It asks for a preprocessing that ONNX Runtime does by itself when it opens the file.
    root = logging.getLogger()
    level, root.level = root.level, logging.ERROR
    try:
        kinds = ["MatMul", "Gemm"]
        quantize_dynamic(
            whole, target / MODEL, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=kinds
        )
    finally:
        root.level = level


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for name in (MODEL, EMBEDDINGS):
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
