"""Outputs through the tunnel alone, from a real ComfyUI's routes: they go on where they broke off."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import RemoteFileError, Stopped
from comfyui_workflow.execution.live_progress import LiveRun
from comfyui_workflow.execution.outputs import OutputFetcher, remove_parts
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.sessions.session import ComfyUISession
from tests.runs.test_state_machine import new_run
from tests.sandbox_process import SandboxProcess

LARGE_BYTES = 12_000_000
OUTPUT = OutputFile(filename="file.bin")


@dataclass
class WithoutFiles:
    """A link of an instance that offers no SFTP."""

    client: ComfyUIClient

    @property
    def connection(self) -> "WithoutFiles":
        return self

    files = connection

    def directories(self) -> Directories:
        return Directories()

    def opening(self, *_arguments: object, **_named: object) -> None:
        raise RemoteFileError("no SFTP here")


@dataclass
class Fetching:
    """Tries to fetch one output, each of which tells where it began."""

    session: WithoutFiles
    run: Run

    def fetch(self, most_bytes: int | None = None) -> tuple[int, OutputFile | None]:
        seen: list[int] = []

        stop = CancelToken()

        def note(_direction: object, _filename: str, done_bytes: int) -> None:
            seen.append(done_bytes)
            if most_bytes is not None and done_bytes > most_bytes:
                stop.cancel("enough")

        fetcher = OutputFetcher(cast(ComfyUISession, self.session), self.run, stop, LiveRun(on_bytes=note))
        done: OutputFile | None = None
        with contextlib.suppress(Stopped):
            done = fetcher.fetch(OUTPUT)
        return seen[0], done


@pytest.fixture
def fetching(sandbox: SandboxProcess, tmp_path: Path) -> Fetching:
    run = new_run()
    run = replace(run, request=replace(run.request, output_dir=str(tmp_path / "outputs")), outputs=(OUTPUT,))
    return Fetching(WithoutFiles(ComfyUIClient(sandbox.comfyui_url)), run)


def same_time(file: Path) -> None:
    os.utime(file, (7, 7))


def test_a_view_goes_on_where_it_broke_off(
    fetching: Fetching, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    content = os.urandom(LARGE_BYTES)
    (sandbox.output_dir / "file.bin").write_bytes(content)
    begun, done = zip(*(fetching.fetch(most) for most in (3_000_000, 7_000_000, None)), strict=True)
    assert begun[0] == 0 and begun[1] > 3_000_000 and begun[2] > 7_000_000
    assert done[2] is not None
    assert Path(done[2].local_path or "").read_bytes() == content
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_bytes(os.urandom(LARGE_BYTES)),
        lambda file: file.write_bytes(os.urandom(2_000_000)),
    ],
)
def test_a_view_of_another_file_is_begun_anew(
    fetching: Fetching, sandbox: SandboxProcess, change: Callable[[Path], object]
) -> None:
    file = sandbox.output_dir / "file.bin"
    file.write_bytes(os.urandom(LARGE_BYTES))
    same_time(file)
    assert fetching.fetch(3_000_000) == (0, None)
    change(file)
    begun, done = fetching.fetch()
    assert begun == 0
    assert done is not None
    assert Path(done.local_path or "").read_bytes() == file.read_bytes()


def test_nothing_is_left_of_an_output_that_never_came(
    fetching: Fetching, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    (sandbox.output_dir / "file.bin").write_bytes(os.urandom(LARGE_BYTES))
    fetching.fetch(3_000_000)
    assert len(list((tmp_path / "outputs").iterdir())) == 2
    remove_parts(fetching.run)
    assert not list((tmp_path / "outputs").iterdir())
