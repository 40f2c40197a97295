"""The sorting of a trace's events by kind."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "experiments"))

import profile_steps  # noqa: E402


@pytest.mark.parametrize(
    "name, kind",
    [
        ("dot_general.55", "products"),
        ("ynn_fusion", "products"),
        ("convolution.3", "products"),
        ("convert_power_fusion.1", "elements"),
        ("psum.12", "exchange"),
        ("all-reduce", "exchange"),
        ("copy.22", "moving"),
        ("bitcast_dynamic-update-slice_fusion.7", "moving"),
        ("wrapped_broadcast.2", "moving"),
        ("multiply_tanh_fusion", "elements"),
        ("subtract_exponential_fusion", "elements"),
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
    assert profile_steps.kind(name) == kind


def test_durations_are_added_by_kind():
    events = [
        {"ph": "X", "name": "dot.1", "dur": 2e6},
        {"ph": "X", "name": "dot.2", "dur": 1e6},
        {"ph": "X", "name": "tanh_fusion", "dur": 5e5},
        {"ph": "M", "name": "dot.3"},
    ]
    total = profile_steps.add_up(events)
    assert total["products"] == 3 and total["elements"] == 0.5
    assert total["exchange"] == total["moving"] == 0
