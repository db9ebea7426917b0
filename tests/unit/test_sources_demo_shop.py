"""The generated shop: determinism, size, plausibility, and what must never leak."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from souk.errors import SoukError
from souk.sources import CHUNK_ROWS, Row, open_dataset
from souk.sources.demo_shop import VERSION, DemoShop, open_demo_shop
from souk.sources.demo_shop.catalogue import POOR_KINDS

ENTITIES = ("products", "events", "queries", "reviews")
Shop = dict[str, list[Row]]
CJK = re.compile("[\u4e00-\u9fff]")


def read(shop: DemoShop) -> Shop:
    return {entity: [row for chunk in getattr(shop, entity)() for row in chunk] for entity in ENTITIES}


def digest(shop: Shop) -> str:
    return hashlib.sha256(json.dumps(shop, default=str, sort_keys=True).encode()).hexdigest()


@pytest.fixture(scope="module")
def dataset() -> DemoShop:
    return open_demo_shop(1, 0)


@pytest.fixture(scope="module")
def shop(dataset: DemoShop) -> Shop:
    return read(dataset)


def test_the_default_size(shop: Shop) -> None:
    assert len(shop["products"]) == 1_200
    assert 1_950 < len({event["user_id"] for event in shop["events"]}) <= 2_000
    assert 35_000 < len(shop["events"]) < 45_000
    assert 3_500 < len(shop["queries"]) < 4_500
    assert 2_500 < len(shop["reviews"]) < 3_500


def test_the_same_parameters_give_the_same_bits_and_another_seed_does_not() -> None:
    first = open_demo_shop(0.1, 3)
    once, again, other = read(first), read(open_demo_shop(0.1, 3)), read(open_demo_shop(0.1, 4))
    assert digest(once) == digest(again) == digest(read(first))
    assert digest(once) != digest(other)
    assert first.fingerprint == open_demo_shop(0.1, 3).fingerprint != open_demo_shop(0.1, 4).fingerprint


def test_the_version_changes_with_the_output() -> None:
    """When this fails on purpose, raise VERSION: a shop that was landed before must not pass for the new one."""
    assert (VERSION, digest(read(open_demo_shop(0.02, 0)))[:16]) == ("2", "7b35125296a80ede")


@pytest.mark.parametrize(
    ("scale", "seed", "name"), [(1, 0, "demo-shop"), (2, 7, "demo-shop-s2-seed7"), (0.5, 0, "demo-shop-s0.5-seed0")]
)
def test_the_name_tells_the_parameters(scale: float, seed: int, name: str) -> None:
    shop = open_demo_shop(scale, seed)
    assert shop.shop == name
    assert shop.is_generated
    assert shop.has_clock


@pytest.mark.parametrize(("scale", "seed"), [(0, 0), (-1, 0), (math.nan, 0), (math.inf, 0), (1, -1), (1e9, 0)])
def test_impossible_parameters_are_refused(scale: float, seed: int) -> None:
    with pytest.raises(SoukError):
        open_demo_shop(scale, seed)


def test_people_and_events_grow_with_the_scale_and_products_with_its_root() -> None:
    shop = open_demo_shop(4, 0)
    sizes = [len(chunk) for chunk in shop.events()]
    assert max(sizes) == CHUNK_ROWS
    assert 140_000 < sum(sizes) < 180_000
    assert sum(len(chunk) for chunk in shop.products()) == 2_400


def test_keys_are_unique_and_references_resolve(shop: Shop) -> None:
    items = {row["item_id"] for row in shop["products"]}
    queries = {row["query_id"]: row for row in shop["queries"]}
    assert len(items) == len(shop["products"])
    assert len(queries) == len(shop["queries"])
    for entity, key in (("events", "event_id"), ("reviews", "review_id")):
        assert len({row[key] for row in shop[entity]}) == len(shop[entity]) > 0
        assert {row["item_id"] for row in shop[entity]} <= items
    clicks = [event for event in shop["events"] if event["query_id"]]
    assert len(clicks) > 5_000
    for event in clicks:
        query = queries[event["query_id"]]
        assert event["item_id"] in query["shown_item_ids"]
        assert (event["user_id"], event["session_id"]) == (query["user_id"], query["session_id"])
        assert event["event_at"] > query["searched_at"]


def test_time_is_fixed_and_no_product_is_seen_before_it_is_listed(shop: Shop) -> None:
    start, end = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    times = [event["event_at"] for event in shop["events"]] + [review["reviewed_at"] for review in shop["reviews"]]
    assert start <= min(times) < max(times) < end
    assert max(times).date().isoformat() == "2026-06-30"
    listed = {row["item_id"]: row["listed_at"] for row in shop["products"]}
    assert sum(at > start for at in listed.values()) > 100, "new products"
    assert all(event["event_at"] >= listed[event["item_id"]] for event in shop["events"])


def test_both_languages_and_every_poor_kind_occur(dataset: DemoShop, shop: Shop) -> None:
    truth = dataset.truth()["items"]
    kinds = Counter(str(item["description"]) for item in truth.values())
    assert set(kinds) == {"good", *POOR_KINDS}
    assert 0.16 < 1 - kinds["good"] / len(truth) < 0.24
    assert Counter(item["language"] for item in truth.values()) == {"en": 600, "zh": 600}
    for row in shop["products"]:
        item = truth[str(row["item_id"])]
        assert bool(CJK.search(str(row["title"]))) == (item["language"] == "zh")
        assert row["currency"] in {None, "USD" if item["language"] == "en" else "CNY"}
        if item["description"] == "good":
            assert len(re.findall("[.。?？]", str(row["description"]))) >= 3
    good = [row["description"] for row in shop["products"] if truth[str(row["item_id"])]["description"] == "good"]
    assert len(set(good)) > 0.95 * len(good)
    assert len({row["title"] for row in shop["products"]}) > 0.99 * len(shop["products"])


def test_templates_are_all_filled(shop: Shop) -> None:
    texts = [str(row[key]) for entity, key in (
        ("products", "title"), ("products", "description"), ("queries", "query_text"), ("reviews", "body"),
    ) for row in shop[entity]]  # fmt: skip
    assert len(texts) > 8_000
    assert not [text for text in texts if "{" in text or "}" in text]
    assert all(row["query_text"] for row in shop["queries"])


def test_ground_truth_stays_out_of_the_rows(shop: Shop) -> None:
    assert set(shop["products"][0]) == {
        "item_id", "title", "description", "brand", "categories", "price", "currency", "attributes", "listed_at",
    }  # fmt: skip
    names = {name for row in shop["products"] for name in row["attributes"]}
    assert names
    assert not names & {"quality", "appeal", "companions", "description", "poor", "type"}


def test_truth_is_written_aside(tmp_path: Path) -> None:
    dataset = open_dataset("demo-shop", None, 0.05, 1, tmp_path)
    assert isinstance(dataset, DemoShop)
    file = tmp_path / "truth" / "demo-shop-s0.05-seed1.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == {"fingerprint": dataset.fingerprint} | dataset.truth()
    assert {"alice", "小明"} <= set(written["users"])
    before = file.stat().st_mtime_ns
    dataset.write_truth(tmp_path)
    assert file.stat().st_mtime_ns == before
    file.write_text("stale")
    dataset.write_truth(tmp_path)
    assert json.loads(file.read_text(encoding="utf-8")) == written
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_unwritable_home_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "truth").write_text("a file where a folder should be")
    with pytest.raises(SoukError, match="cannot be written"):
        open_dataset("demo-shop", None, 0.02, 0, tmp_path)


@pytest.mark.parametrize(("user", "language"), [("alice", "en"), ("小明", "zh")])
def test_two_people_are_memorable(dataset: DemoShop, shop: Shop, user: str, language: str) -> None:
    events = [event for event in shop["events"] if event["user_id"] == user]
    truth = dataset.truth()
    assert truth["users"][user]["language"] == language
    assert len(events) >= 25
    assert sum(event["kind"] == "purchase" for event in events) >= 3
    assert [query for query in shop["queries"] if query["user_id"] == user]
    tongues = Counter(truth["items"][str(event["item_id"])]["language"] for event in events)
    assert tongues[language] > 0.6 * len(events)


def test_contact_data_is_fake_and_rare(shop: Shop) -> None:
    contacts = [row["contact"] for row in shop["events"] + shop["reviews"] if "contact" in row]
    assert 200 < len(contacts) < 0.05 * len(shop["events"])
    assert all(contact["email"].endswith("@example.com") for contact in contacts)
    assert {event["user_id"] for event in shop["events"] if "contact" in event} >= {"alice", "小明"}


def test_position_matters(shop: Shop) -> None:
    clicked = {(event["query_id"], event["item_id"]) for event in shop["events"] if event["kind"] == "click"}
    first, last = (
        sum((query["query_id"], query["shown_item_ids"][place]) in clicked for query in shop["queries"])
        for place in (0, -1)
    )
    assert first > 2 * last > 0


def test_order_is_directed(dataset: DemoShop, shop: Shop) -> None:
    """Accessories follow the main product much more often than the other way round."""
    companions = {item: set(row["companions"]) for item, row in dataset.truth()["items"].items()}
    history: dict[str, list[str]] = defaultdict(list)
    for event in shop["events"]:
        history[str(event["user_id"])].append(str(event["item_id"]))
    forward = backward = 0
    for items in history.values():
        for one, other in zip(items, items[1:], strict=False):
            forward += other in companions[one]
            backward += one in companions[other]
    assert forward > 800
    assert forward > 3 * backward


def test_consumables_are_bought_again(shop: Shop) -> None:
    bought = Counter((row["user_id"], row["item_id"]) for row in shop["events"] if row["kind"] == "purchase")
    assert sum(count > 1 for count in bought.values()) > 100


def test_tents_sell_in_summer(shop: Shop) -> None:
    outdoors = {row["item_id"] for row in shop["products"] if row["categories"][0] in {"Outdoors", "户外运动"}}
    seen, total = Counter[int](), Counter[int]()
    for event in shop["events"]:
        total[event["event_at"].month] += 1
        seen[event["event_at"].month] += event["item_id"] in outdoors
    assert seen[5] / total[5] > 1.5 * seen[1] / total[1]


def test_reviews_mostly_agree_with_their_rating(shop: Shop) -> None:
    bad = re.compile(
        "Disappointed|nothing but trouble|fell far short|Terrible|The worst|Poor|很差|失望|不符|糟糕|不值|不行"
    )
    blamed: dict[int, list[bool]] = defaultdict(list)
    for review in shop["reviews"]:
        if review["body"]:
            blamed[int(review["rating"])].append(bool(bad.search(str(review["body"]))))
    share = {rating: sum(found) / len(found) for rating, found in blamed.items()}
    assert set(share) == {1, 2, 3, 4, 5}
    assert share[1] > 0.85
    assert 0.02 < share[5] < 0.12
    assert sum(not review["body"] for review in shop["reviews"]) > 100


def test_taste_shows_in_events(dataset: DemoShop, shop: Shop) -> None:
    """The deliberate break: with people shuffled, what they buy no longer fits their favourite brand."""
    users = dataset.truth()["users"]
    brands = {row["item_id"]: (row["categories"][0], row["brand"]) for row in shop["products"]}
    bought = [row for row in shop["events"] if row["kind"] == "purchase" and brands[row["item_id"]][1]]

    def agreement(person: dict[str, str]) -> float:
        pairs = [(users[person[str(row["user_id"])]]["brands"], *brands[row["item_id"]]) for row in bought]
        english = [brand == favourite[category] for favourite, category, brand in pairs if category in favourite]
        return sum(english) / len(english)

    names = list(users)
    shuffled = dict(zip(names, names[500:] + names[:500], strict=True))
    assert agreement(dict(zip(names, names, strict=True))) > agreement(shuffled) + 0.1
