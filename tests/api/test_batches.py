"""Batches over HTTP: equal workflows are stored once, and the documents of the runs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.api.run_requests import RUN_FIELDS
from comfyui_workflow.runs.events import RunCompleted
from comfyui_workflow.runs.model import OutputFile, RunRequest
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.workflows.model import Workflow
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH

OTHER = {**GRAPH, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": True}}}
ALMOST = {**GRAPH, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": 1}}}


def order(api: Api, *runs: dict[str, Any]) -> tuple[str, list[RunRequest]]:
    answer = api.client.post(
        "/comfyui/workflow/batch", json={"runs": [{"ssh_connection": SSH, **run} for run in runs]}
    )
    assert answer.status_code == 200, answer.text
    return answer.json["batch_id"], [api.journal.get(each).request for each in answer.json["workflow_ids"]]


def test_a_file_that_many_runs_name_is_read_once(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, opened = PathPolicy.read_workflow, list[str]()

    def counted(files: PathPolicy, path: str) -> Workflow:
        opened.append(path)
        return read(files, path)

    monkeypatch.setattr(PathPolicy, "read_workflow", counted)
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for path in paths:
        Path(path).write_text(json.dumps(GRAPH))
    _, requests = order(api, *({"workflow_file": path} for path in [*paths, *paths]))
    assert opened == paths
    assert requests[0].workflow is requests[2].workflow
    assert [request.workflow_name for request in requests] == ["a.json", "b.json"] * 2
    order(api, {"workflow_file": paths[0]})
    assert len(opened) == 3  # it may be another by then


def test_one_workflow_that_was_sent_with_each_run_is_one_object(api: Api) -> None:
    sent = [GRAPH, OTHER, GRAPH, ALMOST]
    _, requests = order(api, *({"workflow": workflow, "inputs": {"1.image": "b.png"}} for workflow in sent))
    assert [json.dumps(request.workflow.graph) for request in requests] == [
        json.dumps(graph) for graph in sent
    ]
    assert requests[0].workflow is requests[2].workflow
    assert len({id(request.workflow) for request in requests}) == 3


def test_the_summary_tells_the_inputs_and_the_outputs_tell_the_files(api: Api) -> None:
    batch_id, _ = order(api, *({"workflow": GRAPH, "inputs": {"1.image": f"{n}.png"}} for n in range(3)))
    summary = api.client.get(f"/comfyui/workflow/batch/{batch_id}/summary").json
    assert [run["inputs"] for run in summary["workflows"]] == [{"1.image": f"{n}.png"} for n in range(3)]
    done = summary["workflows"][1]["workflow_id"]
    files = tuple(OutputFile(filename=f"{n}.png", node_id="2") for n in range(2))
    api.journal._store.update(done, lambda run: replace(run, outputs=files))
    api.journal.record(done, RunCompleted())
    outputs = api.client.get(f"/comfyui/workflow/batch/{batch_id}/outputs").json["outputs"]
    assert [(each["workflow_id"], each["number"], each["filename"]) for each in outputs] == [
        (done, 0, "0.png"),
        (done, 1, "1.png"),
    ]


def test_every_field_that_execute_documents_may_be_in_a_batch(api: Api) -> None:
    documented = Path("docs/api/workflow.md").read_text().partition("## execute\n")[2].partition("\n## ")[0]
    names = set(re.findall(r"^\| `(\w+)` \|", documented, re.MULTILINE))
    assert names - {"again"} == RUN_FIELDS
    asked = {"ssh_connection": SSH, "workflow": GRAPH, "batch_name": "b", "stagger_s": 1, "on_error": "stop"}
    varied = {**asked, "priority": 1, "inputs": {}, "rows": [{}], "runs": None}
    answer = api.client.post("/comfyui/workflow/batch", json=varied)
    assert answer.status_code == 200
    slip = api.client.post("/comfyui/workflow/batch", json={**varied, "on_eror": "stop"})
    assert (slip.status_code, slip.json["code"]) == (400, "invalid_request")
