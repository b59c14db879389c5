"""The queue of waiting runs, and the slots of an instance."""

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.scheduling.capacity import HEAD_START_S, Order, Slots
from comfyui_workflow.scheduling.pending_queue import AnyWithTag, NamedInstance, PendingQueue, PendingRun
from tests.fuzz.effort import effort

targets = st.sampled_from([AnyWithTag(tag=""), AnyWithTag(tag="video"), NamedInstance(instance_id="a")])
runs = st.builds(
    PendingRun,
    run_id=st.integers(0, 20).map(str),
    priority=st.integers(-2, 2),
    target=targets,
    refused_by=st.frozensets(st.sampled_from("ab"), max_size=2),
)


@effort(200)
@given(st.lists(st.tuples(st.booleans(), runs), max_size=60))
def test_they_stand_in_order_whatever_comes_and_goes(story: list[tuple[bool, PendingRun]]) -> None:
    queue, expected = PendingQueue(), dict[str, PendingRun]()
    for comes, run in story:
        if comes:
            queue.add(run)
            expected[run.run_id] = run
        else:
            assert queue.remove(run.run_id) == expected.pop(run.run_id, None)
    assert len(queue) == len(expected)
    in_order = sorted(expected.values(), key=lambda run: run.order)
    for run in in_order:
        same = [each for each in in_order if each.target == run.target]
        assert queue.ahead_of(run) == same.index(run)
        assert run.run_id in queue
    heads = queue.heads()
    assert heads == sorted(heads, key=lambda run: run.order)
    assert heads[:1] == in_order[:1]
    stands = [each for head in heads for each in queue.group(head)]
    assert sorted(stands, key=lambda run: run.order) == in_order


def on_their_way(**orders: Order) -> Slots:
    slots = Slots()
    for run_id, order in orders.items():
        slots.stage(run_id, order)
    return slots


def test_places_are_given_in_order_one_after_the_other() -> None:
    slots = on_their_way(old=(0, "1"), young=(0, "2"), urgent=(-1, "3"))
    assert not slots.request_slot("young", 2, at_s=0)
    assert not slots.request_slot("old", 2, at_s=0)
    assert slots.request_slot("urgent", 2, at_s=0)
    assert (slots.taken, slots.ahead_of("young"), slots.ahead_of("old")) == (3, 2, 1)
    assert not slots.request_slot("old", 2, at_s=0), "another prompt is just being submitted"
    slots.end_request("urgent")
    assert not slots.request_slot("young", 2, at_s=0)
    assert slots.request_slot("old", 2, at_s=0)
    slots.end_request("old")
    assert not slots.request_slot("young", 2, at_s=0), "two prompts are there"
    slots.leave("old")
    assert slots.request_slot("young", 2, at_s=0)
    slots.leave("young")
    assert slots.taken == 1


def test_a_run_whose_prompt_has_ended_may_submit_once_more_when_there_is_room() -> None:
    slots = on_their_way(again=(0, "1"), other=(0, "2"), third=(0, "3"))
    for run_id in ("again", "other"):
        assert slots.request_slot(run_id, 2, at_s=0)
        slots.end_request(run_id)
    slots.release_slot("again")
    assert slots.request_slot("third", 2, at_s=0)
    assert not slots.request_slot("again", 2, at_s=0), "another prompt is just being submitted"
    slots.end_request("third")
    assert not slots.request_slot("again", 2, at_s=0), "two prompts are there"
    slots.leave("other")
    assert slots.request_slot("again", 2, at_s=0)


def test_runs_that_may_overwrite_each_others_files_come_one_by_one_and_keep_nobody_else_waiting() -> None:
    slots = on_their_way(first=(0, "1"), second=(0, "2"), numbered=(0, "3"))
    assert slots.request_slot("first", 2, at_s=0, may_overwrite=True)
    slots.end_request("first")
    assert not slots.request_slot("second", 2, at_s=0, may_overwrite=True), (
        "the first one has its place still"
    )
    slots.release_slot("first")
    assert not slots.request_slot("second", 2, at_s=0, may_overwrite=True), "its files are not fetched yet"
    assert slots.is_requesting("second")
    assert slots.request_slot("numbered", 2, at_s=0)
    slots.end_request("numbered")
    slots.leave("first")
    assert slots.request_slot("second", 2, at_s=0, may_overwrite=True)
    assert slots.with_prompt == {"numbered", "second"}


def test_of_runs_that_may_overwrite_each_others_files_the_older_one_comes_first() -> None:
    slots = on_their_way(first=(0, "1"), second=(0, "2"), third=(0, "3"))
    assert slots.request_slot("first", 3, at_s=0, may_overwrite=True)
    slots.end_request("first")
    for name in ("second", "third"):
        assert not slots.request_slot(name, 3, at_s=0, may_overwrite=True)
    slots.leave("first")
    assert not slots.request_slot("third", 3, at_s=0, may_overwrite=True)
    slots.end_request("second")  # its submission failed, and it requests again
    assert slots.request_slot("third", 3, at_s=HEAD_START_S, may_overwrite=True)
    slots.leave("third")
    assert slots.request_slot("second", 3, at_s=0, may_overwrite=True)


def test_who_is_not_ready_is_waited_for_once_and_for_a_while() -> None:
    slots = on_their_way(slow=(0, "1"), slower=(0, "2"), b=(0, "3"), c=(0, "4"))
    assert not slots.request_slot("b", 3, at_s=100)
    assert not slots.request_slot("b", 3, at_s=100 + HEAD_START_S - 0.01)
    assert slots.request_slot("b", 3, at_s=100 + HEAD_START_S)
    slots.end_request("b")
    assert slots.request_slot("c", 3, at_s=100 + HEAD_START_S)
    slots.end_request("c")
    slots.stage("d", (0, "5"))
    assert not slots.request_slot("slower", 2, at_s=200), "two prompts are there"
    slots.leave("b")
    assert not slots.request_slot("d", 2, at_s=200), "once it is ready, it goes before younger ones"
    assert slots.request_slot("slower", 2, at_s=200)
    slots.end_request("slower")
    slots.leave("c")
    assert slots.request_slot("d", 2, at_s=200), "the slow one had its head start"


def test_a_prompt_that_could_not_be_submitted_keeps_its_place_and_nobody_waiting() -> None:
    slots = on_their_way(a=(0, "1"), b=(0, "2"))
    assert slots.request_slot("a", 2, at_s=0)
    slots.end_request("a")  # the connection broke
    assert slots.request_slot("b", 2, at_s=0)
    assert not slots.request_slot("a", 2, at_s=0)
    slots.end_request("b")
    assert slots.request_slot("a", 2, at_s=0)


def test_who_gives_up_waiting_keeps_nobody_waiting() -> None:
    slots = on_their_way(a=(0, "1"), b=(0, "2"))
    slots.take_slot("there")
    assert not slots.request_slot("b", 1, at_s=0)
    assert not slots.request_slot("a", 1, at_s=0)
    assert slots.is_requesting("a")
    slots.end_request("a")
    assert not slots.is_requesting("a")
    slots.leave("there")
    assert not slots.request_slot("b", 1, at_s=0)
    assert slots.request_slot("b", 1, at_s=HEAD_START_S)
