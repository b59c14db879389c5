"""Transfers of large and changing files, with short and long round trips, with and without helpers."""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from comfyui_workflow.errors import (
    ConnectionFailed,
    FileRefused,
    RemoteFileError,
    RemoteFileMissing,
    Stopped,
)
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.sftp import upload
from comfyui_workflow.ssh.sftp.files import RemoteFiles
from tests.instance import Instance
from tests.ssh.conftest import no_thread_left, wait_until
from tests.sshd import Sshd

KIB_255 = 255 * 1024
SIZES = [0, 1, KIB_255 - 1, KIB_255, KIB_255 + 1, 5_000_000, upload.CHUNK_BYTES, 2 * upload.CHUNK_BYTES + 1]
LARGE_BYTES = 30_000_001


@pytest.fixture
def connection(instance: Instance, options: ConnectionOptions) -> Iterator[Connection]:
    opened = open_connection(parse_ssh_address(instance.ssh_string), instance.comfyui_port, options)
    yield opened
    opened.close()


@pytest.fixture(params=["near", "far"])
def files(connection: Connection, request: pytest.FixtureRequest) -> RemoteFiles:
    if request.param == "far":
        be_far(connection)
    return connection.files


@pytest.fixture
def remote(instance: Instance, tmp_path: Path) -> Path:
    """Local path of a directory of the instance."""
    directory = instance.sandbox.input_dir / f"{tmp_path.name}-{os.getpid()}"
    directory.mkdir(parents=True)
    return directory


def be_far(connection: Connection) -> None:
    """Pretends that a long round trip was measured when the connection was opened."""
    channels = connection.files._channels
    channels.round_trip_s, channels._max_channels = 0.08, 9
    sent_at_least = 100_000
    assert channels.is_far and sent_at_least < upload.LARGE_BYTES


