"""What a trace's operations are, and what they take of the devices' time."""

import pytest

from experiments.speed import profile_steps


@pytest.mark.parametrize(
    "name, kind",
    [
        ("dot_general.55", "matmuls"),
        ("ynn_fusion", "matmuls"),
        ("convolution.3", "matmuls"),
        ("convert_power_fusion.1", "elementwise"),
        ("psum.12", "all-reduce"),
        ("all-reduce", "all-reduce"),
        ("copy.22", "moving"),
        ("bitcast_dynamic-update-slice_fusion.7", "moving"),
        ("wrapped_broadcast.2", "moving"),
        ("multiply_tanh_fusion", "elementwise"),
        ("subtract_exponential_fusion", "elementwise"),
        ("while.88", None),
        ("conditional.6.clone.6", None),
        ("ThunkExecutor::Execute", None),
        ("Wait: pending_threads=1/2", None),
        ("$profiler.py:314 trace", None),
        ("PjitFunction(many)", None),
        ("end: dot.16", None),
    ],
)
def test_kinds(name, kind):
    assert profile_steps.kind_of(name) == kind


def event(name, start, seconds, thread=1):
    return {
        "ph": "X",
        "name": name,
        "pid": 7,
        "tid": thread,
        "ts": start * 1e6,
        "dur": seconds * 1e6,
    }


def test_seconds_are_added_by_kind():
    events = [
        event("while.1", 0, 10),
        event("dot.1", 0, 2),
        event("dot.2", 2, 1),
        event("tanh_fusion", 3, 0.5),
        {"ph": "M", "name": "dot.3"},
    ]
    assert profile_steps.seconds_by_kind(events, 1) == pytest.approx(
        {"matmuls": 3, "all-reduce": 0, "moving": 0, "elementwise": 0.5}
    )


def test_an_operation_inside_another_counts_once():
    events = [event("psum.1", 0, 4), event("add_fusion", 1, 2), event("dot.1", 4, 1)]
    total = profile_steps.seconds_by_kind(events, 1)
    assert total["all-reduce"] == pytest.approx(4)
    assert total["matmuls"] == pytest.approx(1) and total["elementwise"] == 0


def test_an_operation_that_starts_where_another_ends_counts():
    # In floats the first ends behind the start of the second.
    events = [
        event("dot.1", 1001.123 * 1e-6, 17.377e-6),
        event("dot.2", 1018.5 * 1e-6, 1),
    ]
    total = profile_steps.seconds_by_kind(events, 1)
    assert total["matmuls"] == pytest.approx(1 + 17.377e-6, rel=1e-9)


def test_operations_side_by_side_share_the_time_of_their_device():
    events = [event("dot.1", 0, 4), event("copy.1", 1, 2, thread=2)]
    alone = profile_steps.seconds_by_kind(events, 1)
    assert (alone["matmuls"], alone["moving"]) == pytest.approx((3, 1))
    both = profile_steps.seconds_by_kind(events, 2)
    assert (both["matmuls"], both["moving"]) == pytest.approx((4, 2))
