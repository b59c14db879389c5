"""API keys of runs are kept apart from the records, private, and removed in time."""

import errno
import json
import os
from pathlib import Path

import pytest

from comfyui_workflow.app import create_server
from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.events import PromptAccepted, PromptPrepared, RunCancelled, RunFailed
from comfyui_workflow.runs.model import Run, RunRequest, new_run_id
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.settings import Settings
from comfyui_workflow.stores.files.api_keys import ApiKeys
from comfyui_workflow.stores.files.private_directories import PRIVATE
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.api_nodes import missing_key_findings, nodes_that_need_a_key
from comfyui_workflow.workflows.model import Workflow

KEY = "comfyui-0123456789abcdef"


def new_run(*, has_key: bool = True) -> Run:
    request = RunRequest(
        target=target_of_record("root@host"),
        workflow=Workflow(graph={"1": {"class_type": "A", "inputs": {}}}),
        workflow_name="w",
        output_dir="/nowhere",
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
        has_comfy_org_api_key=has_key,
    )
    return Run(run_id=new_run_id(now()), request=request, queue_time=now(), last_update=now())


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "secrets")


def files_with_the_key(directory: Path) -> list[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes())
    return [str(path.relative_to(directory)) for path in found]


@pytest.mark.parametrize(
    "event", [PromptAccepted(prompt_id="p"), RunFailed(code="x", message="It broke."), RunCancelled()]
)
def test_a_key_is_gone_when_its_prompt_was_accepted_or_its_run_has_ended(
    tmp_path: Path, keys: ApiKeys, event: PromptAccepted | RunFailed | RunCancelled
) -> None:
    journal, run = RunJournal(MemoryRunStore(), api_keys=keys), new_run()
    journal.add(run, KEY)
    journal.record(run.run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    assert journal.api_key(run.run_id) == KEY
    assert files_with_the_key(tmp_path) == [f"secrets/{run.run_id}"]
    journal.record(run.run_id, event)
    assert journal.api_key(run.run_id) is None
    assert files_with_the_key(tmp_path) == []


def test_the_key_of_a_batch_is_written_once_and_removed_run_by_run(tmp_path: Path, keys: ApiKeys) -> None:
    store = MemoryRunStore()
    journal, runs = RunJournal(store, api_keys=keys), [new_run() for _ in range(50)]
    journal.add_all(runs, {**{run.run_id: KEY for run in runs[:-1]}, runs[-1].run_id: "another"})
    assert [journal.api_key(run.run_id) for run in runs] == [KEY] * 49 + ["another"]
    files = [tmp_path / "secrets" / run.run_id for run in runs]
    assert len({file.stat().st_ino for file in files}) == 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    journal.record(runs[0].run_id, RunCancelled())
    assert [journal.api_key(run.run_id) for run in runs[:2]] == [None, KEY]


def test_a_file_system_without_links_gets_files(
    tmp_path: Path, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    ids = [f"comfyui_workflow_{number}_a" for number in range(3)]
    keys.put_all(dict.fromkeys(ids, KEY))
    assert [keys.get(each) for each in ids] == [KEY] * 3
    assert len({(tmp_path / "secrets" / each).stat().st_ino for each in ids}) == 3


def test_a_run_that_cannot_be_saved_leaves_no_key(tmp_path: Path, keys: ApiKeys) -> None:
    class Full(MemoryRunStore):
        def add_all(self, runs: object) -> None:
            assert files_with_the_key(tmp_path) != [], "the key is on disk before the run"
            raise StoreError("The disk is full")

    run = new_run()
    with pytest.raises(StoreError):
        RunJournal(Full(), api_keys=keys).add_all([run], {run.run_id: KEY})
    assert files_with_the_key(tmp_path) == []


def test_it_is_closed_to_others(tmp_path: Path, keys: ApiKeys) -> None:
    keys.put("comfyui_workflow_1_a", KEY)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "comfyui_workflow_1_a").stat().st_mode & 0o777 == 0o600


def test_what_a_server_that_died_has_left_is_gone_at_the_next_start(tmp_path: Path, keys: ApiKeys) -> None:
    for name in ("comfyui_workflow_1_a", "comfyui_workflow_2_b"):
        keys.put(name, KEY)
    (tmp_path / "secrets" / ".comfyui_workflow_1_a.0123").write_text(KEY)
    keys.keep_only({"comfyui_workflow_2_b"})
    assert files_with_the_key(tmp_path) == ["secrets/comfyui_workflow_2_b"]


def test_records_of_an_earlier_version_lose_their_keys(tmp_path: Path, keys: ApiKeys) -> None:
    run = new_run(has_key=False)
    old = {**json.loads(encode_request(run.request)), "comfy_org_api_key": KEY}
    del old["has_comfy_org_api_key"]
    for place, run_id in (("live", run.run_id), ("finished", "comfyui_workflow_1_a")):
        record = tmp_path / "runs" / place / run_id
        record.mkdir(parents=True)
        (record / "request.json").write_text(json.dumps(old, separators=(",", ":")))
    keys.move_keys_from_records(tmp_path / "runs")
    assert files_with_the_key(tmp_path) == [f"secrets/{run.run_id}"]
    assert keys.get(run.run_id) == KEY
    request = (tmp_path / "runs" / "live" / run.run_id / "request.json").read_bytes()
    assert decode_run(request, encode_run(run)).request == new_run().request


def test_directories_of_an_earlier_version_are_closed_to_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("runs/live", "runs/finished", "uploads/0123", "jobs"):
        (data / name).mkdir(parents=True)
        (data / name).chmod(0o755)
    data.chmod(0o777)
    server = create_server(Settings(data_dir=data, state_file=tmp_path / "state"))
    server.start()
    server.stop()
    assert [oct((data / name).stat().st_mode & 0o777) for name in (".", *PRIVATE)] == ["0o700"] * (
        1 + len(PRIVATE)
    )


@pytest.mark.parametrize(
    ("definition", "needs"),
    [
        ({"input": {"hidden": {"api_key_comfy_org": "API_KEY_COMFY_ORG"}}}, True),
        ({"input": {"hidden": {"auth_token_comfy_org": ["AUTH_TOKEN_COMFY_ORG", {}]}}}, True),
        ({"api_node": True}, True),
        ({"api_node": "no"}, False),
        ({"input": {"hidden": {"unique_id": "UNIQUE_ID"}}}, False),
        ({"input": {"hidden": 7}}, False),
        ("a text", False),
    ],
)
def test_nodes_that_need_a_key(definition: object, needs: bool) -> None:
    graph = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {}}}
    assert nodes_that_need_a_key(graph, {"B": definition}) == (["2"] if needs else [])


def test_a_run_without_a_key_is_warned_of_its_api_nodes() -> None:
    graph = {
        "1": {"class_type": "A", "inputs": {}},
        "2": {"class_type": "B", "inputs": {}, "_meta": {"title": "Paid"}},
    }
    (finding,) = missing_key_findings(graph, {"A": {}, "B": {"api_node": True}})
    assert (finding.code, finding.severity.value, finding.node_id) == ("api_key_missing", "warning", "2")
    assert str(finding).startswith('node 2 (B "Paid"): it calls a service of Comfy.org')
