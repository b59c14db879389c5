"""Whatever comes over the websocket: the thread that reads it lives, and what it hands on can be recorded."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.messages import MessageReader, says_ended
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.state_machine import apply
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, objects, texts, values, wire
from tests.runs.test_state_machine import AT, new_run

PROMPT_ID = "0b53bd24-0000-4000-8000-000000000000"
STATE = {
    "value": 3.0,
    "max": 20.0,
    "state": "running",
    "node_id": "1",
    "prompt_id": PROMPT_ID,
    "display_node_id": "1",
    "parent_node_id": None,
    "real_node_id": "1",
}
DATA: dict[str, Json] = {
    "status": {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "x"},
    "execution_start": {"timestamp": 1763764921000},
    "execution_cached": {"nodes": ["1", "2"], "timestamp": 1763764921000},
    "executing": {"node": "1", "display_node": "1"},
    "progress": {"value": 1, "max": 20, "node": "2"},
    "progress_state": {"nodes": {"1": STATE, "2.0": {**STATE, "node_id": "2.0", "display_node_id": "2"}}},
    "executed": {
        "node": "3",
        "display_node": "3",
        "output": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]},
    },
    "execution_success": {"timestamp": 1763764921000},
    "execution_interrupted": {"node_id": "2", "node_type": "KSampler", "executed": ["1"]},
    "execution_error": {
        "node_id": "2",
        "node_type": "X",
        "executed": [],
        "exception_message": "no",
        "exception_type": "ExecutionBlocked",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    },
}
MESSAGES = [{"type": kind, "data": {**data, "prompt_id": PROMPT_ID}} for kind, data in DATA.items()]
messages = st.one_of(
    st.sampled_from(MESSAGES),
    st.sampled_from(MESSAGES).flatmap(mutations),
    st.builds(
        lambda kind, data: {"type": kind, "data": {**data, "prompt_id": PROMPT_ID}},
        st.sampled_from(list(DATA)) | texts,
        objects,
    ),
    values,
)
frames = st.one_of(messages.map(wire), st.text())
RUN = new_run()


@effort(250)
@given(st.lists(frames, max_size=6))
def test_whatever_is_heard_becomes_events_that_can_be_recorded(heard: list[str]) -> None:
    check(heard)


@pytest.mark.parametrize("depth", [500, 940, 980, 100_000])
def test_a_message_that_is_nested_without_end_is_no_message_or_is_read(depth: int) -> None:
    for place in ("node", "nodes", "exception_message", "value", "display_node", "x"):
        for kind in DATA:
            data = f'"prompt_id": "{PROMPT_ID}", "node": "1", "{place}": {"[" * depth}{"]" * depth}'
            check([f'{{"type": "{kind}", "data": {{{data}}}}}'])
    state = f'{{"1": {{"node_id": {"[" * depth}{"]" * depth}}}}}'
    check([f'{{"type": "progress_state", "data": {{"prompt_id": "{PROMPT_ID}", "nodes": {state}}}}}'])


def check(heard: list[str]) -> None:
    feed = EventFeed("http://127.0.0.1:1", "client")
    reader, run = MessageReader(), RUN
    with feed.subscribe(PROMPT_ID) as subscription:
        for frame in heard:
            feed._dispatch(frame)
        for message in subscription.take(0):
            says_ended(message)
            for event in reader.events(message):
                run = apply(run, event, AT)
    assert decode_run(encode_request(run.request), encode_run(run)) == run


@effort(50)
@given(st.lists(st.sampled_from(MESSAGES), max_size=12))
def test_states_that_come_faster_than_they_are_read_are_the_last_of_them(heard: list[Json]) -> None:
    feed = EventFeed("http://127.0.0.1:1", "client")
    with feed.subscribe(PROMPT_ID) as subscription:
        for message in heard:
            feed._dispatch(wire(message))
        taken = subscription.take(0)
    others = [message for message in heard if message["type"] != "progress_state"]
    assert [message for message in taken if message["type"] != "progress_state"] == others
    assert all(
        {message["type"], following["type"]} != {"progress_state"} for message, following in pairwise(taken)
    )
