"""The refiner: trained on good descriptions, it says of each poor one what may replace it, or why nothing may."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ml.refiner.choose import choose
from ml.refiner.corpus import Bank, sentences, source_text
from ml.refiner.discriminator import Described, Ensemble, make_discriminator
from ml.refiner.fitting import LEAST_TEXTS, RefinerSettings, champion, fit_composer, good_texts, hold_out
from ml.refiner.generator import make_selector
from ml.refiner.ground import Grounding, compose, ground
from ml.refiner.language_model import LanguageModel
from ml.refiner.phrasebook import Phrasebook
from ml.refiner.product import Product, Span
from ml.refiner.quality import TextQuality
from ml.refiner.support import Support
from ml.refiner.verdict import verify

FORMAT = 1
# Folder of the language model beside the composer's files.
WRITER = "language_model"


@dataclass(frozen=True)
class Refinement:
    """What becomes of one description.

    Attributes:
        item_id: The product.
        text: The new text; None keeps the original.
        reason: "" where there is a text, else a code: `no_facts`, `contradicting_facts`, `foreign_title`,
            `instruction_like`, `unsupported`, `low_coverage`, `not_better`, `generator_failed`, …
        spans: Where each content word comes from.
        scores: Finite numbers: `coverage`, `support`, `discriminator`, `agreement`, ….
    """

    item_id: str
    text: str | None
    reason: str
    spans: tuple[Span, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def is_refined(self) -> bool:
        """Tell whether there is a new text."""
        return self.text is not None


class Refiner:
    """A trained refiner; made by `fit` or `load`.

    Attributes:
        settings: What it was trained with.
        arm: The generator that won on held-out products: `adversarial` or `mle`.
        report: Losses, the held-out curve, guards that fired.
        version: Hash of weights, vocabulary and settings.
    """

    def __init__(
        self,
        settings: RefinerSettings,
        arm: str,
        report: dict[str, Any],
        bank: Bank,
        phrasebook: Phrasebook,
        quality: TextQuality,
        selector: Any,  # noqa: ANN401
        ensemble: Ensemble,
    ) -> None:
        self.settings, self.arm, self.report = settings, arm, report
        self._bank, self._phrasebook, self._quality = bank, phrasebook, quality
        self._selector, self._ensemble = selector, ensemble
        self._writer: LanguageModel | None = None
        self.version = _version(settings, arm, bank, selector, ensemble)

    @classmethod
    def fit(
        cls,
        products: Sequence[Product],
        *,
        seed: int = 0,
        settings: RefinerSettings | None = None,
        rewards: Mapping[str, float] | None = None,
    ) -> Refiner:
        """Train on the good descriptions of a catalogue.

        Args:
            products: The catalogue; poor descriptions are not learned from.
            seed: Of everything drawn.
            settings: How much is trained.
            rewards: By item, click-through of its refined text relative to the original, above 0 where it was better.

        Raises:
            ValueError: There are too few good descriptions.
        """
        settings = settings or RefinerSettings()
        good = good_texts(products)
        learned, held_out = hold_out(good)
        if len(learned) < LEAST_TEXTS:
            learned, held_out = good, []
        composer = fit_composer(learned, settings, seed, rewards)
        arm = champion(composer, held_out[: settings.texts], settings, seed)
        return cls(
            settings,
            arm,
            composer.report,
            composer.bank,
            Phrasebook.learn(products),
            TextQuality.fit(products, seed=seed),
            composer.generators[arm],
            composer.ensemble,
        )

    def with_writer(self, writer: LanguageModel) -> Refiner:
        """Let a language model propose texts beside the composer's; they pass the same checks, and the same choice."""
        self._writer = writer
        self.version = hashlib.sha256(f"{self.version} {writer.version}".encode()).hexdigest()[:16]
        return self

    def refine(self, products: Sequence[Product], *, seed: int = 0) -> list[Refinement]:
        """Return what becomes of each description, in order.

        A product's result depends on the product and the seed, not on what is refined beside it; one that cannot be
        worked with keeps its original.
        """
        import torch

        torch.set_num_threads(self.settings.threads)
        return [self._refine(product, seed) for product in products]

    def _refine(self, product: Product, seed: int) -> Refinement:
        try:
            grounding = ground(product, self._phrasebook)
            if grounding.reason:
                return Refinement(product.item_id, None, grounding.reason)
            passed, reason = self._candidates(product, grounding, seed)
            if not passed:
                return Refinement(product.item_id, None, reason)
            logits = self._ensemble.logits([_described(product, text) for text, _ in passed])
        except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError):
            return Refinement(product.item_id, None, "generator_failed")
        if not np.isfinite(logits).all():
            return Refinement(product.item_id, None, "generator_failed")
        coverage = np.array([support.coverage for _, support in passed])
        rng = np.random.default_rng([seed, zlib.crc32(product.item_id.encode()), 4])
        best = choose("discriminator+coverage", logits, np.zeros(len(logits)), coverage, rng)
        realness = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        text, support = passed[best]
        before, after = self._quality.assess([product, replace(product, description=text)])
        # The score of a text that a rule sees through means little: a full stop alone has 1.0.
        if (bool(after.flags), -after.score) > (bool(before.flags), -before.score):
            return Refinement(product.item_id, None, "not_better", (), _finite(before.score, after.score))
        scores = _finite(before.score, after.score) | {
            "discriminator": float(realness[best]),
            "coverage": float(support.coverage),
            "support": float(support.precision),
        }
        return Refinement(product.item_id, text, "", support.spans, scores)

    def _candidates(self, product: Product, grounding: Grounding, seed: int) -> tuple[list[tuple[str, Support]], str]:
        """Return the texts that pass every check, and the reason of the last that did not."""
        rng = np.random.default_rng([seed, zlib.crc32(product.item_id.encode()), 3])
        k = self.settings.samples
        texts = [compose(grounding)]
        texts += [compose(grounding, [int(rng.integers(len(slot))) for slot in grounding.slots]) for _ in range(k - 1)]
        texts += self._writer.candidates(grounding, seed=seed) if self._writer else []
        passed: list[tuple[str, Support]] = []
        reason = "no_facts"
        for text in dict.fromkeys(filter(None, texts)):
            why, support = verify(text, product)
            if why:
                reason = why
            else:
                passed.append((text, support))
        return passed, reason

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and the rest as JSON into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(_tensors(self._bank, self._selector, self._ensemble), folder / "refiner.safetensors")
        saved = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "arm": self.arm,
            "report": self.report,
            "version": self.version,
            "members": len(self._ensemble.members),
            "bank": self._bank.to_json(),
            "phrasebook": self._phrasebook.to_json(),
        }
        self._quality.save(folder / "quality")
        if self._writer:
            self._writer.save(folder / WRITER)
        (folder / "refiner.json").write_text(json.dumps(saved, ensure_ascii=False, sort_keys=True), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Refiner:
        """Read what `save` wrote.

        Raises:
            ValueError: It was written by another version of the code, or is damaged.
        """
        import torch
        from safetensors.numpy import load_file

        saved = json.loads((folder / "refiner.json").read_text("utf-8"))
        if saved.get("format") != FORMAT:
            raise ValueError(f"{folder} holds a refiner of format {saved.get('format')}, not {FORMAT}")
        tensors = load_file(folder / "refiner.safetensors")

        def restore(model: Any, prefix: str) -> Any:  # noqa: ANN401
            weights = {
                name.removeprefix(prefix): torch.from_numpy(array)
                for name, array in tensors.items()
                if name.startswith(prefix)
            }
            model.load_state_dict(weights)
            return model.eval()

        bank = Bank.from_json(saved["bank"], tensors["vectoriser.idf"], tensors["vectoriser.axes"])
        selector = restore(make_selector(0), "selector.")
        ensemble = Ensemble([restore(make_discriminator(0), f"member{row}.") for row in range(saved["members"])])
        phrasebook = Phrasebook.from_json(saved["phrasebook"])
        quality = TextQuality.load(folder / "quality")
        made = cls(
            RefinerSettings(**saved["settings"]),
            saved["arm"],
            saved["report"],
            bank,
            phrasebook,
            quality,
            selector,
            ensemble,
        )
        if (folder / WRITER).exists():
            made.with_writer(LanguageModel.load(folder / WRITER))
        if made.version != saved["version"]:
            raise ValueError(f"{folder} is damaged: its content is not that of version {saved['version']}")
        return made


def _finite(before: float, after: float) -> dict[str, float]:
    return {"quality_before": float(before), "quality_after": float(after)}


def _described(product: Product, text: str) -> Described:
    return Described(source_text(product), tuple(sentences(text)))


def _tensors(bank: Bank, selector: Any, ensemble: Ensemble) -> dict[str, Any]:  # noqa: ANN401
    found = {"vectoriser.idf": bank.vectoriser.idf, "vectoriser.axes": np.ascontiguousarray(bank.vectoriser.axes)}
    for prefix, model in [("selector.", selector), *((f"member{n}.", m) for n, m in enumerate(ensemble.members))]:
        found |= {prefix + name: np.ascontiguousarray(weight.numpy()) for name, weight in model.state_dict().items()}
    return found


def _version(settings: RefinerSettings, arm: str, bank: Bank, selector: Any, ensemble: Ensemble) -> str:  # noqa: ANN401
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings), arm, bank.to_json()], sort_keys=True).encode())
    for name, array in sorted(_tensors(bank, selector, ensemble).items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:16]
