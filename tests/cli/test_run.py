"""`run` and `watch` with a sandbox, with and without a running server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from comfyui_workflow import demo
from comfyui_workflow.cli.follow import follow
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.settings import load_settings
from tests.cli.conftest import Command
from tests.cli.documents import RUN_ID
from tests.cli.workflow_files import editor_file
from tests.sandbox_process import SandboxProcess

ENHANCE = (demo.ENHANCE, "--input", demo.EXAMPLE_PICTURE)


def test_a_completed_run_prints_its_outputs(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string, "--output-dir", tmp_path / "here")
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.strip()).parent == tmp_path / "here"
    assert Path(result.stdout.strip()).is_file()
    assert "Completed in" in result.stderr
    assert "[6/6]" in result.stderr


def test_a_file_of_the_editor_and_the_picture_it_makes_are_workflows(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    (tmp_path / "name.txt").write_text("from a file\n")
    options = ("--ssh", sandbox.ssh_string, "--output-dir", tmp_path / "here")
    values = ("--set", "Paper.width=128", "--set", f"3.filename_prefix=@{tmp_path / 'name.txt'}")
    made = command("run", editor_file(tmp_path / "paper.json"), *options, *values)
    assert made.exit_code == 0, made.stderr
    picture = Path(made.stdout.strip())
    assert picture.name == "from a file_00001_.png"
    assert Image.open(picture).size == (128, 48)
    again = command("run", picture, *options, "--set", "Paper.height=32")
    assert again.exit_code == 0, again.stderr
    assert Image.open(again.stdout.strip()).size == (128, 32)


@pytest.mark.usefixtures("server")
def test_seeds_are_drawn_when_asked_for(command: Command, sandbox: SandboxProcess) -> None:
    asked = ("run", demo.TEXT_TO_IMAGE, "--ssh", sandbox.ssh_string)
    pictures = [Path(command(*asked, *seeds).stdout.strip()) for seeds in ((), ("--seed-mode", "randomize"))]
    seeds = [json.loads(Image.open(path).info["prompt"])["3"]["inputs"]["seed"] for path in pictures]
    assert seeds[0] == 20
    assert seeds[1] != 20


def test_paths_are_made_absolute(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.json").write_bytes(demo.TEXT_TO_IMAGE.read_bytes())
    monkeypatch.chdir(tmp_path)
    result = command("run", "mine.json", "--ssh", sandbox.ssh_string, "--output-dir", "pictures")
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.strip()).parent == tmp_path / "pictures"


def test_json_is_the_progress_document_and_nothing_else(
    command: Command, server: str, sandbox: SandboxProcess
) -> None:
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string, "--json", "--name", "A lake")
    document = json.loads(result.stdout)
    assert (document["status"], document["workflow_name"]) == ("completed", "A lake")
    assert document["outputs"][0]["downloaded"] is True


def test_a_failed_run_says_why(command: Command, server: str, sandbox: SandboxProcess) -> None:
    sandbox.faults(fail_class={"ImageBlur": "no blur today"})
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string)
    assert result.exit_code == 1
    assert "no blur today" in result.stderr
    assert "retry" not in result.stderr  # it would not help
    assert not result.stdout


def test_a_cancelled_run(command: Command, server: str, sandbox: SandboxProcess) -> None:
    sandbox.faults(hold=True)
    canceller = threading.Thread(target=_cancel_when_queued, args=(server,))
    canceller.start()
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string)
    canceller.join()
    assert result.exit_code == 3, result.stderr
    assert "Cancelled" in result.stderr


def test_without_a_server_it_serves_for_itself(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string)
    assert result.exit_code == 0, result.stderr
    assert "No server is running" in result.stderr
    assert Path(result.stdout.strip()).parent == tmp_path / "outputs"
    assert len(list((tmp_path / "data" / "runs" / "finished").iterdir())) == 1


def test_serving_for_itself_ignores_what_guards_a_public_server(
    command: Command, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMFYUI_WORKFLOW_API_TOKEN", "secret")
    result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string, "--output-dir", tmp_path / "mine")
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.strip()).parent == tmp_path / "mine"


def test_a_server_that_may_not_read_our_files_is_sent_them(
    command: Command,
    server: str,
    sandbox: SandboxProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(port=0, data_dir=tmp_path / "other", read_dirs=str(tmp_path / "other"))
    with serve_in_this_process(settings) as url:
        result = command("run", *ENHANCE, "--ssh", sandbox.ssh_string, "--server", url, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["workflow_name"]) == (0, "enhance.json")
    assert document["workflow_file"].startswith(str(tmp_path / "other" / "uploads"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n", "is not JSON"),
        (b"\x89PNG\r\n\x1a\n", "The picture cannot be read"),
        (b'{"nodes": [], "links": []}', "no nodes that run"),
        (b'{"1": {"class_type": "A", "inputs": {"a": ["9", 0]}}}', "does not exist"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_file_that_is_no_workflow_is_refused(
    command: Command, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "workflow.json").write_bytes(content)
    result = command("run", tmp_path / "workflow.json", "--ssh", "ssh root@gpu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


@pytest.mark.usefixtures("server")
def test_an_ssh_string_that_is_none_is_refused(command: Command) -> None:
    result = command("run", demo.ENHANCE, "--ssh", "ssh -R 1:a:2 root@gpu")
    assert result.exit_code == 2
    assert '"-R 1:a:2"' in result.stderr


def test_a_missing_file_is_refused_before_anything_starts(command: Command, tmp_path: Path) -> None:
    for arguments in ((tmp_path / "no.json",), (demo.ENHANCE, "--input", tmp_path / "no.png")):
        result = command("run", *arguments, "--ssh", "ssh root@gpu")
        assert result.exit_code == 2
        assert "does not exist" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_named_server_must_be_there(command: Command) -> None:
    result = command("run", demo.ENHANCE, "--ssh", "ssh root@gpu", "--server", "127.0.0.1:1")
    assert result.exit_code == 4
    assert "No server answers at http://127.0.0.1:1" in result.stderr


def test_two_that_serve_for_themselves_do_not_share_a_data_directory(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.delenv("COMFYUI_WORKFLOW_SERVER_URL")
    monkeypatch.setenv("COMFYUI_WORKFLOW_DATA_DIR", str(tmp_path / "server"))
    result = command("run", demo.ENHANCE, "--ssh", "ssh root@gpu")
    assert result.exit_code == 2
    assert "--server" in result.stderr


def test_watch_follows_to_the_same_end(command: Command, server: str, sandbox: SandboxProcess) -> None:
    sandbox.faults(fail_class={"ImageBlur": "no blur today"})
    ran = json.loads(command("run", *ENHANCE, "--ssh", sandbox.ssh_string, "--json").stdout)
    watched = command("watch", ran["workflow_id"], "--json")
    assert watched.exit_code == 1
    assert json.loads(watched.stdout) == ran


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_an_interrupted_run_goes_on_at_the_server(
    server: str, sandbox: SandboxProcess, number: signal.Signals, code: int
) -> None:
    sandbox.faults(hold=True)
    process = _start("run", *ENHANCE, "--ssh", sandbox.ssh_string)
    said = _interrupt_when_queued(process, number)
    assert process.returncode == code
    workflow_id = said.split()[1]
    assert f"comfyui-workflow watch {workflow_id}" in said
    assert f"comfyui-workflow cancel {workflow_id}" in said
    sandbox.faults(hold=False)
    with WorkflowServer(server) as client:
        assert follow(client, workflow_id, _Nowhere()).status == "completed"


def test_an_interrupted_run_without_a_server_goes_on_at_the_next_start(
    command: Command, sandbox: SandboxProcess
) -> None:
    sandbox.faults(hold=True)
    process = _start("run", *ENHANCE, "--ssh", sandbox.ssh_string)
    said = _interrupt_when_queued(process, signal.SIGINT)
    assert process.returncode == 130
    assert "is saved" in said
    sandbox.faults(hold=False)
    assert command("run", demo.TEXT_TO_IMAGE, "--ssh", sandbox.ssh_string).exit_code == 0
    assert len(sandbox.executions()) == 2


def test_help_tells_the_exit_codes(command: Command) -> None:
    for arguments in (("--help",), ("run", "--help"), ("watch", "--help")):
        assert "3    the run was cancelled" in command(*arguments).stdout


def test_a_run_nobody_knows(command: Command, server: str) -> None:
    assert "not found" in command("watch", RUN_ID).stderr
    assert command("watch", RUN_ID).exit_code == 2
    assert command("watch", "../../etc").exit_code == 2


class _Nowhere:
    def show(self, _progress: object) -> None: ...
    def show_trouble(self, _sentence: str) -> None: ...


def _start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _interrupt_when_queued(process: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Returns its output from "Run ..." on."""
    assert process.stderr is not None
    said = ""
    try:
        for line in process.stderr:
            said += line
            if "in the queue" in line:
                process.send_signal(number)
                break
        said += process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    return said[said.index("Run comfyui_workflow_") :]


def _cancel_when_queued(url: str) -> None:
    with WorkflowServer(url) as client:
        while not (runs := client.runs(1)) or runs[0].raw["phase"] != "queued":
            time.sleep(0.02)
        client.cancel(runs[0].workflow_id)
