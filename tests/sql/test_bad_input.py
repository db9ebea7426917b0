from __future__ import annotations

import json
import random

import psycopg
import pytest

from tests.sql.conftest import ANNA
from tests.sql.lists import LISTS, assert_adds_up, call, ids

# Invalid data; no rights; no such row; not in this state; a limit of the server, hit before souk is asked.
CLASSES = ("22", "42501", "P0002", "55000")
CALLS = {
    **LISTS,
    "encode": {"query": "tent"},
    "interest_weights": {"query": "tent", "item_ids": ["tea", "bag"]},
    "recommend_category": {"query": "tent"},
    "explain": {"user_id": ANNA, "for_item": "tea"},
    "profile": {"user_id": ANNA},
    "log_event": {"user_id": ANNA, "item_id": "tea", "kind": "view"},
    "upsert_product": {"item_id": "x", "title": "Wok"},
    "set_personalisation": {"user_id": ANNA, "allowed": True},
}
INJECTION = "'; drop table serving.item; --"
LONG = "".join(random.Random(0).choices("абвгдежзиклмнопрстуфхцчшщ", k=10_000))
TEXTS = {
    "empty": "",
    "blank": " \t\n",
    "10 kB": "tent " * 2_000,
    "one word of 10 kB": "t" * 10_000,
    "one foreign word of 10 kB": LONG,
    "emoji": "🎈👨‍👩‍👧🇨🇳",
    "injection": INJECTION,
    "injection by quotes": "\" or 1=1; select pg_sleep(10) -- $$ \\' %s %(k)s {}",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "directions and joiners": "\u202etent\u202c\u200b\u200d\ufeff",
    "far planes": "\U000f0000\U0010fffd\ufffd\u0300\u0301",
    "like an array": "{tent,NULL}",
    "like a vector": "{1:1}/1000000000",
    "like a pseudonym": "u1_" + "g" * 32,
    "a tag": "<" * 3_000 + "b>tent</b>" + "&amp;" * 500,
    "pattern": "^(a+)+$" * 100,
}


@pytest.fixture
def scratch(read_shop):
    """The small shop of the file, left as it was found, and still whole."""
    with read_shop.transaction(force_rollback=True):
        yield read_shop
        assert read_shop.execute("select count(*) from serving.item where item_id <> 'x'").fetchone() == (8,)


def refused(connection, function, **arguments):
    """What a call is refused with: (SQLSTATE, message); None where it answers."""
    told = None
    try:
        with connection.transaction():
            call(connection, function, **arguments)
    except psycopg.Error as error:
        told = error.sqlstate or "", error.diag.message_primary
    assert told is None or told[0].startswith(CLASSES), told
    return told


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("function", ["search", "encode", "interest_weights", "recommend_category"])
def test_any_query_is_answered(scratch, function, text):
    rows = call(scratch, function, **CALLS[function] | {"query": text})
    assert rows
    if function == "search":
        assert_adds_up(rows, 10)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        ("similar", "to_item"),
        ("also_bought", "with_item"),
        ("explain", "for_item"),
    ],
)
def test_an_unknown_product_is_named(scratch, function, argument, text):
    state, message = refused(scratch, function, **CALLS[function] | {argument: text})
    assert state == "P0002"
    assert message.startswith("there is no product ")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("function", ["recommend", "recommend_by_description", "explain", "profile", "log_event"])
def test_a_raw_user_id_of_any_form_needs_the_key_and_is_keyed(scratch, function, text):
    arguments = CALLS[function] | {"user_id": text}
    if text.strip():
        assert refused(scratch, function, **arguments) == ("22023", "the session cannot turn user ids into pseudonyms")
    scratch.execute("select set_config('souk.pseudonym_key', %s, true)", ["ab" * 32])
    if text.strip():
        assert call(scratch, function, **arguments)
        assert refused(scratch, "search", query="tent", user_id=text) is None


@pytest.mark.parametrize("key", ["z", "abc", "abcd", "🎈", INJECTION])
def test_a_key_that_is_none_is_refused(scratch, key):
    scratch.execute("select set_config('souk.pseudonym_key', %s, true)", [key])
    state, _ = refused(scratch, "recommend", user_id="anna")
    assert state.startswith("22")


