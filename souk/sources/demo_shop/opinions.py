"""What shoppers of the demo shop write: searches and reviews, in their own language."""

from __future__ import annotations

from souk.sources.demo_shop.catalogue import Catalogue
from souk.sources.demo_shop.shoppers import Log, Shoppers
from souk.sources.demo_shop.vocabulary import CHINESE, LANGUAGES, Picker

SEARCH_DRAWS = 12
REVIEW_DRAWS = 16
OTHER_LANGUAGE = 0.06
TYPO = 0.04
CONTRARY = 0.06  # share of reviews whose text disagrees with their rating
SILENT = 0.08


def query_text(catalogue: Catalogue, shoppers: Shoppers, log: Log, number: int, picker: Picker) -> str:
    """Return what a person types: the type, narrowed down by the wanted product's or by favourite properties."""
    words, user = catalogue.words, int(log.search_user[number])
    kind_index, target = int(log.search_type[number]), int(log.search_target[number])
    kind = words.types[kind_index]
    category = words.categories[kind.category]
    language = int(shoppers.language[user]) ^ int(picker.chance(OTHER_LANGUAGE))
    names = {
        "type": kind.name[language],
        "brand": category.brands[shoppers.brand[user, kind.category]][language],
        "trait": kind.traits[shoppers.trait[user, kind_index]][language],
        "spec": picker.pick(kind.values)[language],
        "colour": picker.pick(words.colours)[language],
        "use": picker.pick(category.uses)[language],
    }
    if target >= 0:
        names |= catalogue.names(target, language)
    forms = words.phrases["queries"][LANGUAGES[language]]
    template: str = picker.pick(forms if category.is_coloured else forms[:-1])
    text = template.format(**names)
    if language == CHINESE:
        return text
    return _swap(text.lower(), picker) if picker.chance(TYPO) else text.lower()


def _swap(text: str, picker: Picker) -> str:
    """Swap two neighbouring letters, the commonest typing mistake."""
    place = picker.pick(range(len(text) - 1))
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def review_body(catalogue: Catalogue, item: int, language: int, rating: int, picker: Picker) -> str:
    """Return the text of a review: one or two aspects of the product, praised or blamed, and a verdict."""
    words = catalogue.words
    kind = words.types[catalogue.kind[item]]
    aspects = words.categories[kind.category].aspects
    if picker.chance(SILENT):
        return ""
    if picker.chance(CONTRARY):
        rating = 6 - rating

    # Each sentence is about another aspect, so that no review praises and blames the same one.
    start = picker.pick(range(len(aspects)))
    order = iter(aspects[start:] + aspects[:start])

    def say(form: str) -> str:
        template: str = picker.pick(words.phrases[form][LANGUAGES[language]])
        return template.format(aspect=next(order)[language], type=kind.name[language])

    if rating == 3:
        sentences = [say("good"), say("bad"), say("mixed_ends")]
    else:
        mood = "good" if rating > 3 else "bad"
        sentences = [say(mood)]
        if picker.chance(0.6):
            sentences.append(say(mood))
        if rating in {2, 4} and picker.chance(0.4):
            sentences.append(say("bad" if rating == 4 else "good"))
        if picker.chance(0.6):
            sentences.append(say(f"{mood}_ends"))
    return ("" if language == CHINESE else " ").join(sentences)
