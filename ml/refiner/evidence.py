"""Everything that is said of a product, and whether it bears out a word of a text."""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from dataclasses import dataclass

from ml.refiner import lexicon
from ml.refiner.imitation import is_imitated, is_imitation
from ml.refiner.product import LEXICON, Product, Span, attribute_names, sources
from ml.refiner.reading import CONTENT, Reading, Token, is_denied, read
from ml.refiner.torn import torn
from ml.text.clean import HAN

_WINDOW = 3
_SENSITIVE = frozenset(lexicon.COLOURS | lexicon.MATERIALS)
_SIGN = re.compile(f"[{lexicon.NEGATORS_ZH}](?=[{HAN}])")
_SIGN_REACH = 3
_BEFORE_SIGN = re.compile(f"[{HAN}]{{1,2}}$")
_BEHIND_SIGN = re.compile(f"[{HAN}]{{1,2}}")
_STRUCTURED = ("title", "brand", "category:")


@dataclass(frozen=True)
class Found:
    """An occurrence in a source: which, and the place among its tokens."""

    source: str
    place: int


class Evidence:
    """Everything that is said of a product, by key."""

    def __init__(self, product: Product) -> None:
        self.readings = {source: read(text) for source, text in sources(product).items()}
        self.names = {source: read(name) for source, name in attribute_names(product).items()}
        self.index: dict[str, list[Found]] = defaultdict(list)
        for source, reading in self.readings.items():
            # Half of a word says nothing; names that a shop writes in its own way are not judged.
            halves = [] if source.startswith(_STRUCTURED) or source in self.names else list(torn(reading.plain))
            halves = [(reading.at[start], reading.at[end]) for start, end in halves]
            for place, token in enumerate(reading.tokens):
                if not any(start <= token.start < end for start, end in halves):
                    self.index[token.key].append(Found(source, place))
        # The title's words speak of the product as a whole.
        self.counted = self._beside_numbers()
        self.denials, self.unsaid, self.unsigned = self._denials(), self._unsaid(), self._unsigned()
        self.name_keys = {token.key for reading in self.names.values() for token in reading.tokens}
        self.whole = (
            {
                token.key
                for source, reading in self.readings.items()
                if source.startswith(_STRUCTURED)
                for token in reading.tokens
            }
            - self.name_keys
            - _MEASURED
        )

    def judge(self, reading: Reading, place: int) -> tuple[Span | None, str]:
        """Return where a token is supported, or why it is not."""
        token = reading.tokens[place]
        if token.is_han and token.kind == "word":
            return self._inside(reading, place)
        found = self.index.get(token.key, [])
        if not found:
            return self._label(reading, place)
        agreeing = [one for one in found if self._token(one).is_negated == token.is_negated]
        if not agreeing:
            return None, "negation"
        if token.kind == "quantity":
            agreeing = [one for one in agreeing if self._counts_the_same(reading, place, one)]
            if not agreeing:
                return None, "context"
        elif not self._is_named_right(reading, place):
            return None, "label"
        elif not any(self._is_of_the_same(reading, place, one) for one in agreeing):
            return None, "context"
        elif token.key in _SENSITIVE:
            looks_like_it = is_imitation(reading, place)
            agreeing = [
                one
                for one in agreeing
                if is_imitation(self.readings[one.source], one.place) <= looks_like_it
                and self._describes_the_same(reading, place, one)
            ]
            if not agreeing:
                return None, "context"
        return self._span(reading, token, agreeing), ""

    def _token(self, found: Found) -> Token:
        return self.readings[found.source].tokens[found.place]

    def _span(self, reading: Reading, token: Token, found: list[Found]) -> Span:
        written = reading.text[token.start : token.end]
        for one in found:
            there, source = self._token(one), self.readings[one.source].text
            if source[there.start : there.end].casefold() == written.casefold():
                return Span(token.start, token.end, one.source, there.start)
        return Span(token.start, token.end, LEXICON, 0)

    def _inside(self, reading: Reading, place: int) -> tuple[Span | None, str]:
        """Look for a Chinese word by its characters: a source may be cut into words in other places.

        A single character is looked for with a neighbour.
        """
        token = reading.tokens[place]
        here = _plain_at(reading, token.start)
        is_found = False
        for source, there in self.readings.items():
            at = there.plain.find(token.key)
            while at >= 0:
                if (len(token.key) > 1 or _has_neighbour(reading, token, there, at) or _is_word(there, token.key)) and (
                    is_imitated(there.plain, at) <= is_imitated(reading.plain, here)
                ):
                    is_found = True
                    if is_denied(there.plain, at) == token.is_negated:
                        if self._is_named_right(reading, place):
                            return Span(token.start, token.end, source, there.at[at]), ""
                        return None, "label"
                at = there.plain.find(token.key, at + 1)
        if is_found:
            return None, "negation"
        return self._label(reading, place)

    def turned_round(self, reading: Reading) -> list[tuple[int, int]]:
        """Return the places of negations that no source has, and of those that a source has and the text left out."""
        wrong = [
            (token.start, token.end)
            for token, following in zip(reading.tokens, [*reading.tokens[1:], None], strict=False)
            if token.kind == "negator" and not token.is_han and _followed(token, following) not in self.denials
        ]
        for found in _SIGN.finditer(reading.plain):
            claim = reading.plain[found.start() : found.start() + _SIGN_REACH]
            if not any(claim in there.plain for there in self.readings.values()):
                wrong.append((reading.at[found.start()], reading.at[found.start()] + 1))
        for before, behind in zip(reading.tokens, reading.tokens[1:], strict=False):
            if (before.key, behind.key) in self.unsaid and before.sentence == behind.sentence:
                wrong.append((before.end, behind.start))
        for pair in self.unsigned:
            at = reading.plain.find(pair)
            if at >= 0:
                wrong.append((reading.at[at], reading.at[at] + len(pair)))
        return wrong

    def _denials(self) -> set[tuple[str, str]]:
        return {
            _followed(token, following)
            for reading in self.readings.values()
            for token, following in zip(reading.tokens, [*reading.tokens[1:], None], strict=False)
            if token.kind == "negator"
        }

    def _unsaid(self) -> set[tuple[str, str]]:
        """Return the neighbours that an English source would have if a negation between them were left out."""
        together: set[tuple[str, str]] = set()
        pairs = set()
        for reading in self.readings.values():
            keys = [token.key for token in reading.tokens]
            together.update(zip(keys, keys[1:], strict=False))
            for place in range(1, len(keys) - 1):
                if reading.tokens[place].kind == "negator" and not reading.tokens[place].is_han:
                    pairs.add((keys[place - 1], keys[place + 1]))
        return pairs - together

    def _unsigned(self) -> set[str]:
        """Return what a source would read like around each Chinese negation if that were left out."""
        pairs = set()
        for reading in self.readings.values():
            for found in _SIGN.finditer(reading.plain):
                before = _BEFORE_SIGN.search(reading.plain[: found.start()])
                after = _BEHIND_SIGN.match(reading.plain, found.end())
                if before and after:
                    pairs.add(before[0] + after[0])
        return {pair for pair in pairs if not any(pair in reading.plain for reading in self.readings.values())}

    def _label(self, reading: Reading, place: int) -> tuple[Span | None, str]:
        """Accept the name of a slot where a value of that slot stands beside it, and words that frame a sentence."""
        token = reading.tokens[place]
        reason = "number" if token.kind == "quantity" else "word"
        if token.is_negated:
            return None, reason
        beside = [other for other in reading.tokens if other.sentence == token.sentence and other.kind in CONTENT]
        slot = lexicon.SLOT_OF_LABEL.get(token.key, "")
        for source, name in self.names.items():
            keys = {part.key for part in name.tokens}
            is_name = token.key in keys or (token.is_han and token.key in name.plain)
            slots = {lexicon.SLOT_OF_LABEL.get(key, "-") for key in keys}
            if (is_name or slot in slots) and source in self.readings and self._says(beside, source):
                return Span(token.start, token.end, LEXICON, 0), ""
        if slot and any(self._fills(other, slot) for other in beside):
            return Span(token.start, token.end, LEXICON, 0), ""
        if token.key in _CARRIERS and len(beside) > 1:
            return Span(token.start, token.end, LEXICON, 0), ""
        return None, reason

    def _says(self, tokens: list[Token], source: str) -> bool:
        values = self.readings[source]
        return any(
            token.key in values.plain if token.is_han else token.key in {t.key for t in values.tokens}
            for token in tokens
        )

    def _fills(self, token: Token, slot: str) -> bool:
        if slot in {"brand", "category"}:
            texts = [reading for source, reading in self.readings.items() if source.startswith(slot)]
            return any(token.key in {part.key for part in reading.tokens} for reading in texts)
        known = {"colour": lexicon.COLOURS, "material": lexicon.MATERIALS, "audience": lexicon.AUDIENCES}
        if slot in known:
            return token.key in known[slot]
        if slot == "model":
            return token.kind == "code"
        return token.kind == "quantity"

    def _beside_numbers(self) -> dict[str, set[str]]:
        """Return the quantities that each word stands beside, in any source."""
        beside: dict[str, set[str]] = defaultdict(set)
        for source, reading in self.readings.items():
            content = reading.content()
            for place, token in enumerate(content):
                if token.kind != "quantity":
                    continue
                for near in content[max(0, place - 2) : place + 3]:
                    if near.clause == token.clause and near.kind == "word":
                        beside[near.key].add(token.key)
                if source in self.names:
                    for part in self.names[source].tokens:
                        beside[part.key].add(token.key)
        return beside

    def _context(self, found: Found) -> set[str]:
        """Return the words that may stand beside a quantity: those around it where it was found."""
        reading = self.readings[found.source]
        here = reading.tokens[found.place]
        content = reading.content()
        place = content.index(here)
        near = {t.key for t in content[max(0, place - _WINDOW) : place + _WINDOW + 1] if t.sentence == here.sentence}
        if found.source in self.names:
            near |= {t.key for t in self.names[found.source].tokens} | {t.key for t in reading.tokens}
            near |= {word for t in self.names[found.source].tokens for word in _named_like(t.key)}
        return near

    def _counts_the_same(self, reading: Reading, place: int, found: Found) -> bool:
        """Refuse a number whose neighbours belong to another number."""
        token = reading.tokens[place]
        context = self._context(found)
        for near in _neighbours(reading, place):
            if near.key in context:
                continue
            others = self.counted.get(near.key, set()) - {token.key}
            is_name = near.key in _MEASURED or near.key in self.name_keys
            if is_name or (others and near.key not in self.whole):
                return False
        return True

    def _is_of_the_same(self, reading: Reading, place: int, found: Found) -> bool:
        """Refuse a maker that a source has not made it, and what it is made for as what it is: a battery for Canon."""
        if found.source == "brand":
            return True
        there = self.readings[found.source]
        here = there.tokens[found.place]
        before = there.tokens[found.place - 1].key if found.place else ""
        own = reading.tokens[place - 1].key if place else ""
        if own == "by":
            return before == "by"
        if before not in _MADE_FOR or own in _MADE_FOR or not there.text[here.start].isupper():
            return True
        after = reading.tokens[place + 1] if place + 1 < len(reading.tokens) else None
        return after is None or after.clause != reading.tokens[place].clause or after.kind not in CONTENT

    def _is_named_right(self, reading: Reading, place: int) -> bool:
        """Refuse the value of one attribute under the name of another: `colour: cotton`."""
        token = reading.tokens[place]
        before = place - 1
        while before >= 0 and reading.tokens[before].kind in {"function", "negator"}:
            before -= 1
        if before < 0 or reading.tokens[before].sentence != token.sentence:
            return True
        label = reading.tokens[before]
        end = _plain_at(reading, label.end)
        between = reading.plain[end : _plain_at(reading, token.start)].strip(lexicon.NEGATORS_ZH + " ")
        if between not in _COPULAS or label.key not in self.name_keys:
            return True
        beside = {other.key for other in reading.tokens if other.sentence == token.sentence}
        named = [name.plain.strip() for name in self.names.values() if reading.plain[:end].endswith(name.plain.strip())]
        return self._together(max(named, key=len, default=""), label.key, token.key, beside)

    def _together(self, written: str, label: str, key: str, beside: set[str]) -> bool:
        for source, name in self.names.items():
            keys = {part.key for part in name.content()}
            is_named = name.plain.strip() == written if written else label in keys and keys <= beside
            if is_named and source in self.readings:
                values = self.readings[source]
                if key in values.plain or key in {part.key for part in values.tokens}:
                    return True
        for reading in self.readings.values():
            places = {part.sentence for part in reading.tokens if part.key == label}
            if any(part.key == key and part.sentence in places for part in reading.tokens):
                return True
        return False

    def _describes_the_same(self, reading: Reading, place: int, found: Found) -> bool:
        """Refuse a colour or material before a thing that another one is said of: `steel lid` of a plastic lid."""
        token = reading.tokens[place]
        after = next((t for t in reading.tokens[place + 1 :] if t.kind in CONTENT), None)
        if after is None or after.clause != token.clause or after.key in _SENSITIVE or after.kind != "word":
            return True
        gap = reading.plain[_plain_at(reading, token.end) : _plain_at(reading, after.start)]
        if gap.strip(" -"):
            return True
        there = self.readings[found.source]
        here = there.tokens[found.place]
        follow = [t.key for t in there.tokens[found.place + 1 :] if t.sentence == here.sentence and t.kind in CONTENT]
        while follow and follow[0] in _SENSITIVE:
            follow.pop(0)  # stainless steel, black plastic
        nearest = next((at for at, key in enumerate(follow) if key in _SENSITIVE), len(follow))
        if after.key in follow[: min(4, nearest)]:
            return True
        # A value of an attribute or a word alone between commas speaks of the whole product.
        is_alone = all(t.key in _SENSITIVE for t in there.content() if t.clause == here.clause)
        part = {t.key for t in self.names[found.source].content()} if found.source in self.names else set()
        if any(key not in lexicon.SLOT_OF_LABEL for key in part):
            return after.key in part  # the material of a lid
        return (found.source in self.names or is_alone) and after.key not in self._described()

    def _described(self) -> set[str]:
        """Return what stands behind a colour or material somewhere."""
        behind = set()
        for reading in self.readings.values():
            for one, next_one in zip(reading.tokens, reading.tokens[1:], strict=False):
                if one.key in _SENSITIVE and next_one.clause == one.clause and next_one.kind == "word":
                    behind.add(next_one.key)
        return behind - self.whole


