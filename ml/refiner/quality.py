"""How good a description is: flags that a rule can see, and a score learned from good texts and spoilt ones."""

from __future__ import annotations

import json
import math
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.refiner.degrade import degrade
from ml.refiner.facts import conflicts
from ml.refiner.product import Product

Floats = NDArray[np.float64]
# Flag, and its column in rpt_item_text_quality; the last two need the catalogue or the attributes, and are seen here alone.
FLAGS = {
    "missing": "is_empty",
    "too_short": "is_too_short",
    "title_again": "is_title_again",
    "html": "has_html",
    "stuffed": "is_stuffed",
    "wrong_language": "is_wrong_script",
    "boilerplate": None,
    "contradicts_attributes": None,
}
LEAST_WORDS = 6
LEAST_GOOD = 30
_BUCKETS = 1 << 15
_LONGEST = 4_000
_GROUPS = 4
_RIDGE = 1.0
_STEPS = 25

_HTML = re.compile(r"</?[a-z][^<>]*>|&(amp|lt|gt|quot|nbsp|#[0-9]+);|\{\{|\]\]>", re.IGNORECASE)
_LATIN_WORD = re.compile(r"[A-Za-z0-9]+")
_HAN = re.compile("[\u3400-\u9fff]")
_TOPIC = re.compile("[a-z]{4,}")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*|\n")
FEATURES = (
    "words", "short", "long", "title_overlap", "title_said", "repeated", "most_frequent", "sentences", "sentence_length",
    "ends", "upper", "digits", "marks", "markup", "boilerplate", "foreign", "likelihood", "is_chinese",
)  # fmt: skip


