"""What of a product is encoded, and what is kept beside its vector; apart from the job, for executors to import."""

from __future__ import annotations

import pyarrow as pa

from ml.text import detect_language, key_terms, lexical_terms, passage
from spark_jobs.text_vectors import LONGEST_TEXT, Row, UnfitError, encoded_schema, readable

ENCODED = encoded_schema(("lang", pa.string()), ("terms", pa.list_(pa.string())), ("key_terms", pa.list_(pa.string())))
VECTORS = pa.schema([("item_id", pa.string()), *(field for field in ENCODED if field.name != "error")])


def prepare(raw: Row) -> Row:
    """Return the passage of a product, its language and its terms.

    Raises:
        UnfitError: There is nothing to read, or too much.
        UnicodeDecodeError: A text is not UTF-8.
    """
    title, brand, description = ((raw[name] or b"").decode() for name in ("title", "brand", "description"))
    categories = [name.decode() for name in raw["categories"] or [] if name]
    # Before it is normalised, which takes its time.
    if sum(map(len, [title, brand, description, *categories])) > LONGEST_TEXT:
        raise UnfitError("text_too_long")
    text = readable(passage(title, brand, categories, description))
    return {
        "text": text,
        "lang": detect_language(text),
        "terms": lexical_terms(text),
        "key_terms": key_terms(text),
    }