_MADE_FOR = frozenset(["for", "fit", "replac", "suit", "replace", "with", "to"])
_COPULAS = frozenset([":", "：", "is", "are", "为", "是", "is:", "=", "-", "was"])
_MEASURED = frozenset(token.key for name in lexicon.MEASURED for token in read(name).tokens)
_CARRIERS = frozenset(token.key for name in sorted(lexicon.CARRIERS_EN) for token in read(name).tokens)


def _named_like(key: str) -> set[str]:
    """Return the names of the slot that a name stands for."""
    slot = lexicon.SLOT_OF_LABEL.get(key)
    return {word for word, other in lexicon.SLOT_OF_LABEL.items() if slot and other == slot}


def _is_word(there: Reading, key: str) -> bool:
    """Tell whether a colour or a material of one character is a word of its own in a source, not part of another."""
    return key in _SENSITIVE and any(token.key == key for token in there.tokens)


def _has_neighbour(reading: Reading, token: Token, there: Reading, at: int) -> bool:
    """Tell whether a character stands beside the same one, or alone, in both places."""
    here = _plain_at(reading, token.start)
    before, behind = reading.plain[here - 1 : here], reading.plain[here + 1 : here + 2]
    same_before = before == there.plain[at - 1 : at] if at else not before
    same_behind = behind == there.plain[at + 1 : at + 2]
    return (same_before and before.isalnum()) or (same_behind and behind.isalnum()) or (same_before and same_behind)


