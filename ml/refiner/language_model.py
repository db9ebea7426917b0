"""A causal language model with a LoRA adapter (Hu et al. 2022) that phrases what is known of a product.

It proposes; nothing of it is published that the checker has not passed. It is trained to say again what it is given,
title, facts and sentences worth keeping, because what it adds of its own is refused anyway.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.refiner.ground import Grounding
from ml.refiner.markup import shown
from ml.refiner.old_text import language_of, plainly, saved, sentences
from ml.refiner.product import Product
from ml.refiner.support import check

FORMAT = 1
LEAST_TEXTS = 20
# Labels of tokens that are given, not learned.
_GIVEN = -100


@dataclass(frozen=True)
class LanguageModelSettings:
    """How much is trained and drawn.

    Attributes:
        texts: The most good descriptions that are learned from.
        epochs: How often each is seen.
        batch: Texts in a step.
        rank: Of the adapter's matrices.
        learning_rate: Of AdamW.
        samples: Texts of one product.
        temperature: Of the tokens.
        prompt_tokens: A longer prompt loses its end.
        new_tokens: A text ends here at the latest.
        dtype: Of the base's weights; the adapter is float32.
    """

    texts: int = 300
    epochs: int = 1
    batch: int = 8
    rank: int = 8
    learning_rate: float = 5e-4
    samples: int = 4
    temperature: float = 0.7
    prompt_tokens: int = 256
    new_tokens: int = 128
    dtype: str = "bfloat16"


class LanguageModel:
    """Made by `fit` or `load`.

    Attributes:
        base: Folder of the model that is adapted, as Hugging Face's `save_pretrained` writes it.
        settings: How it was trained, and how much it draws.
        losses: Of each step, in nats per token.
        version: Hash of the adapter, the base's configuration and the settings.
    """

    def __init__(
        self,
        base: Path,
        settings: LanguageModelSettings,
        losses: list[float],
        model: Any,  # noqa: ANN401
        tokenizer: Any,  # noqa: ANN401
    ) -> None:
        self.base, self.settings, self.losses = base, settings, losses
        self._model, self._tokenizer = model, tokenizer
        self.version = _version(base, settings, model)

    @classmethod
    def fit(
        cls, base: Path, products: Sequence[Product], *, seed: int = 0, settings: LanguageModelSettings | None = None
    ) -> LanguageModel:
        """Adapt a model to the good descriptions of a catalogue.

        Args:
            base: Folder of any causal language model of Hugging Face, with weights as safetensors.
            products: With good descriptions.
            seed: Of the adapter, the order and what is dropped.
            settings: How much is trained.

        Raises:
            FileNotFoundError: There is no such folder, or no model in it.
            ValueError: The weights are pickled, there are too few texts, or training diverged.
        """
        import torch
        from peft import LoraConfig, get_peft_model

        settings = settings or LanguageModelSettings()
        order = np.random.default_rng(seed).permutation(len(products))
        chosen = [products[place] for place in order if products[place].description.strip()][: settings.texts]
        if len(chosen) < LEAST_TEXTS:
            raise ValueError(f"{len(chosen)} good descriptions are too few to adapt to, {LEAST_TEXTS} are needed")
        model, tokenizer = _loaded(base, settings.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapter = LoraConfig(
                r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            adapted = get_peft_model(model, adapter)
            losses = _train(adapted, [_pair(tokenizer, one, settings) for one in chosen], settings, seed)
        return cls(base, settings, losses, adapted.eval(), tokenizer)

    def write(self, product: Product, *, seed: int = 0) -> list[str]:
        """Return what the model says of a product, `settings.samples` texts; its id and the seed decide them."""
        import torch

        given = self._tokenizer(prompt(product), truncation=True, max_length=self.settings.prompt_tokens)["input_ids"]
        device = next(self._model.parameters()).device
        tokens = torch.tensor([given], device=device)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(zlib.crc32(f"{seed} {product.item_id}".encode("utf-8", "surrogatepass")))
            drawn = self._model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=True,
                temperature=self.settings.temperature,
                top_p=0.95,
                max_new_tokens=self.settings.new_tokens,
                num_return_sequences=self.settings.samples,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        return [self._tokenizer.decode(row[len(given) :], skip_special_tokens=True).strip() for row in drawn]

    def candidates(self, grounding: Grounding, *, seed: int = 0) -> list[str]:
        """Return texts to be checked: what the model wrote and the product supports, and the facts that it left out."""
        return [finished(text, grounding) for text in self.write(grounding.product, seed=seed)]

    def save(self, folder: Path) -> None:
        """Write the adapter as safetensors and the rest as JSON into a folder; the base stays where it is."""
        self._model.save_pretrained(folder, safe_serialization=True)
        saved = {
            "format": FORMAT,
            "base": str(self.base),
            "settings": asdict(self.settings),
            "losses": self.losses,
            "version": self.version,
        }
        (folder / "language_model.json").write_text(json.dumps(saved, sort_keys=True), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: The base is gone.
            ValueError: It was written by another version of the code, or is damaged, or the base is another one.
        """
        from peft import PeftModel

        saved = json.loads((folder / "language_model.json").read_text("utf-8"))
        if saved.get("format") != FORMAT:
            raise ValueError(f"{folder} holds a language model of format {saved.get('format')}, not {FORMAT}")
        base = Path(saved["base"])
        settings = LanguageModelSettings(**saved["settings"])
        model, tokenizer = _loaded(base, settings.dtype)
        adapted = PeftModel.from_pretrained(model, folder, use_safetensors=True).eval()
        made = cls(base, settings, saved["losses"], adapted, tokenizer)
        if made.version != saved["version"]:
            raise ValueError(f"{folder} is damaged, or {base} has changed")
        return made


