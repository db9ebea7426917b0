"""The language model of the settings, which proposes texts beside the refiner's composer."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from ml.refiner import Product, Refiner
from ml.refiner.language_model import LanguageModel, LanguageModelSettings, located
from souk.errors import SoukError

log = logging.getLogger(__name__)


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
