"""Simulated faults: each has exactly its described effect, and a reset ends it."""

import time

import pytest
import requests
import websocket

from tests.sandbox.graphs import quick_graph, slow_graph
from tests.sandbox.running_comfyui import LIMIT_S, Listener, RunningComfyUI, wait_until

QUEUED = "00000000-0000-4000-8000-00000000000b"


def test_a_class_told_to_fail_fails(comfyui: RunningComfyUI) -> None:
    comfyui.faults(fail_class={"EmptyImage": "told so"})
    status = comfyui.wait_for(comfyui.submit(quick_graph()))["status"]
    kind, error = status["messages"][-1]
    assert (status["status_str"], kind) == ("error", "execution_error")
    assert (error["exception_type"], error["exception_message"]) == ("RuntimeError", "told so\n")
    assert [line.get("status") for line in comfyui.executions()] == [None, "error"]


def test_a_class_told_to_run_out_of_memory_does(comfyui: RunningComfyUI) -> None:
    comfyui.faults(out_of_memory_class="EmptyImage")
    error = comfyui.wait_for(comfyui.submit(quick_graph()))["status"]["messages"][-1][1]
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert "TIPS: If the workflow worked before" in error["exception_message"]


def test_history_tells_of_an_output_by_another_name(comfyui: RunningComfyUI) -> None:
    graph = quick_graph()
    shown = comfyui.wait_for(comfyui.submit(graph))["outputs"]["2"]["images"]
    lie = {"filename": "../other.png", "subfolder": "/etc"}
    comfyui.faults(rename_outputs={shown[0]["filename"]: lie})
    again = comfyui.wait_for(comfyui.submit(graph))["outputs"]["2"]["images"]
    assert again == [{**shown[0], **lie}]


def test_steps_are_slowed_and_an_interrupt_reaches_them(comfyui: RunningComfyUI) -> None:
    comfyui.faults(step_delay_s=0.05)
    listener = Listener(comfyui, "?clientId=me")
    prompt_id = comfyui.submit(slow_graph(steps=1000), client_id="me")
    listener.wait_for_type("progress")
    comfyui.post("/interrupt", {"prompt_id": prompt_id})
    messages = comfyui.wait_for(prompt_id)["status"]["messages"]
    assert [message[0] for message in messages][-1] == "execution_interrupted"
    assert comfyui.executions()[-1]["status"] == "interrupted"


def test_held_prompts_wait_until_they_are_let_go(comfyui: RunningComfyUI) -> None:
    comfyui.faults(hold=True)
    ids = [comfyui.submit(quick_graph(), client_id="me", extra_data={"job": 1}) for _ in range(2)]
    assert [item[1] for item in comfyui.get("/queue").json()["queue_pending"]] == ids
    comfyui.faults(hold=False)
    comfyui.wait_for(ids[1])
    log = comfyui.executions()
    assert [(line["event"], line["prompt_id"]) for line in log] == [
        (event, prompt_id) for prompt_id in ids for event in ("start", "end")
    ]
    assert log[0]["extra_data"].items() >= {"job": 1, "client_id": "me"}.items()
    assert (log[1]["status"], log[1]["nodes_executed"]) == ("success", ["1", "2"])


def test_deaf_websockets_answer_pings(comfyui: RunningComfyUI) -> None:
    comfyui.faults(deaf_websockets=True)
    socket = websocket.create_connection(f"ws://127.0.0.1:{comfyui.port}/ws", timeout=LIMIT_S)
    socket.ping("there?")
    assert socket.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"there?")
    socket.close()


def test_deaf_websockets_hear_nothing_until_that_is_over(comfyui: RunningComfyUI) -> None:
    listener = Listener(comfyui, "?clientId=me")
    listener.wait_for_frames(1)
    comfyui.faults(deaf_websockets=True)
    comfyui.wait_for(comfyui.submit(quick_graph(), client_id="me"))
    comfyui.faults(deaf_websockets=False)
    comfyui.wait_for(comfyui.submit(quick_graph(color=2), client_id="me"))
    listener.wait_for_type("execution_success")
    assert len(listener.of_type("execution_start")) == 1


def test_websockets_are_cut_once(comfyui: RunningComfyUI) -> None:
    listener = Listener(comfyui, "?clientId=me")
    listener.wait_for_frames(1)
    assert comfyui.faults(close_websockets=True)["close_websockets"] is False
    wait_until(lambda: listener.is_over)
    again = Listener(comfyui, "?clientId=me")
    again.wait_for_frames(1)
    assert not again.is_over


def test_a_dead_worker_keeps_its_prompt_running(comfyui: RunningComfyUI) -> None:
    comfyui.faults(worker_dead=True)
    dead = comfyui.submit(quick_graph())
    wait_until(comfyui.executions)
    comfyui.post("/interrupt", {"prompt_id": dead})
    assert [item[1] for item in comfyui.get("/queue").json()["queue_running"]] == [dead]


