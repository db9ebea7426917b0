"""The recommender: an item graph, popularity, and the learned sum of both."""

from ml.recommender.edges import Edges
from ml.recommender.fusion import Recommender, score, score_batch
from ml.recommender.train import Catalogue, distinct, fit, fit_with_trial

__all__ = ["Catalogue", "Edges", "Recommender", "distinct", "fit", "fit_with_trial", "score", "score_batch"]
