"""Tests of connection limits: time limits, and the choice of connections to close."""

from collections.abc import Iterable

import pytest

from comfyui_workflow.access.connection_limits import (
    Candidate,
    Clock,
    ConnectionLimits,
    Credit,
    Observed,
    Stage,
    connections_to_close,
)

LIMITS = ConnectionLimits(head_s=10.0, idle_s=120.0, body=Credit(seconds=60.0, bytes_per_s=500.0))


def late_at(looks: Iterable[tuple[float, Stage, int, int]]) -> float | None:
    """Returns the time at which the limit is exceeded, or None.

    An observation is (time, stage, request, bytes)."""
    clock = Clock(since_s=0.0)
    for at_s, stage, part, moved in looks:
        if clock.is_over(Observed(stage=stage, part=part, moved_bytes=moved), LIMITS, at_s):
            return at_s
    return None


def seconds(count: int) -> Iterable[float]:
    return (float(each) for each in range(count))


def test_headers_have_a_deadline_whatever_comes() -> None:
    assert late_at((s, Stage.HEAD, 0, int(s) * 1000) for s in seconds(100)) == 11.0
    assert late_at((s, Stage.SILENT, 0, 0) for s in seconds(100)) == 11.0


def test_each_request_has_its_own() -> None:
    assert late_at((s, Stage.HEAD, int(s / 8), 0) for s in seconds(1000)) is None


@pytest.mark.parametrize(
    ("bytes_per_s", "over_at_s"), [(0, 61.0), (400, 300.0), (500, None), (600, None), (1_000_000, None)]
)
def test_a_body_lasts_as_long_as_it_goes_on(bytes_per_s: int, over_at_s: float | None) -> None:
    over = late_at((s, Stage.BODY, 0, int(s) * bytes_per_s) for s in seconds(10_000))
    assert over == (None if over_at_s is None else pytest.approx(over_at_s, abs=1))


def test_what_came_fast_before_does_not_count_for_ever() -> None:
    moved = 100_000_000
    assert late_at((s, Stage.BODY, 0, moved if s > 1 else 0) for s in seconds(1000)) == 63.0


def test_a_pause_is_made_up_for() -> None:
    def moved(s: float) -> int:
        return int(s - s % 50) * 1000

    assert late_at((s, Stage.BODY, 0, moved(s)) for s in seconds(10_000)) is None


def test_a_request_that_waits_for_its_answer_has_all_the_time() -> None:
    assert late_at((s, Stage.WORKING, 0, 0) for s in seconds(100_000)) is None
    looks = [(0.0, Stage.HEAD, 0, 0), (9.0, Stage.WORKING, 0, 0), (5000.0, Stage.IDLE, 1, 0)]
    assert late_at([*looks, (5119.0, Stage.IDLE, 1, 0)]) is None
    assert late_at([*looks, (5121.0, Stage.IDLE, 1, 0)]) == 5121.0


def candidate(name: str, stage: Stage, since_s: float, address: str = "a") -> Candidate[str]:
    return Candidate(connection=name, address=address, stage=stage, since_s=since_s)


def test_those_of_least_use_go_first_and_the_oldest_of_them() -> None:
    candidates = [
        candidate("sends", Stage.SENDING, 1),
        candidate("works", Stage.WORKING, 0),
        candidate("idle", Stage.IDLE, 3),
        candidate("longer idle", Stage.IDLE, 2),
        candidate("silent", Stage.SILENT, 50),
        candidate("uploads", Stage.BODY, 0),
        candidate("drips", Stage.HEAD, 60),
        candidate("new", Stage.SILENT, 99.5),
    ]
    order = ["silent", "drips", "longer idle", "idle", "uploads", "sends", "new"]
    assert connections_to_close(candidates, 100, 100.0) == order
    assert connections_to_close(candidates, 2, 100.0) == order[:2]


def test_they_are_of_the_address_that_has_most() -> None:
    few = [candidate("one", Stage.SILENT, 0, "b"), candidate("two", Stage.SILENT, 0, "b")]
    many = [candidate(str(each), Stage.IDLE, each, "a") for each in range(3)]
    assert connections_to_close([*few, *many], 100, 100.0) == ["0", "1", "2"]
    assert connections_to_close([candidate("works", Stage.WORKING, 0)], 5, 100.0) == []
    assert connections_to_close([], 5, 100.0) == []
