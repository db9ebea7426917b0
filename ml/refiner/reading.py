"""Cut a text into the units that a claim is made of: words, codes, quantities, each with its place and its polarity."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

from ml.refiner import lexicon
from ml.refiner.inflection import lemma
from ml.refiner.markup import visible
from ml.text import segment
from ml.text.clean import HAN

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+[- ]\d+/\d+|\d+/\d+|\d+(?:\.\d+)?|\.\d+")
# A sign, not a dash between numbers and not a bullet.
_MINUS = re.compile(r"(?:\A|[ (:：,，])[-−]\Z")
_RUN = re.compile(f"[^\\W_{HAN}]+(?:'[^\\W\\d_{HAN}]+)*")
_HAN_RUN = re.compile(f"[{HAN}〇]+")
_HAN_NUMBER = re.compile(f"[{''.join(lexicon.HAN_DIGITS)}{''.join(lexicon.HAN_POWERS)}]+")
_SENTENCE_END = re.compile(r"[!?;。！？；\n\r|•●■★▪◆]|\.(?=\s|$)|\.(?=[A-Z])|\s[-–—]\s")
_CLAUSE_END = re.compile(r"[,，、:：()（）\[\]【】{}/]")
_HAN_UNITS = sorted((unit for unit in lexicon.UNITS if _HAN_RUN.match(unit)), key=len, reverse=True)
_LATIN_UNITS = sorted((unit for unit in lexicon.UNITS if not _HAN_RUN.match(unit)), key=len, reverse=True)
_UNIT = re.compile(
    r"(?:\s{0,40}|\s?-\s?)("
    + "|".join(re.escape(unit) + (r"(?![^\W_])" if unit[-1].isalnum() else "") for unit in _LATIN_UNITS)
    + r")|\s?("
    + "|".join(_HAN_UNITS)
    + ")"
)
_DENIAL = re.compile(
    f"[{lexicon.NEGATORS_ZH}](?:会|能|易|再|太|够|必|可|需|要)?"
    "(?:含有?|添加|加|带有?|有|用|附|配|使用|需要|支持|适合|适用于?|是|属于)?(?:任何)?$"
)
_HARMLESS = re.compile("|".join(sorted(lexicon.HARMLESS_ZH, key=len, reverse=True)))
_CONTRACTION = re.compile(r"(.+)n't$")
_NUMBERED = re.compile(
    r"(?:item|part|model|material|spec|order|stock|ref|catalog|cat|type|serial|style|mfg|product)\W+no\.|no\.\s?\w*\d"
)  # "part no. 12" denies nothing
_NEGATED_WORDS = 4
CONTENT = ("word", "code", "quantity")


@dataclass(frozen=True)
class Token:
    """A unit of a text.

    Attributes:
        start: First character in the text as it was given.
        end: Character behind the last one.
        key: What it is compared by: the lemma in lower case, or number and unit.
        kind: `word`, `code` (letters with digits), `quantity`, `function` or `negator`.
        clause: Number of its clause.
        sentence: Number of its sentence.
        is_negated: Whether a negation reaches it.
        is_han: Whether it is written in Chinese characters.
        number: The number of a quantity, with its qualifier ("<=30").
        unit: The key of its unit, "" for none.
    """

    start: int
    end: int
    key: str
    kind: str
    clause: int = 0
    sentence: int = 0
    is_negated: bool = False
    is_han: bool = False
    number: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Reading:
    """A text and its tokens.

    Attributes:
        text: As it was given.
        plain: In lower case and NFKC, without markup; `at[i]` is where character i of it comes from.
        at: One place more than `plain` has characters.
        tokens: In order.
    """

    text: str
    plain: str
    at: tuple[int, ...]
    tokens: tuple[Token, ...]

    def content(self) -> list[Token]:
        """Return the tokens that claim something."""
        return [token for token in self.tokens if token.kind in CONTENT]


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Cut a text; any string will do."""
    plain, at, cased = _plain(text)
    tokens = _cut(plain)
    tokens = _place(tokens, cased)
    tokens = _negate(tokens, plain)
    return Reading(text, plain, at, tuple(replace(t, start=at[t.start], end=at[t.end - 1] + 1) for t in tokens))


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _plain(text: str) -> tuple[str, tuple[int, ...], str]:
    """Return the text to cut, where its characters come from, and the same with its capitals."""
    plain, cased, at = [], [], []
    seen = visible(text)
    for character, place in zip(seen.text, seen.at, strict=True):
        kind = unicodedata.category(character)
        if kind in {"Cf", "Mn"} or character in "®™©℠":
            continue
        shown = unicodedata.normalize("NFKC", character) if kind not in {"Cs", "Cc", "Co", "Cn"} else " "
        shown = "\n" if character == "\n" else shown.replace("\u2044", "/").replace("’", "'").replace("‘", "'")
        for one in shown:
            lowered = one.lower()
            plain.append(lowered if len(lowered) == 1 else one)
            cased.append(one)
            at.append(place)
    return "".join(plain), (*at, len(text)), "".join(cased)


