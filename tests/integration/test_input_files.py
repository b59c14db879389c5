"""Input files in directories, in other spellings, and whole directories, over SSH."""

import base64
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import loaded, node, painted
from tests.integration.test_jobs import Client
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess
from tests.sshd import Sshd

RED, BLUE = (255, 0, 0), (0, 0, 255)
CYAN, YELLOW = (0, 255, 255), (255, 255, 0)
"""The inverse colours, which `loaded` saves."""


def made(path: Path, color: tuple[int, int, int] = RED) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return str(path)


def colors(done: Json) -> list[object]:
    assert done["status"] == "completed", done["error_message"]
    return [Image.open(each["local_path"]).getpixel((0, 0)) for each in done["outputs"]]


def contents(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "names",
    [
        ("pasted/a.png", "pasted/a.png", "pasted/a.png"),
        ("b.png", "clipspace/deep/b.png [input]", "clipspace/deep/b.png"),
        ("c.png", "pasted\\c.png", "pasted/c.png"),
        (unicodedata.normalize("NFD", "é.png"), "é.png", "é.png"),
        ("é 2.png", unicodedata.normalize("NFD", "é 2.png"), unicodedata.normalize("NFD", "é 2.png")),
        ("d.png", "C:\\Users\\me\\d.png", "d.png"),
    ],
)
def test_a_file_goes_where_the_workflow_names_it(
    server: ServerProcess, instance: Instance, tmp_path: Path, names: tuple[str, str, str]
) -> None:
    local, named, remote = names
    image = made(tmp_path / "mine" / local)
    run = server.execute(instance.ssh_string, loaded(named), input_images=[image])
    assert colors(server.until_finished(run)) == [CYAN]
    assert contents(instance.sandbox.input_dir) == [remote]


def test_the_blank_view_of_a_scene_is_uploaded(server: ServerProcess, instance: Instance) -> None:
    blank = "comfyui-workflow-blank-view.png"
    graph = painted(prefix="scene")
    graph["1"]["inputs"]["view"] = {"image": blank, "recording": ""}
    for _ in range(2):
        run = server.execute(instance.ssh_string, graph)
        assert server.until_finished(run)["status"] == "completed"
        assert contents(instance.sandbox.input_dir) == [blank]
    assert Image.open(instance.sandbox.input_dir / blank).size == (64, 64)


