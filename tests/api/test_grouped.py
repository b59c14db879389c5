"""The list with one row for each batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.runs.events import OutputsFetched, PromptSucceeded, RunCompleted, RunFailed
from comfyui_workflow.runs.model import FileType, OutputFile
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH

URL = "/comfyui/workflow"


def order(api: Api, count: int, name: str) -> tuple[str, list[str]]:
    body = {"ssh_connection": SSH, "workflow": GRAPH, "rows": [{}] * count, "batch_name": name}
    answer = api.client.post(f"{URL}/batch", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json["batch_id"], answer.json["workflow_ids"]


def execute(api: Api) -> str:
    answer = api.client.post(f"{URL}/execute", json={"ssh_connection": SSH, "workflow": GRAPH})
    found: str = answer.json["workflow_id"]
    return found


def grouped(api: Api, query: str = "") -> Any:
    answer = api.client.get(f"{URL}?grouped=true{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def names(answer: Any) -> list[str]:
    return [row.get("workflow_id") or row["batch_id"] for row in answer["workflows"]]


def end(api: Api, run_id: str, picture: Path) -> None:
    made = OutputFile(filename=picture.name, file_type=FileType.IMAGE)
    api.journal.record(run_id, PromptSucceeded(outputs=(made,)))
    api.journal.record(run_id, OutputsFetched(outputs=(replace(made, local_path=str(picture)),)))
    api.journal.record(run_id, RunCompleted())


def test_a_batch_is_one_row_with_what_its_page_says(api: Api, tmp_path: Path) -> None:
    batch_id, ids = order(api, 3, "night")
    end(api, ids[1], tmp_path / "a.png")
    (row,) = grouped(api)["workflows"]
    assert row["pictures"] == [{"workflow_id": ids[1], "number": 0}]
    assert (row["batch_name"], row["status"], row["total"]) == ("night", "executing", 3)
    assert row["counts"] == {"queued": 2, "executing": 0, "completed": 1, "failed": 0, "cancelled": 0}
    progress = api.client.get(f"{URL}/batch/{batch_id}/progress").json["progress"]
    assert row.items() <= progress.items()
    assert set(row) == {
        "batch_id",
        "batch_name",
        "status",
        "total",
        "counts",
        "progress_percent",
        "queue_time",
        "start_time",
        "end_time",
        "gpu_seconds",
        "cost",
        "unpriced_runs",
        "can_retry",
        "pictures",
    }


def test_rows_are_in_their_places_and_pages_join(api: Api) -> None:
    first = execute(api)
    batch_id, _ = order(api, 5, "night")
    second = execute(api)
    other_id, _ = order(api, 4, "day")
    everything = [other_id, second, batch_id, first]
    answer = grouped(api)
    assert (names(answer), answer["total"], answer["next"]) == (everything, 11, None)
    found, before = [], ""
    for _ in everything:
        answer = grouped(api, f"&limit=1{before}")
        found += names(answer)
        before = f"&before={answer['next']}"
    assert found == everything
    assert grouped(api, before)["workflows"] == []
    assert names(grouped(api, f"&batch={batch_id}")) == [batch_id]


def test_a_batch_is_where_its_newest_run_is_that_is_wanted(api: Api) -> None:
    batch_id, ids = order(api, 3, "night")
    between = execute(api)
    for run_id in (ids[0], between):
        api.journal.record(run_id, RunFailed(code="x", message="x"))
    answer = grouped(api, "&status=failed")
    assert (names(answer), answer["total"]) == ([between, batch_id], 2)
    assert answer["workflows"][1]["counts"]["queued"] == 2
    assert grouped(api, "&status=completed")["workflows"] == []


@pytest.mark.parametrize("value", ["1", "yes", "True", "true,false"])
def test_grouped_is_true_or_false(api: Api, value: str) -> None:
    answer = api.client.get(f"{URL}?grouped={value}")
    assert (answer.status_code, answer.json["message"]) == (400, "grouped must be true or false")


def test_without_it_every_run_is_a_row(api: Api) -> None:
    _, ids = order(api, 3, "night")
    for query in ("", "?grouped=false", "?grouped="):
        assert names(api.client.get(f"{URL}{query}").json) == ids[::-1]


def test_runs_are_found_by_the_name_of_their_batch(api: Api) -> None:
    _, ids = order(api, 2, "Night of the lake")
    order(api, 1, "day")
    execute(api)
    found = api.client.get(f"{URL}?name=of THE lake").json
    assert [row["workflow_id"] for row in found["workflows"]] == ids[::-1]
    assert found["total"] == 2
    assert api.client.get(f"{URL}?name=nobody").json["total"] == 0
