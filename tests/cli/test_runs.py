"""`list`, `cancel`, `retry` and `outputs`."""

import json
from pathlib import Path

import pytest

from comfyui_workflow import demo
from comfyui_workflow.client.server import WorkflowServer
from tests.cli.conftest import Command
from tests.cli.documents import RUN_ID
from tests.sandbox_process import SandboxProcess


@pytest.mark.usefixtures("server")
def test_a_finished_run_is_listed_and_its_outputs_are_told(command: Command, sandbox: SandboxProcess) -> None:
    ran = json.loads(command("run", demo.TEXT_TO_IMAGE, "--ssh", sandbox.ssh_string, "--json").stdout)
    line = command("list").stdout
    for part in (ran["workflow_id"], "completed", "1 output", "text_to_image.json"):
        assert part in line
    assert [run["workflow_id"] for run in json.loads(command("list", "--json").stdout)] == [
        ran["workflow_id"]
    ]
    wanted = ("--status", "completed", "--status", "failed", "--name", "TEXT")
    assert command("list", *wanted).stdout == line
    for other in (("--status", "failed"), ("--name", "cat"), ("--instance", "gpu-1"), ("--batch", "b")):
        found_none = command("list", *wanted[4:], *other)
        assert (found_none.stdout, "No run matches" in found_none.stderr) == ("", True)
    assert Path(command("outputs", ran["workflow_id"]).stdout.strip()).is_file()
    assert json.loads(command("outputs", ran["workflow_id"], "--json").stdout) == ran["outputs"]
    for verb in ("cancel", "retry"):
        refused = command(verb, ran["workflow_id"])
        assert refused.exit_code == 2
        assert "completed" in refused.stderr


def test_a_retry_fetches_what_is_missing(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.faults(hold=True)
    output_dir = tmp_path / "pictures"
    with WorkflowServer(server) as client:
        workflow_id = client.execute(
            workflow=demo.TEXT_TO_IMAGE, ssh_connection=sandbox.ssh_string, output_dir=output_dir
        ).workflow_id
    output_dir.write_text("a file where the directory is wanted")
    sandbox.faults(hold=False)
    failed = command("watch", workflow_id)
    assert failed.exit_code == 1
    assert "Not fetched: text_to_image_00001_.png" in failed.stderr
    assert f"comfyui-workflow retry {workflow_id}" in failed.stderr
    output_dir.unlink()
    assert command("retry", workflow_id).exit_code == 0
    assert command("watch", workflow_id).exit_code == 0
    assert (output_dir / "text_to_image_00001_.png").is_file()
    assert len(sandbox.executions()) == 1


@pytest.mark.usefixtures("server")
def test_there_are_no_runs_yet(command: Command) -> None:
    assert command("list").stdout == ""
    assert json.loads(command("list", "--json").stdout) == []


@pytest.mark.parametrize("arguments", [("list",), ("watch", RUN_ID), ("cancel", RUN_ID), ("outputs", RUN_ID)])
def test_without_a_server_they_say_how_to_get_one(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "comfyui-workflow serve" in result.stderr
