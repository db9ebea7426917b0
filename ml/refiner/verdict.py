"""May a text be published? Decided here alone: for the refiner's candidates, for the ledger, and again by the gate."""

from __future__ import annotations

from ml.refiner.markup import is_marked
from ml.refiner.old_text import plainly
from ml.refiner.product import Product
from ml.refiner.refusals import is_instruction, is_suspect, refusal
from ml.refiner.support import Support, check
from ml.text import detect_language

# Every word: a single false one is a lie to a shopper.
LEAST_PRECISION = 1.0
LEAST_COVERAGE = 0.95
# Nobody reads more of a description; shops cut theirs at 2,000 characters, and the title goes before it.
LONGEST_TEXT = 2_200


def verify(text: str, product: Product) -> tuple[str, Support]:
    """Return "" for a text that may be published or the reason why not, and what the check found.

    Reasons: those of `refusal`; `text_too_long`; `bad_characters` for markup as well; `unsupported`; `low_coverage`,
    without facts nothing is covered; `wrong_language` for another one than the title's; `not_better` for what the old
    text or the title says.
    """
    support = check(text[:LONGEST_TEXT], product)
    if reason := refusal(product):
        return reason, support
    if len(text) > LONGEST_TEXT:
        return "text_too_long", support
    if is_marked(text):
        return "bad_characters", support
    if is_suspect(text):
        return "instruction_like" if is_instruction(text) else "contact_like", support
    if support.unsupported or support.precision < LEAST_PRECISION or not support.words:
        return "unsupported", support
    if support.coverage < LEAST_COVERAGE:
        return "low_coverage", support
    if detect_language(product.title) not in {"und", detect_language(text)}:
        return "wrong_language", support
    if plainly(text) in {plainly(product.description), plainly(product.title)}:
        return "not_better", support
    return "", support
