"""A prompt is executed once, whatever the network, a kill, or a second server on the same data do."""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from tests.instance import Instance
from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess

MakeServer = Callable[..., ServerProcess]
LATE = {"path": "/prompt", "method": "POST", "mode": "late"}


def runs_executed(sandbox: SandboxProcess) -> Counter[str]:
    """How often each run of ours was executed."""
    marks = [str(each["extra_data"].get(CORRELATION_KEY, "")) for each in sandbox.executions()]
    return Counter(mark.partition("/")[0] for mark in marks)


def queue_of(sandbox: SandboxProcess) -> Json:
    found: Json = requests.get(f"{sandbox.comfyui_url}/queue", timeout=10).json()
    return found


def ids_in_queue(sandbox: SandboxProcess) -> list[str]:
    queue = queue_of(sandbox)
    return [item[1] for item in queue["queue_running"] + queue["queue_pending"]]


def prompts_got(sandbox: SandboxProcess) -> int:
    """Those that were read, whether they are in the queue by now or not."""
    said: str = requests.get(f"{sandbox.comfyui_url}/internal/logs/raw", timeout=10).text
    return said.count("got prompt")


def wait_until(condition: Callable[[], object], timeout_s: float = 40) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it does not come to that"
        time.sleep(0.05)


def test_a_prompt_under_validation_is_waited_for(make_server: MakeServer, instance: Instance) -> None:
    """The answer is lost before ComfyUI queues the prompt: absent is not lost yet."""
    server = make_server()
    instance.sandbox.faults(answers=[{**LATE, "after_s": 4.0}])
    began_s = time.monotonic()
    run = server.execute(instance.ssh_string, painted(1))
    done = server.until_finished(run)
    wait_until(lambda: time.monotonic() > began_s + 5)  # what the network held has arrived by then
    wait_until(lambda: not ids_in_queue(instance.sandbox))
    assert (done["status"], done["submissions"]) == ("completed", 1)
    assert runs_executed(instance.sandbox) == {run: 1}


