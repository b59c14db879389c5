"""Disks and rights on a rented machine: what can be brought there another way is; what cannot is told."""

from base64 import b64encode
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.integration.graphs import loaded
from tests.integration.test_input_files import CYAN, colors, contents, made
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import SFTP_SERVER, Sshd

READ_ONLY = f"Subsystem sftp {SFTP_SERVER} -R"
NOT_SAVED = {"path": "/upload/image", "mode": "500", "times": 1000}
"""What ComfyUI answers if the disk is full or it may not write there."""


def make_sshd(directory: Path, *lines: str) -> Sshd:
    sshd = Sshd(directory)
    sshd.add_config(*lines)
    return sshd


@pytest.mark.parametrize(
    "config",
    [
        READ_ONLY,  # another user than ComfyUI's
        f"Subsystem sftp {SFTP_SERVER} -P open",  # neither may it read the files of that user
        f"Subsystem sftp {SFTP_SERVER} -P stat,lstat",
        "Subsystem sftp /nowhere/sftp-server",
        "MaxSessions 0",
    ],
)
def test_files_that_ssh_may_not_touch_go_through_comfyui(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path, config: str
) -> None:
    image = made(tmp_path / "mine" / "a.png")
    with make_sshd(tmp_path / "sshd", config) as sshd:
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        done = server.until_finished(server.execute(ssh_string, loaded("a.png"), input_images=[image]))
    assert colors(done) == [CYAN]
    assert contents(sandbox.input_dir) == ["a.png"]


def test_an_output_directory_may_be_a_link_to_a_volume(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    volume, own = tmp_path / "volume", sandbox.output_dir.with_name("replaced")
    volume.mkdir()
    image = made(tmp_path / "mine" / "a.png")
    sandbox.output_dir.rename(own)
    try:
        sandbox.output_dir.symlink_to(volume)
        with make_sshd(tmp_path / "sshd") as sshd:
            ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
            done = server.until_finished(server.execute(ssh_string, loaded("a.png"), input_images=[image]))
    finally:
        sandbox.output_dir.unlink()
        own.rename(sandbox.output_dir)
    assert colors(done) == [CYAN]
    assert Image.open(volume / "loaded_00001_.png").getpixel((0, 0)) == CYAN


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_disk_that_takes_no_file_is_told_at_once(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path, is_directory: bool
) -> None:
    frames = tmp_path / "mine"
    image = made(frames / "a.png")
    graph = loaded("a.png")
    if is_directory:
        graph["1"]["inputs"]["image"] = "mine"
    sandbox.faults(answers=[NOT_SAVED])
    with make_sshd(tmp_path / "sshd", READ_ONLY) as sshd:
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        given = str(frames) if is_directory else image
        done = server.until_finished(server.execute(ssh_string, graph, input_images=[given]))
    assert (done["status"], done["error_code"]) == ("failed", "remote_file"), done["error_message"]
    assert (
        "permission denied. ComfyUI cannot save the file (HTTP 500 to /upload/image). Make room on"
        in (done["error_message"])
    )
    assert sandbox.executions() == []


def test_a_comfyui_that_saves_no_upload_is_asked_again(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Without SFTP there is no second witness, and a proxy before ComfyUI may have failed."""
    image = made(tmp_path / "mine" / "a.png")
    sandbox.faults(answers=[NOT_SAVED])
    with make_sshd(tmp_path / "sshd", "MaxSessions 0") as sshd:
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        run = server.execute(ssh_string, loaded("a.png"), input_images=[image])
        waiting = server.until(run, lambda p: "cannot save the file" in (p["message"] or ""))
        assert "Make room on the disk of the instance" in waiting["message"]
        sandbox.faults(answers=[])
        assert colors(server.until_finished(run)) == [CYAN]


def test_a_prompt_of_comfyui_api_says_that_the_disk_is_full(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    picture = b64encode(Path(made(tmp_path / "mine" / "a.png")).read_bytes()).decode()
    sandbox.faults(answers=[NOT_SAVED])
    with make_sshd(tmp_path / "sshd", READ_ONLY) as sshd:
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        answer = requests.post(
            server.url.replace("/comfyui/workflow", "/comfyui-api") + "/prompt",
            json={"prompt": loaded(picture)},
            headers={"Comfyui-Target": ssh_string},
            timeout=60,
        )
    assert (answer.status_code, answer.json()["error"]) == (500, "Internal Server Error")
    assert "Make room on the disk of the instance" in answer.json()["message"]
    assert not sandbox.executions()
