"""How the benchmark of encoding judges a run with few changes."""

import pytest

from bench.encode import judge_change


@pytest.mark.parametrize(("taken", "is_met"), [([12.9, 99.0, 1.0], True), ([13.1, 99.0, 1.0], False)])
def test_a_run_with_few_changes_may_take_its_share_of_the_work_and_the_start_of_spark(taken, is_met):
    judged = judge_change(1000, full=110.0, taken=taken, starts=[10.0, 30.0, 5.0])
    assert judged["most_s"] == pytest.approx(13.0)
    assert judged["met"] is is_met


def test_the_start_of_spark_is_no_share_of_the_work():
    assert judge_change(1000, full=110.0, taken=[15.0], starts=[10.0])["share"] == pytest.approx(0.05)
