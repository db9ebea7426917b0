"""What a catalogue teaches about saying things: phrasings of attributes, and sentences that say nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ml.refiner import lexicon
from ml.refiner.old_text import finish, plainly, sentences
from ml.refiner.product import Product
from ml.refiner.reading import read
from ml.text import detect_language

_LEARNED_FROM = 3
_MOST_PHRASINGS = 4
_BOILERPLATE_GROUPS = 4


@dataclass(frozen=True)
class Phrasebook:
    """What a catalogue teaches about saying things.

    Attributes:
        templates: By language and attribute name ("" for any): sentences with `{name}` and `{value}`, commonest first.
        boilerplate: Sentences that products of unlike kinds share.
    """

    templates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    boilerplate: frozenset[str] = frozenset()

    @classmethod
    def learn(cls, products: Sequence[Product]) -> Phrasebook:
        """Read the descriptions of a catalogue.

        A template is a sentence that says an attribute and claims nothing beside it, seen of three products.
        """
        groups: dict[str, set[tuple[str, str]]] = defaultdict(set)
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for product in products:
            for sentence in sentences(product.description):
                groups[plainly(sentence)].add((product.brand, "".join(product.categories[-1:])))
                for name, value in product.attributes:
                    _count_templates(counts, sentence, name, value)
        templates = {
            key: tuple(said for said, seen in found.most_common(_MOST_PHRASINGS) if seen >= _LEARNED_FROM)
            for key, found in counts.items()
        }
        shared = frozenset(
            said
            for said, kinds in groups.items()
            if said and min(len({brand for brand, _ in kinds}), len({leaf for _, leaf in kinds})) >= _BOILERPLATE_GROUPS
        )
        return cls({key: found for key, found in templates.items() if found}, shared)

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` takes."""
        return {
            "templates": {key: list(found) for key, found in sorted(self.templates.items())},
            "boilerplate": sorted(self.boilerplate),
        }

    @classmethod
    def from_json(cls, saved: dict[str, object]) -> Phrasebook:
        """Return what was saved."""
        templates, boilerplate = saved["templates"], saved["boilerplate"]
        if not isinstance(templates, dict) or not isinstance(boilerplate, list):
            raise ValueError("Not a phrasebook")
        return cls({key: tuple(found) for key, found in templates.items()}, frozenset(boilerplate))


def _count_templates(counts: dict[str, Counter[str]], sentence: str, name: str, value: str) -> None:
    """Count a sentence that says an attribute, if it claims nothing else."""
    if not value or value not in sentence or len(sentence) > 80:
        return
    said = sentence.replace(value, "{value}", 1)
    if name and name in said.replace("{value}", ""):
        said = said.replace(name, "{name}", 1)
    elif name and name.capitalize() in said:
        said = said.replace(name.capitalize(), "{Name}", 1)
    rest = read(said.replace("{value}", " ").replace("{name}", " ").replace("{Name}", " "))
    slot = lexicon.SLOT_OF_LABEL.get(name.lower(), "-")
    if "{" not in said or any(not _frames(token.key, slot) for token in rest.content()):
        return
    lang = "zh" if detect_language(sentence) == "zh" else "en"
    counts[f"{lang} {name}"][said] += 1
    if "ame}" in said:
        counts[f"{lang} "][said] += 1


def _frames(key: str, slot: str) -> bool:
    return key in _FRAME_KEYS or (slot != "-" and lexicon.SLOT_OF_LABEL.get(key) == slot)


_FRAME_KEYS = frozenset(token.key for word in sorted(lexicon.CARRIERS_EN) for token in read(word).tokens)


def phrase(name: str, value: str, lang: str, book: Phrasebook) -> list[str]:
    """Return phrasings of an attribute, those learned from the catalogue behind the plain one."""
    plain = (
        [f"{name}：{value}。", f"{name}为{value}。"]
        if lang == "zh"
        else [f"{name}: {value}.", f"The {name.lower()} is {value}."]
    )
    learned = [
        template.replace("{name}", name).replace("{Name}", name.capitalize()).replace("{value}", value)
        for key in (f"{lang} {name}", f"{lang} ")
        for template in book.templates.get(key, ())
    ]
    return [finish(text, lang) for text in [*plain, *learned]]
