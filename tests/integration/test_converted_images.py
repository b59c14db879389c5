"""Output images in another format: listed, fetched and kept as such, whatever interrupts the run."""

from collections.abc import Callable
from pathlib import Path

import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import node, painted, slow
from tests.server_process import ServerProcess

WEBP = {"format": "webp", "options": {"quality": 90}}


def test_the_converted_file_is_listed_and_fetched(server: ServerProcess, instance: Instance) -> None:
    run_id = server.execute(instance.ssh_string, painted(0x102030, prefix="sub/a"), convert=WEBP)
    done = server.until_finished(run_id)
    (output,) = done["outputs"]
    assert (done["status"], output["filename"], output["subfolder"]) == ("completed", "a_00001_.webp", "sub")
    local = Path(output["local_path"])
    assert (local, local.stat().st_size) == (server.output_dir / "sub/a_00001_.webp", output["size_bytes"])
    assert output["remote_path"].endswith("/sub/a_00001_.png")
    assert [path.name for path in local.parent.iterdir()] == ["a_00001_.webp"]
    served = requests.get(f"{server.url}/{run_id}/outputs/0", timeout=10)
    assert (served.content, served.headers["Content-Type"]) == (local.read_bytes(), "image/webp")
    assert Image.open(local).format == "WEBP"
    again = server.post("/execute", {"again": run_id}).json()["workflow_id"]
    assert server.until_finished(again)["outputs"][0]["filename"].endswith(".webp")


def test_what_is_no_image_stays_as_it_is(server: ServerProcess, instance: Instance) -> None:
    graph = painted(3)
    graph["4"] = node("ImageBatch", image1=["1", 0], image2=["2", 0])
    settings = {"fps": 6.0, "lossless": False, "quality": 80, "method": "default"}
    graph["5"] = node("SaveAnimatedWEBP", images=["4", 0], filename_prefix="moving", **settings)
    done = server.until_finished(server.execute(instance.ssh_string, graph, convert={"format": "jpg"}))
    endings = sorted(Path(each["local_path"]).suffix for each in done["outputs"])
    assert (done["status"], endings) == ("completed", [".jpg", ".webp"]), done


def test_a_wrong_option_is_refused_before_the_run_exists(server: ServerProcess, instance: Instance) -> None:
    body = {"ssh_connection": instance.ssh_string, "workflow": painted()}
    answer = server.post("/execute", {**body, "convert": {"format": "jpeg", "options": {"lossless": True}}})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("convert.options.lossless is not an option of jpeg")


def test_a_killed_server_converts_after_its_restart(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server()
    run_id = server.execute(instance.ssh_string, slow(7, steps=20), convert=WEBP)
    server.until_status(run_id, "executing")
    server.kill()
    server.start()
    (output,) = server.until_finished(run_id)["outputs"]
    assert Image.open(output["local_path"]).format == "WEBP"
    prompt_id = server.progress(run_id)["prompt_id"]
    assert [each["prompt_id"] for each in instance.sandbox.executions()].count(prompt_id) == 1
