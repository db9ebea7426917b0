"""The demo shop: a seeded generator of a bilingual (Chinese and English) shop, bit-identical for the same parameters.

People have latent tastes and come in visits: a search or a browse shows products, position and taste decide what is
clicked, put in the cart and bought; some products lead on to others, consumables are bought again, and reviews mostly
agree with their rating. A fifth of the descriptions is poor on purpose. What the simulation knows and a shop would not,
`DemoShop.truth` tells, for measurement only.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from souk.errors import SoukError
from souk.sources.contract import Dataset, Row, chunks, fingerprint
from souk.sources.demo_shop.catalogue import DAY, END, POOR_KINDS, Catalogue, build_catalogue, product_row
from souk.sources.demo_shop.opinions import REVIEW_DRAWS, SEARCH_DRAWS, query_text, review_body
from souk.sources.demo_shop.shoppers import BLOCK, KINDS, PURCHASE, Log, Shoppers, draw_shoppers, simulate
from souk.sources.demo_shop.vocabulary import LANGUAGES, PHRASES, WORDS, Picker

VERSION = "2"  # raised with every change of the output
ITEMS, USERS = 1_200, 2_000
LARGEST_SCALE = 1_000
REVIEWED_SHARE = 0.75


def open_demo_shop(scale: float, seed: int) -> DemoShop:
    """Open the shop of a size and a seed.

    Args:
        scale: Multiplies people and events; products grow with its square root. 1 is about 40,000 events.
        seed: Any number from 0.

    Raises:
        SoukError: A parameter is out of range.
    """
    if not (math.isfinite(scale) and 0 < scale <= LARGEST_SCALE):
        raise SoukError(f"The scale {scale} is not between 0 and {LARGEST_SCALE}", "Pass --scale 1 for the usual size.")
    if seed < 0:
        raise SoukError(f"The seed {seed} is negative", "Pass a seed from 0.")
    return DemoShop(
        shop="demo-shop" if (scale, seed) == (1, 0) else f"demo-shop-s{scale:g}-seed{seed}",
        source="demo-shop",
        is_generated=True,
        has_clock=True,
        fingerprint=fingerprint(["demo-shop", VERSION, repr(float(scale)), str(seed)], [WORDS, PHRASES]),
        scale=scale,
        seed=seed,
    )


@dataclass(frozen=True)
class DemoShop(Dataset):
    """A generated shop; memory is bounded by one block of people, whatever the scale."""

    scale: float
    seed: int

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """Return the products."""
        return build_catalogue(self.seed, round(ITEMS * math.sqrt(self.scale)))

    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""
        return chunks(self._in_order())

    def events(self) -> Iterator[list[Row]]:
        """Yield the events, by person and time."""
        return chunks(row for shoppers in self._blocks() for row in self._event_rows(shoppers))

    def queries(self) -> Iterator[list[Row]]:
        """Yield the searches, by person and time."""
        return chunks(row for shoppers in self._blocks() for row in self._query_rows(shoppers))

    def reviews(self) -> Iterator[list[Row]]:
        """Yield the reviews, by person and product."""
        return chunks(row for shoppers in self._blocks() for row in self._review_rows(shoppers))

    def _in_order(self) -> Iterator[Row]:
        for index in np.argsort(self.catalogue.number).tolist():
            yield product_row(self.catalogue, index)

    def _blocks(self) -> Iterator[Shoppers]:
        people = max(20, round(USERS * self.scale))
        for first in range(0, people, BLOCK):
            yield draw_shoppers(self.catalogue.words, self.seed, first, min(BLOCK, people - first))

    def _event_rows(self, shoppers: Shoppers) -> Iterator[Row]:
        log = simulate(self.catalogue, shoppers, self.seed)
        block = shoppers.first // BLOCK
        users, items = self._names(shoppers)
        first_events = set(np.flatnonzero(np.diff(log.user, prepend=-1)).tolist())
        columns = (log.user, log.item, log.kind, log.at, log.session, log.search, log.quantity)
        for number, (user, item, kind, at, session, search, quantity) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            row: Row = {
                "event_id": f"e-{block}-{number}",
                "user_id": users[user],
                "item_id": items[item],
                "kind": KINDS[kind],
                "event_at": datetime.fromtimestamp(at, UTC),
                "session_id": f"s-{block}-{session}",
                "query_id": f"q-{block}-{search}" if search >= 0 else None,
                "quantity": quantity,
            }
            if number in first_events and shoppers.has_contact[user]:
                row["contact"] = self._contact(shoppers, user)
            yield row

    def _query_rows(self, shoppers: Shoppers) -> Iterator[Row]:
        log = simulate(self.catalogue, shoppers, self.seed)
        block = shoppers.first // BLOCK
        users, items = self._names(shoppers)
        draws = np.random.default_rng([self.seed, 3, block]).random((len(log.search_user), SEARCH_DRAWS))
        for number, user in enumerate(log.search_user.tolist()):
            yield {
                "query_id": f"q-{block}-{number}",
                "user_id": users[user],
                "session_id": f"s-{block}-{log.search_session[number]}",
                "query_text": query_text(self.catalogue, shoppers, log, number, Picker(draws[number].tolist())),
                "searched_at": datetime.fromtimestamp(int(log.search_at[number]), UTC),
                "shown_item_ids": [items[item] for item in log.search_shown[number].tolist() if item >= 0],
            }

    def _review_rows(self, shoppers: Shoppers) -> Iterator[Row]:
        log = simulate(self.catalogue, shoppers, self.seed)
        block = shoppers.first // BLOCK
        users, items = self._names(shoppers)
        for number, (event, rating, at, draws) in enumerate(self._reviewed(log, block)):
            user, item = int(log.user[event]), int(log.item[event])
            picker = Picker(draws)
            row: Row = {
                "review_id": f"r-{block}-{number}",
                "user_id": users[user],
                "item_id": items[item],
                "rating": rating,
                "body": review_body(self.catalogue, item, int(shoppers.language[user]), rating, picker),
                "reviewed_at": datetime.fromtimestamp(at, UTC),
            }
            if shoppers.has_contact[user]:
                row["contact"] = self._contact(shoppers, user)
            yield row

    def _reviewed(self, log: Log, block: int) -> Iterator[tuple[int, int, int, list[float]]]:
        """Yield the purchase, the rating, the time and the draws of each review: at most one by person and product."""
        purchases = np.flatnonzero(log.kind == PURCHASE)
        pairs = log.user[purchases] * len(self.catalogue.kind) + log.item[purchases]
        purchases = purchases[np.unique(pairs, return_index=True)[1]]
        rng = np.random.default_rng([self.seed, 4, block])
        at = log.at[purchases] + rng.integers(2 * DAY, 14 * DAY, len(purchases))
        opinion = 3.55 + 0.8 * self.catalogue.quality[log.item[purchases]] + 0.25 * log.fit[purchases]
        rating = np.clip(np.rint(opinion + 0.7 * rng.standard_normal(len(purchases))), 1, 5).astype(np.int64)
        draws = rng.random((len(purchases), REVIEW_DRAWS))
        keep = (rng.random(len(purchases)) < REVIEWED_SHARE) & (at < int(END.timestamp()))
        for index in np.flatnonzero(keep).tolist():
            yield int(purchases[index]), int(rating[index]), int(at[index]), draws[index].tolist()

    def _names(self, shoppers: Shoppers) -> tuple[list[str], list[str]]:
        users = [shoppers.user_id(index) for index in range(len(shoppers.language))]
        return users, [self.catalogue.item_id(index) for index in range(len(self.catalogue.kind))]

    def _contact(self, shoppers: Shoppers, index: int) -> dict[str, str]:
        """Return contact data that can belong to nobody: a reserved domain and numbers never assigned."""
        number, language = shoppers.first + index, int(shoppers.language[index])
        names = self.catalogue.words.phrases["people"][LANGUAGES[language]]
        return {
            "name": names[number % len(names)],
            "email": f"shopper{number}@example.com",
            "phone": f"+1 202 555 01{number % 100:02d}" if language == 0 else f"+86 100 0000 {number % 10000:04d}",
        }

    def truth(self) -> dict[str, dict[str, dict[str, object]]]:
        """Return what the simulation knows of each product and person, by id: to measure with, never to learn from."""
        users: dict[str, dict[str, object]] = {}
        for shoppers in self._blocks():
            users |= self._user_truth(shoppers)
        return {"items": self._item_truth(), "users": users}

    def write_truth(self, home: Path) -> Path:
        """Write `truth()` under a folder as `truth/<shop>.json`, unless it is there, and return the file.

        Raises:
            SoukError: The folder cannot be written.
        """
        target = home / "truth" / f"{self.shop}.json"
        head = f'{{"fingerprint": "{self.fingerprint}", "items": '
        try:
            if target.is_file():
                with target.open(encoding="utf-8") as file:
                    if file.read(len(head)) == head:
                        return target
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".{os.getpid()}.part")
            with partial.open("w", encoding="utf-8") as file:
                file.write(head + json.dumps(self._item_truth(), ensure_ascii=False) + ', "users": {')
                for shoppers in self._blocks():  # a block at a time, so that memory stays bounded
                    file.write("," if shoppers.first else "")
                    file.write(json.dumps(self._user_truth(shoppers), ensure_ascii=False)[1:-1])
                file.write("}}")
            partial.replace(target)
        except OSError as error:
            raise SoukError(
                f"{target} cannot be written: {error.strerror}", "Free some space or set SOUK_HOME."
            ) from error
        return target

    def _item_truth(self) -> dict[str, dict[str, object]]:
        catalogue = self.catalogue
        items: dict[str, dict[str, object]] = {}
        for index in range(len(catalogue.kind)):
            poor = int(catalogue.poor[index])
            items[catalogue.item_id(index)] = {
                "type": catalogue.words.types[catalogue.kind[index]].name[0],
                "language": LANGUAGES[catalogue.language[index]],
                "quality": round(float(catalogue.quality[index]), 4),
                "description": POOR_KINDS[poor] if poor >= 0 else "good",
                "companions": [catalogue.item_id(item) for item in catalogue.companions[index].tolist() if item >= 0],
            }
        return items

    def _user_truth(self, shoppers: Shoppers) -> dict[str, dict[str, object]]:
        categories = self.catalogue.words.categories
        names = [category.name[0] for category in categories]
        users: dict[str, dict[str, object]] = {}
        for index in range(len(shoppers.language)):
            shares = [round(share, 4) for share in shoppers.taste[index].tolist()]
            brands = zip(categories, shoppers.brand[index].tolist(), strict=True)
            users[shoppers.user_id(index)] = {
                "language": LANGUAGES[shoppers.language[index]],
                "price_level": round(float(shoppers.price_level[index]), 4),
                "categories": dict(zip(names, shares, strict=True)),
                "brands": {category.name[0]: category.brands[brand][0] for category, brand in brands},
            }
        return users
