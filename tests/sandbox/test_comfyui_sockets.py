"""Recipients of messages: reconnects, two sockets of one client, prompts without a client."""

from tests.sandbox.graphs import quick_graph, slow_graph
from tests.sandbox.running_comfyui import Listener, RunningComfyUI, wait_until


def test_a_socket_that_comes_back_is_told_the_running_node(comfyui: RunningComfyUI) -> None:
    first = Listener(comfyui, "?clientId=me")
    comfyui.faults(step_delay_s=0.05)
    comfyui.submit(slow_graph(steps=20), client_id="me")
    first.wait_for_type("progress")
    first.socket.close()
    second = Listener(comfyui, "?clientId=me")
    second.wait_for_frames(3)
    info = {"exec_info": {"queue_remaining": 1}}
    assert second.frames[:2] == [
        {"type": "status", "data": {"status": info, "sid": "me"}},
        {"type": "executing", "data": {"node": "1"}},
    ]


def test_a_stranger_is_not_told_it(comfyui: RunningComfyUI) -> None:
    mine = Listener(comfyui, "?clientId=me")
    comfyui.faults(step_delay_s=0.05)
    prompt_id = comfyui.submit(slow_graph(), client_id="me")
    mine.wait_for_type("progress")
    stranger = Listener(comfyui, "?clientId=stranger")
    comfyui.wait_for(prompt_id)
    wait_until(lambda: len(stranger.of_type("status")) == 2)
    assert {frame["type"] for frame in stranger.frames if isinstance(frame, dict)} == {"status"}


def test_the_end_of_an_older_socket_makes_the_newer_one_deaf(comfyui: RunningComfyUI) -> None:
    """A bug of ComfyUI that clients must handle: the socket is open and answers pings, but gets no
    messages."""
    old, new = Listener(comfyui, "?clientId=me"), Listener(comfyui, "?clientId=me")
    new.wait_for_frames(1)
    heard_by_new = comfyui.wait_for(comfyui.submit(quick_graph(), client_id="me"))
    assert heard_by_new["status"]["completed"]
    new.wait_for_type("execution_success")
    assert not old.of_type("execution_start")
    wait_until(lambda: new.frames[-1]["type"] == "executing")  # type: ignore[call-overload]
    count = len(new.frames)

    old.socket.close()
    wait_until(lambda: old.is_over)
    comfyui.wait_for(comfyui.submit(quick_graph(color=2), client_id="me"))
    third = Listener(comfyui, "?clientId=me")
    third.wait_for_frames(1)
    assert len(new.frames) == count
    assert not new.is_over


def test_a_socket_without_client_id_gets_one(comfyui: RunningComfyUI) -> None:
    nameless = Listener(comfyui)
    assert len(nameless.wait_for_type("status")["sid"]) == 32


def test_progress_of_a_prompt_without_client_goes_to_all(comfyui: RunningComfyUI) -> None:
    listeners = [Listener(comfyui, "?clientId=a"), Listener(comfyui, "?clientId=b")]
    for listener in listeners:
        listener.wait_for_frames(1)
    comfyui.wait_for(comfyui.submit(slow_graph(steps=1)))
    expected = [
        *("status", "status", "status"),
        *("progress_state", "progress_state", "progress", "progress_state"),
        *("progress_state", "progress_state", "progress_state", "progress_state"),
        "status",
    ]
    for listener in listeners:
        listener.wait_for_frames(len(expected))
        assert [frame["type"] for frame in listener.frames if isinstance(frame, dict)] == expected


def test_feature_flags_count_only_in_the_first_frame(comfyui: RunningComfyUI) -> None:
    listener = Listener(comfyui, "?clientId=me")
    listener.send({"hello": 1})
    listener.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    graph = slow_graph(steps=1)
    graph["1"]["inputs"]["preview"] = "JPEG"
    comfyui.wait_for(comfyui.submit(graph, client_id="me"))
    listener.wait_for_type("execution_success")
    assert not listener.of_type("feature_flags")
    assert [frame[:4] for frame in listener.frames if isinstance(frame, bytes)] == [b"\0\0\0\x01"]