@pytest.mark.parametrize(
    ("mode", "status", "text"),
    [("500", 500, "500 Internal"), ("html", 200, "<!doctype"), ("empty", 200, ""), ("half_json", 200, '{"')],
)
def test_wrong_answers_are_given_as_often_as_told(
    comfyui: RunningComfyUI, mode: str, status: int, text: str
) -> None:
    prompt_id = comfyui.submit(quick_graph())
    comfyui.wait_for(prompt_id)
    comfyui.faults(answers=[{"path": "/history", "mode": mode, "times": 2}])
    for _ in range(2):
        response = comfyui.get(f"/api/history/{prompt_id}")
        assert response.status_code == status
        assert response.text.startswith(text)
        with pytest.raises(requests.JSONDecodeError):
            response.json()
    assert prompt_id in comfyui.get(f"/history/{prompt_id}").json()


def test_a_dropped_answer_means_the_work_is_done(comfyui: RunningComfyUI) -> None:
    comfyui.faults(answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}])
    with pytest.raises(requests.ConnectionError):
        comfyui.post("/prompt", {"prompt": quick_graph(), "prompt_id": QUEUED})
    assert comfyui.wait_for(QUEUED)["status"]["completed"]


def test_a_restart_forgets_all_but_the_files(comfyui: RunningComfyUI) -> None:
    comfyui.faults(step_delay_s=0.05)
    comfyui.post("/upload/image", data={"type": "temp"}, files={"image": ("marker", b"1")})
    comfyui.wait_for(comfyui.submit(quick_graph()))
    listener = Listener(comfyui, "?clientId=me")
    running = comfyui.submit(slow_graph(steps=1000), client_id="me")
    listener.wait_for_type("progress")
    waiting = comfyui.submit(quick_graph())
    comfyui.faults(restart={"down_s": 0.2})
    with pytest.raises(requests.ConnectionError):
        comfyui.get("/prompt")
    wait_until(lambda: listener.is_over)
    wait_until(lambda: is_up(comfyui))
    assert comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert comfyui.get("/history").json() == {}
    assert comfyui.get("/view?filename=marker&type=temp").status_code == 404
    assert comfyui.get("/view?filename=quick_00001_.png").status_code == 200
    response = comfyui.post("/prompt", {"prompt": quick_graph()}).json()
    assert response["number"] == 0
    assert (
        comfyui.wait_for(response["prompt_id"])["outputs"]["2"]["images"][0]["filename"] == "quick_00002_.png"
    )
    ended = [line["prompt_id"] for line in comfyui.executions() if line["event"] == "end"]
    assert running not in ended and waiting not in ended


def is_up(comfyui: RunningComfyUI) -> bool:
    try:
        return comfyui.get("/prompt").ok
    except requests.ConnectionError:
        return False


def test_a_frozen_server_answers_late(comfyui: RunningComfyUI) -> None:
    comfyui.faults(freeze_s=1.5)
    started_at = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        requests.get(comfyui.url("/prompt"), timeout=0.1)
    assert comfyui.get("/prompt").ok
    assert time.monotonic() - started_at > 1


def test_an_old_version_chooses_its_own_prompt_id_and_interrupts_whatever_runs(
    comfyui: RunningComfyUI,
) -> None:
    comfyui.faults(version="0.3.41", step_delay_s=0.02)
    assert comfyui.get("/features").status_code == 404
    assert comfyui.get("/system_stats").json()["system"]["comfyui_version"] == "0.3.41"
    listener = Listener(comfyui, "?clientId=me")
    prompt_id = comfyui.submit(slow_graph(steps=1000), client_id="me", prompt_id="mine")
    assert prompt_id != "mine"
    listener.wait_for_type("progress")
    comfyui.post("/interrupt", {"prompt_id": "another"})
    messages = comfyui.wait_for(prompt_id)["status"]["messages"]
    assert messages[-1][0] == "execution_interrupted"


def test_a_reset_clears_faults_and_files(comfyui: RunningComfyUI) -> None:
    comfyui.wait_for(comfyui.submit(quick_graph(prefix="sub/quick")))
    before = comfyui.get("/sandbox/faults").json()
    comfyui.faults(hold=True, step_delay_s=1, fail_class={"A": "b"})
    comfyui.post("/sandbox/reset")
    assert comfyui.get("/sandbox/faults").json() == before
    assert list(comfyui.folders.output_dir.iterdir()) == []
    assert comfyui.get("/history").json() == {}
    assert comfyui.wait_for(comfyui.submit(quick_graph()))["status"]["completed"]


@pytest.mark.parametrize(
    "wrong", [{"nonsense": 1}, {"step_delay_s": -1}, {"answers": [{"path": "/x", "mode": "?"}]}]
)
def test_unknown_faults_are_refused(comfyui: RunningComfyUI, wrong: dict[str, object]) -> None:
    response = comfyui.post("/sandbox/faults", wrong)
    assert response.status_code == 400
    assert response.json()["error"]


def test_a_reset_ends_what_runs(comfyui: RunningComfyUI) -> None:
    comfyui.faults(step_delay_s=0.2)
    listener = Listener(comfyui, "?clientId=me")
    comfyui.submit(slow_graph(steps=1000), client_id="me")
    listener.wait_for_type("progress")
    comfyui.post("/sandbox/reset")
    assert comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    again = comfyui.submit(quick_graph(), client_id="me")
    assert comfyui.wait_for(again)["status"]["completed"]
    assert [line["event"] for line in comfyui.executions()] == ["start", "start", "end"]
    assert not [data for data in listener.of_type("execution_success") if data["prompt_id"] != again]
