"""The people of the demo shop, and what they do in it, simulated for one block of people at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from souk.sources.demo_shop.catalogue import DAY, DAYS, END, START, Catalogue, Floats, Ints
from souk.sources.demo_shop.vocabulary import CHINESE, ENGLISH, Vocabulary

KINDS = ("view", "click", "cart", "purchase", "dislike", "return")
VIEW, CLICK, CART, PURCHASE, DISLIKE, RETURN = range(6)
BLOCK = 1_000
SHOWN = 10
NAMED = {"alice": (ENGLISH, ("Outdoors", "Kitchen")), "小明": (CHINESE, ("Tea", "Electronics"))}
MOST_SESSIONS = 60
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Shoppers:
    """One block of u people.

    Attributes:
        first: Number of the first of them.
        language: 0 English, 1 Chinese, (u,).
        taste: Share of interest in each category, (u, categories).
        wants: Share of interest in each product type, (u, types).
        brand: Favourite brand of each category, (u, categories).
        trait: Favourite trait of each type, (u, types).
        price_level: Preferred place in a price range, (u,).
        sessions: Number of visits, (u,).
        joined: Share of the log's time that passes before the first visit, (u,).
        has_contact: Whether the shop knows a name and an address, (u,).
    """

    first: int
    language: Ints
    taste: Floats
    wants: Floats
    brand: Ints
    trait: Ints
    price_level: Floats
    sessions: Ints
    joined: Floats
    has_contact: Bools

    def user_id(self, index: int) -> str:
        """Return the shop's id of a person of this block."""
        number = self.first + index
        return list(NAMED)[number] if number < len(NAMED) else f"user-{number:06d}"


@dataclass(frozen=True)
class Log:
    """What one block of people did: e events and q searches, each in order of person and time.

    People and searches are numbered within the block; times are Unix seconds.
    """

    user: Ints
    item: Ints
    kind: Ints
    at: Ints
    session: Ints
    search: Ints  # -1 for events outside a search
    fit: Floats  # how well the product suits the person
    quantity: Ints
    search_user: Ints
    search_session: Ints
    search_at: Ints
    search_type: Ints
    search_target: Ints  # the product that the person has in mind, -1 for none
    search_shown: Ints  # (q, SHOWN), padded with -1


