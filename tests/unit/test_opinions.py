from __future__ import annotations

import numpy as np
import pytest

from ml.recommender.opinions import opinions, review_directions

AXES = np.eye(4, dtype=np.float16)


def test_a_review_is_about_its_product_and_what_it_says():
    found = review_directions(AXES[[0, 0, 1]], np.stack([AXES[1], np.zeros(4), -AXES[1]]))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[1, 1, 0, 0], [np.sqrt(2), 0, 0, 0], [0, 0, 0, 0]]) / np.sqrt(2), abs=1e-6)


def test_praise_and_complaint_are_weighted_sums_of_their_own_reviews():
    directions = AXES[[0, 1, 2, 3, 0]].astype(np.float32)
    moods = np.array([1.0, 0.5, -0.2, 0.9, 0.0])
    praise, complaint = opinions(np.array([0, 0, 0, 2, 1]), moods, directions, 4)
    assert praise[0] == pytest.approx(np.array([1, 0.5, 0, 0]) / np.hypot(1, 0.5))
    assert complaint[0] == pytest.approx(AXES[2])  # at what is complained of, not away from it
    assert not praise[[1, 3]].any()
    assert not complaint[[1, 2, 3]].any()
    assert praise[2] == pytest.approx(AXES[3])


def test_no_review_at_all():
    praise, complaint = opinions(np.zeros(0, int), np.zeros(0), np.zeros((0, 4), np.float32), 2)
    assert praise.shape == complaint.shape == (2, 4)
    assert not praise.any()
