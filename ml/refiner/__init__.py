"""The refiner: poor descriptions get better ones, with proof."""

from ml.refiner.product import Product, Span
from ml.refiner.refiner import Refinement, Refiner, RefinerSettings

__all__ = ["Product", "Refinement", "Refiner", "RefinerSettings", "Span"]