def test_another_file_of_that_name_is_not_overwritten(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    made(instance.sandbox.input_dir / "pasted" / "a.png", BLUE)
    image = made(tmp_path / "a.png", RED)
    run = server.execute(instance.ssh_string, loaded("pasted/a.png"), input_images=[image])
    assert colors(server.until_finished(run)) == [CYAN]
    first, second = contents(instance.sandbox.input_dir)
    assert (first[:9], second) == ("pasted/a-", "pasted/a.png")
    assert Image.open(instance.sandbox.input_dir / second).getpixel((0, 0)) == BLUE


def test_two_files_of_one_name_in_one_run(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    images = [made(tmp_path / "a" / "x.png", RED), made(tmp_path / "b" / "x.png", BLUE)]
    graph = {**loaded(images[0]), "4": node("LoadImage", image=images[1])}
    graph["5"] = node("ImageInvert", image=["4", 0])
    graph["6"] = node("SaveImage", images=["5", 0], filename_prefix="second")
    done = server.until_finished(server.execute(instance.ssh_string, graph, input_images=images))
    assert sorted(colors(done)) == [CYAN, YELLOW]  # type: ignore[type-var]
    assert contents(instance.sandbox.input_dir) == ["x-2.png", "x.png"]


def test_rows_that_name_files_of_one_name(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    images = [made(tmp_path / "a" / "x.png", RED), made(tmp_path / "b" / "x.png", BLUE)]
    body = {
        "ssh_connection": instance.ssh_string,
        "workflow": loaded("x.png"),
        "input_images": images,
        "rows": [{"1.image": "a/x.png"}, {"1.image": images[1]}],
        "output_dir": str(server.output_dir),
    }
    answer = server.post("/batch", body).json()
    done = [server.until_finished(each) for each in answer["workflow_ids"]]
    assert [colors(each) for each in done] == [[CYAN], [YELLOW]]


def test_a_directory_of_frames(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    frames, remote = tmp_path / "mine" / "frames", instance.sandbox.input_dir
    for number in range(3):
        made(frames / f"{number:04}.png", (number, 0, 0))
    made(frames / "masks" / "0000.png")
    (frames / ".DS_Store").write_bytes(b"x")
    graph = loaded("frames/0002.png")

    def run() -> None:
        done = server.until_finished(server.execute(instance.ssh_string, graph, input_images=[str(frames)]))
        assert colors(done) == [(253, 255, 255)]

    run()
    expected = ["0000.png", "0001.png", "0002.png", "masks/0000.png"]
    assert contents(remote / "frames") == expected
    (remote / "frames" / "0001.png").unlink()  # as after an interrupted upload
    run()
    assert contents(remote) == [f"frames/{name}" for name in expected]
    made(remote / "frames" / "9999.png")  # of another clip
    run()
    (hashed,) = [path for path in remote.iterdir() if path.name != "frames"]
    assert contents(hashed) == expected


def test_directories_without_sftp(server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path) -> None:
    images = [made(tmp_path / "a.png"), f"{tmp_path}/frames/"]
    made(tmp_path / "frames" / "sub" / "1.png", RED)
    made(tmp_path / "frames" / "2.png", BLUE)
    graphs = loaded("pasted/a.png"), loaded("frames/sub/1.png")
    with Sshd(tmp_path / "sshd") as sshd:
        sshd.stop()
        sshd.add_config("ForceCommand /bin/false")
        sshd.start()
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        for graph, image in zip(graphs, images, strict=True):
            run = server.execute(ssh_string, graph, input_images=[image])
            assert colors(server.until_finished(run)) == [CYAN]
    frames, pasted = sorted(sandbox.input_dir.iterdir())
    assert contents(frames) == ["2.png", "sub/1.png"]
    assert (frames.name[:7], contents(pasted)) == ("frames-", ["a.png"])


def test_a_file_on_the_instance_is_found_in_another_spelling(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server()
    decomposed = unicodedata.normalize("NFD", "é.png")
    for name in ("pasted/a.png", decomposed):
        made(instance.sandbox.input_dir / name)
    for named in ("pasted\\a.png", "é.png"):
        done = server.until_finished(server.execute(instance.ssh_string, loaded(named)))
        assert colors(done) == [CYAN]


def test_a_name_of_two_files_is_refused(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    images = [made(tmp_path / each / "x.png") for each in ("a", "b")]
    body = {"ssh_connection": instance.ssh_string, "workflow": loaded("x.png"), "input_images": images}
    answer = server.post("/execute", body)
    assert answer.status_code == 400
    assert '2 different files called "x.png"' in answer.json()["message"]


def test_an_image_of_a_job_in_a_directory(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    client = Client(make_server(default_endpoint=instance.ssh_string))
    file = BytesIO()
    Image.new("RGB", (8, 8), RED).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    for name in ("pasted/job.png", "pasted\\job.png"):
        done = client.order(loaded("pasted/job.png"), "/runsync", ({"name": name, "image": content},))
        assert done["status"] == "COMPLETED", done
        (output,) = done["output"]["images"]
        assert Image.open(BytesIO(base64.b64decode(output["data"]))).getpixel((0, 0)) == CYAN
    assert contents(instance.sandbox.input_dir) == ["pasted/job.png"]


def test_a_workflow_in_the_body_of_a_prompt(server: ServerProcess, instance: Instance) -> None:
    for wrapped in (
        {"prompt": painted(0x00FFFF), "client_id": "x"},
        {"input": {"workflow": painted(0x00FFFF)}},
    ):
        run = server.execute(instance.ssh_string, wrapped)
        assert colors(server.until_finished(run)) == [RED]
