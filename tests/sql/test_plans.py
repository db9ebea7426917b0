from __future__ import annotations

import json

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from souk import release
from tests.sql.lists import call, ids

pytestmark = pytest.mark.slow

COUNT = 8_000
USER = "u1_" + "0" * 32
# 6 of 7 products pass the broad filter, 1 of 400 the rare one.
FILTERS = {"none": {}, "broad": {"brand": "Common"}, "rare": {"brand": "Rare"}}
CALLS = {
    "recommend": {"user_id": USER},
    "search": {"query": "tent a7"},
    "similar": {"to_item": "p77"},
    "also_bought": {"with_item": "p77"},
    "trending": {},
    "recommend_by_description": {"user_id": USER},
}
# A direction that differs from product to product, drawn from its number.
VECTOR = (
    "(select l2_normalize(array_agg(sin({0} * 12.9898 + d * 78.233 + {0} * d * 0.618)::real order by d)::vector)"
    " from generate_series(1, 384) as d)::halfvec(384)"
)
INPUT, OUTPUT = VECTOR.replace("384", "256"), VECTOR.replace("384", "257")
FILL = {
    "item": f"""
        (release_id, item_no, item_id, title, description, brand, categories, price, attributes, lang, key_terms,
         popularity, text_vector, lexical, sequence_input, sequence_output)
        select
            %(id)s, g, 'p' || g, 'tent a' || g %% 50, repeat('Waterproof and light. ', 20),
            case when g %% 400 = 7 then 'Rare' when g %% 7 = 0 then 'Other' else 'Common' end,
            array['Outdoor', 'Leaf ' || g %% 20], g %% 100, jsonb_build_object('colour', g %% 10),
            case when g %% 400 = 7 then 'zh' else 'en' end, array['tent'], 1 - g / {COUNT}.0,
            {VECTOR.format("g")}, ('{{1:1,' || 2 + g %% 50 || ':1}}/1000000000')::sparsevec,
            {INPUT.format("g")}, {OUTPUT.format("g + 1")}
        from generate_series(0, {COUNT - 1}) as g
    """,
    "original": "select %(id)s, 0, 'Light.'",
    "position_weight": "select %(id)s, g, array_fill(0.7 ^ g, array[256])::vector from generate_series(0, 19) as g",
    "popularity": f"""
        select %(id)s, array_agg(g order by g), array_agg(1 - g / {COUNT}.0 order by g)
        from generate_series(0, {COUNT}) as g
    """,
    "edge": f"""
        select %(id)s, g, k.kind, array(select (g * 31 + n * 97) %% {COUNT} from generate_series(1, 50) as n),
            array(select 1.0 / n from generate_series(1, 50) as n)
        from generate_series(0, {COUNT - 1}) as g
        cross join unnest(array['transition', 'tfidf', 'encoder', 'cooccurrence']) as k (kind)
        where k.kind <> 'cooccurrence' or g %% 2 = 0
    """,
    "weight": """
        select %(id)s, w.term, w.min_history, 1
        from (values
            ('sequence', 1), ('transition', 1), ('tfidf', 1), ('encoder', 1), ('popularity', 1), ('search_words', 0), ('search_grams', 0),
            ('search_pairs', 0), ('search_measures', 0), ('search_numbers', 0), ('search_semantic', 0),
            ('search_unknown_idf', 0), ('search_gram_length', 0), ('interest_temperature', 0)
        ) as w (term, min_history)
    """,
    "term": f"""
        select
            %(id)s, case t when 1 then 'tent' else 'a' || t - 2 end, t, {COUNT}, 1,
            array(select n * 50 + greatest(t - 2, 0) from generate_series(0, 99) as n), array_fill(1::real, array[100]),
            {VECTOR.format("t")}
        from generate_series(1, 51) as t
        union all
        select %(id)s, 'word ' || t, t, 1, 1, array[1], array[1], null from generate_series(100, 9999) as t
    """,
    "spelling": "select %(id)s, 'ten', array['tent']",
    "category": f"select %(id)s, 'query', 'Leaf ' || g, 0, {VECTOR.format('g')}::vector from generate_series(0, 19) as g",
    "item_day": "select %(id)s, date '2026-05-31' - g %% 28, g, 3 from generate_series(0, 999) as g",
    "user_profile": f"""
        select
            %(id)s, 'shop', 'u1_' || lpad(u::text, 32, '0'), array(select u + n * 13 from generate_series(1, 20) as n),
            array(select u + n * 13 from generate_series(1, 40) as n), array[u + 5], {VECTOR.format("u")},
            {VECTOR.format("u + 1")}, '{{}}'
        from generate_series(0, 199) as u
    """,
}


def fill(connection, part, table, release_id, _folder):
    statement = psycopg.sql.SQL("insert into {} ").format(part) + psycopg.sql.SQL(FILL[table])
    return connection.execute(statement, {"id": release_id}).rowcount


def load(dsn, name):
    """Load a release as the pipeline does, filled by SQL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "_copy", fill)
        release.load(dsn, release.Release(name, "shop", name, None, "test", True, True), "", 1)
    release.mark_audited(dsn, name)


@pytest.fixture(scope="module")
def shop(server, module_database):
    """A connection to a shop of 8,000 products that tells its plans; only a superuser's may load what tells them."""
    load(module_database, "first")
    assert release.publish(module_database, "first") == "published"
    name = conninfo_to_dict(module_database)["dbname"]
    with psycopg.connect(server.dsn(str(name)), autocommit=True) as connection:
        connection.execute(
            "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
            " set auto_explain.log_format = json; set auto_explain.log_level = notice; set auto_explain.log_analyze = on;"
            " set auto_explain.log_timing = off"
        )
        connection.execute("insert into ops.serving_setting (shop, impression_share) values ('shop', 0)")
        yield connection