@pytest.mark.parametrize("text", [*TEXTS.values(), None], ids=[*TEXTS, "null"])
@pytest.mark.parametrize("filtered", ["brand", "category", "lang"])
def test_a_filter_of_any_text_is_only_compared(scratch, filtered, text):
    for function in LISTS:
        found = refused(scratch, function, filters={filtered: text})
        if text is None:
            assert found == ("22023", f"filter {filtered} cannot be null")
        else:
            assert found is None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([], "filters must be a JSON object, not array"),
        ("brand", "filters must be a JSON object, not string"),
        (3, "filters must be a JSON object, not number"),
        (True, "filters must be a JSON object, not boolean"),
        (None, "filters must be a JSON object, not null"),
        ({"colour": "red"}, "there is no filter colour"),
        ({"": ""}, "there is no filter "),
        ({INJECTION: 1}, f"there is no filter {INJECTION}"),
        ({"brand": 3}, "filter brand cannot be 3"),
        ({"brand": ["Alpine"]}, 'filter brand cannot be ["Alpine"]'),
        ({"lang": {"is": "zh"}}, 'filter lang cannot be {"is": "zh"}'),
        ({"max_price": "50"}, 'filter max_price cannot be "50"'),
        ({"min_price": None}, "filter min_price cannot be null"),
        ({"min_price": [1]}, "filter min_price cannot be [1]"),
        ({"attributes": "green"}, 'filter attributes cannot be "green"'),
        ({"attributes": []}, "filter attributes cannot be []"),
        ({"brand": "Alpine", "max_price": True}, "filter max_price cannot be true"),
    ],
)
def test_a_filter_of_the_wrong_form_is_told(scratch, filters, message):
    value = psycopg.types.json.Jsonb(filters)
    for function in LISTS:
        assert refused(scratch, function, filters=value) == ("22023", message)


def test_a_filter_that_is_sql_null_is_told(scratch):
    for function in LISTS:
        assert refused(scratch, function, filters=None) == ("22023", "filters must be a JSON object, not null")


@pytest.mark.parametrize(
    "text", ["", "{", "brand=Alpine", '{"brand": NaN}', '{"max_price": Infinity}', '{"brand": "\\u0000"}']
)
def test_what_is_no_json_is_told(scratch, text):
    state = None
    try:
        with scratch.transaction():
            scratch.execute("select * from api.recommend(null, 3, %s)", [text])
    except psycopg.Error as error:
        state = error.sqlstate
    assert state in ("22P02", "22P05")


@pytest.mark.parametrize(
    "filters",
    [
        {"max_price": -1},
        {"min_price": 10**30},
        {"min_price": 5, "max_price": 4},
        {"attributes": {"a": {"b": [{"c": None}]}}},
        {"attributes": {"": ""}},
        {"attributes": {INJECTION: INJECTION}},
        {"attributes": json.loads('{"a":' * 500 + "1" + "}" * 500)},
        {"attributes": {str(number): number for number in range(5_000)}},
    ],
)
def test_a_filter_that_nothing_passes_is_an_empty_list(scratch, filters):
    for function in LISTS:
        assert call(scratch, function, filters=filters) == []


def test_prices_beyond_every_number_compare(scratch):
    value = psycopg.types.json.Jsonb
    for function in ("recommend", "search", "trending"):
        more = {"user_id": None} if function == "recommend" else {}
        rows = call(scratch, function, filters=value({"max_price": 10**400, "min_price": -(10**400)}), **more)
        assert sorted(ids(rows)) == ["drill", "tent-2"]


@pytest.mark.parametrize("k", [0, -1, -(2**31), 1001, 100_000, 2**31 - 1, None])
def test_a_k_out_of_bounds_is_told(scratch, k):
    for function in (*LISTS, "recommend_category"):
        assert refused(scratch, function, k=k) == (
            "22023",
            f"k is {'null' if k is None else k}, but must lie between 1 and 1000",
        )