@dataclass(frozen=True)
class Assessment:
    """What is thought of a description.

    Attributes:
        item_id: The product.
        score: Probability that it is a good one, 0 to 1; 0 when it is missing.
        flags: Names of `FLAGS`, in their order.
    """

    item_id: str
    score: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class TextQuality:
    """A learned judge of descriptions.

    Attributes:
        weights: Of the standardised `FEATURES` and, last, the intercept.
        centre: Mean of each feature in training.
        scale: Standard deviation of each feature in training.
        grams: Log-probability of hashed character trigrams in good texts, by language.
        boilerplate: Sentences that products of unlike kinds share.
    """

    weights: Floats
    centre: Floats
    scale: Floats
    grams: dict[str, Floats]
    boilerplate: frozenset[str]

    @classmethod
    def fit(cls, products: Sequence[Product], *, seed: int = 0) -> TextQuality:
        """Learn from the good descriptions of a catalogue and from the same ones spoilt.

        Raises:
            ValueError: Less than `LEAST_GOOD` descriptions carry no flag.
        """
        boilerplate = _shared_sentences(products)
        blank = cls(np.zeros(len(FEATURES) + 1), np.zeros(len(FEATURES)), np.ones(len(FEATURES)), {}, boilerplate)
        good = [product for product in products if not blank._flags(product)]
        if len(good) < LEAST_GOOD:
            raise ValueError(f"{len(good)} good descriptions are too few to learn from; it takes {LEAST_GOOD}")
        order = np.random.default_rng(seed).permutation(len(good))
        halves = [[good[place] for place in half.tolist()] for half in np.array_split(order, 2)]
        rows, labels = [], []
        # The likelihood of a text is learned from the other half: its own trigrams would be too likely.
        for own, other in (halves, halves[::-1]):
            judge = cls(blank.weights, blank.centre, blank.scale, _grams(other), boilerplate)
            poor, _ = degrade(own, seed=seed)
            for texts, label in ((own, 1.0), (poor, 0.0)):
                rows += [judge._features(product) for product in texts]
                labels += [label] * len(texts)
        table = np.array(rows)
        centre, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)
        weights = _logistic((table - centre) / scale, np.array(labels))
        return cls(weights, centre, scale, _grams(good), boilerplate)

    def assess(self, products: Sequence[Product]) -> list[Assessment]:
        """Judge descriptions, in their order."""
        return [Assessment(product.item_id, self._score(product), self._flags(product)) for product in products]

    def save(self, folder: Path) -> None:
        """Write `quality.json` and `quality.safetensors`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"weights": self.weights, "centre": self.centre, "scale": self.scale}
        arrays |= {f"grams.{lang}": values for lang, values in self.grams.items()}
        save_file(arrays, folder / "quality.safetensors")
        about = {"features": list(FEATURES), "boilerplate": sorted(self.boilerplate)}
        (folder / "quality.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TextQuality:
        """Read what `save` wrote.

        Raises:
            ValueError: It was written with other features.
        """
        from safetensors.numpy import load_file

        about = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
        if about["features"] != list(FEATURES):
            raise ValueError(f"{folder} holds a judge with other features")
        arrays = load_file(folder / "quality.safetensors")
        grams = {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith("grams.")}
        return cls(arrays["weights"], arrays["centre"], arrays["scale"], grams, frozenset(about["boilerplate"]))

    def _score(self, product: Product) -> float:
        if not _plain(product.description):
            return 0.0
        row = (np.array(self._features(product)) - self.centre) / self.scale
        # Far outside of what was seen in training, a feature says no more than at its edge.
        return float(1 / (1 + np.exp(-np.clip(np.clip(row, -8, 8) @ self.weights[:-1] + self.weights[-1], -30, 30))))

    def _flags(self, product: Product) -> tuple[str, ...]:
        text, title = _plain(product.description), _plain(product.title)
        if not text:
            return ("missing",)
        languages = _language(text), _language(title)
        found = {
            "too_short": len(_LATIN_WORD.findall(text)) + len(_HAN.findall(text)) / 2 < LEAST_WORDS,
            "title_again": _letters(text) == _letters(title),
            "html": bool(_HTML.search(text)),
            "stuffed": _is_stuffed(text),
            "wrong_language": "und" not in languages and languages[0] != languages[1],
            "boilerplate": self._boilerplate_share(text) > 0.5,
            "contradicts_attributes": bool(product.attributes) and _contradicts(product),
        }
        return tuple(flag for flag in FLAGS if found.get(flag))

    def _boilerplate_share(self, text: str) -> float:
        parts = _sentences(text)
        total = sum(len(part) for part in parts)
        return sum(len(part) for part in parts if part in self.boilerplate) / total if total else 0.0

    def _features(self, product: Product) -> list[float]:
        text, title = _plain(product.description)[:_LONGEST], _plain(product.title)
        bare = _HTML.sub(" ", text)
        words, head = _words(bare), set(_words(title))
        counts = Counter(words)
        parts = [part for part in _SENTENCE.split(bare) if part.strip()]
        n = len(words)
        lang = _language(bare)
        size = math.log1p(n)
        return [
            size,
            max(0.0, math.log(20) - size),
            max(0.0, size - math.log(150)),
            len([word for word in words if word in head]) / max(1, n),
            len(head.intersection(words)) / max(1, len(head)),
            1 - len(counts) / max(1, n) - 0.06 * size,
            max(counts.values(), default=0) / max(1, n) if n >= 4 else 0.5,
            math.log1p(len(parts)),
            math.log1p(n / max(1, len(parts))),
            float(text.rstrip().endswith((".", "!", "?", "。", "！", "？")) and not text.rstrip().endswith("..")),
            sum(one.isupper() for one in bare) / max(1, len(bare)),
            sum(one.isdigit() for one in bare) / max(1, len(bare)),
            sum(not one.isalnum() and not one.isspace() for one in bare) / max(1, len(bare)),
            math.sqrt(sum(len(found[0]) for found in _HTML.finditer(text)) / max(1, len(text))),
            self._boilerplate_share(text),
            float(lang != _language(title)),
            _likelihood(bare, self.grams.get(lang)),
            float(lang == "zh"),
        ]


def select_poor(
    assessments: Sequence[Assessment], *, share: float | None = None, below: float | None = None
) -> list[str]:
    """Return the ids of poor descriptions, the worst first; of equal ones in order of their ids.

    Args:
        assessments: Of the whole catalogue.
        share: The worst part of the catalogue, 0 to 1.
        below: All with a score under this one.

    Raises:
        ValueError: Neither or both are given, or one is out of range.
    """
    if (share is None) == (below is None):
        raise ValueError("Give a share or a score, not both")
    limit = share if share is not None else below
    if limit is None or not 0 <= limit <= 1:
        raise ValueError(f"{limit} is not between 0 and 1")
    ranked = sorted(assessments, key=lambda one: (one.score, one.item_id))
    if share is not None:
        return [one.item_id for one in ranked[: round(share * len(ranked))]]
    return [one.item_id for one in ranked if one.score < limit]


def auc(good: Sequence[float], poor: Sequence[float]) -> float:
    """Return the probability that a good text scores above a poor one, ties half; nan without one of both."""
    if not len(good) or not len(poor):
        return math.nan
    above = np.subtract.outer(np.asarray(good), np.asarray(poor))
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def _plain(text: str) -> str:
    """Return a text as the report's SQL reads it: NFKC, single spaces, without ends."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip(" ")


