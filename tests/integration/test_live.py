"""Tests of live progress and the times of nodes, over both SSH servers."""

import json
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import Graph, loaded, slow
from tests.sandbox.running_comfyui import wait_until
from tests.server_process import ServerProcess

Json = dict[str, Any]


def with_previews(color: int, *, steps: int = 60) -> Graph:
    graph = slow(color, steps=steps, seconds_per_step=0.05, prefix="live")
    graph["2"]["inputs"]["preview"] = True
    return graph


def live_preview(server: ServerProcess, run_id: str) -> requests.Response:
    return requests.get(f"{server.url}/{run_id}/live-preview", timeout=10)


@pytest.mark.parametrize("version", ["0.33.0", "0.8.0", "0.3.64", "0.3.41"])
def test_previews_come_while_a_node_samples(server: ServerProcess, instance: Instance, version: str) -> None:
    instance.sandbox.faults(version=version)
    run_id = server.execute(instance.ssh_string, with_previews(0x204060 + int(version.replace(".", ""))))
    first = server.until(run_id, lambda p: p["live_preview"] is not None)
    assert first["live_preview"] == {**first["live_preview"], "node_id": "2", "content_type": "image/jpeg"}
    answer = live_preview(server, run_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(BytesIO(answer.content)).size[0] == 512
    number = first["live_preview"]["number"]
    server.until(run_id, lambda p: p["live_preview"]["number"] > number)
    (line,) = [w for w in server.get("?limit=5")["workflows"] if w["workflow_id"] == run_id]
    assert line["live_preview"]["number"] > number
    done = server.until_finished(run_id)
    assert (done["status"], done["live_preview"], done["transfers"]) == ("completed", None, [])
    assert live_preview(server, run_id).status_code == 204


def test_previews_go_with_the_way_to_the_instance_and_come_again(
    server: ServerProcess, instance: Instance
) -> None:
    run_id = server.execute(instance.ssh_string, with_previews(0x507090, steps=80))
    first = server.until(run_id, lambda p: p["live_preview"] is not None)
    instance.refuse(0.5)
    instance.cut()
    server.until(run_id, lambda p: p["live_preview"] is None)
    again = server.until(run_id, lambda p: p["live_preview"] is not None)
    assert again["live_preview"]["number"] > first["live_preview"]["number"]
    done = server.until_finished(run_id)
    assert done["status"] == "completed"
    assert len(instance.sandbox.executions()) == 1


def test_each_node_tells_when_it_began_and_ended(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server()
    run_id = server.execute(instance.ssh_string, slow(0x302010, steps=20, seconds_per_step=0.05))
    done = server.until_finished(run_id)
    began, ended = ([at(node[name]) for node in done["nodes"]] for name in ("start_time", "end_time"))
    assert began == sorted(began)
    assert ended == sorted(ended)
    assert 0.9 < (ended[1] - began[1]).total_seconds() < 5
    server.kill()
    server.start()
    assert server.progress(run_id)["nodes"] == done["nodes"]
    wait_until(lambda: json.loads(server.state_file.read_text())["nodes"] == done["nodes"])
    cached = server.until_finished(
        server.execute(instance.ssh_string, slow(0x302010, steps=20, seconds_per_step=0.05))
    )
    assert {(node["start_time"], node["end_time"]) for node in cached["nodes"]} == {(None, None)}


def at(time: str) -> datetime:
    assert len(time) == len("2026-01-02T03:04:05.678Z")
    return datetime.fromisoformat(time)


def test_files_on_their_way_tell_how_far_they_are(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    photo = tmp_path / "large.png"
    Image.fromarray(noise).save(photo, compress_level=0)
    run_id = server.execute(
        instance.ssh_string, loaded("large.png", prefix="large"), input_images=[str(photo)]
    )
    seen: list[Json] = []
    done = server.until(run_id, lambda p: seen.extend(p["transfers"]) or p["status"] == "completed")
    ways = {(each["direction"], each["filename"]) for each in seen}
    assert ways == {("upload", "large.png"), ("download", done["outputs"][0]["filename"])}
    assert {each["total_bytes"] for each in seen if each["direction"] == "upload"} <= {
        None,
        photo.stat().st_size,
    }
    assert all(each["done_bytes"] <= (each["total_bytes"] or 0) for each in seen)
    assert done["transfers"] == []
