"""The marts of small shops, computed by hand, and what a later landing does to them."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest
from small_shops import contents, land_ordered, land_tea, landing

from souk.errors import SoukError
from souk.profiles import LOCK, ProfilesReport, build_profiles, write_docs
from souk.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return dataclasses.replace(Settings.from_env({}), home=tmp_path_factory.mktemp("dbt"), late_days=10)


@pytest.fixture(scope="module")
def report(module_database: str, settings: Settings) -> ProfilesReport:
    land_tea(module_database)
    land_ordered(module_database)
    with landing(module_database, "tea", "2026-03-02 00:00+00", state="started") as half:
        half.add("event", ("half", "ann", "cup", "purchase", "2026-03-02 00:00+00"))
    return build_profiles(module_database, settings, "tea")


@pytest.fixture
def ask(module_database: str, report: ProfilesReport):
    def ask(query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(module_database) as connection:
            return connection.execute(query).fetchall()

    return ask


def test_the_report_counts_the_shop(report):
    assert report.rows == {
        "dim_items": 4,
        "dim_user_profiles": 2,
        "fct_impressions": 0,
        "fct_interactions": 5,
        "fct_item_transitions": 8,
        "fct_reviews": 2,
        "fct_searches": 2,
        "rpt_item_text_quality": 4,
    }
    assert report.models >= 16
    assert report.tests >= 40


def test_interactions_are_known_products_once(ask):
    rows = ask("select event_id, strength, is_late from marts.fct_interactions where shop = 'tea' order by event_id")
    expected = [("e1", 1.0), ("e2", 0.2), ("e3", 1.0), ("e4", -0.7), ("e7", -1.0)]
    assert [(name, pytest.approx(strength), False) for name, strength in expected] == rows


def test_interests_are_the_hand_computed_shares(ask):
    [(category, brand, band, sentiment, lang, recency)] = ask(
        "select interests_category, interests_brand, price_band, sentiment, lang, recency_days"
        " from marts.dim_user_profiles where shop = 'tea' and user_key = 'ann'"
    )
    # Green: 1, today. Cups: 0.2 thirty days ago. Puer: 1 - 0.7, sixty days ago.
    affinity = {"Green": 1.0, "Cups": 0.2 / 2, "Puer": 0.3 / 4}
    assert category == pytest.approx({name: value / 1.175 for name, value in affinity.items()}, abs=1e-6)
    assert brand == pytest.approx({"Leaf": 1 / 1.1, "Kiln": 0.1 / 1.1}, abs=1e-6)
    assert (band, lang, recency) == ("low", "zh", 0)
    assert sentiment == pytest.approx(0.1)


def test_a_shopper_who_only_dislikes_has_no_interest(ask):
    rows = ask(
        "select interests_category, price_band, event_count, sentiment, lang"
        " from marts.dim_user_profiles where user_key = 'bob'"
    )
    assert rows == [({}, None, 1, None, "en")]


def test_without_a_clock_nothing_decays(ask):
    rows = ask("select interests_category, recency_days from marts.dim_user_profiles where shop = 'ordered'")
    assert rows == [({"Tea": 0.5, "Cups": 0.5}, None)]


def test_items_carry_bands_counts_and_language(ask):
    rows = ask(
        "select item_id, leaf_category, price_band, event_count, purchase_count, lang"
        " from marts.dim_items where shop = 'tea' order by 1"
    )
    assert rows == [
        ("black", "Black", "middle", 1, 0, "en"),
        ("cup", "Cups", None, 1, 0, "en"),
        ("green", "Green", "low", 1, 1, "zh"),
        ("puer", "Puer", "high", 2, 1, "en"),
    ]


def test_transitions_leave_out_dislikes_and_returns(ask):
    rows = dict(
        ((cut, one, other), value)
        for cut, one, other, value in ask(
            "select cut, item_id, next_item_id, val from marts.fct_item_transitions where shop = 'tea'"
        )
    )
    # Ann had the puer, the cup and the green tea, in this order; one shopper each: 2^-0.3 on both ends.
    assert len(rows) == 8
    assert rows["all", "puer", "green"] == pytest.approx(2**-0.5 * 2**-0.6)
    assert rows["all", "green", "cup"] == pytest.approx(0.5 * 2**-0.6)
    assert {key[1:] for key in rows if key[0] == "held"} == {("puer", "cup"), ("cup", "puer")}


def test_poor_texts_score_low(ask):
    rows = dict(ask("select item_id, score from marts.rpt_item_text_quality where shop = 'tea'"))
    assert rows == pytest.approx({"black": 1, "puer": 0.8, "cup": 0.1, "green": 0}, abs=1e-6)


def test_secrets_stay_out_of_the_files(module_database, report, settings):
    password = psycopg.conninfo.conninfo_to_dict(module_database)["password"]
    files = [path for path in (settings.home / "dbt").rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    assert [path for path in files if password.encode() in path.read_bytes()] == []


def test_docs_are_one_page_about_every_mart(module_database, report, settings):
    page = write_docs(module_database, settings, "tea").read_text()
    assert report.rows
    assert [mart for mart in report.rows if mart not in page] == []


def test_a_second_build_changes_nothing(module_database, report, settings):
    before = contents(module_database, "tea")
    again = build_profiles(module_database, settings, "tea")
    assert sum(map(len, before.values())) == 27
    assert contents(module_database, "tea") == before
    assert again.rows == report.rows


def test_a_build_leaves_other_shops_alone(module_database, report, settings):
    before = contents(module_database, "ordered", versions=True)
    with landing(module_database, "ordered", "2000-01-01 00:00:02+00", has_clock=False) as more:
        more.add("event", ("ann:2", "ann", "cup", "purchase", "2000-01-01 00:00:02+00"))
    build_profiles(module_database, settings, "tea")
    assert len(before["fct_interactions"]) == 2
    assert contents(module_database, "ordered", versions=True) == before

    tea = contents(module_database, "tea", versions=True)
    assert build_profiles(module_database, settings, "ordered").rows["fct_interactions"] == 3
    assert contents(module_database, "tea", versions=True) == tea


def test_late_events_wait_for_a_full_refresh(database, settings):
    def interactions() -> dict[str, bool]:
        with psycopg.connect(database) as connection:
            return dict(connection.execute("select event_id, is_late from marts.fct_interactions").fetchall())

    def profile() -> tuple[object, ...] | None:
        query = "select interests_category, event_count from marts.dim_user_profiles where user_key = 'bob'"
        with psycopg.connect(database) as connection:
            return connection.execute(query).fetchone()

    land_tea(database)
    build_profiles(database, settings, "tea")
    with landing(database, "tea", "2026-03-02 00:00+00", state="started") as resumed:
        resumed.add("event", ("slow", "bob", "cup", "click", "2026-02-25 00:00+00"))
    with landing(database, "tea", "2026-03-02 00:00+00") as more:
        more.add(
            "event",
            ("in-time", "bob", "green", "purchase", "2026-02-20 00:00+00"),  # exactly ten days before the watermark
            ("late", "bob", "puer", "purchase", "2026-02-19 23:59+00"),
            ("e1-again", "ann", "green", "purchase", "2026-03-02 00:00+00"),
        )
    build_profiles(database, settings, "tea")
    known = {"e1": False, "e2": False, "e3": False, "e4": False, "e7": False, "in-time": False, "late": True}
    assert interactions() == known
    assert profile() == ({"Green": 1}, 2)

    # The interrupted landing has a lower number than what is folded in, and still arrives.
    with psycopg.connect(database) as connection:
        connection.execute("update raw.landing set state = 'complete'")
    build_profiles(database, settings, "tea")
    assert interactions() == known | {"slow": False}

    build_profiles(database, settings, "tea", full_refresh=True)
    assert interactions() == known | {"slow": False, "late": False}
    shares, count = profile()
    purchase, late, click = 0.5 ** (10 / 30), 0.5 ** ((10 + 1 / 1440) / 30), 0.4 * 0.5 ** (5 / 30)
    total = purchase + late + click
    assert shares == pytest.approx({"Green": purchase / total, "Puer": late / total, "Cups": click / total}, abs=1e-6)
    assert count == 4


def test_a_choice_that_lands_later_changes_its_list_alone(database, settings):
    first, second = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"

    def impressions() -> list[tuple[object, ...]]:
        with psycopg.connect(database) as connection:
            return connection.execute(
                "select request_id::text, position, item_id, is_clicked, is_bought from marts.fct_impressions order by 1, 2"
            ).fetchall()

    def choose(name: str, item: str, kind: str, request: str) -> None:
        with landing(database, "tea", "2026-03-02 12:00+00") as live:
            live.add("event", (name, "ann", item, kind, "2026-03-02 11:00+00"))
        with psycopg.connect(database) as connection:
            connection.execute("update raw.event set request_id = %s where event_id = %s", [request, name])

    land_tea(database)
    with landing(database, "tea", "2026-03-02 10:00+00") as live:
        for request in (first, second):
            live.add("impression", (request, "recommend", "v", "r1", ["green", "black"], "2026-03-02 10:00+00"))
    choose("c1", "black", "click", first)
    build_profiles(database, settings, "tea")
    seen = [(first, 1, "green"), (first, 2, "black"), (second, 1, "green"), (second, 2, "black")]
    assert [row[:3] for row in impressions()] == seen
    assert [row[3:] for row in impressions()] == [(False, False), (True, False), (False, False), (False, False)]

    choose("c2", "green", "purchase", second)
    assert build_profiles(database, settings, "tea").rows["fct_impressions"] == 4
    assert [row[3:] for row in impressions()] == [(False, False), (True, False), (True, True), (False, False)]

    # The table with every choice in it is what a build of everything makes.
    grown = contents(database, "tea")["fct_impressions"]
    assert build_profiles(database, settings, "tea").rows["fct_impressions"] == 4
    assert contents(database, "tea")["fct_impressions"] == grown
    build_profiles(database, settings, "tea", full_refresh=True)
    assert contents(database, "tea")["fct_impressions"] == grown


@pytest.mark.parametrize(
    ("damage", "blamed"),
    [
        (
            "alter table raw.query drop constraint query_pkey; insert into raw.query select * from raw.query",
            "unique_key_stg_shop__queries",
        ),
        ("alter table raw.product alter column price type double precision", "model dim_items: .*contract"),
        ("update raw.review set lang = 'fr'", "accepted_values_fct_reviews"),
    ],
    ids=["duplicate key", "broken contract", "unknown value"],
)
def test_damage_is_red(database, settings, damage, blamed):
    land_tea(database)
    with psycopg.connect(database) as connection:
        connection.execute(damage)
    with pytest.raises(SoukError, match=blamed):
        build_profiles(database, settings, "tea")


def test_a_shop_that_has_not_landed_is_refused(database, settings):
    with landing(database, "tea", "2026-03-02 00:00+00", state="started"):
        pass
    with pytest.raises(SoukError, match="Shop 'tea' has no complete landing"):
        build_profiles(database, settings, "tea")


def test_one_build_at_a_time(database, settings):
    land_tea(database)
    with psycopg.connect(database) as other:
        other.execute("select pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(SoukError, match="Another profile build"):
            build_profiles(database, settings, "tea")
