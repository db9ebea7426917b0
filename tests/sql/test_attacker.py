from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.sql.conftest import ANNA, BORIS, CHEN, TITLES, publish_shop
from tests.sql.lists import LISTS, call, ids

PASSWORD = "a password of the tests"
LOGINS = {"test_mallory": "shop", "test_oscar": "other", "test_nobody": None}


@pytest.fixture(scope="module")
def shops(module_database, tmp_path_factory):
    """DSNs by login: two shops are published, the second without the tea; one login serves none."""
    folder = tmp_path_factory.mktemp("shops")
    titles = {item: title for item, title in TITLES.items() if item != "tea"} | {"secret": "Zorbling secret"}
    publish_shop(module_database, folder, "other-1", titles, shop="other")
    publish_shop(module_database, folder, "shop-1")
    with psycopg.connect(module_database, autocommit=True) as operator:
        for login, shop in LOGINS.items():
            operator.execute(
                sql.SQL("create role {} login password {} in role souk_app").format(sql.Identifier(login), PASSWORD)
            )
            if shop:
                operator.execute("insert into ops.tenant_role (role_name, shop) values (%s, %s)", [login, shop])
        # The same person is known in both shops, by what differs.
        operator.execute(
            "insert into live.event (event_id, shop, user_key, item_id, kind, event_at)"
            " values ('s1', 'other', %s, 'secret', 'click', now())",
            [ANNA],
        )
        yield {login: make_conninfo(module_database, user=login, password=PASSWORD) for login in LOGINS}
        for login in LOGINS:
            operator.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


@pytest.fixture
def mallory(shops):
    """A connection of a login of the shop `shop`."""
    with psycopg.connect(shops["test_mallory"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def oscar(shops):
    """A connection of a login of the shop `other`."""
    with psycopg.connect(shops["test_oscar"], autocommit=True) as connection:
        yield connection


def test_a_login_asks_for_its_password(shops):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(shops["test_mallory"], password="guessed"))


@pytest.mark.parametrize(
    "statement",
    [
        "select * from serving.item",
        "select * from serving.user_profile",
        "select * from live.event",
        "select * from live.impression",
        "select * from ops.tenant_role",
        "select * from raw.event",
        "select * from vault.person",
        "select * from migration.applied",
        "insert into ops.tenant_role values ('test_mallory', 'other')",
        "update ops.tenant_role set shop = 'other'",
        "delete from live.opt_out",
        "truncate live.event",
        "select internal.current_shop()",
        "select internal.shopper('other', 'other-1', 'u1')",
        "select internal.publish_release('other-1')",
        "select internal.put_item('shop', 'shop-1', 'tea')",
        "set role souk_owner",
        "set role souk_loader",
        "set session authorization test_oscar",
        "grant souk_owner to test_mallory",
        "alter role test_mallory superuser",
        "create table public.item (item_id text)",
        "create function public.hashtext(text) returns integer language sql as 'select 1'",
        "create operator public.= (leftarg = text, rightarg = text, function = pg_catalog.textne)",
        "create schema mallory",
        "create function api.steal() returns text language sql as 'select 1'",
        "create or replace function api.encode(query text) returns public.halfvec language sql as 'select null'",
        "alter function api.encode(text) security invoker",
        "alter table live.event disable row level security",
        "create trigger steal before insert on live.event execute function pg_catalog.suppress_redundant_updates_trigger()",
        "create extension pg_trgm",
        "set session_replication_role = replica",
        "alter system set max_connections = 3",
        "copy (select 1) to '/tmp/stolen'",
        "select pg_read_file('postgresql.conf')",
        "select * from pg_authid",
    ],
)
def test_an_attacker_is_refused(mallory, statement):
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName)):
        mallory.execute(statement)


def test_the_partitions_of_a_release_are_refused(mallory, module_database):
    with psycopg.connect(module_database) as operator:
        parts = operator.execute("select oid::regclass::text from pg_class where relispartition and relkind = 'r'")
        names = [name for (name,) in parts]
    assert len(names) >= 16
    for name in names:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            mallory.execute(f"select * from {name}")