def draw_shoppers(words: Vocabulary, seed: int, first: int, count: int) -> Shoppers:
    """Draw a block of people.

    Args:
        words: The vocabulary.
        seed: Seed of the shop.
        first: Number of the first person, a multiple of `BLOCK`.
        count: Number of people.
    """
    rng = np.random.default_rng([seed, 1, first // BLOCK])
    categories = np.array([kind.category for kind in words.types])
    taste = rng.standard_gamma(0.35, (count, len(words.categories))) + 0.01
    language = (rng.random(count) < 0.5).astype(np.int64)
    sessions = np.minimum(1 + np.exp(1.2 + 0.85 * rng.standard_normal(count)).astype(np.int64), MOST_SESSIONS)
    joined = np.where(rng.random(count) < 0.3, rng.random(count) * 0.8, 0.0)
    brand, price_level = rng.integers(0, 5, (count, len(words.categories))), rng.random(count)
    if first == 0:  # two people to show: long histories of ordinary wishes
        for number, (tongue, loved) in enumerate(NAMED.values()):
            language[number], sessions[number], joined[number] = tongue, 22, 0.0
            brand[number], price_level[number] = 0, 0.5
            taste[number] = [1.0 if category.name[ENGLISH] in loved else 0.02 for category in words.categories]
    taste /= taste.sum(axis=1, keepdims=True)
    wants = taste[:, categories] * (0.2 + rng.standard_gamma(1.0, (count, len(words.types))))
    return Shoppers(
        first=first,
        language=language,
        taste=taste,
        wants=wants / wants.sum(axis=1, keepdims=True),
        brand=brand,
        trait=rng.integers(0, 4, (count, len(words.types))),
        price_level=price_level,
        sessions=sessions,
        joined=joined,
        has_contact=(rng.random(count) < 0.15) | (np.arange(first, first + count) < len(NAMED)),
    )


def _visits(shoppers: Shoppers, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the person and the start of each visit, in order of person and time."""
    days = np.arange(DAYS)
    traffic = (1 + 0.3 * days / DAYS) * np.where(days % 7 < 2, 1.3, 1.0)
    reached = np.concatenate([[0.0], traffic.cumsum() / traffic.sum()])
    user = np.repeat(np.arange(len(shoppers.language)), shoppers.sessions)
    joined = shoppers.joined[user]
    day = np.interp(joined + (1 - joined) * rng.random(len(user)), reached, np.arange(DAYS + 1)).astype(np.int64)
    hour = 7 + 15 * np.sqrt(rng.random(len(user)))  # evenings are busier; nobody starts in the last two hours of a day
    at = int(START.timestamp()) + np.minimum(day, DAYS - 1) * DAY + (hour * 3600).astype(np.int64)
    order = np.lexsort((at, user))
    return user[order], at[order]


class Simulation:
    """Walks all people of a block through their visits at the same time, first visits first.

    A person carries over from one visit to the next: a product that goes with what was bought, a consumable that
    runs out, and the types that are not needed twice.
    """

    def __init__(self, catalogue: Catalogue, shoppers: Shoppers, seed: int) -> None:
        people, types = shoppers.wants.shape
        self.catalogue, self.shoppers = catalogue, shoppers
        self.rng = np.random.default_rng([seed, 2, shoppers.first // BLOCK])
        self.category = np.array([kind.category for kind in catalogue.words.types])
        self.consumable = np.array([kind.is_consumable for kind in catalogue.words.types])
        self.season = np.array([catalogue.words.categories[c].season for c in self.category])  # (types, months)
        self.pending = np.full(people, -1)
        self.running_out = np.full(people, -1)
        self.due = np.zeros(people, dtype=np.int64)
        self.owned = np.zeros((people, types), dtype=np.bool_)
        self.events: list[tuple[NDArray[np.generic], ...]] = []
        self.searches: list[tuple[Ints, ...]] = []
        self.search_count = 0

    def run(self) -> Log:
        """Simulate every visit."""
        user, at = _visits(self.shoppers, self.rng)
        counts = self.shoppers.sessions
        nth = np.arange(len(user)) - (counts.cumsum() - counts)[user]
        for visit in range(int(counts.max())):
            session = np.flatnonzero(nth == visit)
            self._visit(user[session], at[session], session)
        return self._log()

    def _visit(self, user: Ints, at: Ints, session: Ints) -> None:
        rng, catalogue = self.rng, self.catalogue
        target = self._target(user, at)
        kind = np.where(target >= 0, catalogue.kind[target], self._type(user, at))
        is_search = rng.random(len(user)) < 0.38
        shown = self._shown(user, at, kind, target)
        fit = self._fit(user, shown)
        fit[shown == target[:, None]] += 3.0
        bias = 1 / (1 + 0.3 * np.arange(SHOWN))
        clicked = (shown >= 0) & (rng.random(shown.shape) < bias / (1 + np.exp(-0.6 - 0.9 * fit)))
        carted = clicked & (rng.random(shown.shape) < 0.75 / (1 + np.exp(1.0 - fit)))
        best = np.where(carted, fit, -np.inf).argmax(axis=1)
        bought = np.zeros_like(carted)
        row = np.arange(len(user))
        bought[row, best] = carted[row, best] & (rng.random(len(user)) < 0.82)

        companion, via_cart = self._companion(at, shown, clicked, carted, best)
        extra_click = (companion >= 0) & (rng.random(len(user)) < np.where(via_cart, 0.65, 0.45))
        extra_cart = extra_click & (rng.random(len(user)) < 0.5)
        extra_bought = extra_cart & (rng.random(len(user)) < 0.75)
        extra_fit = self._fit(user, companion[:, None]) + 1.0

        def widen(left: NDArray[np.generic], right: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.concatenate([left, right.reshape(len(user), -1)], axis=1)

        search = np.where(is_search, self.search_count + is_search.cumsum() - 1, -1)
        self.search_count += int(is_search.sum())
        self.searches.append(tuple(part[is_search] for part in (user, session, at, kind, target)) + (shown[is_search],))
        self._record(
            user,
            at,
            session,
            search,
            widen(shown, companion).astype(np.int64),
            widen(fit, extra_fit).astype(np.float64),
            {
                CLICK: widen(clicked, extra_click).astype(np.bool_),
                CART: widen(carted, extra_cart).astype(np.bool_),
                PURCHASE: widen(bought, extra_bought).astype(np.bool_),
            },
        )

    def _target(self, user: Ints, at: Ints) -> Ints:
        """Return the product that each person comes back for, -1 for none."""
        rng = self.rng
        pending = self.pending[user]
        follows = (pending >= 0) & (rng.random(len(user)) < 0.65) & (self.catalogue.listed[pending] <= at)
        repeats = (self.running_out[user] >= 0) & (self.due[user] <= at) & (rng.random(len(user)) < 0.65)
        self.pending[user[follows]] = -1
        return np.where(follows, pending, np.where(repeats, self.running_out[user], -1))

    def _type(self, user: Ints, at: Ints) -> Ints:
        """Draw the type that each person looks for, by taste, season and what is owned already."""
        month = np.minimum((at - int(START.timestamp())) // (30 * DAY), 5)
        wants = self.shoppers.wants[user] * self.season[:, month].T
        wants *= np.where(self.owned[user] & ~self.consumable, 0.15, 1.0)
        reached = wants.cumsum(axis=1)
        drawn: Ints = (reached < self.rng.random((len(user), 1)) * reached[:, -1:]).sum(axis=1)
        return drawn

    def _shown(self, user: Ints, at: Ints, kind: Ints, target: Ints) -> Ints:
        """Return what the shop shows, best first: a noisy ranking by appeal and language that knows no tastes."""
        catalogue = self.catalogue
        options = catalogue.members[kind]
        rank = catalogue.appeal[options] + self.rng.gumbel(0, 0.8, options.shape)
        rank += 2.5 * (catalogue.language[options] == self.shoppers.language[user][:, None])
        rank += 3.5 * (options == target[:, None])
        rank[(options < 0) | (catalogue.listed[options] > at[:, None])] = -np.inf
        if options.shape[1] < SHOWN:
            wider = ((0, 0), (0, SHOWN - options.shape[1]))
            options, rank = np.pad(options, wider, constant_values=-1), np.pad(rank, wider, constant_values=-np.inf)
        best = np.argpartition(-rank, SHOWN - 1, axis=1)[:, :SHOWN]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(rank, best, 1), axis=1, kind="stable"), 1)
        return np.where(np.isneginf(np.take_along_axis(rank, best, 1)), -1, np.take_along_axis(options, best, 1))

    def _fit(self, user: Ints, items: Ints) -> Floats:
        """Return how well each product suits each person, (people, products); 0 is lukewarm."""
        catalogue, shoppers = self.catalogue, self.shoppers
        kind = catalogue.kind[items]
        person = user[:, None]
        fit = 1.3 * (catalogue.brand[items] == shoppers.brand[person, self.category[kind]])
        fit = fit + 0.9 * (catalogue.trait[items] == shoppers.trait[person, kind])
        fit += 1.5 * (catalogue.language[items] == shoppers.language[person]) - 1.8
        fit -= 2.5 * np.abs(catalogue.price_level[items] - shoppers.price_level[person])
        fit += 0.5 * catalogue.quality[items] + 0.4 * self.rng.standard_normal(items.shape)
        return np.asarray(fit, dtype=np.float64)

    def _companion(self, at: Ints, shown: Ints, clicked: Bools, carted: Bools, best: Ints) -> tuple[Ints, Bools]:
        """Return the product that goes with what was put in the cart or else clicked, and which of the two it was."""
        row = np.arange(len(at))
        in_cart: Bools = np.asarray(carted.any(axis=1))
        place = np.where(in_cart, best, clicked.argmax(axis=1))
        main = np.where(clicked.any(axis=1), shown[row, place], -1)
        companion = np.where(main >= 0, self._follower(main), -1)
        return np.where(self.catalogue.listed[companion] <= at, companion, -1), in_cart

    def _follower(self, item: Ints) -> Ints:
        """Draw what may follow each product: mostly a companion, at times another one of its type, -1 for none."""
        companions, members = self.catalogue.companions, self.catalogue.members
        second = (self.rng.random(len(item)) < 0.4) & (companions[item, 1] >= 0)
        companion = companions[item, second.astype(np.int64)]
        kind = self.catalogue.kind[companion]
        place = (self.rng.random(len(item)) * (members >= 0).sum(axis=1)[kind]).astype(np.int64)
        strays = (companion >= 0) & (self.rng.random(len(item)) < 0.35)
        follower: Ints = np.where(strays, members[kind, place], companion)
        return follower

    def _record(
        self,
        user: Ints,
        at: Ints,
        session: Ints,
        search: Ints,
        items: Ints,
        fit: Floats,
        done: dict[int, Bools],
    ) -> None:
        """Write down one visit of each person and what they carry over from it."""
        rng = self.rng
        offset = rng.integers(8, 70, items.shape).cumsum(axis=1)
        offset[:, SHOWN] += 90  # the companion is offered after the purchase
        paid = offset + 60
        paid[:, :SHOWN] = paid[:, SHOWN - 1 : SHOWN]  # one purchase, once everything was looked at
        delay = {CLICK: offset, CART: offset + 5, PURCHASE: paid}
        for kind, mask in done.items():
            row, place = np.nonzero(mask)
            inside = (search[row] >= 0) & (place < SHOWN)
            kinds = np.where(inside | (kind != CLICK), kind, VIEW)
            self._write(
                user[row], items[row, place], kinds, (at[:, None] + delay[kind])[row, place], session[row],
                np.where(inside, search[row], -1), fit[row, place],
            )  # fmt: skip
        row, place = np.nonzero(done[CLICK] & ~done[CART] & (fit < -0.8) & (rng.random(fit.shape) < 0.1))
        self._write(
            user[row], items[row, place], np.full(len(row), DISLIKE), (at[:, None] + offset)[row, place] + 3,
            session[row], np.full(len(row), -1), fit[row, place],
        )  # fmt: skip
        self._carry_over(user, at, session, items, fit, done[PURCHASE])

    def _carry_over(self, user: Ints, at: Ints, session: Ints, items: Ints, fit: Floats, bought: Bools) -> None:
        rng = self.rng
        row, place = np.nonzero(bought)
        buyer, item = user[row], items[row, place]
        kind = self.catalogue.kind[item]
        self.owned[buyer, kind] = True
        used_up = self.consumable[kind]
        self.running_out[buyer[used_up]] = item[used_up]
        self.due[buyer[used_up]] = at[row][used_up] + rng.integers(18, 40, int(used_up.sum())) * DAY
        follower = self._follower(item)
        wanted = (follower >= 0) & (rng.random(len(item)) < 0.75)
        self.pending[buyer[wanted]] = follower[wanted]
        back_at = at[row] + rng.integers(3 * DAY, 12 * DAY, len(row))
        regret = 0.12 / (1 + np.exp(1.5 * self.catalogue.quality[item]))
        back = ~used_up & (rng.random(len(item)) < regret) & (back_at < int(END.timestamp()))
        self._write(
            buyer[back], item[back], np.full(int(back.sum()), RETURN), back_at[back], session[row][back],
            np.full(int(back.sum()), -1), fit[row, place][back],
        )  # fmt: skip

    def _write(self, user: Ints, item: Ints, kind: Ints, at: Ints, session: Ints, search: Ints, fit: Floats) -> None:
        several = (kind == PURCHASE) & self.consumable[self.catalogue.kind[item]]
        quantity = np.where(several, 1 + (self.rng.random(len(item)) * 2.2).astype(np.int64), 1)
        self.events.append((user, item, kind, at, session, search, fit, quantity))

    def _log(self) -> Log:
        columns = [np.concatenate(parts) for parts in zip(*self.events, strict=True)]
        searched = [np.concatenate(parts) for parts in zip(*self.searches, strict=True)]
        order = np.lexsort((columns[2], columns[3], columns[0]))
        search_order = np.lexsort((searched[2], searched[0]))
        renumbered = np.empty(len(search_order) + 1, dtype=np.int64)
        renumbered[search_order] = np.arange(len(search_order))
        renumbered[-1] = -1  # where -1, no search, points
        columns[5] = renumbered[columns[5]]
        return Log(*(column[order] for column in columns), *(column[search_order] for column in searched))


def simulate(catalogue: Catalogue, shoppers: Shoppers, seed: int) -> Log:
    """Return what a block of people did; the same for the same shop, whatever was asked before."""
    return Simulation(catalogue, shoppers, seed).run()
