"""What a rule of a gate is, and the rules that several suites share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    import pandas as pd

DIMENSION = 384


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        expectation: Class name in `great_expectations.expectations`.
        fault: What is wrong with the rows that break it; reads on after "3 of 10 items".
        arguments: Arguments of the class.
    """

    expectation: str
    fault: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Part:
    """One table of a suite.

    Attributes:
        name: Its key in the manifest.
        noun: What its rows are, in the plural.
        rows: A query, or a function that reads the columns that the rules need from Parquet.
        rules: Expectations beside the row count.
        may_be_empty: Whether the manifest may promise no rows.
    """

    name: str
    noun: str
    rows: sql.Composable | Callable[[], pd.DataFrame]
    rules: tuple[Rule, ...] = ()
    may_be_empty: bool = False


def filled(column: str, fault: str) -> Rule:
    """Demand a value in every row."""
    return Rule("ExpectColumnValuesToNotBeNull", fault, {"column": column})


def between(column: str, fault: str, low: float | None, high: float | None, *, strict: bool = False) -> Rule:
    """Demand values between two limits, None for none; `strict` shuts the lower one out."""
    limits = {"min_value": low, "max_value": high, "strict_min": strict}
    return Rule("ExpectColumnValuesToBeBetween", fault, {"column": column, **limits})


def unique(column: str, fault: str) -> Rule:
    """Demand that no value comes twice."""
    return Rule("ExpectColumnValuesToBeUnique", fault, {"column": column})


def never(column: str, fault: str) -> Rule:
    """Demand a column of false."""
    return Rule("ExpectColumnValuesToBeInSet", fault, {"column": column, "value_set": [False]})


PSEUDONYM = Rule(
    "ExpectColumnValuesToMatchRegex",
    "carry a user id that is no pseudonym",
    {"column": "user_key", "regex": "^u[0-9]+_[0-9a-f]{32}$"},
)
# Lists of products with a value for each, as the smallest and the largest of them. A list may be empty. The upper limit
# refuses infinity, and in Postgres NaN, which is larger than any number there.
LISTS = (
    never("is_unknown", "name an unknown item"),
    never("is_repeated", "name an item twice"),
    between("lowest", "have a value that is not positive", 0, None, strict=True),
    between("highest", "have a value that is not finite", None, 1e9),
)
NEIGHBOURS = (
    never("is_loop", "lead back to where they start"),
    filled("lowest", "are empty"),
)
# A title of punctuation alone has none; a catalogue of them means that no text was read.
HAS_WORDS = Rule(
    "ExpectColumnValuesToBeBetween",
    "have no words to be found by",
    {"column": "words", "min_value": 0, "max_value": 1e9, "strict_min": True, "mostly": 0.99},
)
UNIT_VECTORS = (
    between("dimension", f"do not have {DIMENSION} dimensions", DIMENSION, DIMENSION),
    filled("norm", "are not finite"),
    # Half precision moves the length a little. A zero vector would be left out of the index without a word.
    between("norm", "are not of unit length", 0.99, 1.01),
)


def all_terms() -> Rule:
    """Demand every term of the score in a column `term`."""
    from ml.recommender.fusion import TERMS

    fault = "leave out a term of the score"
    return Rule("ExpectColumnDistinctValuesToContainSet", fault, {"column": "term", "value_set": list(TERMS)})