def test_every_function_answers_for_the_shop_of_the_login(mallory, oscar):
    for function in LISTS:
        for connection, release, item in ((mallory, "shop-1", "secret"), (oscar, "other-1", "tea")):
            rows = call(connection, function, k=1000)
            assert {row["release_id"] for row in rows} == {release}
            assert item not in ids(rows)
    assert ids(call(oscar, "search", query="zorbling", k=1)) == ["secret"]
    assert call(mallory, "search", query="zorbling", k=1)[0]["reasons"][0]["term"] != "words"
    for connection, foreign in ((mallory, "secret"), (oscar, "tea")):
        for function, argument in (("similar", "to_item"), ("also_bought", "with_item"), ("explain", "for_item")):
            arguments = {argument: foreign} | ({"user_id": ANNA} if function == "explain" else {})
            with pytest.raises(psycopg.errors.NoDataFound):
                call(connection, function, **arguments)
        assert call(connection, "interest_weights", query="tea", item_ids=[foreign]) == []
        logged = call(connection, "log_event", user_id=ANNA, item_id=foreign, kind="click")
        assert logged[0]["log_event"] == "unknown_item"
    assert {row["release_id"] for row in call(mallory, "recommend_category")} == {"shop-1"}


def test_a_person_is_another_in_another_shop(mallory, oscar):
    mine, theirs = (call(c, "profile", user_id=ANNA)[0]["profile"] for c in (mallory, oscar))
    assert "secret" not in {item["item_id"] for item in mine["history"]}
    assert "secret" in {item["item_id"] for item in theirs["history"]}
    call(oscar, "set_personalisation", user_id=CHEN, allowed=False)
    assert call(mallory, "profile", user_id=CHEN)[0]["profile"]["is_personalised"] is True
    call(mallory, "log_event", user_id=BORIS, item_id="cup", kind="click", event_id="e1")
    assert (
        call(oscar, "log_event", user_id=BORIS, item_id="cup", kind="click", event_id="e1")[0]["log_event"]
        == "recorded"
    )
    call(mallory, "upsert_product", item_id="mine", title="Quuxo")
    with pytest.raises(psycopg.errors.NoDataFound):
        call(oscar, "similar", to_item="mine")


@pytest.fixture
def acting_owner(module_database):
    """A function that tells what souk_owner sees for the login that calls it, as every function of the api does."""
    with psycopg.connect(module_database, autocommit=True) as operator:
        operator.execute(
            "create function api.seen_shops(name text) returns text[] language plpgsql security definer"
            " set search_path to pg_catalog, pg_temp as $$ declare found text[]; begin execute format("
            "'select array_agg(distinct t.shop) from %s as t', name::regclass) into found; return found; end $$;"
            " alter function api.seen_shops(text) owner to souk_owner;"
            " grant execute on function api.seen_shops(text) to souk_app"
        )
        yield
        operator.execute("drop function api.seen_shops(text)")


@pytest.mark.usefixtures("acting_owner")
def test_even_the_owner_sees_the_shop_of_the_login_alone(mallory, oscar, module_database):
    with psycopg.connect(module_database) as operator:
        for table in ("live.event", "live.impression", "live.opt_out"):
            columns, values = ("event_id, item_id, kind, event_at", "'x', 'tea', 'click', now()")
            if table == "live.impression":
                columns, values = (
                    "request_id, surface, variant, release_id, item_ids",
                    "uuidv7(), 's', 'v', 'r', '{}'",
                )
            elif table == "live.opt_out":
                columns, values = ("since", "now()")
            for shop in ("shop", "other"):
                operator.execute(
                    f"insert into {table} (shop, user_key, {columns}) values ('{shop}', 'u1_x', {values})"
                    " on conflict do nothing"
                )
    for table in ("live.event", "live.impression", "live.opt_out", "serving.user_profile"):
        for connection, shop in ((mallory, "shop"), (oscar, "other")):
            assert connection.execute("select api.seen_shops(%s)", [table]).fetchone() == ([shop],), table


