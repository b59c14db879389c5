"""What breaks on the way, and that the picture still arrives: once, whole, and never a false success."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import loaded, painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

MakeServer = Callable[..., ServerProcess]


def is_executing(progress: dict[str, Any]) -> bool:
    return progress["status"] == "executing" and progress["current_node"] == "SandboxSlow"


def is_whole(progress: dict[str, Any], instance: Instance) -> bool:
    """Completed, and every file here is byte for byte the one there; no half of one beside it."""
    assert progress["status"] == "completed", progress["error_message"]
    for output in progress["outputs"]:
        local = Path(output["local_path"])
        assert local.read_bytes() == (instance.sandbox.output_dir / output["filename"]).read_bytes()
        assert not list(local.parent.glob(".*"))
    return bool(progress["outputs"])


def test_kill_9_while_queued(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    instance.sandbox.faults(hold=True)
    run = server.execute(instance.ssh_string, painted(1))
    server.until(run, lambda p: p["phase"] == "queued")
    server.kill()
    server.start()
    assert server.progress(run)["status"] == "queued"
    instance.sandbox.faults(hold=False)
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


def test_kill_9_while_executing(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    run = server.execute(instance.ssh_string, slow(2, steps=15))
    before = server.until(run, is_executing)
    server.kill()
    server.start()
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert done["prompt_id"] == before["prompt_id"]
    assert len(instance.sandbox.executions()) == 1
    assert server.get("/state")["state"] == done


def test_killed_while_executing_and_started_when_all_is_over(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server()
    run = server.execute(instance.ssh_string, slow(3, steps=5))
    prompt_id = server.until(run, is_executing)["prompt_id"]
    server.kill()
    url = f"{instance.sandbox.comfyui_url}/history/{prompt_id}"
    deadline = time.monotonic() + 60
    while not requests.get(url, timeout=5).json():
        assert time.monotonic() < deadline
    server.start()
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_kill_9_at_any_moment(make_server: MakeServer, instance: Instance, seconds: float) -> None:
    server = make_server()
    run = server.execute(instance.ssh_string, painted(4, size=512, batch=3))
    time.sleep(seconds)  # the moment itself is what is tried
    server.kill()
    server.start()
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


def test_the_answer_to_the_submission_is_lost(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    instance.sandbox.faults(answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}])
    run = server.execute(instance.ssh_string, painted(5))
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


def test_the_answer_is_lost_of_a_comfyui_that_chooses_its_own_ids(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server()
    instance.sandbox.faults(version="old", answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}])
    run = server.execute(instance.ssh_string, painted(50))
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert [done["prompt_id"]] == [execution["prompt_id"] for execution in instance.sandbox.executions()]


def test_a_cancelled_run_is_not_submitted_again(server: ServerProcess, instance: Instance) -> None:
    refusals = [{"path": "/prompt", "method": "POST", "mode": "500", "times": 1000}]
    instance.sandbox.faults(answers=refusals)
    run = server.execute(instance.ssh_string, painted(51))
    server.until(run, lambda p: p["prompt_id"] and p["message"] and "trying again" in p["message"])
    server.post(f"/{run}/cancel")
    instance.sandbox.faults(answers=[])
    assert server.until_finished(run)["status"] == "cancelled"
    assert instance.sandbox.executions() == []


def test_sigterm_leaves_the_run_for_the_next_start(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    run = server.execute(instance.ssh_string, slow(6, steps=25))
    server.until(run, is_executing)
    assert server.terminate() == 0
    server.start()
    assert server.progress(run)["status"] == "executing"
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


def test_the_connection_is_cut_while_it_runs(server: ServerProcess, instance: Instance) -> None:
    run = server.execute(instance.ssh_string, slow(7, steps=30))
    server.until(run, is_executing)
    instance.cut()
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert done["submissions"] == len(instance.sandbox.executions()) == 1


def test_the_connection_is_refused_for_a_while(server: ServerProcess, instance: Instance) -> None:
    run = server.execute(instance.ssh_string, slow(8, steps=5))
    server.until(run, is_executing)
    instance.refuse(3)
    instance.cut()
    server.until(run, lambda p: p["message"] is not None and "trying again" in p["message"])
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


@pytest.mark.parametrize("fault", [{"deaf_websockets": True}, {"close_websockets": True}])
def test_the_websocket_is_no_help(
    server: ServerProcess, instance: Instance, fault: dict[str, object]
) -> None:
    run = server.execute(instance.ssh_string, slow(9, steps=20))
    server.until(run, is_executing)
    instance.sandbox.faults(**fault)
    assert is_whole(server.until_finished(run), instance)


def test_the_websocket_is_deaf_from_the_start(make_server: MakeServer, instance: Instance) -> None:
    instance.sandbox.faults(deaf_websockets=True)
    server = make_server()
    run = server.execute(instance.ssh_string, slow(10, steps=30))
    server.until_status(run, "executing")
    assert is_whole(server.until_finished(run), instance)


def deafen(sandbox: SandboxProcess) -> None:
    """Another socket of the same client id takes its place and leaves: ours stays open, and hears nothing."""
    client_id = sandbox.executions()[0]["client_id"]
    address = f"ws://127.0.0.1:{sandbox.comfyui_port}/ws?clientId={client_id}"
    thief = websocket.create_connection(address, timeout=10)
    thief.recv()
    thief.close()


def test_a_websocket_that_goes_deaf_in_mid_run_is_renewed(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    run = server.execute(sandbox.ssh_string, slow(89, steps=600, seconds_per_step=0.05))
    server.until(run, is_executing)
    deafen(sandbox)
    before = server.progress(run)["nodes"][1]["progress"]
    server.until(run, lambda p: p["nodes"][1]["progress"] > before + 10, timeout_s=20)
    server.post(f"/{run}/cancel")
    assert server.until_finished(run)["status"] == "cancelled"


def test_a_deaf_websocket_is_renewed_even_between_short_runs(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    server.until_finished(server.execute(sandbox.ssh_string, painted(90)))
    deafen(sandbox)
    assert server.until_finished(server.execute(sandbox.ssh_string, painted(91)))["status"] == "completed"
    seen: set[float] = set()
    run = server.execute(sandbox.ssh_string, slow(92, steps=30, seconds_per_step=0.05))
    server.until(run, lambda p: seen.add(p["nodes"][1]["progress"]) or p["status"] == "completed")
    assert len(seen) > 8


def test_comfyui_restarts_while_the_prompt_is_queued(server: ServerProcess, instance: Instance) -> None:
    instance.sandbox.faults(hold=True)
    run = server.execute(instance.ssh_string, painted(11))
    server.until(run, lambda p: p["phase"] == "queued")
    instance.sandbox.faults(restart={"down_s": 1.0})
    server.until(run, lambda p: p["submissions"] == 2)
    instance.sandbox.faults(hold=False)
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert "ComfyUI was restarted; the queued prompt is submitted again" in done["notices"]
    assert (done["submissions"], len(instance.sandbox.executions())) == (2, 1)


def test_comfyui_restarts_while_the_prompt_runs_and_again(server: ServerProcess, instance: Instance) -> None:
    run = server.execute(instance.ssh_string, slow(12, steps=600))
    server.until(run, is_executing)
    instance.sandbox.faults(restart={"down_s": 0.5})
    again = server.until(run, lambda p: p["submissions"] == 2 and is_executing(p))
    assert "ComfyUI was restarted while the prompt ran; it is submitted again" in again["notices"]
    instance.sandbox.faults(restart={"down_s": 0.5})
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "prompt_lost")
    assert "not submitted again" in done["error_message"]
    assert server.post(f"/{run}/retry").status_code == 409
    assert len(instance.sandbox.executions()) == 2


@pytest.mark.parametrize("mode", ["500", "html", "half_json", "empty", "drop"])
@pytest.mark.parametrize("path", ["/history", "/queue"])
def test_answers_that_are_none(server: ServerProcess, instance: Instance, mode: str, path: str) -> None:
    instance.sandbox.faults(answers=[{"path": path, "mode": mode, "times": 2}])
    run = server.execute(instance.ssh_string, slow(13, steps=5))
    assert is_whole(server.until_finished(run), instance)
    assert len(instance.sandbox.executions()) == 1


def test_comfyui_is_not_running(make_server: MakeServer, instance: Instance) -> None:
    server = make_server(contact_patience_s=1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        run = server.execute(instance.ssh_string, painted(), comfyui_port=port)
        done = server.until_finished(run)
    assert done["status"] == "failed"
    assert str(port) in done["error_message"] or "ComfyUI" in done["error_message"]
    assert done["error_code"] in ("connection_failed", "comfyui_unavailable")


def test_an_instance_that_is_not_there_and_a_retry_when_it_is(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server(contact_patience_s=1)
    instance.refuse(6)
    run = server.execute(instance.ssh_string, painted(14))
    done = server.until_finished(run)
    assert done["status"] == "failed"
    assert done["error_message"].startswith("Failed to create SSH tunnel")
    deadline = time.monotonic() + 30
    while done["status"] == "failed":
        assert time.monotonic() < deadline
        assert server.post(f"/{run}/retry").status_code == 200
        done = server.until_finished(run)
    assert is_whole(done, instance)
    assert len(instance.sandbox.executions()) == 1


def test_a_frozen_connection_is_noticed_and_replaced(server: ServerProcess, sandbox: SandboxProcess) -> None:
    """It stays open and silent, and would come back after ten minutes: only asking finds out, which takes
    the fifteen seconds of the limit."""
    run = server.execute(sandbox.ssh_string, slow(16, steps=30))
    server.until(run, is_executing)
    sandbox.faults(freeze_ssh_s=600)
    done = server.until_finished(run, timeout_s=100)
    assert done["status"] == "completed"
    assert len(sandbox.executions()) == 1


def test_a_dead_worker_is_noticed_by_its_log_and_the_next_run_fails_at_once(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    """The prompt that kills it is somebody else's; ours waits behind it."""
    server = make_server()
    deadly = painted(60)
    deadly["3"]["inputs"]["not_in_the_schema"] = ["99", 0]
    requests.post(f"{sandbox.comfyui_url}/prompt", json={"prompt": deadly}, timeout=10)
    done = server.until_finished(server.execute(sandbox.ssh_string, painted(61)))
    assert (done["status"], done["error_code"]) == ("failed", "instance_broken")
    assert "99" in done["error_message"]
    assert "Restart ComfyUI" in done["error_message"]
    again = server.until_finished(server.execute(sandbox.ssh_string, painted(62)))
    assert (again["error_code"], again["prompt_id"]) == ("instance_broken", None), "it was not even submitted"
    sandbox.faults(restart={"down_s": 0.2})
    run = server.execute(sandbox.ssh_string, painted(63))
    assert server.until_finished(run)["status"] in ("completed", "failed")


