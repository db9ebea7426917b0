from __future__ import annotations

import numpy as np
import pytest

from souk.artefacts import Shopper
from souk.shoppers import DISLIKE, LIKE, PURCHASE, Past, past, shoppers

# Products 0 and 1 are bought again after 30 days, 2 and more never.
GAPS = np.array([30.0, 30.0] + [np.inf] * 40)


def of(*events, until=100.0) -> tuple[list[int], list[int], list[int]]:
    """The past of (item, signal, day) events."""
    items, signals, days = zip(*events, strict=True) if events else ((), (), ())
    found = past(items, signals, days, GAPS, until)
    return list(found.history), list(found.seen), list(found.disliked)


def test_history_is_newest_first_and_once():
    assert of((3, LIKE, 1), (4, PURCHASE, 2), (3, LIKE, 3)) == ([3, 4], [3, 4], [])
    events = [(item, LIKE, item) for item in range(2, 40)]
    history, seen, _ = of(*events)
    assert history == list(range(39, 19, -1))
    assert seen == list(range(2, 40))


def test_the_latest_signal_counts():
    assert of((3, PURCHASE, 1), (3, DISLIKE, 2)) == ([], [3], [3])
    assert of((3, DISLIKE, 1), (4, DISLIKE, 2), (3, LIKE, 3)) == ([3], [3, 4], [4])
    _, _, disliked = of(*((item, DISLIKE, item) for item in range(2, 40)))
    assert disliked == list(range(39, 19, -1))


@pytest.mark.parametrize(
    ("events", "is_seen"),
    [
        ([(0, PURCHASE, 60)], False),
        ([(0, PURCHASE, 70)], True),  # 30 days ago: not longer
        ([(0, PURCHASE, 10), (0, PURCHASE, 90)], True),
        ([(0, PURCHASE, 60), (0, LIKE, 99)], False),  # looked at again
        ([(0, LIKE, 10)], True),  # never bought
        ([(0, PURCHASE, 10), (0, DISLIKE, 20)], True),
        ([(2, PURCHASE, 0)], True),  # its category does not repeat
    ],
)
def test_what_runs_out_is_shown_again(events, is_seen):
    history, seen, _ = of(*events)
    item = events[0][0]
    assert (item in seen) is is_seen
    assert (item in history) is (events[-1][1] > 0)


def test_nothing_happened():
    assert of() == ([], [], [])


def test_everybody_who_is_known_is_a_shopper():
    praise = np.ones(384, np.float16)
    found = shoppers(
        {"a": Past([1], [1, 2], [2])}, iter([("a", {"x": 1}), ("b", {"x": 2})]), iter([("c", praise, None)])
    )
    assert found == {
        "a": Shopper([1], [1, 2], [2], None, None, {"x": 1}),
        "b": Shopper([], [], [], None, None, {"x": 2}),
        "c": Shopper([], [], [], praise, None, {}),
    }