def _followed(token: Token, following: Token | None) -> tuple[str, str]:
    return token.key, following.key if following else ""


def _neighbours(reading: Reading, place: int) -> list[Token]:
    """Return up to two words on each side of a quantity, as far as they may speak of it."""
    token = reading.tokens[place]
    clauses = _joined(reading, token)
    near: list[Token] = []
    for side in (reading.tokens[place + 1 :], reading.tokens[:place][::-1]):
        reached = 0
        for other in side:
            if reached == 2 or other.clause not in clauses or other.kind == "quantity" or other.key in _CONJUNCTIONS:
                break
            if other.kind == "word":
                near.append(other)
                reached += 1
    return near


_CONJUNCTIONS = frozenset(["and", "or", "but", "with", "和", "与", "及", "以及", "或"])


def _joined(reading: Reading, token: Token) -> set[int]:
    """Return the clauses that a token speaks to: its own, and the one before where only a colon stands between."""
    clauses = {token.clause}
    first = next(t for t in reading.tokens if t.clause == token.clause)
    if first.start == token.start:
        before = reading.plain[: _plain_at(reading, token.start)].rstrip()
        if before.endswith((":", "：")):
            clauses.add(token.clause - 1)
    return clauses


def _plain_at(reading: Reading, place: int) -> int:
    """Return where a character of the text as given lies in the plain one."""
    return bisect.bisect_left(reading.at, place)