def test_a_prompt_under_validation_when_the_server_was_killed_is_waited_for(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server()
    instance.sandbox.faults(prompt_delay_s=5.0)
    run = server.execute(instance.ssh_string, painted(2))
    wait_until(lambda: prompts_got(instance.sandbox) == 1)
    server.kill()
    server.start()
    assert server.until_finished(run)["status"] == "completed"
    assert runs_executed(instance.sandbox) == {run: 1}


def test_a_copy_that_arrives_while_the_prompt_waits_is_dropped(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    """The network holds the first POST for longer than we wait for it."""
    server = make_server(in_doubt_s=1)
    sandbox.faults(hold=True, answers=[{**LATE, "after_s": 5.0}])
    run = server.execute(sandbox.ssh_string, painted(3))
    sent_again = server.until(run, lambda p: p["phase"] == "queued")
    wait_until(lambda: prompts_got(sandbox) == 2)
    wait_until(lambda: ids_in_queue(sandbox) == [sent_again["prompt_id"]])
    sandbox.faults(hold=False)
    done = server.until_finished(run)
    assert (done["status"], done["notices"]) == ("completed", [])
    assert runs_executed(sandbox) == {run: 1}


def test_a_copy_that_arrives_after_the_end_is_dropped_and_another_prompt_is_not(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    server = make_server(in_doubt_s=1)
    sandbox.faults(answers=[{**LATE, "after_s": 6.0}])
    run = server.execute(sandbox.ssh_string, painted(4))
    assert server.until_finished(run)["status"] == "completed"
    body = {"prompt": slow(5, steps=80)}
    other = requests.post(f"{sandbox.comfyui_url}/prompt", json=body, timeout=10).json()["prompt_id"]
    wait_until(lambda: prompts_got(sandbox) == 3)
    wait_until(lambda: other not in ids_in_queue(sandbox))
    assert runs_executed(sandbox)[run] == 1
    history = requests.get(f"{sandbox.comfyui_url}/history/{other}", timeout=10).json()
    assert history[other]["status"]["status_str"] == "success"


def test_a_copy_that_begins_after_the_end_is_stopped_and_told(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    server = make_server(in_doubt_s=1)
    sandbox.faults(answers=[{**LATE, "after_s": 6.0}])
    run = server.execute(sandbox.ssh_string, slow(6, steps=5))
    assert server.until_finished(run)["status"] == "completed"
    requests.post(f"{sandbox.comfyui_url}/free", json={"free_memory": True}, timeout=10)
    sandbox.faults(step_delay_s=5.0)
    told = server.until(run, lambda p: any("executed it twice" in said for said in p["notices"]))
    assert told["status"] == "completed"
    sandbox.faults(step_delay_s=0.0)
    wait_until(lambda: not ids_in_queue(sandbox))
    assert sandbox.executions()[-1]["prompt_id"] == told["prompt_id"]


def test_a_prompt_that_an_old_comfyui_has_deep_in_its_history_is_found(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    """It chooses the ids, and 210 prompts of others came after ours."""
    server = make_server()
    silent = {"path": "/queue", "mode": "500", "times": 1_000_000}
    lost = {"path": "/prompt", "method": "POST", "mode": "drop"}
    sandbox.faults(version="0.3.41", answers=[lost, silent])
    run = server.execute(sandbox.ssh_string, painted(7))
    wait_until(lambda: runs_executed(sandbox)[run] == 1)
    others = painted(8)
    with requests.Session() as session:
        for _ in range(210):
            session.post(f"{sandbox.comfyui_url}/prompt", json={"prompt": others}, timeout=10)
        wait_until(lambda: session.get(f"{sandbox.comfyui_url}/prompt", timeout=10).text.count(": 0}"))
    sandbox.faults(answers=[])
    done = server.until_finished(run, timeout_s=60)
    assert (done["status"], done["submissions"]) == ("completed", 1)
    assert runs_executed(sandbox)[run] == 1


def test_a_prompt_whose_record_was_lost_is_adopted(make_server: MakeServer, instance: Instance) -> None:
    """A power cut took the record of the submission; the prompt waits at the instance."""
    server = make_server()
    instance.sandbox.faults(hold=True)
    run = server.execute(instance.ssh_string, painted(9))
    prompt_id = server.until(run, lambda p: p["phase"] == "queued")["prompt_id"]
    server.kill()
    record = server.data_dir / "runs" / "live" / run / "run.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    lost_at = next(place for place, line in enumerate(lines) if prompt_id.encode() in line)
    record.write_bytes(b"".join(lines[:lost_at]))
    server.start()
    assert server.until(run, lambda p: p["phase"] == "queued")["prompt_id"] == prompt_id
    instance.sandbox.faults(hold=False)
    done = server.until_finished(run)
    assert (done["status"], done["submissions"]) == ("completed", 1)
    assert runs_executed(instance.sandbox) == {run: 1}


@pytest.mark.parametrize("is_picture_there", [True, False])
def test_a_restart_of_comfyui_after_a_lost_answer_is_told(
    make_server: MakeServer, instance: Instance, is_picture_there: bool
) -> None:
    """Whether it had executed the prompt is not known: its history is gone. Only its picture tells."""
    server = make_server(in_doubt_s=1)
    lost = {"path": "/prompt", "method": "POST", "mode": "drop"}
    silent = {"path": "/queue", "mode": "500", "times": 1_000_000}
    instance.sandbox.faults(deaf_websockets=True, answers=[lost, silent])
    run = server.execute(instance.ssh_string, painted(10))
    wait_until(lambda: requests.get(f"{instance.sandbox.comfyui_url}/history", timeout=10).json())
    server.until(run, lambda p: "trying again" in (p["message"] or ""))
    if not is_picture_there:
        (instance.sandbox.output_dir / "out_00001_.png").unlink()
    instance.sandbox.faults(answers=[], restart={"down_s": 0.2})
    done = server.until_finished(run, timeout_s=60)
    assert done["status"] == "completed"
    expected = "Its files were found" if is_picture_there else "before it said whether it had the prompt"
    assert any(expected in said for said in done["notices"])
    assert runs_executed(instance.sandbox) == {run: 1 if is_picture_there else 2}


def a_copy_of(server: ServerProcess, directory: Path) -> ServerProcess:
    """Another server, on a copy of its data as they are now."""
    directory.mkdir()
    shutil.copytree(server.data_dir, directory / "data")
    return ServerProcess(directory)


@pytest.fixture
def rivals() -> Iterator[Callable[[ServerProcess], ServerProcess]]:
    """Sees to it that a second server is not left over."""
    with contextlib.ExitStack() as stack:

        def add(server: ServerProcess) -> ServerProcess:
            stack.callback(server.kill)
            return server

        yield add


def test_of_two_servers_on_one_data_directory_the_older_one_stops(
    make_server: MakeServer,
    sandbox: SandboxProcess,
    tmp_path: Path,
    rivals: Callable[[ServerProcess], ServerProcess],
) -> None:
    first = make_server()
    sandbox.faults(hold=True)
    runs = [first.execute(sandbox.ssh_string, painted(20 + n, prefix=f"two{n}")) for n in range(5)]
    wait_until(lambda: len(ids_in_queue(sandbox)) == 2)
    (first.data_dir / "server.lock").unlink()
    second = rivals(ServerProcess(tmp_path / "second"))
    second.data_dir = first.data_dir
    second.start()
    assert first.wait() == 1
    assert "may have been started on the same data" in first.log()
    assert "Traceback" not in first.log()
    sandbox.faults(hold=False)
    assert all(second.until_finished(run, timeout_s=60)["status"] == "completed" for run in runs)
    assert runs_executed(sandbox) == dict.fromkeys(runs, 1)


def test_of_two_servers_on_copies_of_the_data_one_stops(
    make_server: MakeServer,
    sandbox: SandboxProcess,
    tmp_path: Path,
    rivals: Callable[[ServerProcess], ServerProcess],
) -> None:
    first = make_server()
    sandbox.faults(hold=True)
    runs = [first.execute(sandbox.ssh_string, painted(30 + n, prefix=f"copy{n}")) for n in range(6)]
    wait_until(lambda: len(ids_in_queue(sandbox)) == 2)
    second = rivals(a_copy_of(first, tmp_path / "second"))
    second.start()
    wait_until(lambda: all(second.progress(run) for run in runs))
    sandbox.faults(hold=False)
    try:
        wait_until(lambda: first.has_ended() or second.has_ended(), 60)
    except AssertionError:
        pytest.fail(f"neither server ends:\n{first.log()[-2000:]}\n{second.log()[-2000:]}")
    left, stopped = (second, first) if first.has_ended() else (first, second)
    assert "which another server has sent" in stopped.log()
    assert "Traceback" not in stopped.log()
    assert all(left.until_finished(run, timeout_s=60)["status"] == "completed" for run in runs)
    assert runs_executed(sandbox) == dict.fromkeys(runs, 1)