def prompt(product: Product) -> str:
    """Return what the model is given: title, brand, category, attributes and what is worth keeping of the old text."""
    lines = [f"Title: {shown(product.title)}"]
    lines += [f"Brand: {shown(product.brand)}"] if product.brand.strip() else []
    lines += [f"Category: {', '.join(map(shown, product.categories))}"] if product.categories else []
    lines += [f"{shown(name)}: {shown(value)}" for name, value in product.attributes]
    kept = " ".join(saved(product, language_of(product)))
    return "\n".join([*lines, f"Notes: {kept}", "Description:"])


def finished(text: str, grounding: Grounding) -> str:
    """Return the sentences of a draft that are supported, each once, with the places of the grounding they leave out.

    The title goes first; a place is left out where the draft says all its facts, or its very words.
    """
    kept = [one for one in dict.fromkeys(sentences(text)) if not check(one, grounding.product).unsupported]
    whole = {plainly(one) for one in kept}
    said = {fact for one in kept for fact in _facts(one, grounding)}
    first, *others = [slot[0] for slot in grounding.slots]
    head = [] if plainly(first.text) in whole else [first.text]
    tail = [
        slot.text
        for slot in others
        if plainly(slot.text) not in whole and slot.origin == "fact" and not slot.facts <= said
    ]
    return ("" if grounding.lang == "zh" else " ").join([*head, *kept, *tail])


def _facts(sentence: str, grounding: Grounding) -> set[str]:
    from ml.refiner.facts import is_said
    from ml.refiner.reading import read

    reading = read(sentence)
    return {fact.key for fact in grounding.facts if is_said(fact, reading)}


def _pair(tokenizer: Any, product: Product, settings: LanguageModelSettings) -> tuple[list[int], list[int]]:  # noqa: ANN401
    """Return the tokens of a prompt, and those of the description behind it."""
    given = tokenizer(prompt(product), truncation=True, max_length=settings.prompt_tokens)["input_ids"]
    target = " " + " ".join(sentences(product.description))
    said = tokenizer(target, truncation=True, max_length=settings.new_tokens - 1, add_special_tokens=False)
    return given, [*said["input_ids"], tokenizer.eos_token_id]


def _train(
    model: Any,  # noqa: ANN401
    pairs: Sequence[tuple[list[int], list[int]]],
    settings: LanguageModelSettings,
    seed: int,
) -> list[float]:
    import torch

    rng = np.random.default_rng([seed, 5])
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=settings.learning_rate)
    steps = [
        part
        for _ in range(settings.epochs)
        for part in np.array_split(rng.permutation(len(pairs)), -(-len(pairs) // settings.batch))
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: 1.0 - 0.9 * at / max(1, len(steps)))
    device = next(model.parameters()).device
    losses: list[float] = []
    model.train()
    for rows in steps:
        chosen = [pairs[row] for row in rows.tolist()]
        longest = max(len(given) + len(said) for given, said in chosen)
        tokens = torch.zeros((len(chosen), longest), dtype=torch.long)
        labels = torch.full((len(chosen), longest), _GIVEN)
        present = torch.zeros((len(chosen), longest), dtype=torch.long)
        for row, (given, said) in enumerate(chosen):
            size = len(given) + len(said)
            tokens[row, :size] = torch.tensor([*given, *said])
            labels[row, len(given) : size] = torch.tensor(said)
            present[row, :size] = 1
        loss = model(input_ids=tokens.to(device), attention_mask=present.to(device), labels=labels.to(device)).loss
        if not torch.isfinite(loss):
            raise ValueError("the language model diverged: its loss is not finite")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(round(float(loss.detach()), 5))
    return losses


def located(base: Path) -> Path:
    """Return the folder of a model that may be loaded.

    Raises:
        FileNotFoundError: There is no such folder, or no model in it.
        ValueError: Its weights are pickled: reading them could run anything.
    """
    if not (base / "config.json").is_file():
        raise FileNotFoundError(f"{base} holds no model of Hugging Face: there is no config.json")
    if not list(base.glob("*.safetensors")):
        raise ValueError(f"the weights in {base} are no safetensors; pickled ones are not read")
    return base


def _loaded(base: Path, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(located(base))
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=getattr(torch, dtype), **options)
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _version(base: Path, settings: LanguageModelSettings, model: Any) -> str:  # noqa: ANN401
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings)], sort_keys=True).encode())
    digest.update((base / "config.json").read_bytes())
    for weights in sorted(base.glob("*.safetensors")):
        digest.update(f"{weights.name} {weights.stat().st_size}".encode())
    for name, weight in sorted(model.named_parameters()):
        if "lora_" in name:
            digest.update(name.encode() + weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
