"""POST /distributed/queue: one workflow on the master and the named workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.graphs import Graph
from tests.integration.test_distributed_runs import COLORS, collecting, colors
from tests.integration.test_fleet import until
from tests.scheduling.machines import Json, Machines, machines


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, (0.5, 0.3, 0.1), connection_idle_s=60) as made:
        yield made


def queued(fleet: Machines, graph: Graph, workers: tuple[str, ...], **fields: object) -> Json:
    base = fleet.server.url.removesuffix("/comfyui/workflow")
    body = {"prompt": graph, "client_id": "c", "enabled_worker_ids": workers, **fields}
    answer = requests.post(f"{base}/distributed/queue", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def finished(fleet: Machines, accepted: Json) -> Json:
    done = fleet.server.until_finished(accepted["workflow_id"], timeout_s=60)
    assert done["status"] == "completed", (done["error_message"], done["notices"])
    assert done["prompt_id"] == accepted["prompt_id"]
    return done


def test_pictures_are_the_masters_and_then_those_of_the_workers_in_the_order_of_the_registry(
    fleet: Machines,
) -> None:
    accepted = queued(fleet, collecting(), ("gpu2", "gpu1"), trace_execution_id="exec_1")
    assert accepted["worker_count"] == 2
    done = finished(fleet, accepted)
    assert colors(done) == [color for color in COLORS for _ in range(2)]
    url = f"http://127.0.0.1:{fleet.sandboxes['gpu0'].comfyui_port}/history/{accepted['prompt_id']}"
    history = requests.get(url, timeout=10).json()
    assert len(history[accepted["prompt_id"]]["outputs"]["6"]["images"]) == 6
    assert "[exec:exec_1]" in fleet.server.log()


def test_workers_that_are_unknown_or_do_not_answer_take_no_part(fleet: Machines) -> None:
    fleet.sandboxes["gpu1"].kill()
    accepted = queued(fleet, collecting(), ("gpu1", "gpu2", "gpu9"))
    assert accepted["worker_count"] == 1
    assert colors(finished(fleet, accepted)) == [color for color in COLORS[:2] for _ in range(2)]


def test_without_workers_the_master_renders_alone(fleet: Machines) -> None:
    accepted = queued(fleet, collecting(), ())
    assert accepted["worker_count"] == 0
    assert colors(finished(fleet, accepted)) == [COLORS[0]] * 2


def test_a_master_that_delegates_renders_nothing(fleet: Machines) -> None:
    accepted = queued(fleet, collecting(), ("gpu1", "gpu2"), delegate_master=True)
    assert accepted["worker_count"] == 2
    assert colors(finished(fleet, accepted)) == [color for color in COLORS[1:] for _ in range(2)]


def test_a_balanced_workflow_goes_to_the_one_idle_machine(fleet: Machines) -> None:
    graph = collecting(2.0)
    slow = queued(fleet, graph, ("gpu1",))
    busy = ("gpu0", "gpu1")
    until(lambda: all(sum(fleet.executions()[name].values()) for name in busy))
    balanced = {**collecting(), "4": {**graph["4"], "inputs": {"images": ["3", 0], "load_balance": True}}}
    accepted = queued(fleet, balanced, ("gpu1", "gpu2"))
    assert accepted["worker_count"] == 1
    assert colors(finished(fleet, accepted)) == [COLORS[1]] * 2
    assert sum(fleet.executions()["gpu2"].values()) == 1
    finished(fleet, slow)


def test_a_class_that_the_master_does_not_have_is_refused_at_once(fleet: Machines) -> None:
    base = fleet.server.url.removesuffix("/comfyui/workflow")
    graph = {**collecting(), "9": {"class_type": "Nonsense", "inputs": {}}}
    body = {"prompt": graph, "client_id": "c", "enabled_worker_ids": ["gpu1"]}
    answer = requests.post(f"{base}/distributed/queue", json=body, timeout=60)
    assert answer.status_code == 500
    assert "'type': 'missing_node_type'" in answer.json()["error"]