@pytest.fixture(scope="module")
def two_releases(shop, module_database):
    """The same connection, with a second release beside the one that is shown."""
    load(module_database, "second")
    return shop


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def executed(connection, function, **arguments):
    """The rows of a call, and the nodes that were executed in it."""
    plans = []

    def keep(notice):
        _, mark, text = (notice.message_primary or "").partition("plan:\n")
        if mark:
            plans.append(json.loads(text)["Plan"])

    connection.add_notice_handler(keep)
    rows = call(connection, function, **arguments)
    connection.remove_notice_handler(keep)
    assert len(plans) > 3
    return rows, [node for plan in plans for node in nodes(plan) if node["Actual Loops"]]


def scans(found, table, name="first"):
    """How a table of a release was read: (kind of node, index, rows)."""
    return [
        (node["Node Type"], node.get("Index Name"), node["Actual Rows"] * node["Actual Loops"])
        for node in found
        if node.get("Relation Name") == release.partition(table, name)
        or node.get("Index Name", "").startswith(release.partition(table, name))
    ]


def vector_index(connection, column="text_vector"):
    [[index]] = connection.execute(
        "select indexname from pg_indexes where tablename = %s and indexdef like %s",
        [release.partition("item", "first"), f"% USING hnsw ({column} %"],
    ).fetchall()
    return index


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("function", CALLS)
def test_products_are_found_by_an_index(shop, function, filters):
    rows, found = executed(shop, function, **CALLS[function], filters=FILTERS[filters], k=10)
    assert len(rows) == 10
    assert "Seq Scan" not in {kind for kind, *_ in scans(found, "item")}
    assert scans(found, "item")
    others = [table for table in ("edge", "term", "user_profile") if "Seq Scan" in {s[0] for s in scans(found, table)}]
    assert others == []


@pytest.mark.parametrize(("function", "filters"), [(f, n) for f in ("similar", "search") for n in FILTERS])
def test_the_vector_index_serves_all_but_rare_filters(shop, function, filters):
    rows, found = executed(shop, function, **CALLS[function], filters=FILTERS[filters], k=10)
    uses = {index for _, index, _ in scans(found, "item")}
    assert (vector_index(shop) in uses) == (filters != "rare")
    if filters == "rare":
        exact = shop.execute(
            "select array_agg(item_id order by d) from (select i.item_id, i.text_vector <=> s.text_vector as d"
            " from serving.item as i, serving.item as s where s.item_id = 'p77' and i.brand = 'Rare' order by 2 limit 10)"
        ).fetchone()[0]
        if function == "similar":
            assert ids(rows) == exact


@pytest.mark.parametrize("filters", FILTERS)
def test_what_is_likely_comes_from_an_index_of_its_own(shop, filters):
    _, found = executed(shop, "recommend", **CALLS["recommend"], filters=FILTERS[filters], k=10)
    rows = [rows for _, index, rows in scans(found, "item") if index == vector_index(shop, "sequence_output")]
    # Where few pass they are all scored; what they are measured against is still the likeliest of all.
    assert max(rows) == (1 if filters == "rare" else 60)


@pytest.mark.parametrize(
    "rare",
    [
        {"lang": "zh"},
        {"attributes": {"colour": 3}},
        {"category": "Leaf 3"},
        {"max_price": 0},
        {"brand": "Rare", "lang": "en"},
    ],
)
def test_each_filter_has_an_index(shop, rare):
    for function in ("recommend", "search", "similar"):
        _, found = executed(shop, function, **CALLS[function], filters=rare, k=10)
        assert "Seq Scan" not in {kind for kind, *_ in scans(found, "item")}, function


@pytest.mark.parametrize("function", CALLS)
def test_few_products_are_read(shop, function):
    _, found = executed(shop, function, **CALLS[function], k=10)
    assert sum(rows for _, _, rows in scans(found, "item")) < COUNT / 4


def test_a_product_of_an_application_is_written_by_indexes(shop):
    with shop.transaction(force_rollback=True):
        _, found = executed(shop, "upsert_product", item_id="new", title="tent zorbling", brand="Rare")
        assert "Seq Scan" not in {s[0] for table in ("item", "edge", "term") for s in scans(found, table)}
        _, found = executed(shop, "log_event", user_id=USER, item_id="new", kind="click")
        assert "Seq Scan" not in {s[0] for s in scans(found, "item")}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("function", CALLS)
def test_beside_another_release_the_shown_one_alone_is_read(two_releases, function, filters):
    rows, found = executed(two_releases, function, **CALLS[function], filters=FILTERS[filters], k=10)
    assert {row["release_id"] for row in rows} == {"first"}
    for table in release.TABLES:
        assert scans(found, table, "second") == []
        assert table in ("weight", "position_weight", "category", "item_day", "popularity") or "Seq Scan" not in {
            kind for kind, *_ in scans(found, table)
        }
    if function in ("similar", "search") and filters != "rare":
        assert vector_index(two_releases) in {index for _, index, _ in scans(found, "item")}
