"""The recommender: an item graph, popularity, and the learned sum of both."""

from ml.recommender.edges import Edges
from ml.recommender.fusion import Recommender, score, score_batch
from ml.recommender.train import Catalogue, fit

__all__ = ["Catalogue", "Edges", "Recommender", "fit", "score", "score_batch"]
