"""The row of those who wait, and the places of an instance."""

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.fleet.seats import Seats
from comfyui_workflow.fleet.waiting import AnyOf, Named, Waiting, WaitingRuns
from tests.fuzz.effort import effort

targets = st.sampled_from([AnyOf(tag=""), AnyOf(tag="video"), Named(instance_id="a")])
runs = st.builds(
    Waiting,
    workflow_id=st.integers(0, 20).map(str),
    priority=st.integers(-2, 2),
    target=targets,
    refused_by=st.frozensets(st.sampled_from("ab"), max_size=2),
)


@effort(200)
@given(st.lists(st.tuples(st.booleans(), runs), max_size=60))
def test_they_stand_in_order_whatever_comes_and_goes(story: list[tuple[bool, Waiting]]) -> None:
    row, expected = WaitingRuns(), dict[str, Waiting]()
    for comes, run in story:
        if comes:
            row.add(run)
            expected[run.workflow_id] = run
        else:
            assert row.remove(run.workflow_id) == expected.pop(run.workflow_id, None)
    assert len(row) == len(expected)
    in_order = sorted(expected.values(), key=lambda run: run.order)
    for run in in_order:
        same = [each for each in in_order if each.target == run.target]
        assert row.ahead_of(run) == same.index(run)
        assert run.workflow_id in row
    heads = row.heads()
    assert heads == sorted(heads, key=lambda run: run.order)
    assert heads[:1] == in_order[:1]
    stands = [each for head in heads for each in row.row(head)]
    assert sorted(stands, key=lambda run: run.order) == in_order


def test_the_first_who_is_ready_gets_the_place_that_is_free() -> None:
    seats = Seats(on_the_way={"slow": (0, "1"), "b": (0, "2"), "a": (-1, "3")})
    assert seats.ask("b", 1)  # the ones before it are still bringing their inputs
    assert seats.ask("b", 1)
    assert not seats.ask("slow", 1)
    assert not seats.ask("a", 1)
    assert (seats.taken, seats.ahead_of("a"), seats.ahead_of("slow")) == (3, 1, 2)
    seats.leave("b")
    assert not seats.ask("slow", 1)
    assert seats.ask("a", 1)
    seats.leave("slow")
    assert seats.taken == 1
