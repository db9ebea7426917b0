"""`souk evaluate` without a database: any source, runs compared, poor input, plots."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest

from souk import evaluation
from souk.cli import main
from souk.errors import SoukError
from souk.evaluation import Outputs
from souk.settings import Settings
from souk.sources.contract import Dataset

ITEMS, SHOPPERS = 30, 80
START = datetime(2024, 1, 1, tzinfo=UTC)


class SmallShop(Dataset):
    """Shoppers walk along a ring of items, one step an hour; odd items have no text."""

    shift = timedelta(hours=1)

    def products(self):
        yield [
            {"item_id": str(item), "title": "" if item % 2 else f"thing {item}", "categories": ["all", f"c{item % 3}"]}
            for item in range(ITEMS)
        ]

    def events(self):
        for user in range(SHOPPERS):
            steps = [self.event(user, step) for step in range(6)]
            yield [*steps, steps[-1], self.event(user, 0, "impression", 29), {"_unreadable": "x"}]
        yield [self.event(SHOPPERS, 0)]

    def event(self, user, step, kind="purchase", item=None):
        place = (user + step) % ITEMS if item is None else item
        return {
            "event_id": f"{user}/{step}/{kind}",
            "user_id": str(user),
            "item_id": str(place),
            "kind": kind,
            "event_at": START + (user % 7 + 6 * step) * self.shift,
        }


@pytest.fixture
def shop():
    return SmallShop("small", "test", is_generated=True, has_clock=True, fingerprint="0")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    class Encoder:
        model_id = "planted"

        def encode_passages(self, texts, max_tokens):
            chance = np.random.default_rng(len(texts))
            return chance.normal(size=(len(texts), 8)).astype(np.float32)

    monkeypatch.setattr(evaluation, "load_encoder", lambda *_: Encoder())
    return replace(Settings.from_env({}), home=tmp_path / "home")


@pytest.fixture
def popularity_only(monkeypatch):
    monkeypatch.setattr(evaluation, "measure", partial(evaluation.measure, arms=["popularity"]))


def test_events_are_read_once_in_time_order(settings, shop):
    read = evaluation.read_shop(settings, shop)
    assert read.name == "small (generated data)"
    assert len(read.sequences) == SHOPPERS + 1
    assert read.sequences[3] == [3, 4, 5, 6, 7, 8]
    assert read.times[3] == sorted(read.times[3])
    assert read.categories[4] == "c1"


def test_figures_plots_and_a_comparison_with_itself(settings, shop, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    table = evaluation.evaluate(settings, shop, 0, Outputs(first, tmp_path / "plots"))
    report = json.loads(first.read_text())
    assert report["time_split"]["users_test"] >= 20
    assert report["arms"]["souk"]["beyond"]["calibration"] > 0
    assert "global time split" in table
    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["arms.png", "coverage_novelty.png", "history.png"]
    assert all((tmp_path / "plots" / name).stat().st_size > 5_000 for name in plots)
    table = evaluation.evaluate(settings, shop, 0, Outputs(second, against=first))
    differences = json.loads(second.read_text())["against"]["differences"]
    assert {"loo/souk", "time/souk", "loo/popularity"} <= set(differences)
    assert differences["loo/souk"]["ndcg@10"] == {"difference": 0, "ci95": [0, 0]}
    assert "paired by shopper" in table


def test_other_data_is_not_compared(settings, shop, tmp_path, popularity_only):
    first = tmp_path / "first.json"
    evaluation.evaluate(settings, shop, 0, Outputs(first))
    shop.__class__ = type("Later", (SmallShop,), {"shift": timedelta(hours=2)})
    with pytest.raises(SoukError, match="other data"):
        evaluation.evaluate(settings, shop, 0, Outputs(against=first))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 but no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("none.json", "broken.json", "empty.json"):
        with pytest.raises(SoukError, match="cannot be read"):
            evaluation.evaluate(settings, shop, 0, Outputs(against=tmp_path / name))


def test_constant_times_are_no_time_split(settings, shop, popularity_only):
    shop.__class__ = type("Still", (SmallShop,), {"shift": timedelta()})
    assert "no global time split: all events have the same time" in evaluation.evaluate(settings, shop, 0)


def test_fields_are_read_as_landing_reads_them(settings, shop):
    nan = float("nan")
    [event, other] = [shop.event(1, position) for position in range(2)]
    odd = [event, {**other, "item_id": f" {other['item_id']} "}]
    odd += [{**event, "event_id": f"n{user}", "user_id": user} for user in (None, "", nan)]
    shop.__class__ = type("Odd", (SmallShop,), {"events": lambda self: iter([odd])})
    found, _, ignored = evaluation._histories(shop, [event["item_id"], other["item_id"]])
    assert (found, ignored) == ([[0, 1]], 3)
    assert evaluation.product_fields({"title": " Tea ", "brand": nan, "categories": [None, "a"]}) == (
        "Tea",
        "",
        ["a"],
        "",
    )


def test_shoppers_with_one_event_are_nothing_to_measure(settings, shop):
    shop.__class__ = type("Single", (SmallShop,), {"events": lambda self: iter([[self.event(1, 0), self.event(2, 0)]])})
    with pytest.raises(SoukError, match="three distinct items"):
        evaluation.evaluate(settings, shop, 0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "nothing to measure"),
        (["--source", "files", "--path", "/nowhere"], "/nowhere does not exist"),
        (["--source", "demo-shop", "--seeds", "0"], "--seeds starts at 1"),
        (["--source", "demo-shop", "--json", "x.npz"], "x.npz is where the gains"),
        (["--search", "--source", "demo-shop", "--plots", "x"], "--search does not take --plots"),
        (["--search", "--source", "demo-shop", "--seeds", "3"], "--search does not take --seeds"),
    ],
)
def test_wrong_usage_is_told_in_one_line(options, why, capsys):
    assert main(["evaluate", *options]) == 1
    assert why in capsys.readouterr().err
