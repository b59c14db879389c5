"""`batch` and `batches` as a user types them, with a running server and a sandbox."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from comfyui_workflow import demo
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.settings import load_settings
from tests.cli.conftest import Command
from tests.sandbox_process import SandboxProcess

PAINT = demo.TEXT_TO_IMAGE
QUICK = ("--set", "3.steps=2")


@pytest.fixture
def gpu(server: str, sandbox: SandboxProcess) -> str:
    """Name of an instance with a price, on a running server."""
    with WorkflowServer(server) as client:
        client.instances.add(name="gpu", ssh_connection=sandbox.ssh_string, price_per_hour=3600.0)
    return "gpu"


def test_a_table_of_runs_with_pictures(command: Command, gpu: str, tmp_path: Path) -> None:
    picture = tmp_path / "table" / "photo.png"
    picture.parent.mkdir()
    picture.write_bytes(demo.EXAMPLE_PICTURE.read_bytes())
    rows = tmp_path / "table" / "rows.csv"
    rows.write_text("1.image;5.blend_factor\nphoto.png;0.25\nphoto.png;0.5\n")
    result = command(
        "batch",
        demo.ENHANCE,
        "--ssh",
        "any",
        "--rows",
        rows,
        "--output-dir",
        tmp_path / "here",
        "--name",
        "Two",
    )
    assert result.exit_code == 0, result.stderr
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["run", "inputs", "state", "seconds", "cost", "files"]
    assert first.split()[:3] == ["1", "5.blend_factor=0.25", "completed"]
    assert second.split()[-1].endswith(".png")
    assert "Two: 2 completed in" in result.stderr
    assert "cost" in result.stderr
    assert f"2 files in {tmp_path / 'here'}" in result.stderr
    assert len(list((tmp_path / "here").glob("*.png"))) == 2


def test_combined_values_as_json(command: Command, gpu: str, sandbox: SandboxProcess) -> None:
    result = command(
        "batch", PAINT, "--ssh", gpu, "--vary", "3.seed=1..2", "--vary", "6.text=a,b", *QUICK, "--json"
    )
    said = json.loads(result.stdout)
    assert (result.exit_code, said["batch"]["status"], said["batch"]["batch_name"]) == (
        0,
        "completed",
        PAINT.name,
    )
    assert [run["inputs"] for run in said["workflows"]] == [
        {"3.steps": 2, "3.seed": seed, "6.text": text} for seed in (1, 2) for text in ("a", "b")
    ]
    assert [output["workflow_id"] for output in said["outputs"]] == [
        run["workflow_id"] for run in said["workflows"]
    ]
    assert len(sandbox.executions()) == 4


def test_one_that_fails_is_told_and_the_worst_wins(
    command: Command, gpu: str, sandbox: SandboxProcess
) -> None:
    sandbox.faults(fail_class={"VAEDecode": "no light today"})
    result = command("batch", PAINT, "--ssh", gpu, "--vary", "3.seed=1,2", *QUICK)
    assert result.exit_code == 1
    assert result.stderr.count("no light today") == 2  # as it happens, and at the end for both
    assert "! runs 1, 2: " in result.stderr
    assert "list --status failed --batch batch_" in result.stderr
    assert "retry" not in result.stderr


def test_a_failure_stops_those_that_wait(command: Command, gpu: str, sandbox: SandboxProcess) -> None:
    sandbox.faults(fail_class={"VAEDecode": "no light today"})
    asked = ("--vary", "3.seed=1..8", *QUICK, "--stop-on-error", "--stagger", "0.5")
    said = json.loads(command("batch", PAINT, "--ssh", gpu, *asked, "--json").stdout)
    assert said["batch"]["counts"]["cancelled"] >= 4
    assert (said["batch"]["on_error"], said["batch"]["stagger_s"]) == ("stop", 0.5)


def test_one_that_is_left_alone_is_listed_shown_watched_and_cancelled(
    command: Command, gpu: str, sandbox: SandboxProcess
) -> None:
    sandbox.faults(hold=True)
    ordered = command("batch", PAINT, "--ssh", gpu, "--vary", "3.seed=1..3", "--detach", "--priority", "7")
    batch_id = ordered.stdout.strip()
    assert (ordered.exit_code, ordered.stderr) == (0, "")
    assert command("batches", "list").stdout.startswith(batch_id)
    assert json.loads(command("batches", "list", "--json").stdout)[0]["total"] == 3
    runs = json.loads(command("list", "--batch", batch_id, "--json").stdout)
    assert [run["priority"] for run in runs] == [7, 7, 7]
    assert command("priority", runs[0]["workflow_id"], "-5").exit_code == 0
    assert json.loads(command("list", "--batch", batch_id, "--json").stdout)[0]["priority"] == -5
    assert "waiting" in command("batches", "show", batch_id).stdout
    assert "Cancelling 3 runs" in command("batches", "cancel", batch_id).stderr
    watched = command("batches", "watch", batch_id)
    assert (watched.exit_code, watched.stdout.count("cancelled")) == (3, 3)
    assert command("batches", "retry", batch_id).exit_code == 2


def test_outputs_of_all(command: Command, gpu: str, tmp_path: Path) -> None:
    asked = ("--ssh", gpu, "--vary", "3.seed=1,2", *QUICK, "--output-dir", tmp_path / "here")
    said = json.loads(command("batch", PAINT, *asked, "--json").stdout)
    batch_id = said["batch"]["batch_id"]
    paths = command("batches", "outputs", batch_id).stdout.split("\n")[:-1]
    assert paths == [output["local_path"] for output in said["outputs"]]
    assert all(Path(path).is_file() for path in paths)
    assert json.loads(command("batches", "outputs", batch_id, "--json").stdout) == said["outputs"]


def test_a_whole_batch_comes_alone(command: Command, gpu: str, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    order = {"ssh_connection": gpu, "workflow_file": str(PAINT), "inputs": {"3.steps": 2}}
    body.write_text(json.dumps({"runs": [order, order], "batch_name": "whole"}))
    result = command("batch", "--rows", body)
    assert result.exit_code == 0, result.stderr
    assert "whole: 2 completed" in result.stderr
    for other in ((PAINT,), ("--ssh", gpu), ("--stagger", "1")):
        refused = command("batch", *other, "--rows", body)
        assert (refused.exit_code, "leave out" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("gpu")
def test_a_refusal_names_the_row_and_nothing_is_ordered(command: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("6.text,99.seed\na lake,\n\na town,7\n")
    result = command("batch", PAINT, "--ssh", "gpu", "--rows", rows)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: rows.csv row 4: " in result.stderr
    assert "99" in result.stderr
    varied = command("batch", PAINT, "--ssh", "gpu", "--vary", "99.seed=1,2")
    assert "Error: run 1: " in varied.stderr
    assert "There are no batches yet" in command("batches", "list").stderr


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PAINT, "--vary", "3.seed=1"), "--ssh is missing"),
        (("--ssh", "gpu", "--vary", "3.seed=1"), "WORKFLOW is missing"),
        ((PAINT, "--ssh", "gpu"), "either --rows or --vary"),
        ((PAINT, "--ssh", "gpu", "--vary", "3.seed=1", "--rows", PAINT), "describes the whole batch"),
        ((PAINT, "--ssh", "gpu", "--vary", "3.seed=1", "--rows", __file__), "either --rows or --vary"),
    ],
)
def test_what_cannot_be_ordered(command: Command, arguments: tuple[object, ...], sentence: str) -> None:
    result = command("batch", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


@pytest.mark.usefixtures("server")
def test_ids_of_runs_and_of_batches_are_told_apart(command: Command) -> None:
    assert "is a batch, not a run" in command("watch", "batch_1_a").stderr
    assert "not the id of a batch" in command("batches", "watch", "comfyui_workflow_1_a").stderr
    for word in ("show", "watch", "cancel", "retry", "outputs"):
        assert command("batches", word, "batch_1_a").exit_code == 2
    assert command("priority", "comfyui_workflow_1_a", "5000").exit_code == 2


def test_without_a_server_it_serves_for_itself_but_leaves_none_behind(
    command: Command, sandbox: SandboxProcess
) -> None:
    asked = ("batch", PAINT, "--ssh", sandbox.ssh_string, "--vary", "3.seed=1,2", *QUICK)
    result = command(*asked)
    assert (result.exit_code, result.stdout.count("completed")) == (0, 2), result.stderr
    assert "its own server" in result.stderr
    assert command(*asked, "--detach").exit_code == 4


def test_a_server_that_may_not_read_our_files_is_sent_each_once(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    own = tmp_path / "other"
    settings = load_settings(port=0, data_dir=own, state_file=own / "state.json", read_dirs=str(own))
    rows = tmp_path / "rows.csv"
    rows.write_text(f"1.image\n{demo.EXAMPLE_PICTURE}\n{demo.EXAMPLE_PICTURE}\n")
    with serve_in_this_process(settings) as url:
        asked = ("--ssh", sandbox.ssh_string, "--rows", rows, "--server", url)
        result = command("batch", demo.ENHANCE, *asked)
    assert result.exit_code == 0, result.stderr
    assert len([path for path in (own / "uploads").rglob("*") if path.is_file()]) == 2


def test_rows_name_files_of_one_name_and_the_server_gets_them_all(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """The server may not read our files. The workflow loads one picture; every row names another one."""
    own = tmp_path / "other"
    settings = load_settings(port=0, data_dir=own, state_file=own / "state.json", read_dirs=str(own))
    for place, shade in (("a", 10), ("b", 200)):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8), (shade, shade, shade)).save(tmp_path / place / "x.png")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "pasted/x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "graph.json").write_text(json.dumps({"prompt": graph}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"1.image": "a/x.png"}\n{"1.image": "b\\\\x.png"}\n')
    with serve_in_this_process(settings) as url:
        asked = ("--ssh", sandbox.ssh_string, "--rows", rows, "--server", url)
        result = command("batch", tmp_path / "graph.json", *asked, "--output-dir", own / "outputs")
    assert result.exit_code == 0, result.stderr
    shades = [Image.open(path).getpixel((0, 0))[0] for path in (own / "outputs").glob("*.png")]  # type: ignore[index]
    assert sorted(shades) == [10, 200]


def test_a_directory_of_frames_is_sent_to_a_server_elsewhere(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    own = tmp_path / "other"
    settings = load_settings(port=0, data_dir=own, state_file=own / "state.json", read_dirs=str(own))
    for name in ("1.png", "sub/2.png"):
        (tmp_path / "frames" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "frames" / name)
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "frames/sub/2.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    asked = ("--ssh", sandbox.ssh_string, "--input", tmp_path / "frames", "--output-dir", own / "outputs")
    with serve_in_this_process(settings) as url:
        result = command("run", tmp_path / "graph.json", *asked, "--server", url)
    assert result.exit_code == 0, result.stderr
    sent = sorted(path.relative_to(sandbox.input_dir).as_posix() for path in sandbox.input_dir.rglob("*.png"))
    assert sent == ["frames/1.png", "frames/sub/2.png"]


def test_ctrl_c_leaves_it_going_on(server: str, gpu: str, sandbox: SandboxProcess) -> None:
    sandbox.faults(hold=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", "batch", str(PAINT), "--ssh", gpu, "--vary", "3.seed=1,2"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    said = _interrupt_when_waiting(process)
    assert process.returncode == 130
    batch_id = said.split()[1].removesuffix(":")
    for word in ("watch", "cancel"):
        assert f"comfyui-workflow batches {word} {batch_id}" in said
    sandbox.faults(hold=False)
    with WorkflowServer(server) as client:
        assert client.batches.wait(batch_id, timeout_s=30).status is RunStatus.COMPLETED


def test_what_each_instance_has_cost(command: Command, gpu: str) -> None:
    command("instances", "add", "spare", "--ssh", "root@192.0.2.1", "--disabled")
    assert command("batch", PAINT, "--ssh", gpu, "--vary", "3.seed=1,2", *QUICK).exit_code == 0
    told = command("instances", "costs")
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [line[:2] for line in lines[1:]] == [["gpu", "2"], ["spare", "0"], ["total", "2"]]
    assert "--price" in told.stderr
    costs = json.loads(command("instances", "costs", "--json").stdout)
    assert costs["total"]["runs"] == 2
    assert costs["total"]["run_cost"] > 0


def _interrupt_when_waiting(process: "subprocess.Popen[str]") -> str:
    """Returns its output from "Batch ..." on."""
    assert process.stderr is not None
    said = ""
    try:
        for line in process.stderr:
            said += line
            if "[0/2]" in line:
                time.sleep(0.1)  # it is inside of the display by now
                process.send_signal(signal.SIGINT)
                break
        said += process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    return said[said.index("Batch batch_") :]
