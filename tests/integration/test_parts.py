"""One run over several instances: all parts once, in their order, whatever fails."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.integration.graphs import Graph, failing, node, painted, slow
from tests.integration.test_fleet import until
from tests.scheduling.machines import Json, Machines, machines


def seeded(seed: int = 100, *, steps: int = 2, prefix: str = "seeded") -> Graph:
    """A picture that depends on a seed."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="sandbox-stand-in.safetensors"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a lake"),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            seed=seed,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix=prefix),
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, (0.5, 0.3, 0.1), move_after_s=1, connection_idle_s=60) as made:
        yield made


def spread(fleet: Machines, graph: Graph, count: int = 3, **fields: object) -> str:
    return fleet.server.execute("any", graph, spread=count, **fields)


def executions(fleet: Machines) -> Counter[str]:
    return sum(fleet.executions().values(), Counter[str]())


def pixels(output: Json) -> bytes:
    return Image.open(output["local_path"]).tobytes()


def test_a_run_has_the_pictures_of_all_its_parts_in_their_order(fleet: Machines) -> None:
    run_id = spread(fleet, seeded(100))
    done = fleet.server.until_finished(run_id)
    assert (done["status"], done["progress_percent"], done["parts"]) == ("completed", 100.0, 3), done
    assert {part["instance"] for part in done["children"]} == {"gpu0", "gpu1", "gpu2"}
    assert [output["part"] for output in done["outputs"]] == [1, 2, 3]
    alone = [fleet.server.execute("gpu0", seeded(seed, prefix="alone")) for seed in (100, 101, 102)]
    expected = [pixels(fleet.server.until_finished(each)["outputs"][0]) for each in alone]
    assert [pixels(output) for output in done["outputs"]] == expected
    assert len(set(expected)) == 3
    assert done["cost"] > 0
    assert len({output["local_path"] for output in done["outputs"]}) == 3
    listed = [each["workflow_id"] for each in fleet.server.get("/list")["workflows"]]
    assert listed == [*reversed(alone), run_id]
    every = fleet.server.get("/list?parts=true")
    assert (len(every["workflows"]), every["total"]) == (7, 7)
    assert fleet.server.get("/state")["state"]["workflow_id"] == alone[-1]
