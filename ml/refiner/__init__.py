"""The refiner: poor descriptions get better ones, with proof."""

from ml.refiner.fitting import RefinerSettings
from ml.refiner.product import Product, Span
from ml.refiner.quality import Assessment, TextQuality, select_poor
from ml.refiner.refiner import Refinement, Refiner
from ml.refiner.vectors import VectorRefiner, VectorSettings

__all__ = [
    "Assessment",
    "Product",
    "Refinement",
    "Refiner",
    "RefinerSettings",
    "Span",
    "TextQuality",
    "VectorRefiner",
    "VectorSettings",
    "select_poor",
]