def _cut(plain: str) -> list[Token]:
    tokens: list[Token] = []
    place = 0
    while place < len(plain):
        if found := _NUMBER.match(plain, place):
            token = _quantity(plain, found)
        elif found := _HAN_RUN.match(plain, place):
            tokens.extend(_han(plain, found.start(), found.end()))
            place = found.end()
            continue
        elif found := _RUN.match(plain, place):
            token = _word(plain, found)
        else:
            place += 1
            continue
        tokens.append(token)
        place = token.end
    return tokens


def _qualifier(plain: str, start: int) -> str:
    before = plain[max(0, start - 16) : start].rstrip()
    for sign, words in lexicon.QUALIFIERS.items():
        for word in words:
            if before.endswith(word) and not (word.isascii() and before[: -len(word)][-1:].isalpha()):
                return sign
    return ""


def _as_number(written: str) -> str:
    total = 0.0
    for part in re.split("[- ]", written.replace(",", "")):
        top, _, bottom = part.partition("/")
        total += float(top) / float(bottom) if bottom and float(bottom) else float(top)
    return f"{total:.10g}"


def _quantity(plain: str, found: re.Match[str]) -> Token:
    """Read a number and its unit, or a code that begins with a digit."""
    end = found.end()
    unit = _UNIT.match(plain, end)
    follower = plain[end : end + 1]
    is_times = re.match(r"[x×]\s?\d", plain[end:])
    if unit is None and not is_times and re.match(f"[^\\W\\d_{HAN}]", follower):
        run = _RUN.match(plain, end)
        stop = run.end() if run else end
        return Token(found.start(), stop, plain[found.start() : stop], "code")
    return _measured(plain, found.start(), end, _as_number(found[0]), unit)


def _measured(plain: str, start: int, end: int, number: str, unit: re.Match[str] | None) -> Token:
    name = lexicon.UNITS[unit[1] or unit[2]] if unit else ""
    if (
        unit
        and unit[1] == "in"
        and re.match(r"\s+(?:a|an|the|one|\d+(?!\.?\d*\s*x)|each|box|pack|stock|set)\b", plain[unit.end() :])
    ):
        name, unit = "", None  # "2 in 1", "5 in the box"
    number = (_qualifier(plain, start) or ("-" if _MINUS.search(plain[max(0, start - 2) : start]) else "")) + number
    # The full stop of an abbreviation may be that of the sentence.
    stop = end if unit is None else unit.end() - (unit[0].endswith("."))
    return Token(start, stop, f"{number} {name}".strip(), "quantity", number=number, unit=name)


def _word(plain: str, found: re.Match[str]) -> Token:
    word, start, end = found[0], found.start(), found.end()
    if any(character.isdigit() for character in word):
        return Token(start, end, word, "code")
    if word.endswith("'s"):
        word = word[:-2]
    if word == "no" and plain[end : end + 1] == "." and _NUMBERED.search(plain[max(0, start - 12) : end + 6]):
        return Token(start, end, word, "function")
    if word in lexicon.NEGATORS_EN or _CONTRACTION.match(word):
        return Token(start, end, "not" if _CONTRACTION.match(word) else word, "negator")
    if word in lexicon.NUMBER_WORDS:
        token = _number_word(plain, start, end, word)
        if token is not None:
            return token
    if word in lexicon.FUNCTION_EN:
        return Token(start, end, word, "function")
    return Token(start, end, lemma(word.replace("'", "")), "word")


def _number_word(plain: str, start: int, end: int, word: str) -> Token | None:
    value = lexicon.NUMBER_WORDS[word]
    joined = re.compile(r"[\s-]([a-z]+)").match(plain, end)
    if joined and joined[1] in lexicon.NUMBER_WORDS:
        other = lexicon.NUMBER_WORDS[joined[1]]
        value, end = (value + other if value >= 20 > other else value * other), joined.end()
    unit = _UNIT.match(plain, end)
    if word == "one" and unit is None:
        return None
    return _measured(plain, start, end, f"{value:.10g}", unit)


def _han(plain: str, start: int, end: int) -> list[Token]:
    tokens = []
    for word in _segment(plain[start:end]):
        stop = start + len(word)
        tokens.append(_han_word(start, stop, word))
        start = stop
    return _han_quantities(tokens, plain)


@lru_cache(maxsize=65536)
def _segment(run: str) -> tuple[str, ...]:
    words = segment(run, "zh")
    return tuple(words) if "".join(words) == run else tuple(run)