def test_row_security_switched_off_shows_nothing(mallory):
    mallory.execute("set row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        call(mallory, "recommend")


# What a temporary object may be called so that a careless function would take it for its own.
SHADOWS = [
    "create temp table item as select 'other-1'::text as release_id",
    "create temp table pointer (shop text, release_id text, moved_at timestamptz)",
    "create temp table tenant_role as select session_user::text as role_name, 'other'::text as shop",
    "create temp table event (shop text, user_key text)",
    "create temp view pg_roles as select 'x' as rolname",
    "create temp table pg_class (oid int)",
    "create domain pg_temp.text as pg_catalog.text check (value is null)",
    "create domain pg_temp.jsonb as pg_catalog.jsonb check (value is null)",
    "create domain pg_temp.halfvec as pg_catalog.text check (value is null)",
    "create domain pg_temp.sparsevec as pg_catalog.text check (value is null)",
    "create function pg_temp.current_shop() returns text language sql as $$ select 'other' $$",
    "create function pg_temp.hashtext(text) returns integer language plpgsql as $$ begin raise 'taken in'; end $$",
    "create function pg_temp.lower(text) returns text language plpgsql as $$ begin raise 'taken in'; end $$",
    "create function pg_temp.textne(text, text) returns boolean language plpgsql as $$ begin raise 'taken in'; end $$",
    "create function pg_temp.l2_normalize(public.halfvec) returns public.halfvec language plpgsql"
    " as $$ begin raise 'taken in'; end $$",
    "create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.textne)",
    "create operator pg_temp.<#> (leftarg = public.halfvec, rightarg = public.halfvec, function = public.l2_distance)",
    "set search_path = pg_temp, public, api, pg_catalog",
    "set souk.shop = 'other'",
    "set souk.current_shop = 'other'",
    "set souk.pseudonym_key = '00'",
    "set transform_null_equals = on",
    "set timezone = 'Pacific/Kiritimati'",
    "set datestyle = 'German'",
    "set standard_conforming_strings = off",
    "set bytea_output = escape",
]


def everything(connection):
    lists = {function: call(connection, function, k=8) for function in LISTS}
    return {
        **{name: [{**row, "request_id": None} for row in rows] for name, rows in lists.items()},
        "explain": call(connection, "explain", user_id=ANNA, for_item="stove"),
        "profile": call(connection, "profile", user_id=ANNA),
        "encode": call(connection, "encode", query="cordless drill"),
        "weights": call(connection, "interest_weights", query="cordless drill", item_ids=["drill", "tea"]),
        "category": call(connection, "recommend_category", query="tent"),
    }


def test_temporary_objects_and_settings_take_no_function_in(mallory):
    before = everything(mallory)
    for statement in SHADOWS:
        mallory.execute(statement)
    assert everything(mallory) == before
    title = {"item_id": "shadow", "title": "Shadow lamp", "categories": ["other"]}
    assert call(mallory, "upsert_product", **title)[0]["upsert_product"] == "shadow"
    assert ids(call(mallory, "search", query="shadow lamp", k=1)) == ["shadow"]
    logged = call(mallory, "log_event", user_id=BORIS, item_id="shadow", kind="click")
    assert logged[0]["log_event"] == "recorded"


def test_a_login_of_no_shop_is_told_what_to_do(shops):
    with psycopg.connect(shops["test_nobody"], autocommit=True) as nobody:
        calls = [(name, {}) for name in (*LISTS, "recommend_category")] + [
            ("explain", {"user_id": ANNA, "for_item": "tea"}),
            ("profile", {"user_id": ANNA}),
            ("encode", {"query": "tea"}),
            ("interest_weights", {"query": "tea", "item_ids": ["tea"]}),
            ("log_event", {"user_id": ANNA, "item_id": "tea", "kind": "click"}),
            ("upsert_product", {"item_id": "x", "title": "x"}),
            ("set_personalisation", {"user_id": ANNA, "allowed": False}),
        ]
        for name, arguments in calls:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="test_nobody serves no shop") as told:
                call(nobody, name, **arguments)
            assert "insert into ops.tenant_role" in told.value.diag.message_hint


def test_a_login_of_a_shop_that_shows_nothing_is_told_so(shops, module_database):
    with psycopg.connect(module_database, autocommit=True) as operator:
        operator.execute("insert into ops.tenant_role (role_name, shop) values ('test_nobody', 'empty')")
        with (
            psycopg.connect(shops["test_nobody"]) as nobody,
            pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no release is published"),
        ):
            call(nobody, "recommend")
        operator.execute("delete from ops.tenant_role where role_name = 'test_nobody'")


def test_the_logins_of_the_tests_are_no_members_of_more(mallory):
    assert conninfo_to_dict(mallory.info.dsn)["user"] == "test_mallory"
    assert mallory.execute("select pg_has_role('souk_owner', 'member'), session_user::text").fetchone() == (
        False,
        "test_mallory",
    )
