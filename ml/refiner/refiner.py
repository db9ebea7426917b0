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
from numpy.typing import NDArray

from ml.refiner.choose import choose
from ml.refiner.corpus import Bank, sentences, source_text
from ml.refiner.decoding import sample
from ml.refiner.discriminator import Described, Ensemble, make_discriminator, train_discriminator
from ml.refiner.generator import Pool, make_pool, make_selector
from ml.refiner.ground import Grounding, compose, ground
from ml.refiner.language_model import LanguageModel
from ml.refiner.phrasebook import Phrasebook
from ml.refiner.product import Product, Span
from ml.refiner.quality import TextQuality, auc
from ml.refiner.support import Support
from ml.refiner.training import adversarial, fit_mle, targets
from ml.refiner.verdict import verify

LEAST_TEXTS = 40
# By how much the adversarially trained generator has to be nearer to an AUC of .5 to be kept.
LEAST_GAIN = 0.01
FORMAT = 1
# Folder of the language model beside the composer's files.
WRITER = "language_model"


@dataclass(frozen=True)
class RefinerSettings:
    """How much is trained and drawn; in steps, never in seconds.

    Attributes:
        texts: The most good descriptions that are learned from.
        mle_steps: Of the composer's imitation.
        adversarial_steps: Of its policy gradient; 0 leaves the phase out.
        discriminator_steps: Of each discriminator.
        folds: Discriminators, each without its own part of the products.
        samples: Candidates of one product.
        temperature: Of the choices.
        threads: Of tensor operations.
    """

    texts: int = 2000
    mle_steps: int = 300
    adversarial_steps: int = 60
    discriminator_steps: int = 200
    folds: int = 2
    samples: int = 6
    temperature: float = 0.8
    threads: int = 1


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
        import torch

        settings = settings or RefinerSettings()
        torch.set_num_threads(settings.threads)
        corpus = good_texts(products)[: settings.texts]
        if len(corpus) < LEAST_TEXTS:
            raise ValueError(f"{len(corpus)} good descriptions are too few to learn from, {LEAST_TEXTS} are needed")
        bank = Bank.build(corpus, seed)
        pools = [make_pool(bank, product, place) for place, product in enumerate(corpus)]
        true = [sentences(product.description) for product in corpus]
        aims = [targets(bank.vectoriser, pool, said) for pool, said in zip(pools, true, strict=True)]
        selector, losses = fit_mle(pools, aims, settings.mle_steps, seed)
        real = [Described(source_text(product), tuple(said)) for product, said in zip(corpus, true, strict=True)]
        fakes = [
            [
                Described(source_text(product), tuple(pool.texts(one.chosen)))
                for one in sample(selector, pool, product.item_id, 2, settings.temperature, seed)
            ]
            for product, pool in zip(corpus, pools, strict=True)
        ]
        members = []
        for fold in range(settings.folds):
            rows = [place for place in range(len(corpus)) if place % settings.folds != fold or settings.folds == 1]
            chosen = [real[row] for row in rows], [fakes[row] for row in rows]
            members.append(train_discriminator(*chosen, settings.discriminator_steps, seed + fold))
        ensemble = Ensemble(members)
        guard, arm = "", "mle"
        rewarded: list[float] = []
        report: dict[str, Any] = {
            "texts": len(corpus),
            "sentences": len(bank.sentences),
            "mle_loss_first": float(np.mean(losses[:10])),
            "mle_loss_last": float(np.mean(losses[-10:])),
        }
        challenger = None
        if settings.adversarial_steps:
            won = _rewards(corpus, rewards or {})

            def reward(rows: list[int], said: list[list[str]]) -> NDArray[np.float64]:
                texts = [Described(real[row].source, tuple(each)) for row, each in zip(rows, said, strict=True)]
                logits = ensemble.logits(texts, [row % len(members) for row in rows])
                return np.array([won[row] for row in rows]) / (1 + np.exp(-logits))

            challenger, rewarded, guard = adversarial(selector, pools, aims, reward, settings.adversarial_steps, seed)
        report["adversarial_guard"] = guard
        if challenger is not None and not guard:
            folds = held_out_curve(corpus, pools, real, {"mle": selector, "adversarial": challenger}, settings, seed)
            report["held_out_auc"] = folds
            # Towards .5 is better; a draw goes to the model that needed no adversary.
            if abs(folds["adversarial"] - 0.5) < abs(folds["mle"] - 0.5) - LEAST_GAIN:
                arm, selector = "adversarial", challenger
            report["adversarial_reward_first"] = float(np.mean(rewarded[:5]))
            report["adversarial_reward_last"] = float(np.mean(rewarded[-5:]))
        return cls(
            settings,
            arm,
            report,
            bank,
            Phrasebook.learn(products),
            TextQuality.fit(products, seed=seed),
            selector,
            ensemble,
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
        if after.score < before.score:
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

    def compose_free(
        self, product: Product, k: int, temperature: float, seed: int, pool: Pool | None = None
    ) -> list[str]:
        """Return k texts that the composer draws from neighbours' sentences: suggestions, not checked for truth."""
        from ml.refiner.corpus import join

        pool = pool or make_pool(self._bank, product)
        return [
            join(pool.texts(one.chosen)) for one in sample(self._selector, pool, product.item_id, k, temperature, seed)
        ]

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


def held_out_curve(
    corpus: Sequence[Product],
    pools: Sequence[Pool],
    real: Sequence[Described],
    generators: Mapping[str, Any],
    settings: RefinerSettings,
    seed: int,
) -> dict[str, float]:
    """Return the AUC of a fresh discriminator against each generator: it learns on half of the products' texts only."""
    found = {}
    for name, selector in generators.items():
        fakes = []
        for product, pool in zip(corpus, pools, strict=True):
            drawn = sample(selector, pool, product.item_id, 1, settings.temperature, seed + 1)
            fakes.append([Described(source_text(product), tuple(pool.texts(one.chosen))) for one in drawn])
        half = len(corpus) // 2
        fresh = Ensemble([train_discriminator(real[:half], fakes[:half], settings.discriminator_steps, seed + 101)])
        generated = fresh.logits([texts[0] for texts in fakes[half:] if texts])
        found[name] = auc(fresh.logits(real[half:]).tolist(), generated.tolist())
    return found


def _rewards(corpus: Sequence[Product], rewards: Mapping[str, float]) -> list[float]:
    """Return a weight of each product's reward: what shoppers clicked more often than the original counts for more."""
    return [float(np.clip(1.0 + rewards.get(product.item_id, 0.0), 0.5, 2.0)) for product in corpus]


def _finite(before: float, after: float) -> dict[str, float]:
    return {"quality_before": float(before), "quality_after": float(after)}


def good_texts(products: Sequence[Product]) -> list[Product]:
    """Return products whose descriptions can be learned from, each text once."""
    found: dict[str, Product] = {}
    for product in products:
        said = sentences(product.description)
        if len(said) >= 2 and sum(map(len, said)) >= 60 and product.title.lower() not in said[0].lower():
            found.setdefault(" ".join(said), product)
    return list(found.values())


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