def _han_word(start: int, end: int, word: str) -> Token:
    kind = "function" if word in lexicon.FUNCTION_ZH else "word"
    if word in {*lexicon.NEGATORS_ZH, "没有", "不会", "不含", "不是", "不能", "不易", "并非"}:
        kind = "negator"
    return Token(start, end, word, kind, is_han=True)


def _han_quantities(tokens: list[Token], plain: str) -> list[Token]:
    """Join Chinese numerals with the unit behind them: 四分钟 is 4 minutes."""
    if not tokens:
        return tokens
    start, end = tokens[0].start, tokens[-1].end
    joined: list[Token] = []
    skip = start
    for token in tokens:
        if token.start < skip:
            continue
        found = _HAN_NUMBER.match(plain, token.start, end)
        unit = _UNIT.match(plain, found.end()) if found else None
        if found and unit and unit[2] and unit.end() <= end and _is_counted(found[0], unit, plain):
            value = _han_number(found[0])
            if value is not None:
                joined.append(replace(_measured(plain, found.start(), found.end(), value, unit), is_han=True))
                skip = unit.end()
                joined.extend(_rest(tokens, skip, plain))
                continue
        joined.append(token)
    return joined


def _rest(tokens: list[Token], skip: int, plain: str) -> list[Token]:
    """Return what is left of a word that a unit cut in two."""
    return [_han_word(skip, token.end, plain[skip : token.end]) for token in tokens if token.start < skip < token.end]


def _is_counted(number: str, unit: re.Match[str], plain: str) -> bool:
    # 一款 and 一种 are articles, 万 alone is a power of the number before it.
    is_article = number == "一" and lexicon.UNITS[unit[2]] in {
        "item",
        "lot",
        "kind",
        "strip",
        "piece",
        "set",
        "pair",
        "layer",
    }
    return not is_article and number not in {"千", "万", "百", "十", "零"}


def _han_number(written: str) -> str | None:
    total = section = 0.0
    digit = None
    for character in written:
        if character in lexicon.HAN_DIGITS:
            if digit is not None and character != "半":
                return None
            digit = (digit or 0) + lexicon.HAN_DIGITS[character]
        else:
            power = lexicon.HAN_POWERS[character]
            section += (1 if digit is None else digit) * power
            digit = None
            if power == 10_000:
                total, section = total + section, 0.0
    return f"{total + section + (digit or 0):.10g}"


def _place(tokens: list[Token], cased: str) -> list[Token]:
    """Number clauses and sentences."""
    placed = []
    clause = sentence = 0
    before = 0
    for token in tokens:
        gap = cased[before : token.start + 1]
        if _SENTENCE_END.search(gap[:-1] + (gap[-1:] if gap[-1:].isupper() else " ")) if gap else False:
            sentence, clause = sentence + 1, clause + 1
        elif _CLAUSE_END.search(gap[:-1]):
            clause += 1
        placed.append(replace(token, clause=clause, sentence=sentence))
        before = token.end
    return placed


def _negate(tokens: list[Token], plain: str) -> list[Token]:
    negated = [False] * len(tokens)
    for place, token in enumerate(tokens):
        if token.kind == "negator" and not token.is_han:
            _forward(tokens, place, negated, 1 if token.key == "non" else _NEGATED_WORDS)
        elif token.key == "free" and token.kind == "word":
            _free(tokens, place, negated, plain)
        elif token.is_han and token.kind == "word":
            negated[place] = is_denied(plain, token.start)
    return [replace(token, is_negated=is_negated) for token, is_negated in zip(tokens, negated, strict=True)]


def _forward(tokens: list[Token], place: int, negated: list[bool], most: int = _NEGATED_WORDS) -> None:
    """Let a negation reach the next content words of its clause, up to a turn of the sentence."""
    reached = 0
    for after in range(place + 1, len(tokens)):
        token = tokens[after]
        if token.clause != tokens[place].clause or token.key in {"but", "while", "so", "because"}:
            return
        if token.kind in CONTENT:
            negated[after] = True
            reached += 1
            if reached == most:
                return


def _free(tokens: list[Token], place: int, negated: list[bool], plain: str) -> None:
    """`Free of X` and `X-free` deny X."""
    if plain[tokens[place].end :].lstrip().startswith(("of ", "from ")):
        _forward(tokens, place, negated)
    elif (
        place and plain[tokens[place - 1].end : tokens[place].start] in {"-", " "} and tokens[place - 1].kind == "word"
    ):
        negated[place - 1] = True


def is_denied(plain: str, place: int) -> bool:
    """Tell whether the Chinese word at a place is denied: right before it, or with a verb of having between."""
    return bool(_DENIAL.search(_HARMLESS.sub(_blank, plain[max(0, place - 12) : place])))
