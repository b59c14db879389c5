"""Trying again: what can pass, and only that. Time is an argument here; no test sleeps."""

import pytest

from comfyui_workflow.errors import AuthenticationFailed, ConnectionFailed, Stopped, WorkflowError
from comfyui_workflow.instances.retry import retry_transient


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, wait_s: float) -> None:
        assert wait_s <= 0.1, "a wait must look at its stop flag ten times a second"
        self.now_s += wait_s


class Flaky:
    """Fails with each of `errors`, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "open"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def retry(action: Flaky, clock: Clock, **more: object) -> str:
    arguments = {"should_stop": lambda: False, "clock": clock, "sleep": clock.sleep, **more}
    return retry_transient(action, **arguments)  # type: ignore[arg-type]


def test_what_can_pass_is_tried_again_and_said(clock: Clock) -> None:
    said: list[tuple[WorkflowError, int, float]] = []
    refused = [ConnectionFailed("refused") for _ in range(8)]
    answer = retry(Flaky(*refused), clock, on_retry=lambda *call: said.append(call))
    assert answer == "open"
    assert [error for error, _, _ in said] == refused
    assert [attempt for _, attempt, _ in said] == list(range(1, 9))
    for (_, _, wait_s), planned_s in zip(said, (0.5, 1, 2, 4, 8, 15, 15, 15), strict=True):
        assert 0.7 * planned_s <= wait_s <= 1.3 * planned_s
    assert clock.now_s == pytest.approx(sum(wait_s for _, _, wait_s in said))


def test_waits_differ_between_those_who_were_cut_off_together(clock: Clock) -> None:
    waits = set()
    for _ in range(5):
        retry(Flaky(ConnectionFailed("reset")), clock, on_retry=lambda _e, _n, wait_s: waits.add(wait_s))
    assert len(waits) == 5


def test_it_gives_up_in_time_with_the_last_error(clock: Clock) -> None:
    action = Flaky(*(ConnectionFailed(str(number)) for number in range(100)))
    with pytest.raises(ConnectionFailed, match=f"{10}|{11}|{12}|{13}"):
        retry(action, clock)
    assert 90 < clock.now_s <= 120


@pytest.mark.parametrize("error", [AuthenticationFailed("no"), WorkflowError("no"), RuntimeError("bug")])
def test_what_cannot_pass_is_tried_once(clock: Clock, error: Exception) -> None:
    action = Flaky(error)
    with pytest.raises(type(error)):
        retry(action, clock)
    assert action.calls == 1


def test_it_stops_at_once(clock: Clock) -> None:
    action = Flaky(*(ConnectionFailed("refused") for _ in range(100)))
    with pytest.raises(Stopped):
        retry(action, clock, should_stop=lambda: clock.now_s >= 3)
    assert clock.now_s < 3.2


def test_who_stopped_before_does_not_even_try(clock: Clock) -> None:
    action = Flaky()
    with pytest.raises(Stopped):
        retry(action, clock, should_stop=lambda: True)
    assert action.calls == 0