def _letters(text: str) -> str:
    return "".join(one for one in text.lower() if one.isalnum())


def _language(text: str) -> str:
    latin = len(re.sub("[^A-Za-z]+", "", text))
    if len(_HAN.findall(text)) * 3 >= max(latin, 1):
        return "zh"
    return "en" if latin else "und"


def _is_stuffed(text: str) -> bool:
    han = "".join(_HAN.findall(text))
    counts = Counter(_TOPIC.findall(text.lower()))
    counts.update(han[at : at + 2] for at in range(len(han) - 1))
    most = max(counts.values(), default=0)
    return most >= 4 and most > 0.25 * sum(counts.values())


def _contradicts(product: Product) -> bool:
    return any(
        "description" in {one.source, other.source} or one.source[:9] != other.source[:9]
        for one, other in conflicts(product)
    )


def _words(text: str) -> list[str]:
    """Return Latin words and pairs of neighbouring Chinese characters, in lower case."""
    han = "".join(_HAN.findall(text))
    return [*_LATIN_WORD.findall(text.lower()), *(han[at : at + 2] for at in range(0, len(han) - 1))]


def _sentences(text: str) -> list[str]:
    return [letters for letters in (_letters(part) for part in _SENTENCE.split(_HTML.sub(" ", text))) if letters]


def _shared_sentences(products: Sequence[Product]) -> frozenset[str]:
    """Return sentences that products of at least four brands and four kinds share."""
    brands: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[str]] = defaultdict(set)
    for product in products:
        for said in set(_sentences(_plain(product.description))):
            brands[said].add(product.brand)
            kinds[said].add("".join(product.categories[-1:]))
    return frozenset(said for said in brands if min(len(brands[said]), len(kinds[said])) >= _GROUPS)


def _places(text: str) -> NDArray[np.int64]:
    padded = f"^{text.lower()[:_LONGEST]}$"
    hashed = [zlib.crc32(padded[at : at + 3].encode("utf-8", "surrogatepass")) for at in range(len(padded) - 2)]
    return np.array(hashed, dtype=np.int64) % _BUCKETS


def _grams(products: Sequence[Product]) -> dict[str, Floats]:
    """Return the smoothed log-probability of each trigram's bucket, by language."""
    counts = {lang: np.ones(_BUCKETS) * 0.1 for lang in ("en", "zh")}
    for product in products:
        text = _plain(product.description)
        if text and _language(text) in counts:
            np.add.at(counts[_language(text)], _places(text), 1.0)
    return {lang: np.log(count / count.sum()) for lang, count in counts.items()}


def _likelihood(text: str, grams: Floats | None) -> float:
    """Return the mean log-probability of a text's trigrams, that of chance without a model."""
    if grams is None or not text.strip():
        return -math.log(_BUCKETS)
    return float(grams[_places(text)].mean())


def _logistic(table: Floats, labels: Floats) -> Floats:
    """Fit a logistic regression with a ridge by Newton's method; the intercept, last, goes free."""
    rows = np.column_stack([table, np.ones(len(table))])
    ridge = np.full(rows.shape[1], _RIDGE)
    ridge[-1] = 1e-6
    weights = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        likely = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        gradient = rows.T @ (likely - labels) + ridge * weights
        curve = (rows * (likely * (1 - likely))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curve, gradient)
        weights = weights - step
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights
