"""Inputs whose URLs differ only in their secret parts, from the request to the download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery.output_uploads import OutputUploader
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.execution.storage_steps import StorageSteps
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.base import Report, no_report
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from tests.api.conftest import Api

URLS = ("https://files.example/a.png?file=1", "https://files.example/a.png?file=2")


class Getter:
    """Notes the complete URL of each file."""

    def __init__(self) -> None:
        self.urls = list[str]()

    def get(
        self,
        url: str,
        path: Path,
        secrets: RequestSecrets,
        *,
        report: Report = no_report,
        stop: CancelToken,
    ) -> None:
        self.urls.append(secrets.complete(url))


def prompt(api: Api) -> str:
    graph: dict[str, Any] = {
        str(number): {"class_type": "LoadImage", "inputs": {"image": url}} for number, url in enumerate(URLS)
    }
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
    body = {"prompt": graph, "id": "x", "webhook": "https://client.example/hook"}
    answer = api.client.post("/comfyui-api/prompt", json=body)
    assert answer.status_code == 202, answer.text
    return str(api.client.get("/comfyui-api/prompt/x").get_json()["workflow_id"])


def run(api: Api) -> str:
    graph = {str(number): {"class_type": "LoadImage", "inputs": {"image": "none.png"}} for number in range(2)}
    body = {
        "ssh_connection": "ssh root@h",
        "workflow": graph,
        "inputs": {f"{number}.image": url for number, url in enumerate(URLS)},
        "input_images": list(URLS),
    }
    answer = api.client.post("/comfyui/workflow/execute", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.get_json()["workflow_id"])


@pytest.mark.parametrize("submit", [prompt, run])
def test_each_input_comes_from_its_own_url(api: Api, submit: Callable[[Api], str]) -> None:
    run_id, getter = submit(api), Getter()
    web = GuardedClient(may_reach_private=False)
    uploader = OutputUploader(StorageRegistry(StorageSettings(), web))
    steps = StorageSteps(getter=getter, uploader=uploader, secrets=api.journal.url_secrets)
    found = api.journal.get(run_id)
    with LiveProgress().open(run_id) as live:
        steps.download_inputs(found, live, lambda _: None, CancelToken())
    assert sorted(getter.urls) == sorted(URLS)
    assert all("?file=..." in each.url for each in found.request.downloads)
