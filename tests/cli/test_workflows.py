"""`workflows`: list, show and run custom workflows, with a sandbox and without a running server."""

import json
from pathlib import Path

import click
import pytest
from PIL import Image

from comfyui_workflow.cli.batch import batch
from comfyui_workflow.cli.run import run
from comfyui_workflow.cli.workflows import run_workflow
from tests.cli.conftest import Command
from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.services.custom_files import PYTHON, write
from tests.storage.file_server import serving_files


@pytest.fixture
def custom(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "workflows"
    monkeypatch.setenv("COMFYUI_WORKFLOW_WORKFLOW_DIR", str(directory))
    parameters = {
        "size": {"input": ["1.width", "1.height"], "minimum": 16, "maximum": 256},
        "prefix": {"input": "3.filename_prefix", "description": "Begin of the file name", "default": "p"},
    }
    file = {"workflow": painted(1), "parameters": parameters, "summary": "One colour"}
    write(directory, "paint/square.json", json.dumps(file))
    write(directory, "typed.py", PYTHON)
    write(directory, "broken.json", "{")
    return directory


def test_they_are_listed_and_shown(command: Command, custom: Path) -> None:
    listed = command("workflows", "list")
    assert listed.exit_code == 0, listed.stderr
    broken, square, typed = listed.stdout.splitlines()
    assert broken.startswith("broken        broken.json is not valid JSON")
    assert (square, typed) == ("paint/square  One colour", "typed         Square")
    shown = command("workflows", "show", "paint/square").stdout.splitlines()
    assert shown == [
        "One colour",
        "  --param size=…  integer, at least 16, at most 256",
        '  --param prefix=…  string, default "p": Begin of the file name',
    ]
    assert json.loads(command("workflows", "list", "--json").stdout)[1]["kind"] == "json"


def test_one_is_run(command: Command, custom: Path, sandbox: SandboxProcess, tmp_path: Path) -> None:
    (tmp_path / "name.txt").write_text("from a file\n")
    result = command(
        *("workflows", "run", "paint/square", "--ssh", sandbox.ssh_string, "--param", "size=48"),
        *("--param", f"prefix=@{tmp_path / 'name.txt'}", "--output-dir", tmp_path / "here"),
    )
    assert result.exit_code == 0, result.stderr
    picture = Path(result.stdout.strip())
    assert (picture.name, Image.open(picture).size) == ("from a file_00001_.png", (48, 48))


def test_its_outputs_are_converted_and_uploaded(
    command: Command, custom: Path, sandbox: SandboxProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_WORKFLOW_PRIVATE_URLS", "true")
    known = [{"url_pattern": "http://**", "auth": {"type": "bearer", "token": "t0ken"}}]
    (tmp_path / "known.json").write_text(json.dumps({"credentials": known}))
    with serving_files(wants={"Authorization": "Bearer t0ken"}) as storage:
        result = command(
            *("workflows", "run", "paint/square", "--ssh", sandbox.ssh_string, "--convert", "webp:lossless"),
            *("--upload", f"{storage.url}/renders", "--credentials", tmp_path / "known.json"),
        )
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.strip()).name == "p_00001_.webp"
    (path,) = storage.files
    assert path.startswith("/renders/")
    assert path.endswith("/p_00001_.webp")


def options_of(command: click.Command) -> set[str]:
    return {name for each in command.params if isinstance(each, click.Option) for name in each.opts}


def test_it_has_the_options_of_run_and_batch() -> None:
    about_the_workflow = {"--set"}
    assert options_of(run) - about_the_workflow <= options_of(run_workflow)
    assert options_of(run) <= options_of(batch)


@pytest.mark.parametrize("content", ["", "3", "{}", '[{"url_pattern": "**", "auth": {"type": "key"}}]'])
def test_credentials_that_cannot_be_used(command: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "known.json").write_text(content)
    result = command("workflows", "run", "a", "--credentials", tmp_path / "known.json")
    assert result.exit_code == 2
    assert f"{tmp_path / 'known.json'}" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("paint/square", "--param", "size"), "--param size must be NAME=VALUE"),
        (("paint/square", "--param", "size=large"), "input.size must be a whole number"),
        (("paint/square", "--param", "size=1"), "input.size must be at least 16"),
        (("paint/square", "--param", "sise=64"), "sise is not a field of input; the nearest is size"),
        (("typed", "--param", "text=boom"), "the workflow cannot be made: no paint left"),
        (("nothing",), "There is no custom workflow 'nothing'; there are: broken, paint/square, typed"),
    ],
)
def test_what_is_refused(command: Command, custom: Path, arguments: tuple[str, ...], said: str) -> None:
    result = command("workflows", "run", *arguments, "--ssh", "root@198.51.100.1")
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr


def test_a_file_that_cannot_be_used_says_why(command: Command, custom: Path) -> None:
    result = command("workflows", "run", "broken")
    assert (result.exit_code, "broken.json is not valid JSON" in result.stderr) == (1, True)