def local_file(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "local"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("size_bytes", SIZES)
def test_every_size_there_and_back(
    files: RemoteFiles, remote: Path, tmp_path: Path, size_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "LARGE_BYTES", 0)
    content = os.urandom(size_bytes)
    files.upload(local_file(tmp_path, content), f"{remote}/file")
    assert (remote / "file").read_bytes() == content
    assert files.download(f"{remote}/file", tmp_path / "back") == size_bytes
    assert (tmp_path / "back").read_bytes() == content
    assert files.sha256(f"{remote}/file") == hashlib.sha256(content).hexdigest()


def test_a_large_file_that_goes_far_has_help(
    connection: Connection, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first session waits until a second one has sent data."""
    be_far(connection)
    helped = threading.Event()
    send_chunks = upload._Work.send_chunks

    def do_and_tell(work: upload._Work, session: object, handle: bytes, after_each: object) -> object:
        if after_each is upload._noop:
            helped.set()
        return send_chunks(work, session, handle, after_each)  # type: ignore[arg-type]

    monkeypatch.setattr(upload._Work, "send_chunks", do_and_tell)
    content = os.urandom(LARGE_BYTES)
    told: list[tuple[int, int]] = []

    def report(done_bytes: int, total_bytes: int) -> None:
        told.append((done_bytes, total_bytes))
        if done_bytes:
            assert helped.wait(10)

    connection.files.upload(local_file(tmp_path, content), f"{remote}/file", progress=report)
    assert (remote / "file").read_bytes() == content
    assert told == sorted(told)
    assert told[-1] == (LARGE_BYTES, LARGE_BYTES)


def test_a_file_that_shrinks_or_grows_while_it_is_read_is_said(
    files: RemoteFiles, remote: Path, tmp_path: Path
) -> None:
    """When the size is known, everything was requested and nothing was read."""
    for new_size_bytes in (LARGE_BYTES // 2, LARGE_BYTES + 10):
        (remote / "file").write_bytes(os.urandom(LARGE_BYTES))

        def change(done_bytes: int, _total_bytes: int, new_size_bytes: int = new_size_bytes) -> None:
            if not done_bytes:
                os.truncate(remote / "file", new_size_bytes)

        with pytest.raises(RemoteFileError, match=f"instead of {LARGE_BYTES}: it was changed"):
            files.download(f"{remote}/file", tmp_path / "back", progress=change)
    assert files.stat(f"{remote}/file") is not None


def test_a_local_file_that_shrinks_is_said(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    local = local_file(tmp_path, os.urandom(LARGE_BYTES))
    with pytest.raises(FileRefused, match="became shorter"):
        files.upload(local, f"{remote}/file", progress=lambda *_: os.truncate(local, 1_000_000))
    assert list(remote.iterdir()) == []


def test_an_upload_with_help_may_be_aborted(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    def abort(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > LARGE_BYTES // 2:
            raise Stopped("Stopped by the test.")

    local = local_file(tmp_path, os.urandom(LARGE_BYTES))
    with no_thread_left(), pytest.raises(Stopped):
        files.upload(local, f"{remote}/file", progress=abort)
    assert list(remote.iterdir()) == []
    files.upload(local, f"{remote}/file")
    assert (remote / "file").read_bytes() == local.read_bytes()


def test_a_cut_ends_all_who_help(
    instance: Instance, connection: Connection, remote: Path, tmp_path: Path
) -> None:
    be_far(connection)

    def cut(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > LARGE_BYTES // 3:
            instance.cut()

    local = local_file(tmp_path, os.urandom(LARGE_BYTES))
    with pytest.raises(ConnectionFailed):
        connection.files.upload(local, f"{remote}/file", progress=cut)
    assert not (remote / "file").exists()
    wait_until(lambda: not any(thread.name == "upload helper" for thread in threading.enumerate()))


def test_what_a_helper_cannot_write_fails_the_upload(
    connection: Connection, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_far(connection)
    monkeypatch.setattr(upload, "WRITING", 0)  # the server opens it for nothing, or not at all
    local = local_file(tmp_path, os.urandom(LARGE_BYTES))
    refused = threading.Event()
    stop = upload._Work.stop

    def stop_and_tell(work: upload._Work, failure: BaseException | None = None) -> None:
        stop(work, failure)
        if failure:
            refused.set()

    monkeypatch.setattr(upload._Work, "stop", stop_and_tell)
    with pytest.raises(RemoteFileError, match="cannot be written"):
        connection.files.upload(
            local, f"{remote}/file", progress=lambda done, _: assert_set(refused) if done else None
        )
    assert not (remote / "file").exists()


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


def test_what_is_missing_costs_no_session(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    files.stat(str(remote))
    before = list(files._channels._free)
    for _ in range(3):
        with pytest.raises(RemoteFileMissing):
            files.download(f"{remote}/nothing", tmp_path / "back")
        with pytest.raises(RemoteFileError):
            files.download(str(remote), tmp_path / "back")
    assert files._channels._free == before


def test_a_file_that_is_opened_and_not_fetched_leaves_nothing_open(files: RemoteFiles, remote: Path) -> None:
    file = remote / "file"
    file.write_bytes(b"content")
    files.stat(str(remote))
    before = list(files._channels._free)
    for name in ("file", "nothing", ""):
        with suppress(RemoteFileMissing), files.opening(f"{remote}/{name}"):
            pass
        with pytest.raises(RemoteFileError), files.opening(f"{remote}/{name}"):
            raise RemoteFileError("ComfyUI has another file")
    with files.opening(str(file)) as opening:
        assert opening.attributes().size_bytes == 7
    with pytest.raises(RemoteFileMissing), files.opening(f"{remote}/nothing") as opening:
        opening.attributes()
    assert files._channels._free == before
    wait_until(lambda: not open_elsewhere(remote))


def test_a_file_is_opened_while_other_work_is_done(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    """The sshd opens the file before it is waited for: what replaces it later is not read."""
    file = remote / "file"
    file.write_bytes(b"content")
    with no_thread_left(), LocalPart(tmp_path / "part") as part, files.opening(str(file)) as opening:
        wait_until(lambda: open_elsewhere(remote))
        file.unlink()
        file.write_bytes(b"the file of another prompt")
        opening.fetch(part)
    assert (tmp_path / "part").read_bytes() == b"content"


def open_elsewhere(directory: Path) -> list[str]:
    """Returns the files of the directory that processes of this machine have open."""
    opened = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            opened.append(str(link.readlink()))
    return [path for path in opened if path.startswith(f"{directory}/")]


def test_many_at_once(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    contents = {f"file {number}": os.urandom(200_000 + number) for number in range(30)}

    def there_and_back(name: str) -> bool:
        (tmp_path / name).write_bytes(contents[name])
        files.upload(tmp_path / name, f"{remote}/{name}")
        files.download(f"{remote}/{name}", tmp_path / f"{name} back")
        return (tmp_path / f"{name} back").read_bytes() == contents[name]

    with ThreadPoolExecutor(files.transfers_at_once + 2) as threads:
        assert all(threads.map(there_and_back, contents))


def test_one_session_is_enough_for_a_large_file(
    server: Sshd, options: ConnectionOptions, tmp_path: Path
) -> None:
    server.stop()
    server.add_config("MaxSessions 1")
    server.start()
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    be_far(connection)
    local = local_file(tmp_path, os.urandom(LARGE_BYTES))
    connection.files.upload(local, f"{tmp_path}/remote")
    assert connection.files.download(f"{tmp_path}/remote", tmp_path / "back") == LARGE_BYTES
    assert (tmp_path / "back").read_bytes() == local.read_bytes()
    connection.close()
