from __future__ import annotations

import random
from collections import Counter
from datetime import date

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.recommender import Catalogue, fit
from ml.recommender.category import Category
from ml.recommender.fusion import recent
from ml.search import Document, build_index
from ml.text import lexical_terms
from souk import release
from souk.artefacts import Shopper, write_release
from tests.sql.conftest import unit, units
from tests.sql.lists import assert_adds_up, call, ids

THINGS = {
    "en": ["tent", "drill", "lamp", "stove", "kettle", "saw"],
    "zh": ["绿茶", "茶杯", "帐篷", "台灯"],
}
BRANDS = ["Alpine", "Kiln", "北风", None]
COLOURS = ["red", "green", "蓝"]
LEAVES = [["Home", "Lamps"], ["Home", "Kitchen"], ["Outdoor", "Tents"], ["Outdoor", "Tools"], []]
STRANGER = "u1_" + "f" * 32
# Half of the products are new: nobody has ever taken them.
COUNT, KNOWN = 300, 150


def products(draw: random.Random):
    rows = []
    for number in range(COUNT):
        lang = draw.choice(["en", "en", "zh"])
        thing = draw.choice(THINGS[lang])
        rows.append(
            {
                "title": f"{thing} {draw.choice('ABCDEFG')}{number}",
                "description": "",
                "brand": draw.choice(BRANDS),
                "categories": draw.choice(LEAVES),
                "price": draw.choice([None, *range(1, 60)]),
                "attributes": {"colour": draw.choice(COLOURS), "size": {"cm": draw.randrange(3)}},
                "lang": lang,
                "key_terms": [thing],
            }
        )
    return rows


ITEMS = products(random.Random(3))
BY_ID = {f"p{number}": item for number, item in enumerate(ITEMS)}


def shoppers(draw: random.Random):
    """Pseudonym -> what the shopper took and disliked: from nothing to forty products."""
    rows = {}
    for number in range(40):
        size = draw.choice([1, 2, 5, 20, 40])
        rows[f"u1_{number:032x}"] = (draw.sample(range(KNOWN), size), draw.sample(range(COUNT), draw.choice([0, 0, 3])))
    return rows


SHOPPERS = shoppers(random.Random(4))
NEW = {f"p{number}" for number in range(COUNT)} - {f"p{number}" for taken, _ in SHOPPERS.values() for number in taken}


@pytest.fixture(scope="module")
def shop(module_database, tmp_path_factory):
    """A connection to a shop of 300 generated products."""
    titles = [item["title"] for item in ITEMS]
    vectors = units(titles)
    catalogue = Catalogue(list(BY_ID), [lexical_terms(title) for title in titles], vectors)
    model = fit(catalogue, [taken for taken, _ in SHOPPERS.values()])
    documents = [Document(item["title"], "", item["brand"] or "", item["categories"]) for item in ITEMS]
    people = {
        user: Shopper(
            history=recent(taken),
            seen=[*taken, *disliked],
            disliked=disliked,
            praise=unit(titles[taken[0]]) if len(taken) > 2 else None,
            complaint=unit(titles[disliked[0]]) if disliked else None,
            profile={},
        )
        for user, (taken, disliked) in SHOPPERS.items()
    }
    categories = [
        Category(kind, leaf[-1], 0.0, unit(leaf[-1])) for kind in ("query", "user") for leaf in LEAVES if leaf
    ]
    folder = tmp_path_factory.mktemp("generated")
    days = [(date(2026, 5, 30), number, 1 + number % 4) for number in range(0, COUNT, 3)]
    with pytest.MonkeyPatch.context() as patch:
        # What holds for every list holds for a query encoder that learnt little.
        patch.setattr("ml.search.encoder.STEPS", 5)
        index = build_index(documents, vectors, units)
    write_release(folder, "shop", ITEMS, catalogue, model, index, people, categories, days)
    entry = release.Release("generated", "shop", "generated", None, "test", True, True)
    release.load(module_database, entry, folder, 1)
    release.mark_audited(module_database, "generated")
    assert release.publish(module_database, "generated") == "published"
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute("insert into ops.serving_setting (shop, impression_share) values ('shop', 0)")
        yield connection


def passes(item, filters):
    price = item["price"]
    return (
        filters.get("brand", item["brand"]) == item["brand"]
        and ("category" not in filters or filters["category"] in item["categories"])
        and filters.get("lang", item["lang"]) == item["lang"]
        and ("min_price" not in filters or (price is not None and price >= filters["min_price"]))
        and ("max_price" not in filters or (price is not None and price <= filters["max_price"]))
        and filters.get("attributes", {}).get("colour", item["attributes"]["colour"]) == item["attributes"]["colour"]
    )


def matching(filters, without=()):
    return {item_id for item_id, item in BY_ID.items() if item_id not in without and passes(item, filters)}


def of_ids(numbers):
    return {f"p{number}" for number in numbers}


def seen(user):
    taken, disliked = SHOPPERS.get(user, ([], []))
    return of_ids([*taken, *disliked])


