"""A language model beside the composer: it proposes, and the checker decides."""

import dataclasses
from pathlib import Path

import pytest

from ml.refiner import Refiner, RefinerSettings
from ml.refiner.ground import compose, ground
from ml.refiner.language_model import LanguageModel, LanguageModelSettings, finished, located, prompt
from ml.refiner.product import Product
from ml.refiner.verdict import verify
from souk.errors import SoukError
from souk.refinement_generator import add_writer, find_base
from souk.settings import Settings
from tests.refiner import demo_shop

PAN = Product(
    "pan",
    "Copperleaf frying pan, 28 cm",
    "The thick base spreads<br/> the heat evenly.",
    "Copperleaf",
    ("Kitchen",),
    (("colour", "black"),),
    (),
)
TINY = LanguageModelSettings(texts=24, batch=8, samples=2, new_tokens=16, prompt_tokens=96, dtype="float32")


def test_a_draft_keeps_what_is_supported_and_says_the_facts_that_it_leaves_out():
    grounding = ground(PAN)
    text = finished("The base spreads the heat evenly. It is dishwasher safe. A black frying pan.", grounding)
    assert text == (
        "Copperleaf frying pan, 28 cm. The base spreads the heat evenly. A black frying pan. Category: Kitchen."
    )
    assert verify(text, PAN)[0] == ""
    assert verify(finished("", grounding), PAN)[1].unsupported == ()
    assert verify(finished(compose(grounding), grounding), PAN)[0] == ""
    assert "Notes: The thick base spreads the heat evenly.\nDescription:" in prompt(PAN)


def test_models_that_are_not_there_or_pickled_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no model"):
        located(tmp_path / "nowhere")
    with pytest.raises(SoukError, match="nowhere holds no model"):
        find_base(f"hf:{tmp_path / 'nowhere'}")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(SoukError, match="pickled ones are not read"):
        find_base(f"hf:{tmp_path}")
    assert find_base("") is None
    with pytest.raises(SoukError, match="is not hf: and a folder"):
        Settings.from_env({"SOUK_REFINER_GENERATOR": "gpt"})


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A model of random weights with a tokenizer of its own."""
    pytest.importorskip("peft", reason="the optional extra requirements-lora.in is not installed")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE(unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [product.description for product in demo_shop()[0][:200]]
    tokens.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<end>"]))
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", unk_token="<unk>").save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_adapter_learns_is_seeded_and_survives_saving(base, tmp_path):
    products = demo_shop()[0][:120]
    fast = dataclasses.replace(TINY, epochs=4, learning_rate=0.02)
    model = LanguageModel.fit(base, products, seed=0, settings=fast)
    assert model.losses[-1] < model.losses[0]
    assert LanguageModel.fit(base, products, seed=0, settings=fast).version == model.version
    drawn = model.write(PAN, seed=3)
    assert len(drawn) == 2
    assert model.write(PAN, seed=3) == drawn
    model.save(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not list(tmp_path.glob("*.bin"))
    loaded = LanguageModel.load(tmp_path)
    assert (loaded.version, loaded.write(PAN, seed=3)) == (model.version, drawn)
    with pytest.raises(ValueError, match="too few"):
        LanguageModel.fit(base, products[:5], seed=0, settings=TINY)


@pytest.mark.slow
def test_its_texts_enter_the_choice_and_pass_the_same_checks(base, tmp_path, monkeypatch):
    products = demo_shop()[0][:160]
    quick = RefinerSettings(texts=100, mle_steps=4, adversarial_steps=0, discriminator_steps=4, samples=2)
    refiner = Refiner.fit(products, seed=0, settings=quick)
    alone = refiner.version
    assert add_writer(refiner, tmp_path / "gone", products, 0, 1).version == alone, "the composer is alone"
    refiner.with_writer(LanguageModel.fit(base, products, seed=0, settings=TINY))
    assert refiner.version != alone
    monkeypatch.setattr(
        LanguageModel, "write", lambda *_, **__: ["A black pan. It never rusts.", "It was made in 1807 by monks."]
    )
    grounding = ground(PAN)
    passed, _ = refiner._candidates(PAN, grounding, 0)
    texts = [text for text, _ in passed]
    assert any("A black pan." in text for text in texts)
    assert not any("rusts" in text or "monks" in text for text in texts)
    assert all(verify(text, PAN)[0] == "" for text in texts)
    refiner.save(tmp_path / "refiner")
    assert Refiner.load(tmp_path / "refiner").version == refiner.version
