"""One run over several instances: all parts once, in their order, whatever fails."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.integration.graphs import Graph, failing, node, slow
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
    listed = [each["workflow_id"] for each in fleet.server.get("")["workflows"]]
    assert listed == [*reversed(alone), run_id]
    every = fleet.server.get("?parts=true")
    assert (len(every["workflows"]), every["total"]) == (7, 7)
    assert fleet.server.get("/state")["state"]["workflow_id"] == alone[-1]


def test_each_instance_that_dies_loses_nothing(fleet: Machines) -> None:
    """One instance dies while its part executes: another takes the same seed."""
    expected = spread(fleet, seeded(100, prefix="whole"))
    whole = [pixels(output) for output in fleet.server.until_finished(expected)["outputs"]]
    run_id = spread(fleet, seeded(100, steps=20, prefix="hit"), count=3)
    fleet.sandboxes["gpu1"].kill()
    done = fleet.server.until_finished(run_id, timeout_s=90)
    assert done["status"] == "completed", done
    assert "gpu1" not in {part["instance"] for part in done["children"]}
    assert len({output["part"] for output in done["outputs"]}) == len(done["outputs"]) == 3
    assert len(whole) == 3


def part_where(done: Json, status: str) -> Json:
    found: Json = next(part for part in done["children"] if part["status"] == status)
    return found


def test_a_part_that_fails_everywhere_fails_the_run_and_says_where(fleet: Machines) -> None:
    done = fleet.server.until_finished(spread(fleet, failing("it broke"), count=2), timeout_s=60)
    assert done["status"] == "failed"
    assert "Part 1 of 2 (gpu" in done["error_message"]
    assert "it broke" in done["error_message"]
    assert done["error_code"] == "prompt_failed"
    assert not done["can_retry"]
    assert all(count == 1 for count in executions(fleet).values())


def only_at(fleet: Machines, name: str, graph: Graph) -> Graph:
    """A graph whose input file only one instance has."""
    Image.new("RGB", (8, 8), "red").save(fleet.sandboxes[name].input_dir / "only.png")
    return graph


def test_the_run_is_completed_without_a_failed_part_where_that_is_wanted(fleet: Machines) -> None:
    for name in ("gpu0", "gpu1", "gpu2"):
        requests.post(f"{fleet.instances_url}/{name}/connect", timeout=10)
    graph = slow(1, steps=30, seconds_per_step=0.1)
    run_id = spread(fleet, graph, partial="keep")
    executing = fleet.server.until(
        run_id, lambda at: [part["status"] for part in at["children"]] == ["executing"] * 3
    )
    lost = executing["children"][1]["instance"]
    fleet.sandboxes[lost].kill()
    done = fleet.server.until_finished(run_id, timeout_s=60)
    assert done["status"] == "completed", done
    assert [output["part"] for output in done["outputs"]] == [1, 3]
    assert any(notice.startswith(f"Missing: Part 2 of 3 ({lost})") for notice in done["notices"]), done[
        "notices"
    ]


def test_the_others_are_cancelled_after_a_failed_part_where_that_is_wanted(fleet: Machines) -> None:
    graph = slow(1, steps=200, seconds_per_step=0.1)
    run_id = spread(fleet, graph, partial="fail")
    executing = fleet.server.until(
        run_id, lambda at: [part["status"] for part in at["children"]] == ["executing"] * 3
    )
    fleet.sandboxes[executing["children"][2]["instance"]].kill()
    done = fleet.server.until_finished(run_id, timeout_s=60)
    assert done["status"] == "failed", done
    assert [part["status"] for part in done["children"]] == ["cancelled", "cancelled", "failed"]
    assert done["error_message"].startswith("Part 3 of 3")
    assert done["can_retry"]


def test_a_cancelled_run_ends_after_all_its_parts(fleet: Machines) -> None:
    run_id = spread(fleet, slow(1, steps=200, seconds_per_step=0.1))
    fleet.server.until(run_id, lambda at: [part["status"] for part in at["children"]] == ["executing"] * 3)
    active = fleet.server.get("/now")
    assert [run["workflow_id"] for run in active["executing"]] == [run_id]
    assert fleet.server.post(f"/{run_id}/cancel").status_code == 200
    done = fleet.server.until_finished(run_id)
    assert done["status"] == "cancelled"
    assert [part["status"] for part in done["children"]] == ["cancelled"] * 3


@pytest.mark.parametrize("step", ["accepted", "executing", "one ended"])
def test_a_server_that_is_killed_goes_on(fleet: Machines, step: str) -> None:
    run_id = spread(fleet, seeded(7, steps=8))
    if step != "accepted":
        wanted = {"executing": ("executing", "completed"), "one ended": ("completed",)}[step]
        fleet.server.until(run_id, lambda at: any(part["status"] in wanted for part in at["children"]))
    fleet.server.kill()
    fleet.server.start()
    done = fleet.server.until_finished(run_id, timeout_s=60)
    assert done["status"] == "completed", done
    assert [output["part"] for output in done["outputs"]] == [1, 2, 3]
    assert len({pixels(output) for output in done["outputs"]}) == 3
    assert executions(fleet).total() == 3


def test_more_parts_than_instances_run_in_turn(fleet: Machines) -> None:
    run_id = spread(fleet, seeded(1), count=5, spread_over=["gpu0", "gpu2"])
    done = fleet.server.until_finished(run_id, timeout_s=60)
    assert [part["instance"] for part in done["children"]] == ["gpu0", "gpu2", "gpu0", "gpu2", "gpu0"]
    assert len({pixels(output) for output in done["outputs"]}) == 5


def test_a_batch_can_be_spread_too(fleet: Machines) -> None:
    batch = fleet.order(
        {"ssh_connection": "any", "workflow": seeded(), "matrix": {"4.seed": [10, 20]}, "spread": 2}
    )
    until(lambda: fleet.progress(batch)["status"] == "completed", story=lambda: fleet.progress(batch))
    runs = fleet.runs(batch)
    assert [run["output_count"] for run in runs] == [2, 2]
    outputs = fleet.server.get(f"/batch/{batch}/outputs")["outputs"]
    assert len({pixels(output) for output in outputs}) == 4
    assert fleet.progress(batch)["total"] == 2
    assert fleet.progress(batch)["gpu_seconds"] > 0
