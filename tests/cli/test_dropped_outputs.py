"""A value for which ComfyUI would leave out an output is the error of its run; notices are seen with every
outcome."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.client.server import WorkflowServer
from tests.cli.conftest import Command
from tests.integration.graphs import Graph, node, painted
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.usefixtures("server")


def two_outputs() -> Graph:
    """A picture and a text, which do not need each other."""
    graph = painted(0x123456, prefix="dropped")
    graph["2"] = node("SandboxSlow", image=["1", 0], steps=1, seconds_per_step=0.0)
    return graph | {"6": node("SandboxText", text="a hill")}


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    file = tmp_path / "two.json"
    file.write_text(json.dumps(two_outputs()))
    return file


def batch(command: Command, sandbox: SandboxProcess, workflow: Path, table: str, *options: object) -> Any:
    rows = workflow.with_name("rows.csv")
    rows.write_text(table, encoding="utf-8-sig")
    return command("batch", workflow, "--ssh", sandbox.ssh_string, "--rows", rows, *options)


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        ("2.seconds_per_step", "0,01", "is '0,01', it must be FLOAT (write 0.01, with a point)"),
        ("2.steps", "1.024,0", "is '1.024,0', it must be INT"),
        ("1.width", "1,024", "is '1,024', it must be INT (write 1024)"),
        ("1.width", "0", 'input "width" is 0, the least allowed is 1'),
        ("2.steps", "99999", 'input "steps" is 99999, the most is 10000'),
        ("2.steps", "many", "is 'many', it must be INT"),
    ],
)
def test_a_value_that_drops_an_output_is_the_error_of_its_row(
    command: Command, sandbox: SandboxProcess, workflow: Path, *, column: str, cell: str, sentence: str
) -> None:
    result = batch(command, sandbox, workflow, f"6.text;{column}\na hill;{cell}\na lake;2\n")
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()[1:]
    assert (first.split().count("failed"), second.split().count("completed")) == (1, 1)
    assert "! run 1: " in result.stderr
    assert sentence in result.stderr
    assert f"node {column[0]} (" in result.stderr
    assert len(sandbox.executions()) == 1, "nothing of the wrong row is executed"


def test_a_value_that_only_comfyui_can_refuse_stops_its_prompt(
    command: Command, sandbox: SandboxProcess, workflow: Path, server: str
) -> None:
    """The choices of a class of a pack are not known for certain before."""
    workflow.write_text(json.dumps(two_outputs() | {"7": node("SandboxSound", length="right", name="a.wav")}))
    sandbox.faults(hold=True)
    result = command("run", workflow, "--ssh", sandbox.ssh_string, "--set", "7.length=long", "--json")
    assert result.exit_code == 1
    run = json.loads(result.stdout)
    assert (run["status"], run["error_code"], run["can_retry"]) == ("failed", "prompt_refused", False)
    assert (
        'node 7 (SandboxSound): input "length" is "long", which this ComfyUI has not got'
        in (run["error_message"])
    )
    sandbox.faults(hold=False)
    with WorkflowServer(server) as client:
        assert client.progress(run["workflow_id"]).outputs == ()
    assert sandbox.executions() == []


def test_what_the_workflow_itself_drops_is_a_notice_of_every_outcome(
    command: Command, sandbox: SandboxProcess, workflow: Path
) -> None:
    graph = two_outputs()
    graph["7"] = node("SaveImage", images=["1", 0])  # without a prefix
    workflow.write_text(json.dumps(graph))
    sentence = 'node 7 (SaveImage): input "filename_prefix" is missing'
    result = command("run", workflow, "--ssh", sandbox.ssh_string)
    assert result.exit_code == 0
    assert sentence in result.stderr
    result = batch(command, sandbox, workflow, "6.text\na hill\na lake\n")
    assert result.exit_code == 0
    assert f"! runs 1, 2: ComfyUI leaves out some outputs of the workflow and runs the rest: {sentence}" in (
        result.stderr
    )
    result = batch(command, sandbox, workflow, "6.text\na tree\n", "--json")
    summary = json.loads(result.stdout)
    (notice,) = summary["batch"]["notices"]
    assert (notice["count"], notice["workflow_ids"]) == (1, [summary["workflows"][0]["workflow_id"]])
    assert sentence in notice["message"]
    assert sentence in summary["workflows"][0]["notices"][0]


def test_validate_says_it_before(command: Command, sandbox: SandboxProcess, workflow: Path) -> None:
    options = ("--ssh", sandbox.ssh_string, "--set", '2.seconds_per_step="0,5"')
    result = command("validate", workflow, *options)
    assert result.exit_code != 0
    assert "error: node 2 (SandboxSlow" in result.stdout + result.stderr
    assert "with a point" in result.stdout + result.stderr
