"""Injection of each fault into a run that is held at a step. `trial.heal` gets the callbacks that undo the
fault."""

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import requests
import websocket
from PIL import Image

from tests.chaos.steps import SCENES, Step, is_stepping
from tests.chaos.trial import TooLate, Trial, chaos_graph, mount, wait_until
from tests.integration.graphs import node
from tests.server_process import ServerProcess

Strike = Callable[[Trial], None]

NOTICE_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0
HEARD_AGAIN_WITHIN_S = 20.0
CAPACITY = "128m"
BREAKS_AFTER_BYTES = 8_000_000
BREAKING_S = 60.0
MIN_CUTS = 2
NAMED_COLORS = (0x112233, 0x445566, 0x778899)
LATE_S = 4.0
"""Delay of a POST in the network: longer than the server waits for it, with the settings of those faults."""


class PromiseBroken(Exception):
    """A promise was broken during the injection of the fault."""


class PromisesBroken(Exception):
    """Several broken promises, one sentence each, from a fault that follows the run to its end itself."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)


def kill_server(trial: Trial) -> None:
    trial.server.kill()
    must_be_unfinished(trial)
    trial.server.start()


def kill_server_until_all_is_over(trial: Trial) -> None:
    trial.server.kill()
    must_be_unfinished(trial)
    SCENES[Step.EXECUTING].release(trial)
    trial.until_over_there()
    trial.server.start()


def terminate_server(trial: Trial) -> None:
    began_s = time.monotonic()
    code = trial.server.terminate()
    took_s = time.monotonic() - began_s
    must_be_unfinished(trial)
    if code != 0 or took_s > STOP_WITHIN_S:
        raise PromiseBroken(f"SIGTERM: exit code {code} after {took_s:.1f} s")
    if trial.status_on_disk() == "failed":
        raise PromiseBroken("SIGTERM marked the run failed")
    trial.server.start()


def must_be_unfinished(trial: Trial) -> None:
    if not trial.is_live_on_disk():
        raise TooLate


def hold_back_a_post(trial: Trial) -> None:
    """The network delivers the POST of the prompt after it was sent again, while the prompt waits."""
    trial.tell(hold=True, freeze_s=0.001, answers=[_late(LATE_S)])
    trial.until(lambda p: p["phase"] == "queued")
    wait_until(lambda: trial.prompts_got() == 2, 30, "the late POST does not arrive")
    wait_until(lambda: len(trial.remote_queue_of()) == 1, NOTICE_WITHIN_S, "the copy is not dropped")
    trial.tell(hold=False)


def hold_back_a_post_until_the_end(trial: Trial) -> None:
    trial.tell(freeze_s=0.001, answers=[_late(2 * LATE_S)])


def _late(after_s: float) -> dict[str, object]:
    return {"path": "/prompt", "method": "POST", "mode": "late", "after_s": after_s}


def start_a_second_server(trial: Trial) -> None:
    """Starts a second server on the same data after the lock file was removed. The first server must end."""
    first, second = trial.server, _second_server(trial)
    (first.data_dir / "server.lock").unlink()
    second.data_dir = first.data_dir
    second.start()
    trial.server = second
    _must_have_stopped(first, "may have been started on the same data")


def start_a_second_server_on_a_copy(trial: Trial) -> None:
    """Starts a second server on a copy while more runs wait. One server must end, and the other executes all
    runs."""
    first, second = trial.server, _second_server(trial)
    others = [first.execute(trial.ssh_string, chaos_graph()) for _ in range(3)]
    shutil.copytree(first.data_dir, second.data_dir)
    second.start()
    trial.tell(hold=False, step_delay_s=0.0)
    wait_until(lambda: first.has_ended() or second.has_ended(), 60, "none of the two servers ends")
    stopped, trial.server = (first, second) if first.has_ended() else (second, first)
    _must_have_stopped(stopped, "which another server has sent")
    for run in others:
        trial.server.until_finished(run, 60)
    trial.notes["runs"] = [trial.run, *others]


def _second_server(trial: Trial) -> ServerProcess:
    server = ServerProcess(trial.directory / "second")
    server.output_dir = trial.server.output_dir
    trial.clear.callback(server.kill)
    return server


def _must_have_stopped(server: ServerProcess, sentence: str) -> None:
    wait_until(server.has_ended, STOP_WITHIN_S, "the server does not end")
    if server.wait() != 1 or sentence not in server.log():
        raise PromiseBroken(f"it does not say why it ended: {server.log()[-300:]}")


def cut_connection(trial: Trial) -> None:
    trial.sshd.kill_connections()
    must_be_unfinished(trial)


def kill_sshd(trial: Trial) -> None:
    trial.sshd.stop()
    must_be_unfinished(trial)
    trial.sshd.start()


def refuse_for_a_while(trial: Trial) -> None:
    trial.sshd.stop()
    must_be_unfinished(trial)
    back = threading.Timer(trial.knobs.refused_s, trial.sshd.start)
    trial.heal.callback(back.join)
    back.start()
    _must_say(trial, "trying again")


def freeze_peer(trial: Trial) -> None:
    """Freezes the whole machine: open and new connections are silent, but TCP still acknowledges."""
    trial.sshd.freeze_listener()
    trial.heal.callback(trial.sshd.thaw_listener)
    trial.sshd.freeze()
    trial.heal.callback(trial.sshd.thaw)
    must_be_unfinished(trial)
    _must_say(trial, "trying again", within_s=NOTICE_WITHIN_S)
    trial.sshd.thaw()
    trial.sshd.thaw_listener()


def freeze_storage(trial: Trial) -> None:
    """Blocks all SFTP requests; the tunnel continues to work."""
    trial.sshd.freeze_storage()
    trial.heal.callback(trial.sshd.thaw)
    must_be_unfinished(trial)


def cut_whenever_some_came(trial: Trial) -> None:
    """Cuts the connection after each part of a large file, until the run has ended."""
    came_bytes, cuts = 0, 0
    deadline_s = time.monotonic() + BREAKING_S
    while time.monotonic() < deadline_s and trial.is_live_on_disk():
        here_bytes = sum(_size(part) for part in trial.server.output_dir.glob(".*.part"))
        if here_bytes > came_bytes + BREAKS_AFTER_BYTES:
            trial.sshd.kill_connections()
            came_bytes, cuts = here_bytes, cuts + 1
        came_bytes = min(came_bytes, here_bytes)
        time.sleep(0.002)
    if cuts < MIN_CUTS:
        raise TooLate
    if trial.is_live_on_disk():
        raise PromiseBroken(f"after {cuts} cuts in {BREAKING_S:g} s the files are not here yet")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def order_runs_of_one_name(trial: Trial) -> None:
    """Starts runs that all save final.png; the next one would start before the file is downloaded."""
    orders = {}
    for color in NAMED_COLORS:
        graph = {
            "1": node("EmptyImage", width=32, height=32, batch_size=1, color=color),
            "2": node("SandboxSaveAs", image=["1", 0], filename="final.png", with_graph=False),
        }
        directory = trial.directory / f"named {color:x}"
        where = {"ssh_connection": trial.ssh_string, "output_dir": str(directory)}
        answer = trial.server.post("/execute", {"workflow": graph, **where})
        answer.raise_for_status()
        orders[answer.json()["workflow_id"]] = color
    trial.notes["named"] = orders


def _must_say(trial: Trial, words: str, *, within_s: float = NOTICE_WITHIN_S) -> None:
    try:
        trial.until(lambda p: words in (p["message"] or ""), within_s)
    except AssertionError:
        said = trial.progress()["message"]
        raise PromiseBroken(f"not noticed within {within_s:g} s; it says {said!r}") from None


def deafen_websockets(trial: Trial) -> None:
    """Stops all websocket messages for the rest of this run; the next run receives messages again."""
    trial.tell(deaf_websockets=True)


def close_websockets(trial: Trial) -> None:
    trial.tell(close_websockets=True)
    _must_advance(trial)


def steal_client_id(trial: Trial) -> None:
    """Opens and closes a second socket with our client id: ComfyUI forgets both, and ours stays open."""
    client_id = trial.executions()[0]["client_id"]
    address = f"ws://127.0.0.1:{trial.sandbox.comfyui_port}/ws?clientId={client_id}"
    with contextlib.closing(websocket.create_connection(address, timeout=10)) as thief:
        thief.recv()
    _must_advance(trial)


def _must_advance(trial: Trial) -> None:
    """Checks that the progress of the node continues."""

    def step() -> float:
        return float(trial.progress()["nodes"][-2]["progress"])

    before = step()
    try:
        trial.until(lambda p: p["nodes"][-2]["progress"] > before + 1, HEARD_AGAIN_WITHIN_S)
    except AssertionError:
        message = f"no messages within {HEARD_AGAIN_WITHIN_S:g} s: the step stays {before}"
        raise PromiseBroken(message) from None


def block_the_websockets(trial: Trial) -> None:
    """Another client receives previews and never reads them: ComfyUI's single send loop waits for it."""
    reader = socket.create_connection(("127.0.0.1", trial.sandbox.comfyui_port), timeout=10)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    address = f"ws://127.0.0.1:{trial.sandbox.comfyui_port}/ws?clientId=stuck"
    stuck = websocket.create_connection(address, socket=reader, timeout=10)
    trial.heal.callback(stuck.shutdown)
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(trial.sandbox.input_dir / "noise.png")
    graph = {
        "1": node("LoadImage", image="noise.png"),
        "2": node("SandboxSlow", image=["1", 0], steps=700, seconds_per_step=0.0, preview=True),
        "3": node("PreviewImage", images=["2", 0]),
    }
    body = {"prompt": graph, "client_id": "stuck", "front": True}
    requests.post(f"{trial.sandbox.comfyui_url}/prompt", json=body, timeout=10).raise_for_status()


