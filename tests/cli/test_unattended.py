"""Commands that nobody watches: jobs of cron, pipes, several at once."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from comfyui_workflow.cli import main
from comfyui_workflow.cli.command_turn import command_turn
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.settings import load_settings
from tests.cli.conftest import Command
from tests.integration.graphs import painted
from tests.processes import REPOSITORY
from tests.sandbox_process import SandboxProcess

WAITS = "this one waits until that ends"


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    file = tmp_path / "w.json"
    file.write_text(json.dumps(painted(3, prefix="日本")))
    return file


@contextmanager
def started(env: dict[str, str], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Runs a command without terminal, HOME or locale."""
    with subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **env},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"{words!r} was not said")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_name_that_cannot_be_shown_does_not_fail_the_command(
    environment: dict[str, str], sandbox: SandboxProcess, workflow: Path, tmp_path: Path, encoding: str
) -> None:
    settings = {**environment, "PYTHONIOENCODING": encoding}
    with started(settings, "run", workflow, "--ssh", sandbox.ssh_string) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    name = "日本" if encoding == "utf-8" else r"\u65e5\u672c"
    assert out.splitlines() == [f"{tmp_path}/outputs/{name}_00001_.png"]
    assert (tmp_path / "outputs" / "日本_00001_.png").is_file()
    assert "Traceback" not in err


def test_a_table_with_names_that_cannot_be_shown(
    environment: dict[str, str], sandbox: SandboxProcess, workflow: Path
) -> None:
    settings = {**environment, "PYTHONIOENCODING": "ascii"}
    values = ("--vary", "3.filename_prefix=ümläut,日本")
    with started(settings, "batch", workflow, "--ssh", sandbox.ssh_string, *values) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert r"\xfcml" in out


def test_the_waiting_command_runs_when_its_turn_comes(
    environment: dict[str, str], sandbox: SandboxProcess, workflow: Path, tmp_path: Path
) -> None:
    turn = command_turn(tmp_path / "data", lambda: False)
    turn.__enter__()
    with started(environment, "run", workflow, "--ssh", sandbox.ssh_string) as process:
        read_until(process, WAITS)
        assert process.poll() is None
        turn.__exit__(None, None, None)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path(out.strip()).is_file()


def test_a_waiting_command_uses_a_server_that_is_started(
    environment: dict[str, str], sandbox: SandboxProcess, workflow: Path, tmp_path: Path
) -> None:
    with socket.socket() as claimed:
        claimed.bind(("127.0.0.1", 0))
        port = claimed.getsockname()[1]
    settings = {**environment, "COMFYUI_WORKFLOW_PORT": str(port)}
    with (
        command_turn(tmp_path / "data", lambda: False),
        started(settings, "run", workflow, "--ssh", sandbox.ssh_string) as process,
    ):
        read_until(process, WAITS)
        with serve_in_this_process(load_settings(port=port, data_dir=tmp_path / "other")):
            out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path(out.strip()).is_file()


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match="cannot be used"),
        command_turn(tmp_path / "file" / "data", lambda: True),
    ):
        pass


@pytest.mark.usefixtures("server")
def test_no_color_is_obeyed(
    command: Command, sandbox: SandboxProcess, workflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", workflow, "--ssh", sandbox.ssh_string, "--set", "1.width=0").exit_code == 1

    def listed() -> str:
        result = CliRunner().invoke(main, ["list"], color=True)  # as on a terminal
        assert "failed" in result.stdout
        return result.stdout

    assert "\x1b[" in listed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in listed()


@pytest.mark.usefixtures("server")
def test_forced_colours_draw_nothing_into_a_log(
    command: Command, sandbox: SandboxProcess, workflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in GitHub Actions: with FORCE_COLOR, rich takes every file for a terminal of 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    prefix = "a long name " * 6 + "end"
    result = command("batch", workflow, "--ssh", sandbox.ssh_string, "--vary", f"3.filename_prefix={prefix}")
    assert result.exit_code == 0
    assert "\x1b" not in result.stderr
    assert f"{prefix}_00001_.png" in result.stdout
    assert "\x1b" not in command("run", workflow, "--ssh", sandbox.ssh_string).stderr


@pytest.mark.usefixtures("server")
def test_the_output_directory_may_begin_in_the_home_directory(
    command: Command, sandbox: SandboxProcess, workflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell does not expand ~ in `--output-dir=~/pictures`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    result = command("run", workflow, "--ssh", sandbox.ssh_string, "--output-dir=~/pictures")
    assert Path(result.stdout.strip()).parent == tmp_path / "home" / "pictures"
    result = command("run", workflow, "--ssh", sandbox.ssh_string, "--output-dir=pictures")
    assert Path(result.stdout.strip()).parent == tmp_path / "pictures"
