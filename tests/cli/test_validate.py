"""`validate`: checks of a workflow against an instance."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow import demo
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.settings import load_settings
from tests.cli.canned_server import CannedServer
from tests.cli.conftest import Command
from tests.cli.workflow_files import editor_file
from tests.sandbox_process import SandboxProcess

ALIVE = (200, {"unfinished_runs": 0})


def answer(**fields: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"success": True, "valid": True, "errors": [], "warnings": [], "graph": {}, **fields}


@pytest.mark.usefixtures("server")
def test_a_workflow_that_would_run(command: Command, sandbox: SandboxProcess, tmp_path: Path) -> None:
    workflow = editor_file(tmp_path / "paper.json")
    result = command("validate", workflow, "--ssh", sandbox.ssh_string)
    assert (result.exit_code, result.stdout) == (0, "This instance can run it\n")
    assert sandbox.executions() == []


@pytest.mark.usefixtures("server")
def test_findings_are_told_one_a_line(command: Command, sandbox: SandboxProcess, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(demo.EXAMPLE_PICTURE.read_bytes())
    asked = (demo.ENHANCE, "--ssh", sandbox.ssh_string, "--input", tmp_path / "other.png")
    result = command("validate", *asked, "--set", "4.blur_radius=3000", "--set", "Save.filename_prefix=x")
    lines = result.stdout.splitlines()
    assert result.exit_code == 2, result.stderr
    assert lines[-1] == "This instance cannot run it"
    assert lines[0].startswith('error: node 1 (LoadImage "The picture"): ')
    assert any(line.startswith("error: node 4 (ImageBlur") and "3000" in line for line in lines)
    assert lines[-2].startswith("warning: ")
    assert "other.png" in lines[-2]


@pytest.mark.usefixtures("server")
def test_what_is_sent_along_counts(command: Command, sandbox: SandboxProcess) -> None:
    result = command("validate", demo.ENHANCE, "--ssh", sandbox.ssh_string, "--input", demo.EXAMPLE_PICTURE)
    assert result.exit_code == 0, result.stdout
    assert list(sandbox.input_dir.iterdir()) == []


@pytest.mark.usefixtures("server")
def test_json_is_the_answer_and_nothing_else(command: Command, sandbox: SandboxProcess) -> None:
    result = command("validate", demo.ENHANCE, "--ssh", sandbox.ssh_string, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["valid"]) == (2, False)
    assert document["errors"][0]["code"] == "input_file_missing"


def test_without_a_server_it_asks_for_itself(command: Command, sandbox: SandboxProcess) -> None:
    result = command("validate", demo.TEXT_TO_IMAGE, "--ssh", sandbox.ssh_string)
    assert (result.exit_code, result.stdout) == (0, "This instance can run it\n"), result.stderr
    assert "No server is running" in result.stderr


@pytest.mark.usefixtures("server")
def test_a_server_that_may_not_read_our_files_is_sent_them(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    settings = load_settings(port=0, data_dir=tmp_path / "other", read_dirs=str(tmp_path / "other"))
    asked = (demo.ENHANCE, "--ssh", sandbox.ssh_string, "--input", demo.EXAMPLE_PICTURE)
    with serve_in_this_process(settings) as url:
        assert command("validate", *asked, "--server", url).exit_code == 0


@pytest.mark.usefixtures("server")
def test_an_instance_that_is_not_there(command: Command) -> None:
    result = command("validate", demo.ENHANCE, "--ssh", "ssh -p 1 root@127.0.0.1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "127.0.0.1" in result.stderr
    assert "is away" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "steps"), "<node id or title>.<input>=VALUE"),
        (("--set", "6.text=@/no/such/file"), "cannot be read"),
        (("--set", "99.text=x"), "names no node"),
        (("--input", "/no/such/file.png"), "does not exist"),
        (("--comfyui-port", "0"), "0"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_wrong_option_is_refused(command: Command, arguments: tuple[str, ...], sentence: str) -> None:
    result = command("validate", demo.ENHANCE, "--ssh", "ssh root@gpu", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


@pytest.mark.usefixtures("server")
def test_a_file_that_is_no_workflow_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    result = command("validate", tmp_path / "list.json", "--ssh", "ssh root@gpu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not a JSON object" in result.stderr


def test_what_a_server_says_does_not_reach_the_terminal_raw(canned: CannedServer, command: Command) -> None:
    finding = {"severity": "warning", "code": "x", "message": "node 1 (\x1b[2J\nA\u202e): no"}
    canned.will_answer(ALIVE, answer(warnings=[finding]))
    shown = command("validate", demo.ENHANCE, "--ssh", "ssh a@b", "--server", canned.url).stdout
    assert shown == "warning: node 1 ( [2J A ): no\nThis instance can run it\n"
    refusal = {"success": False, "code": "invalid_workflow", "message": "Node \x1b[2J\nA"}
    canned.will_answer(ALIVE, (400, refusal))
    refused = command("validate", demo.ENHANCE, "--ssh", "ssh a@b", "--server", canned.url)
    assert (refused.exit_code, refused.stderr) == (2, "Error: Node  [2J A\n")


@pytest.mark.parametrize(
    "bad", [answer(valid=None), answer(errors=[1]), answer(graph=[]), (200, {"success": True})]
)
def test_an_answer_that_is_none(canned: CannedServer, command: Command, bad: tuple[int, object]) -> None:
    canned.will_answer(ALIVE, bad)
    result = command("validate", demo.ENHANCE, "--ssh", "ssh a@b", "--server", canned.url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "not a comfyui-workflow server" in result.stderr


def test_what_is_missing_is_told_with_its_source(
    canned: CannedServer, command: Command, tmp_path: Path
) -> None:
    lacking = {"folder": "vae", "node_id": "1", "class_type": "A", "input": "b"}
    near = {"name": "a.ckpt", "url": "https://h/a.ckpt", "size_bytes": 6_940_000_000, "can_provide": True}
    away = {"name": "b.ckpt", "url": None, "size_bytes": None, "can_provide": False, "reason": "no source"}
    missing = [{**lacking, **near, "reason": None}, {**lacking, **away}]
    canned.will_answer(ALIVE, answer(valid=False, missing=missing))
    workflow = editor_file(tmp_path / "a.json")
    result = command("validate", workflow, "--ssh", "root@h", "--server", canned.url)
    assert result.stdout.splitlines() == [
        "missing: a.ckpt (6.94 GB): https://h/a.ckpt",
        "missing: b.ckpt: no source",
        "To get what is missing on the instance: comfyui-workflow run --provision",
        "This instance cannot run it",
    ]
