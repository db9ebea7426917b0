"""What is known of a product, and where each piece of a text about it comes from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

LEXICON = "lexicon"


@dataclass(frozen=True)
class Product:
    """Everything that may support a word of a new text.

    Attributes:
        item_id: Id of the product.
        title: The name that the shop gives it.
        description: The original text; "" when missing.
        brand: "" when unknown.
        categories: From the widest to the narrowest.
        attributes: Name and value, in a fixed order.
        reviews: Texts of reviews.
        aspects: What shoppers mention of it ("battery", "续航"); said in a text only where facts support it.
    """

    item_id: str
    title: str
    description: str
    brand: str
    categories: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    reviews: tuple[str, ...]
    aspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A piece of a new text and its origin: `text[start:end]` is found at `at` of the source, whatever its case.

    Attributes:
        start: First character in the new text.
        end: Character behind the last one.
        source: A key of `sources`, or `lexicon` for a word that is supported as another spelling or the name of a slot.
        at: First character in the source; 0 for the lexicon.
    """

    start: int
    end: int
    source: str
    at: int


def sources(product: Product) -> dict[str, str]:
    """Return the texts that may support a new one, by name: `title`, `brand`, `category:0`, `attribute:NAME`, ….

    The text of an attribute is its value; a name that returns is numbered, `attribute:NAME#2`.
    """
    found = {"title": product.title, "brand": product.brand}
    found |= {f"category:{place}": name for place, name in enumerate(product.categories)}
    seen: Counter[str] = Counter()
    for name, value in product.attributes:
        seen[name] += 1
        found[f"attribute:{name}" + (f"#{seen[name]}" if seen[name] > 1 else "")] = value
    found["description"] = product.description
    found |= {f"review:{place}": text for place, text in enumerate(product.reviews)}
    return {source: text for source, text in found.items() if text}


def attribute_names(product: Product) -> dict[str, str]:
    """Return the name of the attribute behind each `attribute:` source."""
    seen: Counter[str] = Counter()
    names = {}
    for name, _ in product.attributes:
        seen[name] += 1
        names[f"attribute:{name}" + (f"#{seen[name]}" if seen[name] > 1 else "")] = name
    return names
