"""`demo` as a process, as `make demo` starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from filelock import FileLock

from tests.cli.conftest import Command


@pytest.fixture
def taken_port(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of the settings, on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("COMFYUI_WORKFLOW_PORT", str(port))
        yield port


def test_once_makes_the_picture_and_ends(taken_port: int, tmp_path: Path) -> None:
    process = _start("--once")
    try:
        stdout, stderr = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    picture = Path(stdout.splitlines()[-1].strip())
    assert picture.is_relative_to(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f":{taken_port}" not in stderr
    _assert_nothing_runs(tmp_path)


def test_it_shows_steps_and_names_the_page_to_open(taken_port: int, tmp_path: Path) -> None:
    process = _start()
    try:
        said = _read_until(process, "Open this page")
        assert any("KSampler: Step" in line for line in said)
        assert process.stderr is not None
        url = process.stderr.readline().strip()
        assert "<main" in requests.get(url, timeout=30).text
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        process.kill()
    _assert_nothing_runs(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(taken_port: int, number: signal.Signals, tmp_path: Path) -> None:
    process = _start()
    try:
        _read_until(process, "Running ")
        assert any(str(tmp_path / "data") in words for words in _command_lines())
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode in (0, 130, 143, -signal.SIGKILL), said  # 0: it was quick, and served already
    _assert_nothing_runs(tmp_path)


def test_only_one_demo_in_a_directory(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data" / "demo").mkdir(parents=True)
    with FileLock(tmp_path / "data" / "demo" / "demo.lock"):
        result = command("demo", "--once")
    assert result.exit_code == 2
    assert "COMFYUI_WORKFLOW_DATA_DIR" in result.stderr


def test_a_place_that_cannot_be_written_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_WORKFLOW_DATA_DIR", "/proc/here")
    result = command("demo", "--once")
    assert result.exit_code == 2
    assert "/proc/here" in result.stderr


def _start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _read_until(process: "subprocess.Popen[str]", word: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError("".join(lines))


def _assert_nothing_runs(root: Path) -> None:
    """Checks that no process of the demo is left: each has the directory of the demo in its command line."""
    deadline = time.monotonic() + 10
    while found := [words for words in _command_lines() if str(root / "data") in words]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _command_lines() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()
