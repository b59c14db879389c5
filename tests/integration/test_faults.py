"""Tests that after each fault the picture still arrives: once, whole, and never a false success."""

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

from tests.instance import Instance, SandboxSSHInstance
from tests.integration.graphs import loaded, node, painted, slow
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


@pytest.mark.parametrize(
    "damaged_file", ["run.jsonl", "run.jsonl, its last line", "request.json", "graph.json", "submission.json"]
)
@pytest.mark.parametrize("phase", ["waiting", "executing", "finished"])
def test_a_damaged_record_leads_to_no_second_execution(
    make_server: MakeServer, sandbox: SandboxProcess, damaged_file: str, phase: str
) -> None:
    """The server is killed, and a file of the run's record damaged."""
    instance = SandboxSSHInstance(sandbox)
    server = make_server(in_doubt_s=1)
    server.execute(instance.ssh_string, painted(7))
    run = server.execute(instance.ssh_string, slow(2, steps=5), inputs={"1.color": 3})
    if phase != "waiting":
        server.until(run, lambda p: p["status"] in ("executing", "completed"))
    if phase == "finished":
        server.until_finished(run)
    server.kill()
    damage_record(server, run, damaged_file)
    server.start()
    done = server.until_finished(run)
    is_known = done["status"] == "completed" or done["error_code"] == "record_damaged"
    assert is_known, done["error_message"]
    if done["status"] == "failed" and server.post(f"/{run}/retry").status_code == 200:
        done = server.until_finished(run)
    assert done["status"] == "completed" or done["error_code"] == "record_damaged"
    assert done["status"] == "completed" or damaged_file == "request.json", done["error_message"]
    assert len(sandbox.executions()) <= 2
    assert server.get("")["total"] == 2


def damage_record(server: ServerProcess, run: str, damaged_file: str) -> None:
    """Where the file is there: a byte in its middle, or the end of its last line."""
    name, _, is_end = damaged_file.partition(", ")
    (path,) = (server.data_dir / "runs").glob(f"*/{run}")
    if (path / name).exists():
        content = bytearray((path / name).read_bytes())
        content[-5 if is_end else len(content) // 2] ^= 1
        (path / name).write_bytes(content)


def test_a_lost_list_of_steps_is_made_anew_by_asking_the_instance(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    instance = SandboxSSHInstance(sandbox)
    server = make_server()
    run = server.execute(instance.ssh_string, slow(2, steps=20))
    server.until(run, is_executing)
    server.kill()
    (path,) = (server.data_dir / "runs").glob(f"*/{run}")
    (path / "run.jsonl").write_bytes(b"")
    server.start()
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert "damaged" in done["notices"][0]
    assert len(sandbox.executions()) == 1
    assert [each["path"] for each in server.get("/damage")["damage"]] == [str(path / "run.jsonl")]


def test_a_data_directory_that_was_moved_finds_its_uploads_and_outputs(
    make_server: MakeServer, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    instance = SandboxSSHInstance(sandbox)
    server = make_server()
    server.output_dir = server.data_dir / "outputs"
    finished = server.execute(instance.ssh_string, painted(1))
    server.until_finished(finished)
    with (tmp_path / "photo.png").open("wb") as file:
        file.write(Path(server.progress(finished)["outputs"][0]["local_path"]).read_bytes())
    with (tmp_path / "photo.png").open("rb") as file:
        kept = requests.post(server.url + "/files", files={"file": file}, timeout=30).json()["path"]
    sandbox.faults(hold=True)
    ahead = [server.execute(instance.ssh_string, painted(n)) for n in (2, 3, 4)]
    run = server.execute(instance.ssh_string, loaded("photo.png"), input_images=[kept])
    server.kill()
    moved = server.directory / "elsewhere"
    server.data_dir.rename(moved)
    server.data_dir = moved
    server.start()
    sandbox.faults(hold=False)
    for done in [server.until_finished(each) for each in (*ahead, run, finished)]:
        assert is_whole(done, instance)
        assert all(output["local_path"].startswith(str(moved)) for output in done["outputs"])


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
    instance.sandbox.faults(version="0.3.41", answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}])
    run = server.execute(instance.ssh_string, painted(50))
    done = server.until_finished(run)
    assert is_whole(done, instance)
    assert [done["prompt_id"]] == [execution["prompt_id"] for execution in instance.sandbox.executions()]


def test_a_cancelled_run_is_not_submitted_again(make_server: MakeServer, instance: Instance) -> None:
    server = make_server(in_doubt_s=1)
    refusals = [{"path": "/prompt", "method": "POST", "mode": "500", "times": 1000}]
    instance.sandbox.faults(answers=refusals)
    run = server.execute(instance.ssh_string, painted(51))
    server.until(run, lambda p: p["prompt_id"] and p["message"] and "trying again" in p["message"])
    server.post(f"/{run}/cancel")
    instance.sandbox.faults(answers=[])
    assert server.until_finished(run)["status"] == "cancelled"
    assert instance.sandbox.executions() == []


def test_a_comfyui_that_fails_at_the_prompt_is_asked_a_few_times(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server(in_doubt_s=1)
    refusals = [{"path": "/prompt", "method": "POST", "mode": "500", "times": 1000}]
    instance.sandbox.faults(answers=refusals)
    done = server.until_finished(server.execute(instance.ssh_string, painted(53)))
    assert (done["status"], done["error_code"]) == ("failed", "prompt_crashed")
    assert done["error_message"] == "ComfyUI fails with HTTP 500 when it receives the prompt"
    assert done["can_retry"]
    instance.sandbox.faults(answers=[])
    server.post(f"/{done['workflow_id']}/retry")
    assert is_whole(server.until_finished(done["workflow_id"]), instance)
    assert len(instance.sandbox.executions()) == 1


def test_a_pack_that_crashes_comfyui_is_told_by_its_log(make_server: MakeServer, instance: Instance) -> None:
    server = make_server(in_doubt_s=1)
    graph = painted(54)
    graph["4"] = node("SandboxBrokenPack", image=["1", 0], message="no hook")
    graph["3"]["inputs"]["images"] = ["4", 0]
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert (done["status"], done["error_code"]) == ("failed", "prompt_crashed")
    assert done["error_message"].endswith("when it receives the prompt: RuntimeError: no hook")
    assert instance.sandbox.executions() == []


def test_a_partner_node_executes_again_only_if_a_person_asks(
    server: ServerProcess, instance: Instance
) -> None:
    graph = slow(55, steps=600)
    graph["1"] = node("SandboxPartner", prompt="a cat", seed=1)
    run = server.execute(instance.ssh_string, graph)
    server.until(run, is_executing)
    instance.sandbox.faults(restart={"down_s": 0.2})
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "not_resubmitted")
    assert "Node 1 (SandboxPartner) costs credits of Comfy.org" in done["error_message"]
    assert (done["can_retry"], done["submissions"]) == (True, 1)
    server.post(f"/{run}/retry")
    server.until(run, lambda p: p["submissions"] == 2 and is_executing(p))
    server.post(f"/{run}/cancel")
    assert server.until_finished(run)["status"] == "cancelled"
    prompts = [execution["prompt_id"] for execution in instance.sandbox.executions()]
    assert len(prompts) == len(set(prompts)) == 2


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


def test_a_frozen_connection_is_noticed_and_replaced(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    """It stays open and silent, and would come back after ten minutes: only asking finds out, which takes
    the seconds of the limit."""
    server = make_server(ssh_silence_limit_s=3)
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
    server = make_server(stall_limit_s=2)
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
