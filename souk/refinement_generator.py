"""Training the refiner as the settings say: here or on Spark, with a language model beside its composer or without."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml.refiner import Product, Refiner, RefinerSettings
from ml.refiner.language_model import LanguageModel, LanguageModelSettings, located
from souk.errors import SoukError
from souk.settings import Settings

log = logging.getLogger(__name__)


def train_refiner(
    good: Sequence[Product],
    options: RefinerSettings,
    rewards: Mapping[str, float],
    settings: Settings,
    shared: Path,
    seed: int,
) -> Refiner:
    """Train on good descriptions.

    Args:
        good: Products with them.
        options: How much is trained.
        rewards: Of products, see `Refiner.fit`.
        settings: Trainers on Spark, and the language model.
        shared: A folder that all executors see.
        seed: Of everything drawn.

    Raises:
        SoukError: The language model of the settings cannot be used.
        ValueError: There are too few good descriptions.
    """
    base = find_base(settings.refiner_generator)
    if settings.trainers:
        from spark_jobs.fit_refiner import fit_refiner
        from spark_jobs.session import session

        with session("souk fit refiner", settings) as spark:
            refiner = fit_refiner(spark, good, seed, options, rewards, shared)
    else:
        refiner = Refiner.fit(good, seed=seed, settings=options, rewards=dict(rewards))
    return add_writer(refiner, base, good, seed, settings.refiner_steps) if base else refiner


def find_base(generator: str) -> Path | None:
    """Return the folder of the language model of the settings, None without one.

    Raises:
        SoukError: There is no model that may be read, or what adapts it is not installed.
    """
    if not generator:
        return None
    try:
        base = located(Path(generator.removeprefix("hf:")))
    except (FileNotFoundError, ValueError) as error:
        raise SoukError(str(error), "Correct SOUK_REFINER_GENERATOR.") from None
    if importlib.util.find_spec("peft") is None:
        raise SoukError(
            "SOUK_REFINER_GENERATOR needs peft", "Install it: pip install -c constraints.txt -r requirements-lora.in."
        )
    return base


def add_writer(refiner: Refiner, base: Path, good: Sequence[Product], seed: int, steps: int) -> Refiner:
    """Let a language model, adapted to good descriptions, write beside the composer; without it where that fails.

    Args:
        refiner: Gets the writer.
        base: What `find_base` returned.
        good: Products to learn from.
        seed: Of everything drawn.
        steps: Of training; 0 for as many as it takes by itself.
    """
    settings = LanguageModelSettings()
    if steps:
        settings = LanguageModelSettings(texts=steps * settings.batch)
    try:
        return refiner.with_writer(LanguageModel.fit(base, good, seed=seed, settings=settings))
    except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
        log.warning("no language model, the composer is alone: %s", error)
        return refiner
