"""The queue of runs that may not start yet."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.scheduling.pacing import DelayQueue
from tests.fuzz.effort import effort

AT = datetime(2026, 1, 2, tzinfo=UTC)
ids = st.integers(0, 5).map(str)
minutes = st.integers(0, 9).map(lambda minute: AT + timedelta(minutes=minute))
steps = st.one_of(
    st.tuples(st.just("add"), ids, minutes),
    st.tuples(st.just("remove"), ids, minutes),
    st.tuples(st.just("take"), ids, minutes),
)


@effort(200)
@given(st.lists(steps, max_size=60))
def test_each_is_due_once_at_its_last_time(story: list[tuple[str, str, datetime]]) -> None:
    later, expected = DelayQueue(), dict[str, datetime]()
    for what, run_id, at in story:
        match what:
            case "add":
                later.add(run_id, at)
                expected[run_id] = at
            case "remove":
                later.remove(run_id)
                expected.pop(run_id, None)
            case "take":
                due = sorted((time, each) for each, time in expected.items() if time <= at)
                assert list(later.take_due(at)) == [each for _, each in due]
                for _, each in due:
                    del expected[each]
        for number in range(6):
            assert later.get(str(number)) == expected.get(str(number))
            assert (str(number) in later) == (str(number) in expected)
