"""The proof of the refiner: its judges, its arms, and that a lie is seen in its figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ml.refiner import Refinement, RefinerSettings
from ml.refiner import arms as composed_arms
from ml.refiner import trial as module
from ml.refiner.arms import COMPOSED, Arms, said_share
from ml.refiner.corpus import join
from ml.refiner.discriminator import Described
from ml.refiner.findings import findings
from ml.refiner.fitting import champion, fit_composer, good_texts, hold_out
from ml.refiner.judge import judge
from ml.refiner.measure import CharacterModel
from ml.refiner.trial import TrialSettings, cut, run_trial
from souk import refiner_evaluation as evaluation
from souk.cli import main
from souk.errors import SoukError
from souk.refiner_evaluation import ADCOPY, Source, met, pair
from tests import refiner

pytestmark = pytest.mark.slow
QUICK = RefinerSettings(texts=80, mle_steps=6, adversarial_steps=2, discriminator_steps=6, folds=2, samples=2)
SMALL = TrialSettings(QUICK, samples=3, most=40, checked=12, compared=8, poor=12, planted=8)


def _texts(n, words, rng):
    return [
        Described(f"thing {place}", tuple(" ".join(rng.choice(words, 5)) + "." for _ in range(2))) for place in range(n)
    ]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Let judges learn for a few steps, at two temperatures: what is tested is what they see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml.refiner.judge.MOST_STEPS", 30)
        patch.setattr(composed_arms, "TEMPERATURES", (0.7, 1.0))
        patch.setattr(composed_arms, "CANDIDATES", (1.0,))
        yield


@pytest.fixture(scope="module")
def trials():
    return [run_trial(refiner.demo_shop()[0][:300], 0, SMALL)] * 2


@pytest.mark.parametrize("kind", ["network", "ngrams"])
def test_a_fresh_judge_tells_apart_what_differs_and_nothing_else(kind):
    rng = np.random.default_rng(0)
    words, others = [f"alpha{n}" for n in range(12)], [f"omega{n}" for n in range(12)]
    ids = [str(place) for place in range(120)]
    real, same, unlike = _texts(120, words, rng), _texts(120, words, rng), _texts(120, others, rng)
    assert judge(real, unlike, ids, (), 0, kind).auc > 0.9
    found = judge(real, same, ids, (), 0, kind)
    assert found.auc == pytest.approx(0.5, abs=0.15)
    assert len(found.pseudo) == 120
    assert found.pseudo.tolist() == judge(real, same, ids, (), 0, kind).pseudo.tolist()


def test_a_judge_that_would_see_the_generators_products_is_refused():
    texts = _texts(40, ["a", "b"], np.random.default_rng(0))
    ids = [str(place) for place in range(40)]
    with pytest.raises(ValueError, match="were seen"):
        judge(texts, texts, ids, {"7"}, 0)
    with pytest.raises(ValueError, match="real"):
        judge(texts[:5], texts[:5], ids[:5], (), 0)


def test_the_parts_share_no_product_and_no_text():
    products = refiner.demo_shop()[0]
    copied = [replace(product, item_id=f"copy of {product.item_id}") for product in products[:300]]
    parts = cut([*products, *copied])
    texts = [{product.description for product in part} for part in parts]
    assert min(map(len, texts)) >= 80
    assert texts[0].isdisjoint(texts[1] | texts[2])
    assert texts[1].isdisjoint(texts[2])
    learned, held = hold_out(good_texts(products))
    assert len(held) == pytest.approx(len(learned) / 3, rel=0.3)


def test_the_generator_is_chosen_on_products_that_it_has_not_seen(monkeypatch):
    learned, held = hold_out(good_texts(refiner.demo_shop()[0])[:120])
    composer = fit_composer(learned, QUICK, 0)
    asked = []

    def spied(real, made, item_ids, seen, seed):
        asked.append(set(item_ids) & set(seen))
        return judge(real, made, item_ids, seen, seed)

    monkeypatch.setattr("ml.refiner.fitting.judge", spied)
    assert champion(composer, held, QUICK, 0) in {"mle", "adversarial"}
    assert set(composer.report["held_out_auc"]) == {"mle", "adversarial"}
    assert asked == [set(), set()]
    assert champion(composer, held[:5], QUICK, 0) == "mle"
    with pytest.raises(ValueError, match="were seen"):
        champion(composer, learned, QUICK, 0)


def test_perplexity_is_lower_for_what_is_alike():
    model = CharacterModel(["the steel pan has a steel lid", "the black pan has a glass lid"])
    assert 1 < model.perplexity(["the steel pan has a glass lid"]) < model.perplexity(["xq zzkw vvyj"])
    with pytest.raises(ValueError, match="no text"):
        model.perplexity([])


def test_findings_hold_every_arm_and_what_is_published_is_true(trials):
    found = findings(trials)
    assert set(found["arms"]) >= {*module.PLAIN, *COMPOSED, "published", "GAN"}
    assert found["arms"]["published"]["precision"] > found["arms"]["MLE"]["precision"]
    assert found["published"]["unsupported"] == 0
    assert found["published"]["published"] > 0
    assert sum(kind["planted"] for kind in found["planted"].values()) > 30
    assert all(kind["planted"] == kind["caught"] for kind in found["planted"].values())
    assert set(found["curves"]["GAN"]) == {str(temperature) for temperature in composed_arms.TEMPERATURES}
    for trial in trials:
        assert trial.arms["title + attributes"].network.auc > 0.8
    json.dumps(found)


def test_a_published_lie_is_counted_and_misses_the_target(trials):
    name = "published texts with an unsupported fact"
    assert met(findings(trials), "demo-shop")[name]["met"]
    product = refiner.demo_shop()[0][0]
    texts = [product.title + ". It is FDA approved and lasts 97 years.", product.title, None]
    outcome = module._outcome([Refinement("", text, "" if text else "no_facts") for text in texts], [product] * 3)
    assert (outcome["asked"], outcome["published"], outcome["unsupported"]) == (3, 2, 1)
    assert outcome["precision"] < 1
    lied = findings([replace(trials[0], published=outcome), trials[1]])
    assert not met(lied, "demo-shop")[name]["met"]


def test_claims_that_are_not_caught_miss_the_target(trials):
    missed = [replace(trial, planted={"brand": (10, 9)}) for trial in trials]
    assert not met(findings(missed), "demo-shop")["planted false claims that are caught"]["met"]


def test_best_of_k_covers_more_than_one_by_chance():
    learned, _, test = cut(refiner.demo_shop()[0][:200])
    composer = fit_composer(learned, QUICK, 0)
    arms = Arms(composer, SMALL.samples, SMALL.compared, 0)
    drawn = arms.draw_texts(arms.pools(test), test, "mle", 1.0)
    covers = {
        arm: np.mean([
            said_share(product, join(text.sentences))
            for product, text in zip(test, arms.choose_texts(drawn, test, arm), strict=True)
        ])
        for arm in ("random", "coverage")
    }  # fmt: skip
    assert covers["coverage"] > covers["random"]


def test_sources_and_paths_go_together(tmp_path):
    assert pair([], []) == [Source("demo-shop", None)]
    assert pair(["amazon", "demo-shop", ADCOPY], [tmp_path, tmp_path / "x"]) == [
        Source("amazon", tmp_path), Source("demo-shop", None), Source(ADCOPY, tmp_path / "x"),
    ]  # fmt: skip
    with pytest.raises(SoukError, match="0 paths"):
        pair(["amazon"], [])


def test_command_writes_json_and_curves(trials, tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(evaluation, "run_trial", lambda products, seed, options: given.append(products) or trials[seed])
    monkeypatch.setenv("SOUK_HOME", str(tmp_path / "home"))
    row = {"content": "类型#裤*材质#棉*颜色#黑色*颜色#白色", "summary": "这款裤子采用棉面料，黑白两色可选。"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    command = ["refine", "evaluate", "--source", "zh-adcopy", "--path", str(tmp_path)]
    target = tmp_path / "out" / "figures.json"
    assert main([*command, "--seeds", "2", "--json", str(target), "--plots", str(tmp_path / "plots")]) == 0
    assert [[product.title for product in products] for products in given] == [["裤棉黑色"]] * 2
    assert given[0][0].attributes == (("类型", "裤"), ("材质", "棉"), ("颜色", "黑色"), ("颜色", "白色"))
    shown = capsys.readouterr().out
    assert "7.97" in shown
    assert "figures are reached" in shown
    report = json.loads(target.read_text("utf-8"))
    assert report["met"]["all"] == all(figure["met"] for figure in report["met"]["figures"].values())
    assert report["data"]["zh-adcopy"]["is_generated"] is False
    assert len(list((tmp_path / "plots").glob("*.png"))) == 2
    (tmp_path / "dev.jsonl").write_text("nothing", "utf-8")
    assert main(command) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_generated_data_is_called_so(trials, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "run_trial", lambda products, seed, options: trials[0])
    monkeypatch.setenv("SOUK_HOME", str(tmp_path / "home"))
    target = tmp_path / "figures.json"
    assert main(["refine", "evaluate", "--seeds", "1", "--json", str(target)]) == 0
    assert "(generated data)" in capsys.readouterr().out
    assert json.loads(target.read_text("utf-8"))["data"]["demo-shop"]["is_generated"] is True
