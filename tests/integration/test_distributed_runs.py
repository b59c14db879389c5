"""One workflow whose pictures are collected from several instances: whole and in order, whatever fails."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_workflow.app import create_server
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.runs.parts import Partial
from comfyui_workflow.services.distributed import DistributedOrder, DistributedRun, DistributedService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.settings import load_settings
from tests.api.conftest import IdleExecutor
from tests.integration.graphs import Graph, node
from tests.integration.test_fleet import until
from tests.scheduling.machines import Json, Machines, machines

COLORS = (0x300000, 0x300001, 0x300002)


def collecting(seconds: float = 0.0, *, batch: int = 2) -> Graph:
    """Pictures with the seed as their colour, collected, inverted and saved; and one that the master
    saves."""
    steps = {"steps": max(1, round(seconds / 0.1)), "seconds_per_step": 0.1 if seconds else 0.0}
    return {
        "1": node("DistributedSeed", seed=COLORS[0]),
        "2": node("EmptyImage", width=32, height=32, batch_size=batch, color=["1", 0]),
        "3": node("SandboxSlow", image=["2", 0], **steps),
        "4": node("DistributedCollector", images=["3", 0], load_balance=False),
        "5": node("ImageInvert", image=["4", 0]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="all"),
        "7": node("EmptyImage", width=16, height=16, batch_size=1, color=7),
        "8": node("SaveImage", images=["7", 0], filename_prefix="own"),
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, (0.5, 0.3, 0.1), move_after_s=1, connection_idle_s=60) as made:
        yield made


def submitted(fleet: Machines, graph: Graph, **fields: object) -> DistributedRun:
    """Submits the workflow while the server is stopped; the next start continues it."""
    assert fleet.server.terminate() == 0
    data_dir, state_file = fleet.server.data_dir, fleet.server.state_file
    stopped = create_server(load_settings(data_dir=data_dir, state_file=state_file))
    stopped.open()
    try:
        base = stopped.base
        service = RunService(base.journal, base.store, IdleExecutor())
        name = stopped.parts.distributed._server
        distributed = DistributedService(service, base.store, base.file("parts"), name)
        return distributed.submit(order(stopped.parts.instances.directory, fleet, graph, **fields))
    finally:
        stopped.stop()
        fleet.server.start()


def order(directory: InstanceRegistry, fleet: Machines, graph: Graph, **fields: object) -> DistributedOrder:
    master, *workers = (directory.require(name) for name in fleet.sandboxes)
    output_dir = str(fleet.server.output_dir)
    return DistributedOrder(
        graph=graph,
        master=master,
        workers=tuple(workers),
        output_dir=output_dir,
        **fields,  # type: ignore[arg-type]
    )


def colors(done: Json, name: str = "all") -> list[int]:
    """The colours of the pictures with this name, inverted, in their order."""
    files = [each["local_path"] for each in done["outputs"] if Path(each["filename"]).name.startswith(name)]
    pixels = [np.asarray(Image.open(path).convert("RGB"))[0, 0] for path in files]
    return [0xFFFFFF - (int(red) << 16 | int(green) << 8 | int(blue)) for red, green, blue in pixels]


def check_whole(fleet: Machines, run: DistributedRun, done: Json) -> None:
    assert done["status"] == "completed", (done["error_message"], done["notices"])
    assert colors(done) == [color for color in COLORS for _ in range(2)]
    assert len([each for each in done["outputs"] if each["filename"].startswith("own")]) == 1
    assert done["prompt_id"] == run.prompt_id
    until(lambda: not list((fleet.server.data_dir / "parts").iterdir()))
    assert len({each["local_path"] for each in done["outputs"]}) == len(done["outputs"]) == 7


def test_the_master_makes_the_result_of_the_pictures_of_all(fleet: Machines) -> None:
    run = submitted(fleet, collecting())
    assert run.worker_count == 2
    done = fleet.server.until_finished(run.run.run_id, timeout_s=60)
    check_whole(fleet, run, done)
    assert [part["instance"] for part in done["children"]] == ["gpu0", "gpu1", "gpu2"]
    assert done["instance"] == "gpu0"
    executed = {name: sum(counts.values()) for name, counts in fleet.executions().items()}
    assert executed == {"gpu0": 2, "gpu1": 1, "gpu2": 1}


def is_at(step: str, done: Json) -> bool:
    """True if the run has come to this step."""
    statuses = [part["status"] for part in done["children"]]
    return {
        "executing": "executing" in statuses,
        "one part is done": "completed" in statuses,
        "gathered": done["instance"] is not None,
    }[step]


@pytest.mark.parametrize("step", ["executing", "one part is done", "gathered"])
@pytest.mark.parametrize("name", ["gpu0", "gpu1", "gpu2"])
def test_no_instance_that_is_restarted_or_dies_loses_a_picture(fleet: Machines, name: str, step: str) -> None:
    """The master comes back: its prompt is nowhere else. A worker stays away."""
    run = submitted(fleet, collecting(1.0))
    run_id = run.run.run_id
    fleet.server.until(run_id, lambda done: is_at(step, done) or done["status"] == "completed")
    if name == "gpu0":
        fleet.sandboxes[name].restart()
    else:
        fleet.sandboxes[name].kill()
    done = fleet.server.until_finished(run_id, timeout_s=90)
    assert done["status"] == "completed", (done["error_message"], done["notices"])
    assert colors(done) == [color for color in COLORS for _ in range(2)]


@pytest.mark.parametrize("step", ["executing", "one part is done", "gathered"])
def test_a_server_that_is_killed_goes_on(fleet: Machines, step: str) -> None:
    run = submitted(fleet, collecting(0.5))
    run_id = run.run.run_id
    fleet.server.until(run_id, lambda done: is_at(step, done) or done["status"] == "completed")
    fleet.server.kill()
    fleet.server.start()
    done = fleet.server.until_finished(run_id, timeout_s=60)
    check_whole(fleet, run, done)
    assert sum(sum(counts.values()) for counts in fleet.executions().values()) == 4


def test_a_part_that_is_missing_is_told_where_that_is_wanted(fleet: Machines) -> None:
    run = submitted(fleet, collecting(3.0), partial=Partial.KEEP)
    run_id = run.run.run_id
    executing = fleet.server.until(
        run_id, lambda done: [part["status"] for part in done["children"]] == ["executing"] * 3
    )
    lost = executing["children"][1]["instance"]
    fleet.sandboxes[lost].kill()
    done = fleet.server.until_finished(run_id, timeout_s=60)
    assert done["status"] == "completed", done
    assert colors(done) == [COLORS[0]] * 2 + [COLORS[2]] * 2
    assert any(notice.startswith(f"Missing: Part 2 of 3 ({lost})") for notice in done["notices"])


def test_a_cancelled_run_ends_with_its_parts(fleet: Machines) -> None:
    run = submitted(fleet, collecting(20.0))
    run_id = run.run.run_id
    fleet.server.until(
        run_id, lambda done: [part["status"] for part in done["children"]] == ["executing"] * 3
    )
    assert fleet.server.post(f"/{run_id}/cancel").status_code == 200
    done = fleet.server.until_finished(run_id)
    assert [done["status"], *(part["status"] for part in done["children"])] == ["cancelled"] * 4
    until(lambda: not list((fleet.server.data_dir / "parts").iterdir()))


def test_a_workflow_without_a_collector_runs_on_the_master(fleet: Machines) -> None:
    graph = collecting() | {"5": node("ImageInvert", image=["3", 0])}
    del graph["4"]
    run = submitted(fleet, graph)
    assert run.worker_count == 0
    done = fleet.server.until_finished(run.run.run_id)
    assert (done["status"], done["instance"], done["parts"]) == ("completed", "gpu0", 0)
    assert done["prompt_id"] == run.prompt_id
    assert colors(done) == [COLORS[0]] * 2


def test_the_master_can_leave_the_work_to_the_others(fleet: Machines) -> None:
    run = submitted(fleet, collecting(), delegate_master=True)
    done = fleet.server.until_finished(run.run.run_id)
    assert done["status"] == "completed", done
    assert [part["instance"] for part in done["children"]] == ["gpu1", "gpu2"]
    assert colors(done) == [COLORS[1]] * 2 + [COLORS[2]] * 2
