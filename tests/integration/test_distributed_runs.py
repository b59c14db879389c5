"""One workflow whose pictures are collected from several instances: whole and in order, whatever fails."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_workflow.app import create_server
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.services.distributed import DistributedOrder, DistributedRun, DistributedService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.settings import load_settings
from tests.api.conftest import IdleExecutor
from tests.integration.graphs import Graph, node
from tests.scheduling.machines import Json, Machines, machines

COLORS = (0x300000, 0x300001, 0x300002)


def collecting(seconds: float = 0.0, *, batch: int = 2) -> Graph:
    """Pictures with the seed as their colour, collected, inverted and saved; and one that the master saves."""
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
    assert not list((fleet.server.data_dir / "parts").iterdir())
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