def leaf(item_id):
    """The category that a product is counted in; one without is alone."""
    path = BY_ID[item_id]["categories"]
    return path[-1] if path else (item_id,)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "brand": st.sampled_from(["Alpine", "Kiln", "北风", "nobody"]),
        "category": st.sampled_from(["Home", "Lamps", "Outdoor", "Tools"]),
        "lang": st.sampled_from(["en", "zh", "und"]),
        "min_price": st.sampled_from([0, 0.5, 20, 58]),
        "max_price": st.sampled_from([0, 5, 20, 1000]),
        "attributes": st.sampled_from([{}, {"colour": "red"}, {"colour": "蓝"}]),
    },
)
FILTERS = st.one_of(st.just({}), FILTERS)
KS = st.one_of(st.integers(1, 30), st.sampled_from([100, 299, 300, 1000]))
USERS = st.sampled_from([*SHOPPERS, STRANGER, None])
SHARES = st.sampled_from([0, 0.1, 0.25, 0.5, 1])
QUERIES = st.sampled_from(
    ["tent", "red lamp A7", "绿茶", "绿茶 cup", "drlil", "kettle 12", "北风 台灯", "zzzz qqqq", "", "🎈"]
)
quick = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def listed(shop, function, expected, k, filters, **arguments):
    """The ids of a list after what must hold for every list: `expected` are the products that may be on it."""
    rows = call(shop, function, k=k, filters=filters, **arguments)
    again = call(shop, function, k=k, filters=filters, **arguments)
    assert [{**row, "request_id": None} for row in rows] == [{**row, "request_id": None} for row in again]
    assert set(ids(rows)) <= expected
    if rows:
        assert_adds_up(rows, k)
    return ids(rows)


@quick
@given(USERS, KS, FILTERS, SHARES, SHARES, st.sampled_from([None, None, 1, 3]))
def test_recommendations(shop, user, k, filters, diversity, exploration, cap):
    eligible = matching(filters, seen(user))
    found = listed(
        shop,
        "recommend",
        eligible,
        k,
        filters,
        user_id=user,
        diversity=diversity,
        exploration=exploration,
        max_per_category=cap,
    )
    leaves = Counter(map(leaf, eligible))
    assert len(found) == min(k, sum(min(count, cap or COUNT) for count in leaves.values()))
    assert all(count <= (cap or COUNT) for count in Counter(map(leaf, found)).values())
    if cap is None:
        assert len(set(found) & NEW) >= min(int(k * exploration + 1e-9), len(eligible & NEW))


@quick
@given(USERS, QUERIES, KS, FILTERS)
def test_search(shop, user, query, k, filters):
    found = listed(shop, "search", matching(filters), k, filters, query=query, user_id=user)
    assert len(found) == min(k, len(matching(filters)))


@quick
@given(st.sampled_from(["similar", "also_bought"]), st.sampled_from(list(BY_ID)), KS, FILTERS)
def test_shelves_of_a_product(shop, function, item, k, filters):
    expected = matching(filters, {item})
    argument = {"to_item" if function == "similar" else "with_item": item}
    assert len(listed(shop, function, expected, k, filters, **argument)) == min(k, len(expected))


@quick
@given(KS, FILTERS, st.sampled_from([None, "Home", "Tents"]), st.sampled_from(["1 hour", "7 days", "28 days"]))
def test_trending(shop, k, filters, category, period):
    expected = matching(filters | ({"category": category} if category else {}))
    found = listed(shop, "trending", expected, k, filters, category=category, period=period)
    assert len(found) == min(k, len(expected))


@quick
@given(USERS, KS, FILTERS)
def test_by_description(shop, user, k, filters):
    expected = matching(filters, seen(user))
    assert len(listed(shop, "recommend_by_description", expected, k, filters, user_id=user)) == min(k, len(expected))


@quick
@given(USERS, st.sampled_from(list(BY_ID)))
def test_explanations(shop, user, item):
    [told] = call(shop, "explain", user_id=user, for_item=item)
    assert sum(reason["contribution"] for reason in told["reasons"]) == pytest.approx(told["score"], abs=1e-6)
    assert (told["note"] is not None) == (user not in SHOPPERS or item in seen(user))
    assert 1 <= told["rank"] <= COUNT
    if item not in seen(user):
        rows = call(shop, "recommend", user_id=user, k=COUNT, diversity=0, exploration=0)
        assert (rows[told["rank"] - 1]["item_id"], rows[told["rank"] - 1]["score"]) == (
            item,
            pytest.approx(told["score"]),
        )


@quick
@given(QUERIES, st.lists(st.sampled_from(list(BY_ID)), min_size=1, max_size=40), st.sampled_from([None, 1e-3, 1, 100]))
def test_interest_weights(shop, query, items, temperature):
    rows = call(shop, "interest_weights", query=query, item_ids=items, temperature=temperature)
    assert sorted(ids(rows)) == sorted(set(items))
    assert sum(row["interest_weight"] for row in rows) == pytest.approx(1)
    assert [row["cosine"] for row in rows] == sorted((row["cosine"] for row in rows), reverse=True)


@quick
@given(USERS, st.one_of(st.none(), QUERIES), st.integers(1, 6))
def test_categories(shop, user, query, k):
    rows = call(shop, "recommend_category", user_id=user, query=query, k=k)
    assert len(rows) == min(k, 4)
    assert sum(row["probability"] for row in rows) <= 1 + 1e-9
    assert k < 4 or sum(row["probability"] for row in rows) == pytest.approx(1)


def test_lists_are_full_however_many_products_are_hidden(shop):
    hidden = 200
    with shop.transaction(force_rollback=True):
        shop.execute("update serving.item set is_available = false where item_no < %s", [hidden])
        shown = {item for (item,) in shop.execute("select item_id from serving.item where is_available").fetchall()}
        for user in (None, *list(SHOPPERS)[:5]):
            expected = shown - seen(user)
            for k in (10, 50, 300):
                for function in ("recommend", "recommend_by_description"):
                    found = listed(shop, function, expected, k, {}, user_id=user)
                    assert len(found) == min(k, len(expected)), function
        for function, more in {"search": {"query": "tent"}, "trending": {}, "similar": {"to_item": "p1"}}.items():
            found = listed(shop, function, shown, 50, {}, **more)
            assert len(found) == 50, function
