"""WorkflowServer: a real server with a sandbox, and foreign responses."""

import inspect
import itertools
import re
from pathlib import Path

import pytest
import requests

from comfyui_workflow import demo
from comfyui_workflow.client import (
    InvalidRequest,
    ProgressDocument,
    RequestRefused,
    RunCancelled,
    RunFailed,
    RunStatus,
    ServerUnreachable,
    TimedOut,
    WorkflowServer,
    calls,
)
from comfyui_workflow.errors import RemoteFileError
from tests.cli.canned_server import CannedServer
from tests.cli.documents import RUN_ID, raw_progress
from tests.client.lossy_relay import LossyRelay
from tests.fuzz.peer import Peer
from tests.integration.graphs import failing, loaded, painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

LIMIT_S = 100


def test_a_run_from_start_to_end(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    started = client.execute(
        workflow=painted(0x102030), ssh_connection=sandbox.ssh_string, output_dir=tmp_path / "there"
    )
    done = client.wait(started.workflow_id, timeout_s=LIMIT_S)
    assert (done.status, done.progress_percent, done.total_nodes) == (RunStatus.COMPLETED, 100.0, 3)
    (output,) = client.outputs(started.workflow_id)
    (path,) = client.download(started.workflow_id, tmp_path / "here")
    assert path.read_bytes() == (sandbox.output_dir / output.filename).read_bytes()
    assert requests.get(client.output_url(done.workflow_id, 0), timeout=10).content == path.read_bytes()
    assert client.latest() == client.progress(done.workflow_id) == done
    assert not client.is_active(done.workflow_id)
    assert [run.workflow_id for run in client.runs(limit=1)] == [done.workflow_id]
    assert client.runs(limit=1, before=done.workflow_id) != client.runs(limit=1)
    assert client.download(done.workflow_id, tmp_path / "here") == [path]


def test_files_of_ours(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    started = client.execute(
        workflow=demo.ENHANCE,
        ssh_connection=sandbox.ssh_string,
        input_images=[demo.EXAMPLE_PICTURE],
        output_dir=tmp_path / "there",
        seed_mode="randomize",
        workflow_name="better",
    )
    assert client.wait(started.workflow_id, timeout_s=LIMIT_S).workflow_name == "better"
    assert len(client.download(started.workflow_id, tmp_path / "here")) >= 1


def test_files_that_the_server_does_not_read(sandbox: SandboxProcess, tmp_path: Path) -> None:
    """The server may read only its own uploads, so the files are uploaded."""
    own = tmp_path / "server"
    with ServerProcess(own, read_dirs=own) as server, WorkflowServer(_url(server)) as client:
        started = client.execute(
            workflow=str(demo.ENHANCE),
            ssh_connection=sandbox.ssh_string,
            input_images=[demo.EXAMPLE_PICTURE],
            output_dir=tmp_path / "there",
        )
        done = client.wait(started.workflow_id, timeout_s=LIMIT_S)
    assert done.workflow_name == "enhance.json"
    assert Path(done.raw["workflow_file"]).is_relative_to(own)


def test_watching(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    graph = slow(2, steps=8, seconds_per_step=0.1)
    started = client.execute(workflow=graph, ssh_connection=sandbox.ssh_string, output_dir=tmp_path)
    seen = list(client.watch(started.workflow_id, timeout_s=LIMIT_S))
    assert inspect.isgenerator(client.watch(started.workflow_id))
    assert all(earlier != later for earlier, later in itertools.pairwise(seen))
    percents = [progress.progress_percent for progress in seen]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 2
    assert [progress.status.is_finished for progress in seen] == [False] * (len(seen) - 1) + [True]


def test_a_failed_run(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    started = client.execute(
        workflow=failing("it broke"), ssh_connection=sandbox.ssh_string, output_dir=tmp_path
    )
    with pytest.raises(RunFailed, match="it broke") as failed:
        client.wait(started.workflow_id, timeout_s=LIMIT_S)
    assert (failed.value.code, failed.value.progress.failed_node_id) == ("prompt_failed", "2")


def test_cancelling(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    sandbox.faults(hold=True)
    started = client.execute(workflow=painted(), ssh_connection=sandbox.ssh_string, output_dir=tmp_path)
    with pytest.raises(TimedOut, match="It goes on"):
        client.wait(started.workflow_id, timeout_s=0.5)
    assert client.is_active(started.workflow_id)
    client.cancel(started.workflow_id)
    with pytest.raises(RunCancelled):
        client.wait(started.workflow_id, timeout_s=LIMIT_S)
    with pytest.raises(RequestRefused) as refused:
        client.cancel(started.workflow_id)
    assert (refused.value.status, refused.value.code) == (404, "run_finished")


def test_a_retry(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    output_dir = tmp_path / "there"
    sandbox.faults(hold=True)
    started = client.execute(workflow=painted(7), ssh_connection=sandbox.ssh_string, output_dir=output_dir)
    output_dir.write_text("a file where the directory is wanted")
    sandbox.faults(hold=False)
    with pytest.raises(RunFailed) as failed:
        client.wait(started.workflow_id, timeout_s=LIMIT_S)
    assert failed.value.code == "outputs_missing"
    with pytest.raises(RemoteFileError, match="does not have 1 output"):
        client.download(started.workflow_id, tmp_path / "here")
    output_dir.unlink()
    client.retry(started.workflow_id)
    client.wait(started.workflow_id, timeout_s=LIMIT_S)
    assert len(client.download(started.workflow_id, tmp_path / "here")) == 1
    assert len(sandbox.executions()) == 1


def test_validating(client: WorkflowServer, sandbox: SandboxProcess) -> None:
    good = client.validate(workflow=painted(), ssh_connection=sandbox.ssh_string)
    assert (good.valid, good.errors) == (True, ())
    bad = client.validate(workflow=loaded("nothing.png"), ssh_connection=sandbox.ssh_string)
    assert not bad.valid
    assert (bad.errors[0].node_id, bad.errors[0].input) == ("1", "image")
    assert sandbox.executions() == []


def test_refusals_are_sentences_with_a_code(client: WorkflowServer) -> None:
    with pytest.raises(RequestRefused) as refused:
        client.execute(workflow={}, ssh_connection="gpu")
    assert (refused.value.status, refused.value.code) == (400, "invalid_workflow")
    with pytest.raises(RequestRefused) as unknown:
        client.progress("comfyui_workflow_1_a")
    assert (unknown.value.status, unknown.value.code) == (404, "run_not_found")


def test_the_token(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server", api_token="secret") as server:
        with WorkflowServer(_url(server), "secret") as client:
            assert client.runs() == []
            client.check()
        with WorkflowServer(_url(server)) as client, pytest.raises(RequestRefused) as refused:
            client.runs()
    assert (refused.value.status, refused.value.code) == (401, "refused")


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="copy it again"):
        WorkflowServer("http://127.0.0.1:5000", "5f0c…")


@pytest.mark.parametrize(
    "order",
    [
        {"ssh_connection": "gpu"},
        {"workflow": {}},
        {"workflow": {}, "ssh_connection": "gpu", "worklow_name": "typo"},
    ],
)
def test_keywords_are_checked_here(order: dict[str, object]) -> None:
    with WorkflowServer("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="keywords"):
        client.execute(**order)  # type: ignore[typeddict-item] - what nobody checks before


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_no_json_can_say(value: object) -> None:
    with WorkflowServer("http://127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="JSON"):
        client.execute(workflow={}, ssh_connection="gpu", inputs={"6.text": value})


@pytest.mark.parametrize("workflow_id", ["", "..", "comfyui_workflow_1_a/../../x", "a?b", "comfyui_x"])
def test_what_is_no_id_is_not_asked_for(workflow_id: str) -> None:
    with WorkflowServer("http://127.0.0.1:1") as client, pytest.raises(InvalidRequest):
        client.progress(workflow_id)


def test_a_lost_answer_is_said_to_be_one_and_is_asked_for_with_the_same_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "RESEND_PATIENCE_S", 1.0)
    keys: list[bytes] = []

    class Mute(Peer):
        def answer(self, head: bytes) -> bytes:
            keys.extend(re.findall(rb"(?i)idempotency-key: (\S+)", head))
            return b""

    peer = Mute()
    unsure = "It is not known whether the run has started"
    with WorkflowServer(peer.url) as client, pytest.raises(ServerUnreachable, match=unsure):
        client.execute(workflow={}, ssh_connection="gpu")
    peer.close()
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_lost_response_starts_one_run_and_one_batch(server: ServerProcess, sandbox: SandboxProcess) -> None:
    url, order = _url(server), {"workflow": painted(), "ssh_connection": sandbox.ssh_string}
    with WorkflowServer(url) as client:
        before = {run.workflow_id for run in client.runs()}
    with LossyRelay(url, "/comfyui/workflow/execute", 1) as relay, WorkflowServer(relay.url) as client:
        run_id = client.execute(**order).workflow_id  # type: ignore[typeddict-item]
        assert relay.lost == 1
    with LossyRelay(url, "/comfyui/workflow/batch", 1) as relay, WorkflowServer(relay.url) as client:
        batch = client.batches.order(**order, rows=[{}, {}])  # type: ignore[typeddict-item]
        assert relay.lost == 1
        assert {run.workflow_id for run in client.runs()} == before | {run_id, *batch.workflow_ids}
        client.batches.wait(batch.batch_id, timeout_s=60)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b"\xff", b"[" * 3000, {"outputs": 7}, {"outputs": [7]}]
)
def test_what_is_no_answer_of_ours(canned: CannedServer, body: object) -> None:
    canned.will_answer((200, body))
    with WorkflowServer(canned.url) as client:
        for ask in (client.outputs, client.progress, lambda _: client.check()):
            with pytest.raises(ServerUnreachable):
                ask(RUN_ID)


@pytest.mark.parametrize(
    "hostile",
    [{"filename": "../../evil"}, {"filename": "/evil"}, {"filename": "a", "subfolder": "../.."}],
)
def test_a_name_that_leads_elsewhere(canned: CannedServer, tmp_path: Path, hostile: dict[str, str]) -> None:
    canned.will_answer((200, {"outputs": [{**hostile, "downloaded": True}]}), (200, b"evil"))
    with WorkflowServer(canned.url) as client, pytest.raises(RemoteFileError, match="not safe"):
        client.download(RUN_ID, tmp_path / "here")
    assert list(tmp_path.rglob("*")) == []
    assert len(canned.requests) == 1, "such a file is not even asked for"


def test_a_file_that_breaks_off(canned: CannedServer, tmp_path: Path) -> None:
    picture = demo.EXAMPLE_PICTURE.read_bytes()
    outputs = {"outputs": [{"filename": "a.png", "file_type": "image", "downloaded": True}]}
    canned.will_answer((200, outputs), (200, picture[: len(picture) // 2]))
    with WorkflowServer(canned.url) as client, pytest.raises(RemoteFileError, match="cut short"):
        client.download(RUN_ID, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_waiting_outlasts_a_server_that_is_restarted(canned: CannedServer) -> None:
    answers = [(200, {"progress": raw_progress(status=status)}) for status in ("executing", "completed")]
    canned.will_answer(answers[0], (503, b""), (502, b"<html>"), answers[1])
    with WorkflowServer(canned.url) as client:
        finished: ProgressDocument = client.wait(RUN_ID, timeout_s=20)
    assert finished.status is RunStatus.COMPLETED


def test_what_a_run_shows_and_when_its_nodes_worked_is_told(canned: CannedServer) -> None:
    times = {"start_time": "2026-01-02T03:04:05.250Z", "end_time": "2026-01-02T03:04:07.750Z"}
    node = {"node_id": "3", "node_type": "KSampler", "status": "executed", **times}
    preview = {"number": 7, "node_id": "3", "content_type": "image/jpeg"}
    transfer = {"direction": "upload", "filename": "a.png", "done_bytes": 3, "total_bytes": None}
    told = raw_progress(nodes=[node], live_preview=preview, transfers=[transfer])
    canned.will_answer((200, {"progress": told}))
    with WorkflowServer(canned.url) as client:
        progress = client.progress(RUN_ID)
        assert client.live_preview_url(RUN_ID) == f"{canned.url}/comfyui/workflow/{RUN_ID}/live-preview"
    (worked,), (sent,) = progress.nodes, progress.transfers
    assert worked.start_time is not None
    assert worked.end_time is not None
    assert (worked.end_time - worked.start_time).total_seconds() == 2.5
    assert progress.live_preview is not None
    assert (progress.live_preview.number, sent.direction, sent.total_bytes) == (7, "upload", None)


def test_what_has_not_changed_is_not_told_again(canned: CannedServer) -> None:
    going_on, over = ((200, {"progress": raw_progress(status=word)}) for word in ("executing", "completed"))
    canned.will_answer(going_on, going_on, going_on, over)
    with WorkflowServer(canned.url) as client:
        seen = [progress.status for progress in client.watch(RUN_ID, pause=lambda _s: None)]
    assert (seen, len(canned.requests)) == (["executing", "completed"], 4)


def _url(server: ServerProcess) -> str:
    return server.url.removesuffix("/comfyui/workflow")
