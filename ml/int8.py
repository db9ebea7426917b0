"""An encoder's int8 form: made once from its safetensors, kept beside it, and run by ONNX Runtime.

Weights are int8 by output channel, and so are inputs, with a scale of each pass (dynamic quantisation). Two things keep
what that would lose, 1.4 % of nDCG@10 on the judged queries of Home Depot: inputs are equalised with the weights that
they meet (SmoothQuant, arXiv:2211.10438), and matrices that contract, whose inputs come from an activation with a few
values far off, have a scale for every 128 inputs of every token. Mean cosine to fp32: .9973, then .9997.

Each text is a pass of its own: its vector is the same to the last bit whatever else is encoded, and where. The word
embeddings stay outside, mapped into memory: all workers of a machine share them, and the rest takes 23 MB. The
tokenizer lies beside them, so that a worker needs neither PyTorch nor transformers, which take seconds to import.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Raise it with any change to how the file is made: vectors of another recipe are those of another model.
RECIPE = 1
# Raise it when other files are needed for the same vectors.
FILES = 2
# How much of the range of inputs moves into the weights, from 0 to 1.
SMOOTHING = 0.5
BLOCK = 128
# What a shop's texts are like; the largest input of each channel is taken from them.
SAMPLES = (
    "passage: Stainless steel water bottle, 500 ml. Keeps drinks cold for 24 hours; leak-proof lid, fits cup holders.",
    "passage: 天然成犬狗粮 10kg 牛肉味，适合各种成年犬，含维生素与矿物质，促进消化。",
    "passage: N95 respirator mask (pack of 20) - NIOSH approved, cup style. Safety. Personal Protective Equipment.",
    "passage: 蓝牙耳机 无线 降噪 运动 防水 超长待机 type-c 充电 适用于多种手机",
    'passage: Digital caliper 0-6" / 150 mm, LCD display, inch/metric conversion, 0.01 mm resolution! 2 batteries.',
    "query: waterproof tent for two",
    "query: 绿茶 礼盒",
    "query: usb c charger 65w",
    "a",
)
MODEL, EMBEDDINGS, TOKENIZER, HASHES = "model.onnx", "embeddings.npy", "tokenizer.json", "sha256.json"


def prepare(folder: Path, name: str, cache_dir: Path) -> Path:
    """Return the folder with the int8 form, made when it is not there; of processes that make it at once, one wins.

    Args:
        folder: A Hugging Face model with safetensors.
        name: Name and content of the model.
        cache_dir: Where it is kept.

    Raises:
        ValueError: The model cannot be exported.
    """
    target = cache_dir / f"{name.replace('/', '--')}-int8-{RECIPE}-{FILES}"
    if not target.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".int8-") as scratch:
            unfinished = Path(scratch) / "made"
            unfinished.mkdir()
            try:
                _quantise(folder, Path(scratch) / "fp32.onnx", unfinished)
                _save_tokenizer(folder, unfinished)
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

    Attributes:
        dimension: Length of the vectors.

    Args:
        folder: As `prepare` made it.
        threads: Threads of each operation; all cores when None.

    Raises:
        ValueError: The files are not those that were made.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        from onnxruntime import InferenceSession, SessionOptions
        from tokenizers import Tokenizer

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
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.dimension = int(self._embeddings.shape[1])

    def means(self, texts: Sequence[str], max_tokens: int) -> NDArray[np.float32]:
        """Return the mean over the tokens of each text of the states of the last layer, (texts, dimension)."""
        self._tokenizer.enable_truncation(max_tokens)
        means = np.empty((len(texts), self.dimension), np.float32)
        for row, tokens in enumerate(self._tokenizer.encode_batch(list(texts))):
            embedded = self._embeddings[tokens.ids].astype(np.float32)
            (means[row],) = self._session.run(None, {"embeddings": embedded[None]})[0]
        return means


def _save_tokenizer(folder: Path, target: Path) -> None:
    """Write the tokenizer of a model, with all that its folder says of it.

    Raises:
        ValueError: It is none of the library `tokenizers`.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer runs in Python only")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(target / TOKENIZER))


def _quantise(folder: Path, whole: Path, target: Path) -> None:
    """Write the matrices and the embeddings of a model into `target`, by way of the file `whole`."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    from ml.encoder import load_transformer

    transformer = load_transformer(folder, "fp32", attn_implementation="eager")
    _smooth(transformer, folder)
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
        graph = onnx.load(whole)
        shapes = {weight.name: weight.dims for weight in graph.graph.initializer}
        contracting = [
            node.name
            for node in graph.graph.node
            if node.op_type == "MatMul" and node.input[1] in shapes and np.greater(*shapes[node.input[1]])
        ]
        most = whole.with_name("most.onnx")
        quantize_dynamic(
            whole,
            most,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=contracting,
        )
        how = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
        rest = MatMulNBitsQuantizer(onnx.load(most), algo_config=how)
        rest.process()
        rest.model.save_model_to_file(str(target / MODEL))
    finally:
        root.level = level


def _smooth(transformer: Any, folder: Path) -> None:  # noqa: ANN401
    """Divide the inputs of every matrix by what its rows are multiplied with."""
    import torch
    from transformers import AutoTokenizer

    largest: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def see(_: Any, given: tuple[torch.Tensor, ...]) -> None:  # noqa: ANN401
            own = given[0].abs().flatten(0, -2).amax(0)
            largest[name] = torch.maximum(largest.get(name, own), own)

        return see

    class Smoothed(torch.nn.Module):
        def __init__(self, matrix: torch.nn.Linear, inputs: torch.Tensor) -> None:
            super().__init__()
            weights = matrix.weight.abs().amax(0).clamp(min=1e-5)
            factor = inputs.clamp(min=1e-5) ** SMOOTHING / weights ** (1 - SMOOTHING)
            matrix.weight.mul_(factor)
            self.matrix, self.factor = matrix, 1 / factor

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.matrix(given * self.factor)
            return made

    matrices = {name: one for name, one in transformer.named_modules() if isinstance(one, torch.nn.Linear)}
    hooks = [matrix.register_forward_pre_hook(watch(name)) for name, matrix in matrices.items()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for text in SAMPLES:
            transformer(input_ids=torch.tensor(tokenizer([text], truncation=True, max_length=32)["input_ids"]))
        for hook in hooks:
            hook.remove()
        for name in largest:
            parent, _, own = name.rpartition(".")
            setattr(transformer.get_submodule(parent), own, Smoothed(matrices[name], largest[name]))


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for name in (MODEL, EMBEDDINGS, TOKENIZER):
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
