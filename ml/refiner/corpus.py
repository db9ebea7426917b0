"""The sentences of good descriptions with their facts taken out, and which of them a product can say."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.recommender.text_features import latent, unit
from ml.refiner.product import Product
from ml.text import detect_language, normalise, segment

BUCKETS = 2**15
LATENT = 96
POOL = 40
MAX_SENTENCES = 6
# A slot stands in a template as its name between two private-use characters, which no text has after `normalise`.
OPEN, CLOSE = "\ue000", "\ue001"

Floats = NDArray[np.float32]
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"“(])|(?<=[。！？；!?])(?=[^\s”」』])")
_SLOT = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_MEASURE = re.compile(
    r"(?<![\w.])(\d+(?:[.,/-]\d+)*)[\s-]?(inch(?:es)?|in|feet|foot|ft|mm|cm|m|oz|ml|l|kg|g|lb|lbs|pounds?|v|volts?|w|"
    r"watts?|amp|amps|a|pack|count|pieces?|pcs|psi|hp|gallons?|yards?|grit|米|厘米|克|千克|毫升|升|件|双|片|盒|页)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sentence:
    """One sentence of the corpus.

    Attributes:
        template: The text, slots in place of facts.
        slots: Their names, in order.
        values: What stood there.
        source: Index of the product that it describes.
        place: Its number in the description, from 0.
        last: True for the last one.
        twin: Index of the first sentence with the same template.
    """

    template: str
    slots: tuple[str, ...]
    values: tuple[str, ...]
    source: int
    place: int
    last: bool
    twin: int


def sentences(text: str, limit: int = MAX_SENTENCES) -> list[str]:
    """Return the first `limit` sentences of a text, normalised; a text without a full stop is one sentence."""
    return [part.strip() for part in _END.split(normalise(text)) if part.strip()][:limit]


def join(parts: Iterable[str]) -> str:
    """Return sentences as one text: with spaces between them, unless they end in Chinese punctuation."""
    text = ""
    for part in parts:
        text += ("" if not text or text[-1] in "。！？；…~，" else " ") + part
    return text


def source_text(product: Product) -> str:
    """Return what is known of a product without its description: the generator's and the discriminator's condition."""
    values = (f"{name} {value}" for name, value in product.attributes)
    return normalise(" . ".join(filter(None, (product.title, product.brand, *product.categories, *values))))


def slot_values(product: Product) -> dict[str, list[str]]:
    """Return the facts that fill slots: brand, attributes by name, and measures of the title by unit."""
    found: dict[str, list[str]] = {}
    if product.brand:
        found["brand"] = [normalise(product.brand)]
    for name, value in product.attributes:
        found.setdefault(f"attribute:{name}", []).append(normalise(value))
    for match in _MEASURE.finditer(normalise(product.title)):
        found.setdefault(f"measure:{match[2].lower().rstrip('s')}", []).append(match[0])
    return found


@lru_cache(maxsize=200_000)
def grams(text: str) -> tuple[int, ...]:
    """Return the hashes, below `BUCKETS`, of the words of a text and of its pairs of neighbouring words."""
    lang = detect_language(text)
    words = [word.lower() for word in segment(text, lang if lang == "zh" else "en")]
    terms = [*words, *(f"{left} {right}" for left, right in zip(words, words[1:], strict=False))]
    return tuple(zlib.crc32(term.encode()) % BUCKETS for term in terms)


@dataclass(frozen=True)
class Vectoriser:
    """Hashed TF-IDF and its leading directions.

    Attributes:
        idf: float32 (BUCKETS,).
        axes: float32 (BUCKETS, at most LATENT).
    """

    idf: Floats
    axes: Floats

    @classmethod
    def fit(cls, texts: Sequence[str], seed: int) -> Vectoriser:
        """Learn from the texts of a corpus."""
        counts = _counts(texts)
        document_count = np.bincount(counts.indices, minlength=BUCKETS)
        idf = (np.log((1.0 + len(texts)) / (1.0 + document_count)) + 1.0).astype(np.float32)
        idf[document_count < 2] = 0.0
        made = cls(idf, np.zeros((BUCKETS, 0), np.float32))
        words = made.words(texts)
        left = latent(words, LATENT, seed)
        # Rows of `left` are unit vectors in the leading directions; the axes are found again by least squares.
        axes = np.asarray((words.T @ left) / np.maximum((left**2).sum(axis=0), 1e-9), np.float32)
        return cls(idf, axes)

    def words(self, texts: Sequence[str]) -> sparse.csr_array:
        """Return TF-IDF vectors: float32 (n, BUCKETS), of unit length or zero."""
        counts = _counts(texts)
        counts.data = (1.0 + np.log(counts.data)) * self.idf[counts.indices]
        length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        return (sparse.diags_array(inverse.astype(np.float32)) @ counts).tocsr()

    def dense(self, words: sparse.csr_array) -> Floats:
        """Return TF-IDF vectors in the leading directions: float32 (n, d), of unit length or zero."""
        return unit(words @ self.axes)


def _counts(texts: Sequence[str]) -> sparse.csr_array:
    hashed = [grams(text) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(ids) for ids in hashed])
    columns = np.fromiter((bucket for ids in hashed for bucket in ids), np.int64)
    counts = sparse.csr_array((np.ones(len(columns), np.float32), (rows, columns)), (len(texts), BUCKETS))
    counts.sum_duplicates()
    return counts


@dataclass(frozen=True)
class Candidate:
    """A sentence of the bank as a product says it.

    Attributes:
        text: With the product's facts in its slots.
        sentence: Its number in the bank; -1 for a sentence of the product's own text.
        filled: Slots that the product's facts fill.
    """

    text: str
    sentence: int
    filled: frozenset[str]


@dataclass(frozen=True)
class Bank:
    """Delexicalised sentences of good descriptions, and what finds them.

    Attributes:
        sources: `source_text` of each product in the corpus.
        sentences: In the order of products and places.
        values: Known values of attributes, with the slot each fills.
        brands: Known brands.
        vectoriser: Of texts.
    """

    sources: list[str]
    sentences: list[Sentence]
    values: dict[str, str]
    brands: frozenset[str]
    vectoriser: Vectoriser
    _found: dict[str, sparse.csr_array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(cls, products: Sequence[Product], seed: int) -> Bank:
        """Take the facts out of the descriptions of products."""
        sources = [source_text(product) for product in products]
        brands = frozenset(normalise(product.brand) for product in products if len(product.brand) > 1)
        names: dict[str, Counter[str]] = {}
        for product in products:
            for name, value in product.attributes:
                names.setdefault(normalise(value), Counter())[f"attribute:{name}"] += 1
        values = {value: slots.most_common(1)[0][0] for value, slots in names.items() if len(value) > 1}
        pattern = _alternatives(values)
        found: list[Sentence] = []
        twins: dict[str, int] = {}
        for source, product in enumerate(products):
            said = sentences(product.description)
            for place, text in enumerate(said):
                template, slots, filled = _delexicalise(text, slot_values(product), values, pattern)
                twin = twins.setdefault(template, len(found))
                found.append(Sentence(template, slots, filled, source, place, place == len(said) - 1, twin))
        vectoriser = Vectoriser.fit([*sources, *(_plain(sentence.template) for sentence in found)], seed)
        return cls(sources, found, values, brands, vectoriser)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes besides the vectoriser's arrays."""
        said = [[s.template, s.slots, s.values, s.source, s.place, s.last, s.twin] for s in self.sentences]
        return {"sources": self.sources, "sentences": said, "values": self.values, "brands": sorted(self.brands)}

    @classmethod
    def from_json(cls, saved: dict[str, Any], idf: Floats, axes: Floats) -> Bank:
        """Return what was saved."""
        said = [Sentence(row[0], tuple(row[1]), tuple(row[2]), *row[3:]) for row in saved["sentences"]]
        return cls(saved["sources"], said, saved["values"], frozenset(saved["brands"]), Vectoriser(idf, axes))

    def pool(self, product: Product, without: int = -1, size: int = POOL) -> list[Candidate]:
        """Return what a product can say: its neighbours' sentences whose slots its facts all fill, the nearest first.

        The rank is ½ cos(source, source) + ½ cos(source, sentence). A sentence that names a number, brand or value
        which is not among the facts is left out, and of sentences with one template all but the nearest.

        Args:
            product: Its description is not read.
            without: Index of a product of the corpus whose sentences are left out: itself, in training.
            size: The most candidates.
        """
        if not self.sentences:
            return []
        by_source, by_sentence = self._matrices()
        words = self.vectoriser.words([source_text(product)])
        near = np.asarray((by_source @ words.T).todense()).ravel()
        said = np.asarray((by_sentence @ words.T).todense()).ravel()
        owners = np.array([sentence.source for sentence in self.sentences])
        rank = 0.5 * near[owners] + 0.5 * said
        rank[owners == without] = -1.0
        facts = slot_values(product)
        lang = detect_language(product.title)
        known = source_text(product).lower()
        found: list[Candidate] = []
        seen: set[str] = set()
        for number in np.argsort(-rank, kind="stable")[: 30 * size].tolist():
            if rank[number] < 0 or len(found) == size:
                break
            text = self._filled(self.sentences[number], facts, known)
            if text is not None and text not in seen and detect_language(text) == lang:
                seen.add(text)
                found.append(Candidate(text, number, frozenset(self.sentences[number].slots)))
        return found

    def _matrices(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        if not self._found:
            self._found["sources"] = self.vectoriser.words(self.sources)
            self._found["sentences"] = self.vectoriser.words([_plain(s.template) for s in self.sentences])
        return self._found["sources"], self._found["sentences"]

    def _filled(self, sentence: Sentence, facts: dict[str, list[str]], known: str) -> str | None:
        """Return a sentence with a product's facts, None where one is missing or the sentence claims more."""
        plain = _plain(sentence.template)
        if re.search(r"\d", plain) or any(brand in plain and brand.lower() not in known for brand in self.brands):
            return None
        used: Counter[str] = Counter()
        values = []
        for slot, before in zip(sentence.slots, sentence.values, strict=True):
            have = facts.get(slot, [])
            if before not in have and used[slot] >= len(have):
                return None
            values.append(before if before in have else have[used[slot]])
            used[slot] += 1
        filling = iter(values)
        return _SLOT.sub(lambda _: next(filling), sentence.template)


def _alternatives(values: Iterable[str]) -> re.Pattern[str] | None:
    ordered = sorted(values, key=lambda value: (-len(value), value))
    if not ordered:
        return None
    parts = (re.escape(value) if not value.isascii() else rf"\b{re.escape(value)}\b" for value in ordered)
    return re.compile("|".join(parts), re.IGNORECASE)


def _delexicalise(
    text: str, facts: dict[str, list[str]], known: dict[str, str], pattern: re.Pattern[str] | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the template of a sentence, its slots and what they held: the product's own facts, then known values."""
    own = {value.lower(): slot for slot, values in facts.items() for value in values}
    lower = {value.lower(): slot for value, slot in known.items()}
    slots: list[tuple[int, str, str]] = []
    taken = [False] * len(text)

    def take(found: re.Pattern[str] | None, names: dict[str, str]) -> None:
        for match in found.finditer(text) if found else ():
            if not any(taken[match.start() : match.end()]) and match[0].lower() in names:
                taken[match.start() : match.end()] = [True] * len(match[0])
                slots.append((match.start(), names[match[0].lower()], match[0]))

    take(_alternatives(own), own)
    take(pattern, lower)
    for match in _MEASURE.finditer(text):
        if not any(taken[match.start() : match.end()]):
            taken[match.start() : match.end()] = [True] * len(match[0])
            slots.append((match.start(), f"measure:{match[2].lower().rstrip('s')}", match[0]))
    slots.sort()
    template, at = "", 0
    for start, name, value in slots:
        template += text[at:start] + OPEN + name + CLOSE
        at = start + len(value)
    return template + text[at:], tuple(name for _, name, _ in slots), tuple(value for _, _, value in slots)


def _plain(template: str) -> str:
    return _SLOT.sub(" ", template)
