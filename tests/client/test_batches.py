"""Batches from Python: a real server with a sandbox, and foreign responses."""

import inspect
import re
from pathlib import Path

import pytest

from comfyui_workflow import demo
from comfyui_workflow.client import (
    InvalidRequest,
    RequestRefused,
    RunStatus,
    ServerUnreachable,
    TimedOut,
    WorkflowServer,
    calls,
)
from comfyui_workflow.errors import RemoteFileError
from tests.cli.canned_server import CannedServer
from tests.fuzz.peer import Peer
from tests.integration.graphs import failing, painted
from tests.sandbox_process import SandboxProcess

BATCH_ID = "batch_1_a"
PROGRESS = {
    "batch_id": BATCH_ID,
    "batch_name": "b",
    "status": "executing",
    "total": 2,
    "counts": {"completed": 1, "executing": 1},
    "queue_time": "2026-01-01T10:00:00Z",
}
QUICK = {"3.steps": 2}


def test_rows_from_start_to_end(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    ordered = client.batches.order(
        workflow=demo.TEXT_TO_IMAGE,
        ssh_connection=sandbox.ssh_string,
        rows=[{"6.text": "a lake"}, {"3.seed": 7}],
        inputs=QUICK,
        batch_name="places",
        priority=3,
        output_dir=tmp_path / "there",
    )
    assert inspect.isgenerator(client.batches.watch(ordered.batch_id))
    *_, seen = client.batches.watch(ordered.batch_id, timeout_s=30)
    done = client.batches.wait(ordered.batch_id, timeout_s=30)
    assert (done, done.status, done.batch_name, done.total) == (seen, RunStatus.COMPLETED, "places", 2)
    assert done.count(RunStatus.COMPLETED) == 2
    summary = client.batches.summary(ordered.batch_id)
    assert [dict(run.inputs) for run in summary.workflows] == [
        {**QUICK, "6.text": "a lake"},
        {**QUICK, "3.seed": 7},
    ]
    assert tuple(run.workflow_id for run in summary.workflows) == ordered.workflow_ids
    assert {run.priority for run in summary.workflows} == {3}
    assert summary.batch == done
    outputs = client.batches.outputs(ordered.batch_id)
    assert [(output.workflow_id, output.number) for output in outputs] == [
        (id_, 0) for id_ in ordered.workflow_ids
    ]
    paths = client.batches.download(ordered.batch_id, tmp_path / "here")
    assert [path.read_bytes() for path in paths] == [
        Path(str(each.local_path)).read_bytes() for each in outputs
    ]
    assert client.batches.all(limit=1) == [done]
    assert done not in client.batches.all(before=ordered.batch_id)


def test_runs_that_differ_in_all(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    """One run fails; waiting for the batch raises nothing."""
    common = {"ssh_connection": sandbox.ssh_string, "output_dir": tmp_path / "there"}
    ordered = client.batches.order(
        runs=[
            {"workflow": painted(1), **common},
            {"workflow": failing("it broke"), **common},
            {"workflow": demo.ENHANCE, "input_images": [demo.EXAMPLE_PICTURE], **common},
        ]
    )
    done = client.batches.wait(ordered.batch_id, timeout_s=30)
    assert (done.status, done.count(RunStatus.COMPLETED, RunStatus.FAILED)) == (RunStatus.FAILED, 3)
    (failure,) = done.failures
    assert (failure.workflow_id, failure.failed_node_id) == (ordered.workflow_ids[1], "2")
    assert "it broke" in (failure.error_message or "")
    assert len(client.batches.download(ordered.batch_id, tmp_path / "here")) == 2


def test_a_matrix_that_waits(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    sandbox.faults(hold=True)
    ordered = client.batches.order(
        workflow=demo.TEXT_TO_IMAGE,
        ssh_connection=sandbox.ssh_string,
        matrix={"3.seed": [1, 2], "6.text": ["a", "b"]},
        output_dir=tmp_path,
        stagger_s=0.01,
        on_error="stop",
    )
    assert len(ordered.workflow_ids) == 4
    with pytest.raises(TimedOut, match="The batch has not ended"):
        client.batches.wait(ordered.batch_id, timeout_s=0.3)
    assert client.prioritize(ordered.workflow_ids[3], 9)
    assert client.progress(ordered.workflow_ids[3]).priority == 9
    assert client.batches.cancel(ordered.batch_id) == 4
    done = client.batches.wait(ordered.batch_id, timeout_s=30)
    assert (done.status, done.on_error, done.stagger_s) == (RunStatus.CANCELLED, "stop", 0.01)


def test_a_retry(client: WorkflowServer, sandbox: SandboxProcess, tmp_path: Path) -> None:
    output_dir = tmp_path / "there"
    sandbox.faults(hold=True)
    ordered = client.batches.order(
        workflow=demo.TEXT_TO_IMAGE,
        ssh_connection=sandbox.ssh_string,
        rows=[QUICK],
        output_dir=output_dir,
    )
    output_dir.write_text("a file where the directory is wanted")
    sandbox.faults(hold=False)
    assert client.batches.wait(ordered.batch_id, timeout_s=30).failures[0].error_code == "outputs_missing"
    with pytest.raises(RemoteFileError, match="does not have 1 output"):
        client.batches.download(ordered.batch_id, tmp_path / "here")
    output_dir.unlink()
    assert client.batches.retry(ordered.batch_id) == 1
    assert client.batches.wait(ordered.batch_id, timeout_s=30).status is RunStatus.COMPLETED
    assert len(sandbox.executions()) == 1


def test_a_refusal_names_the_run(client: WorkflowServer) -> None:
    with pytest.raises(RequestRefused, match="run 1: ") as refused:
        client.batches.order(workflow=demo.TEXT_TO_IMAGE, ssh_connection="gpu", rows=[QUICK, {"99.seed": 1}])
    assert refused.value.status == 400
    with pytest.raises(RequestRefused) as unknown:
        client.batches.progress(BATCH_ID)
    assert (unknown.value.status, unknown.value.code) == (404, "batch_not_found")


@pytest.mark.parametrize("batch_id", ["", "..", "batch_1_a/../../x", "comfyui_workflow_1_a", "batch_1_a?b"])
def test_what_is_no_id_is_not_asked_for(batch_id: str) -> None:
    with WorkflowServer("http://127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="id of a batch"):
        client.batches.progress(batch_id)


def test_keywords_are_checked_here() -> None:
    with WorkflowServer("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match="unknown: row"):
            client.batches.order(workflow={}, row=[])  # type: ignore[call-arg]
        with pytest.raises(InvalidRequest, match="is a batch, not a run"):
            client.progress(BATCH_ID)


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
    unsure = "It is not known whether the batch has started"
    with WorkflowServer(peer.url) as client, pytest.raises(ServerUnreachable, match=unsure):
        client.batches.order(workflow={}, ssh_connection="gpu", rows=[{}])
    peer.close()
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize("body", [b"", b"[]", {"progress": 7}, {"progress": {**PROGRESS, "counts": 7}}])
def test_what_is_no_answer_of_ours(canned: CannedServer, body: object) -> None:
    canned.will_answer((200, body))
    with WorkflowServer(canned.url) as client:
        for ask in (client.batches.progress, client.batches.summary, client.batches.outputs):
            with pytest.raises(ServerUnreachable):
                ask(BATCH_ID)


def test_a_file_goes_to_a_server_that_does_not_read_ours_once(canned: CannedServer, tmp_path: Path) -> None:
    refused = (403, {"success": False, "message": "no", "code": "file_refused"})
    uploaded = (200, {"path": "/up/example.png"})
    canned.will_answer(refused, uploaded, (200, {"batch_id": BATCH_ID, "workflow_ids": []}))
    run = {"workflow": {}, "ssh_connection": "gpu", "input_images": [demo.EXAMPLE_PICTURE]}
    with WorkflowServer(canned.url) as client:
        client.batches.order(runs=[run, run])  # type: ignore[list-item]
    assert len(canned.requests) == 3
    assert canned.requests[2][3].count(b"/up/example.png") == 2


def test_waiting_outlasts_a_server_that_is_restarted(canned: CannedServer) -> None:
    over = {**PROGRESS, "status": "completed"}
    canned.will_answer((200, {"progress": PROGRESS}), (503, b""), (200, {"progress": over}))
    with WorkflowServer(canned.url) as client:
        assert client.batches.wait(BATCH_ID, timeout_s=20).status is RunStatus.COMPLETED


def test_costs(canned: CannedServer) -> None:
    canned.will_answer(
        (
            200,
            {"instances": [{"id": "a", "name": "A", "run_cost": 1.5}], "total": {"runs": 3, "run_cost": 1.5}},
        )
    )
    with WorkflowServer(canned.url) as client:
        costs = client.instances.costs()
    assert (costs.instances[0].run_cost, costs.instances[0].idle_cost, costs.total.runs) == (1.5, None, 3)