def restart_comfyui(trial: Trial) -> None:
    trial.tell(restart={"down_s": 1.0})
    must_be_unfinished(trial)


def restart_comfyui_and_run_again(trial: Trial) -> None:
    restart_comfyui(trial)
    trial.until(lambda p: p["submissions"] == 2 and is_stepping(p))


def kill_worker(trial: Trial) -> None:
    """The worker dies when it starts the waiting prompt."""
    trial.tell(worker_dead=True)


def answer_wrongly(path: str, mode: str, method: str | None = None) -> Strike:
    def strike(trial: Trial) -> None:
        trial.tell(answers=[{"path": path, "mode": mode, "method": method, "times": 2}])

    return strike


def poison_history(trial: Trial) -> None:
    """This history entry always returns 500, as if a result could not be encoded."""
    path = f"/history/{trial.progress()['prompt_id']}"
    trial.tell(answers=[{"path": path, "mode": "500", "times": 1_000_000}])


def keep_data_on_a_small_disk(trial: Trial) -> None:
    trial.server.data_dir = trial.tmpfs("disk", CAPACITY) / "data"


def keep_outputs_on_a_small_disk(trial: Trial) -> None:
    trial.server.output_dir = trial.tmpfs("disk", CAPACITY) / "outputs"


def keep_state_on_a_small_disk(trial: Trial) -> None:
    trial.server.state_file = trial.tmpfs("disk", CAPACITY) / "state.json"


