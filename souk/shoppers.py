"""What the marts know of shoppers, read one shopper at a time; products are positions in the catalogue."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from ml.recommender.fusion import HISTORY
from ml.recommender.opinions import opinions, review_directions
from ml.recommender.repeats import Repurchases, repeating_categories
from souk.artefacts import Shopper

Connection = psycopg.Connection[Any]
Encode = Callable[[list[str]], NDArray[np.float32]]

# Of a shopper: products, signals and days of the events in time order.
History = tuple[str, Sequence[int], Sequence[int], Sequence[float]]

DISLIKE, LIKE, PURCHASE = -1, 1, 2
# What an event of `fct_interactions` says, in SQL.
SIGNAL = f"(case when kind = 'purchase' then {PURCHASE} when strength > 0 then {LIKE} else {DISLIKE} end)::smallint"
DAYS = 28
ROWS_PER_FETCH = 2000


@dataclass(frozen=True)
class Past:
    """What one shopper has dealt with.

    Attributes:
        history: The last 20 products whose latest signal is a liking one, newest first.
        seen: Products that are not recommended again, in the order of the catalogue.
        disliked: The last 20 products whose latest signal is a dislike or a return, newest first.
    """

    history: Sequence[int]
    seen: Sequence[int]
    disliked: Sequence[int]


@dataclass(frozen=True)
class Behaviour:
    """What all shoppers did.

    Attributes:
        pasts: By pseudonym.
        liked: What each viewed, clicked, put in the cart or bought, in time order.
        bought: What each bought, in time order.
        events: Number of events behind it.
    """

    pasts: dict[str, Past] = field(default_factory=dict)
    liked: list[Sequence[int]] = field(default_factory=list)
    bought: list[Sequence[int]] = field(default_factory=list)
    events: int = 0


def place_items(connection: Connection, item_ids: Sequence[str]) -> None:
    """Make the temporary table item_place: the position of each product. The other functions of this module join it."""
    connection.execute("create temporary table item_place (item_id text primary key, place integer not null)")
    with connection.cursor() as cursor, cursor.copy("copy item_place (item_id, place) from stdin") as copy:
        for place, item in enumerate(item_ids):
            copy.write_row((item, place))
    connection.execute("analyze item_place")


def repeat_gaps(connection: Connection, shop: str) -> dict[str, float]:
    """Return the leaf categories that repeat, with their typical gap in days; none where the shop has no clock."""
    counted = connection.execute(
        "with bought as ("
        "select distinct e.user_key, e.item_id, (e.event_at at time zone 'UTC')::date as day"
        " from marts.fct_interactions as e"
        " inner join intermediate.int_shops__clocked as c on c.shop = e.shop and c.has_clock"
        " where e.shop = %(shop)s and e.kind = 'purchase'),"
        " spaced as (select b.user_key, b.item_id, b.day - lag(b.day) over w as gap, row_number() over w as nth"
        " from bought as b window w as (partition by b.user_key, b.item_id order by b.day))"
        " select i.leaf_category, count(*) filter (where s.nth = 1), count(*) filter (where s.nth = 2),"
        " percentile_cont(0.5) within group (order by s.gap)"
        " from spaced as s inner join marts.dim_items as i on i.shop = %(shop)s and i.item_id = s.item_id"
        " where i.leaf_category is not null group by i.leaf_category",
        {"shop": shop},
    ).fetchall()
    return repeating_categories(Repurchases(*row) for row in counted)


def past(
    items: Sequence[int], signals: Sequence[int], days: Sequence[float], gaps: NDArray[np.float64], until: float
) -> Past:
    """Return what a shopper's events say of products to build on, to leave out and to avoid.

    Args:
        items: Products of the events in time order.
        signals: PURCHASE, LIKE or DISLIKE, which a return is, too.
        days: When each happened, in days.
        gaps: For each product of the catalogue, after how many days it is bought again; infinite for never.
        until: The day up to which there is data.
    """
    latest: dict[int, int] = {}
    bought: dict[int, float] = {}
    for item, signal, day in zip(items, signals, days, strict=True):
        latest.pop(item, None)
        latest[item] = signal
        if signal == PURCHASE:
            bought[item] = day

    def is_due(item: int, signal: int) -> bool:
        return signal > 0 and item in bought and until - bought[item] > gaps[item]

    newest = list(reversed(latest.items()))
    return Past(
        history=[item for item, signal in newest if signal > 0][:HISTORY],
        # Four bytes a product, here and below: what all shoppers had is in memory at once.
        seen=array("i", sorted(item for item, signal in latest.items() if not is_due(item, signal))),
        disliked=[item for item, signal in newest if signal < 0][:HISTORY],
    )


def read_histories(connection: Connection, shop: str) -> Iterator[History]:
    """Yield what the mart has of each shopper, by pseudonym; products without a place are left out.

    Args:
        connection: Where `place_items` was called.
        shop: The shop.
    """
    yield from stream(
        connection,
        'select e.user_key, array_agg(n.place order by e.event_at, e.event_id collate "C"),'
        f' array_agg({SIGNAL} order by e.event_at, e.event_id collate "C"),'
        ' array_agg(extract(epoch from e.event_at)::float8 / 86400 order by e.event_at, e.event_id collate "C")'
        " from marts.fct_interactions as e inner join item_place as n on n.item_id = e.item_id"
        ' where e.shop = %s group by e.user_key order by e.user_key collate "C"',
        [shop],
    )


def read_behaviour(
    connection: Connection, shop: str, gaps: NDArray[np.float64], histories: Iterable[History]
) -> Behaviour:
    """Return what the shoppers of a shop did, in the order of their histories.

    Args:
        connection: It knows up to when there is data.
        shop: The shop.
        gaps: As for `past`.
        histories: Of all shoppers, one at a time: those of `read_histories`, or of the lake.
    """
    row = connection.execute(
        "select extract(epoch from watermark)::float8 / 86400 from intermediate.int_shops__clocked where shop = %s",
        [shop],
    ).fetchone()
    until = float(row[0]) if row and row[0] is not None else 0.0
    pasts: dict[str, Past] = {}
    liked: list[Sequence[int]] = []
    bought: list[Sequence[int]] = []
    events = 0
    for user, items, signals, days in histories:
        pasts[user] = past(items, signals, days, gaps, until)
        events += len(items)
        pairs = list(zip(items, signals, strict=True))
        liked.append(array("i", [item for item, signal in pairs if signal > 0]))
        bought.append(array("i", [item for item, signal in pairs if signal == PURCHASE]))
    return Behaviour(pasts, liked, bought, events)


def read_opinions(
    connection: Connection, shop: str, text_vectors: NDArray[np.float16], encode: Encode
) -> Iterator[tuple[str, NDArray[np.float16] | None, NDArray[np.float16] | None]]:
    """Yield praise and complaint of each shopper who has written a review, None for what there is not.

    The mood of a review is the sentiment of its text or, without text, its rating, from -1 for one star to 1 for five.

    Args:
        connection: Where `place_items` was called.
        shop: The shop.
        text_vectors: (n, d), of the products.
        encode: Gives the vectors of m texts, (m, d), in the same space.
    """
    reviews = stream(
        connection,
        "select r.user_key, array_agg(n.place order by r.review_id), array_agg(r.body order by r.review_id),"
        " array_agg((case when btrim(r.body) = '' then (r.rating - 3) / 2 else r.sentiment end)::float8"
        " order by r.review_id)"
        " from marts.fct_reviews as r inner join item_place as n on n.item_id = r.item_id"
        " where r.shop = %s and (btrim(r.body) <> '' or r.rating is not null)"
        " group by r.user_key order by r.user_key",
        [shop],
    )
    while block := list(islice(reviews, ROWS_PER_FETCH)):
        owners = np.repeat(np.arange(len(block)), [len(items) for _, items, _, _ in block])
        items = np.array([item for _, its, _, _ in block for item in its])
        bodies = [body for _, _, texts, _ in block for body in texts]
        moods = np.array([mood for _, _, _, felt in block for mood in felt])
        directions = review_directions(text_vectors[items], encode(bodies))
        for (user, *_), *vectors in zip(block, *opinions(owners, moods, directions, len(block)), strict=True):
            praise, complaint = (vector.astype(np.float16) if vector.any() else None for vector in vectors)
            yield user, praise, complaint


def read_profiles(connection: Connection, shop: str) -> Iterator[tuple[str, object]]:
    """Yield what the marts say of each shopper, as JSON."""
    yield from stream(
        connection,
        "select p.user_key, to_jsonb(p) - 'shop' - 'user_key' from marts.dim_user_profiles as p"
        " where p.shop = %s order by p.user_key",
        [shop],
    )


def item_days(connection: Connection, shop: str) -> list[tuple[date, int, int]]:
    """Return day, product and number of liking events for the last 28 days of the data; empty without a clock."""
    return connection.execute(
        "select (e.event_at at time zone 'UTC')::date as day, n.place, count(*)"
        " from marts.fct_interactions as e inner join item_place as n on n.item_id = e.item_id"
        " inner join intermediate.int_shops__clocked as c on c.shop = e.shop and c.has_clock"
        " where e.shop = %s and e.strength > 0"
        f" and (e.event_at at time zone 'UTC')::date > (c.watermark at time zone 'UTC')::date - {DAYS}"
        " and e.event_at <= c.watermark"
        " group by 1, 2 order by 1, 2",
        [shop],
    ).fetchall()


def shoppers(
    pasts: Mapping[str, Past],
    profiles: Iterator[tuple[str, object]],
    told: Iterator[tuple[str, NDArray[np.float16] | None, NDArray[np.float16] | None]],
) -> dict[str, Shopper]:
    """Return everybody who did, searched or reviewed anything."""
    moods = {user: (praise, complaint) for user, praise, complaint in told}
    known = dict(profiles)
    nothing = Past([], [], [])
    return {
        user: Shopper(
            history=(one := pasts.get(user, nothing)).history,
            seen=one.seen,
            disliked=one.disliked,
            praise=moods.get(user, (None, None))[0],
            complaint=moods.get(user, (None, None))[1],
            profile=known.get(user, {}),
        )
        for user in dict.fromkeys([*pasts, *known, *moods])
    }


def stream(connection: Connection, query: str, parameters: Sequence[object]) -> Iterator[Any]:
    """Yield the rows of a query a few thousand at a time."""
    with connection.transaction(), connection.cursor(name="stream") as cursor:
        cursor.itersize = ROWS_PER_FETCH
        cursor.execute(query, parameters, binary=True)
        yield from cursor
