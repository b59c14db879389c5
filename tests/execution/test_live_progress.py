"""Live progress of executing runs; it is removed when they end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.previews import Preview, PreviewSource
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import RemoteFileError, Stopped
from comfyui_workflow.execution.inputs import upload_inputs
from comfyui_workflow.execution.live_progress import LARGEST_PREVIEW_BYTES, Direction, LiveProgress
from comfyui_workflow.execution.outputs import OutputFetcher
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile
from comfyui_workflow.workflows.graph import Graph
from tests.runs.test_state_machine import new_run

Progress = Callable[[int, int], None]


def preview(picture: bytes = b"1", node_id: str = "3") -> Preview:
    place = PreviewSource(prompt_id="p", node_id=node_id)
    return Preview(place=place, content_type="image/jpeg", picture=picture)


def test_the_latest_preview_is_shown_until_the_run_leaves() -> None:
    view = LiveProgress()
    nothing = {"live_preview": None, "transfers": []}
    with view.open("a") as first, view.open("b") as second:
        assert view.document("a") == nothing
        for live in (first, second, first):
            live.show(preview())
        first.show(preview(bytes(LARGEST_PREVIEW_BYTES + 1)))  # a result, too large for a preview
        shown = {"number": 3, "node_id": "3", "content_type": "image/jpeg"}
        assert view.document("a") == {"live_preview": shown, "transfers": []}
        assert view.line("b")["live_preview"]["number"] == 2
    assert view.document("a") == nothing
    first.show(preview())  # the websocket may deliver late
    assert view.preview("a") is None
    with view.open("a") as again:
        assert view.preview("a") is None
        again.show(preview(b"2"))
        assert view.line("a")["live_preview"]["number"] == 5


def test_a_run_that_came_back_is_not_dropped_with_the_one_before() -> None:
    view = LiveProgress()
    with view.open("a"):
        late = view.open("a")
        late.__enter__().show(preview())
    assert view.preview("a") is not None
    late.__exit__(None, None, None)
    assert view.preview("a") is None


@dataclass
class Instance:
    """The parts of a session that transfers use. It records the live progress during a transfer."""

    live: LiveProgress
    has_sftp: bool = True
    seen: list[Any] = field(default_factory=list)
    own: Directories = field(default_factory=Directories)
    transfers_at_once: int = 1

    @property
    def connection(self) -> "Instance":
        return self

    files = client = connection

    def directories(self) -> Directories:
        return self.own

    def stat_all(self, paths: Sequence[str], *, on_wait: object) -> list[RemoteFile | None]:
        if not self.has_sftp:
            raise RemoteFileError("no SFTP here")
        return [self.attributes() if path == "/input" else None for path in paths]

    def attributes(self) -> RemoteFile:
        return RemoteFile(name="", size_bytes=8, modified_at=datetime.now(UTC), is_directory=False)

    def upload(
        self, file: Path | BinaryIO, name: str, *, progress: Progress | None = None, **_place: object
    ) -> str:
        self._travel(progress)
        return name

    @contextmanager
    def opening(self, remote: str, *, progress: Progress) -> Iterator["Instance"]:
        if not self.has_sftp:
            raise RemoteFileError("no SFTP here")
        self.progress = progress
        yield self

    def fetch(self, part: LocalPart) -> RemoteFile:
        self._travel(self.progress)
        part.begin(8, None)
        part.write(b"12345678")
        return self.attributes()

    @contextmanager
    def view(self, filename: str, *, subfolder: str, folder: str, start: int = 0) -> Iterator[ViewedFile]:
        """A negative `start` is for a comparison with a file that was transferred."""

        def pieces() -> Iterator[bytes]:
            for piece in (b"1234", b"5678"):
                yield piece
                if not start:
                    self._look()

        yield ViewedFile(pieces=pieces())

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        return []

    def running_graphs(self) -> dict[str, Graph]:
        return {}

    def _travel(self, progress: Progress | None) -> None:
        self._look()
        for done_bytes, total_bytes in ((0, 0), (0, 8), (4, 8)) if progress else ():
            progress(done_bytes, total_bytes)
            self._look()

    def _look(self) -> None:
        self.seen.append(self.live.document("a")["transfers"])


def transfer(direction: str, filename: str, done_bytes: int, total_bytes: int | None) -> list[dict[str, Any]]:
    return [
        {
            "direction": direction,
            "filename": filename,
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
        }
    ]


def send(instance: Instance, photo: Path) -> None:
    with instance.live.open("a") as live:
        upload_inputs(
            cast(ComfyUISession, instance),
            {},
            (str(photo),),
            "/input",
            say=print,
            stop=CancelToken(),
            live=live,
        )
        assert instance.live.document("a")["transfers"] == []


def test_a_file_on_its_way_up_tells_how_far_it_is(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"12345678")
    instance = Instance(LiveProgress())
    send(instance, photo)
    at = [(0, None), (0, None), (0, 8), (4, 8)]
    assert instance.seen == [transfer("upload", "photo.png", done, total) for done, total in at]
    instance = Instance(LiveProgress(), has_sftp=False)
    send(instance, photo)
    assert instance.seen == [transfer("upload", "photo.png", 0, 8)]


def test_a_file_on_its_way_down_tells_how_far_it_is(tmp_path: Path) -> None:
    run = new_run()
    run = replace(run, request=replace(run.request, output_dir=str(tmp_path)))
    by_sftp, through_the_tunnel = [(0, None), (0, None), (0, 8), (4, 8)], [(4, None), (8, None)]
    for has_sftp, at in ((True, by_sftp), (False, through_the_tunnel)):
        instance = Instance(LiveProgress(), has_sftp=has_sftp)
        with instance.live.open("a") as live:
            fetched = OutputFetcher(cast(ComfyUISession, instance), run, CancelToken(), live).fetch(
                OutputFile(filename="a.bin")
            )
            assert instance.live.document("a")["transfers"] == []
        assert fetched.size_bytes == 8
        assert instance.seen == [transfer("download", "a.bin", *each) for each in at]


def test_a_transfer_stops_when_it_is_asked_to_and_is_shown_no_more() -> None:
    stop = CancelToken()
    stop.cancel("asked")
    view = LiveProgress()
    with view.open("a") as live:
        with pytest.raises(Stopped), live.transfer(Direction.UPLOAD, "x", stop) as report:
            report(1, 2)
        assert view.document("a")["transfers"] == []