def fill_disk(trial: Trial) -> None:
    """Fills the disk until the run has reported it."""
    ballast = trial.directory / "disk" / "ballast"
    _fill(ballast)

    def make_room() -> None:
        try:
            _must_say(trial, "No space left on device", within_s=NOTICE_WITHIN_S)
        except (PromiseBroken, TooLate) as broken:
            trial.notes["broken"] = str(broken) or "the run ended without a message about the full disk"
        finally:
            ballast.unlink()

    room = threading.Thread(target=make_room)
    trial.heal.callback(room.join)
    room.start()


def _fill(ballast: Path) -> None:
    for chunk_bytes in (1_000_000, 4096, 1):
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * chunk_bytes):
                pass


def make_disk_read_only(trial: Trial) -> None:
    place = str(trial.directory / "disk")
    mount("-o", "remount,ro", place)
    trial.heal.callback(mount, "-o", "remount,rw", place)


def remove_output(trial: Trial) -> None:
    path = _early(trial)[1]
    path.rename(trial.directory / "removed")
    trial.notes["harmed"] = path.name


def empty_output(trial: Trial) -> None:
    path = _early(trial)[1]
    path.write_bytes(b"")
    trial.notes["harmed"] = path.name


def cut_output_short(trial: Trial) -> None:
    path = _early(trial)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    trial.notes["harmed"] = path.name


def _early(trial: Trial) -> list[Path]:
    return [path for path in trial.saved_there() if path.name.startswith("early")]


def rename_output(filename: str, subfolder: str = "") -> Strike:
    """Reports an unsafe file name. The file exists if possible, so that only our checks can refuse it."""

    def strike(trial: Trial) -> None:
        original = _early(trial)[1]
        lie = {"filename": filename, "subfolder": subfolder}
        trial.tell(rename_outputs={original.name: lie})
        if not f"{subfolder}{filename}".startswith("/"):
            with contextlib.suppress(OSError):
                shutil.copy(original, trial.sandbox.output_dir / subfolder / filename)

    return strike


def give_two_outputs_one_name(trial: Trial) -> None:
    """Gives two outputs names that differ only in case."""
    first, second = _early(trial)[:2]
    twin = first.name.swapcase()
    shutil.copy(second, trial.sandbox.output_dir / twin)
    trial.tell(rename_outputs={second.name: {"filename": twin, "subfolder": ""}})


def turn_clock(*hours: float) -> Strike:
    """Sets the clock by each offset in turn; the server continues in between."""

    def strike(trial: Trial) -> None:
        for jump in hours:
            (trial.server.directory / "clock").write_text(json.dumps(jump * 3600))
            _must_advance(trial)

    return strike