def test_a_worker_that_died_without_a_word_is_noticed_by_time(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    server = make_server(stall_limit_s=2)
    sandbox.faults(worker_dead=True)
    done = server.until_finished(server.execute(sandbox.ssh_string, painted(64)))
    assert (done["status"], done["error_code"]) == ("failed", "instance_broken")
    assert "without a sign of progress" in done["error_message"]


def test_cancel_of_a_run_whose_instance_never_answers(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    instance.refuse(5)
    run = server.execute(instance.ssh_string, painted(15))
    server.until(run, lambda p: p["message"] is not None and "trying again" in p["message"])
    server.post(f"/{run}/cancel")
    assert server.until_finished(run)["status"] == "cancelled"
    assert instance.sandbox.executions() == []


def test_an_input_that_disappears_before_it_is_sent(
    make_server: MakeServer, instance: Instance, tmp_path: Path
) -> None:
    server = make_server()
    image = tmp_path / "fleeting.png"
    Image.new("RGB", (2, 2)).save(image)
    instance.refuse(2)
    run = server.execute(instance.ssh_string, loaded("fleeting.png"), input_images=[str(image)])
    image.unlink()
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "file_refused")
    assert str(image) in done["error_message"]


def test_many_runs_at_once_share_one_connection(make_server: MakeServer, instance: Instance) -> None:
    server = make_server()
    ids: list[str] = []

    def start(color: int) -> None:
        ids.append(server.execute(instance.ssh_string, painted(100 + color, prefix=f"many{color}")))

    threads = [threading.Thread(target=start, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finished = [server.until_finished(run) for run in ids]
    assert all(is_whole(done, instance) for done in finished)
    assert len(instance.sandbox.executions()) == 12
    open_sockets = list(Path(f"/proc/{server.pid}/fd").iterdir())
    assert len(open_sockets) < 80
