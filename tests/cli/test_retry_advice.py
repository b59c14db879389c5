"""Advice to retry: given exactly when the server would accept a retry."""

from datetime import UTC, datetime
from typing import Any

import pytest

from comfyui_workflow.cli.batch_outcome import _advice
from comfyui_workflow.cli.run import conclude
from comfyui_workflow.cli.servers import ReachedServer
from comfyui_workflow.client import WorkflowServer
from comfyui_workflow.client.batch_documents import BatchProgressDocument
from comfyui_workflow.client.documents import ProgressDocument

REACHED = ReachedServer(client=WorkflowServer("http://127.0.0.1:1"), is_own=False)


def failed_run(*, can_retry: bool) -> ProgressDocument:
    said: dict[str, Any] = {
        "workflow_id": "comfyui_workflow_1",
        "workflow_name": "w",
        "status": "failed",
        "queue_time": datetime(2026, 1, 1, tzinfo=UTC),
        "error_code": "api_key_gone",
        "can_retry": can_retry,
    }
    return ProgressDocument(**said, raw={})


@pytest.mark.parametrize("can_retry", [True, False])
def test_a_retry_is_advised_where_the_server_accepts_it(
    capsys: pytest.CaptureFixture[str], *, can_retry: bool
) -> None:
    conclude(REACHED, failed_run(can_retry=can_retry), as_json=False)
    assert ("comfyui-workflow retry comfyui_workflow_1" in capsys.readouterr().err) is can_retry


@pytest.mark.parametrize("can_retry", [True, False])
def test_a_retry_of_a_batch_is_advised_where_the_server_accepts_it(*, can_retry: bool) -> None:
    said: dict[str, Any] = {
        "batch_id": "batch_1",
        "batch_name": "b",
        "status": "failed",
        "total": 1,
        "counts": {"failed": 1},
        "queue_time": datetime(2026, 1, 1, tzinfo=UTC),
        "failures": [{"workflow_id": "comfyui_workflow_1", "error_code": "api_key_gone"}],
        "can_retry": can_retry,
    }
    advice = _advice(REACHED, BatchProgressDocument(**said, raw={}))
    assert ("batches retry" in advice) is can_retry