@pytest.mark.parametrize("share", ["diversity", "exploration"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), float("-inf"), None])
def test_a_share_out_of_bounds_is_told(scratch, share, value):
    state, message = refused(scratch, "recommend", **{share: value})
    assert state == "22023"
    assert message.startswith(f"{share} is ")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("recommend", {"max_per_category": 0}),
        ("recommend", {"max_per_category": -(2**31)}),
        ("trending", {"period": "-1 day"}),
        ("trending", {"period": "0"}),
        ("trending", {"period": "29 days"}),
        ("trending", {"period": "infinity"}),
        ("trending", {"period": "-infinity"}),
        ("trending", {"period": None}),
        ("interest_weights", {"temperature": 0}),
        ("interest_weights", {"temperature": -1}),
        ("interest_weights", {"temperature": 1e-300}),
        ("interest_weights", {"temperature": float("nan")}),
        ("interest_weights", {"temperature": float("inf")}),
        ("profile", {"user_id": None}),
        ("set_personalisation", {"user_id": None}),
        ("set_personalisation", {"allowed": None}),
        ("explain", {"for_item": None}),
        ("similar", {"to_item": None}),
        ("also_bought", {"with_item": None}),
        ("upsert_product", {"item_id": None}),
        ("upsert_product", {"item_id": ""}),
        ("upsert_product", {"item_id": "x" * 201}),
        ("upsert_product", {"title": None}),
        ("upsert_product", {"title": " \n"}),
        ("upsert_product", {"title": LONG}),
        ("upsert_product", {"brand": LONG}),
        ("upsert_product", {"categories": [LONG]}),
        ("upsert_product", {"price": -1}),
        ("upsert_product", {"price": 10**10}),
        ("upsert_product", {"price": "NaN"}),
        ("upsert_product", {"price": "infinity"}),
        ("upsert_product", {"attributes": psycopg.types.json.Jsonb([])}),
        ("upsert_product", {"attributes": psycopg.types.json.Jsonb("green")}),
        ("upsert_product", {"description": "x" * 1_000_001}),
    ],
)
def test_a_bad_argument_is_told(scratch, function, arguments):
    state, message = refused(scratch, function, **CALLS[function] | arguments)
    assert message
    assert state.startswith(("22", "P0002"))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("recommend", {"user_id": None, "request_id": None, "variant": "x" * 10_000}),
        ("recommend", {"max_per_category": 2**31 - 1}),
        ("recommend", {"personalised": None}),
        ("search", {"query": None}),
        ("search", {"user_id": "u1_" + "f" * 32}),
        ("recommend_category", {"query": None, "user_id": None}),
        ("trending", {"category": INJECTION}),
        ("trending", {"period": "1 microsecond"}),
        ("interest_weights", {"item_ids": []}),
        ("interest_weights", {"item_ids": None}),
        ("interest_weights", {"item_ids": [None, "tea", "tea", ""]}),
        ("interest_weights", {"item_ids": ["x" * 10_000]}),
        ("interest_weights", {"query": None}),
        ("interest_weights", {"temperature": 1e-6}),
        ("interest_weights", {"temperature": 1e6}),
        ("encode", {"query": None}),
        ("profile", {"user_id": "u1_" + "f" * 32}),
        ("set_personalisation", {"user_id": "u1_" + "f" * 32, "allowed": False}),
        ("log_event", {"session_id": "s" * 10_000}),
        ("log_event", {"item_id": INJECTION, "kind": INJECTION, "event_id": INJECTION}),
        ("upsert_product", {"title": "🎈"}),
        ("upsert_product", {"title": LONG[:2_000]}),
        ("upsert_product", {"title": "a b " * 500}),
        ("upsert_product", {"description": None, "categories": None, "attributes": None, "is_available": None}),
        ("upsert_product", {"description": LONG, "title": INJECTION, "brand": INJECTION}),
        ("upsert_product", {"categories": ["", None, INJECTION]}),
        ("upsert_product", {"categories": [["a", "b"], ["c", "d"]]}),
        ("upsert_product", {"title": "".join(map(chr, range(1, 32)))}),
    ],
)
def test_what_is_odd_is_answered(scratch, function, arguments):
    assert refused(scratch, function, **CALLS[function] | arguments) is None


def test_a_product_of_odd_texts_is_found_by_what_can_be_read(scratch):
    for number, text in enumerate(TEXTS.values()):
        call(scratch, "upsert_product", item_id="x", title=f"Zorbling {number} {text[:1_900]}", description=text)
        assert "x" in ids(call(scratch, "search", query=f"zorbling {number}", k=3))
    assert scratch.execute("select count(*) from serving.item").fetchone() == (9,)
