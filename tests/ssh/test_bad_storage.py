"""SFTP servers that hang, send wrong data or disconnect: the reported errors and the kept bytes."""

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import (
    ConnectionFailed,
    RemoteFileError,
    RemoteFilesSilent,
    Stopped,
    StoreError,
)
from comfyui_workflow.files.partial_files import LocalPart, remove
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.sftp import files as files_module
from comfyui_workflow.ssh.sftp.session import SftpSession
from tests.sandbox_process import SandboxProcess
from tests.ssh.conftest import no_thread_left

LARGE_BYTES = 12_000_000
A_BREAK_BYTES = 4_000_000


@pytest.fixture
def connect(sandbox: SandboxProcess, options: ConnectionOptions) -> Iterator[Callable[[], Connection]]:
    """Connections with a silence timeout of one second for SFTP."""
    opened: list[Connection] = []

    def connect() -> Connection:
        address, hasty = parse_ssh_address(sandbox.ssh_string), replace(options, channel_timeout_s=1.0)
        opened.append(open_connection(address, sandbox.comfyui_port, hasty))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def remote(sandbox: SandboxProcess) -> Path:
    file = sandbox.output_dir / "file.bin"
    file.write_bytes(os.urandom(LARGE_BYTES))
    return file


def remote_stat_works(connection: Connection, remote: Path) -> bool:
    return connection.files.stat(str(remote)) is not None


def test_reads_that_are_never_answered_are_given_up_and_said(
    connect: Callable[[], Connection], sandbox: SandboxProcess, remote: Path, tmp_path: Path
) -> None:
    connection = connect()
    sandbox.faults(storage={"silent": "reads"})
    with pytest.raises(RemoteFilesSilent, match="does not answer"):
        connection.files.download(str(remote), tmp_path / "part")
    assert connection.is_alive
    assert remote_stat_works(connection, remote)


def test_uploads_that_are_never_answered_are_given_up_and_said(
    connect: Callable[[], Connection], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.write_bytes(os.urandom(LARGE_BYTES))
    connection = connect()
    sandbox.faults(storage={"silent": "reads"})
    with no_thread_left(), pytest.raises(RemoteFilesSilent):
        connection.files.upload(local, str(sandbox.input_dir / "file.bin"))


@pytest.mark.parametrize("silent", ["reads", "all"])
def test_who_waits_for_a_silent_server_is_heard(
    sandbox: SandboxProcess, options: ConnectionOptions, remote: Path, tmp_path: Path, silent: str
) -> None:
    """Long before the silence timeout."""
    connection = open_connection(parse_ssh_address(sandbox.ssh_string), sandbox.comfyui_port, options)
    assert remote_stat_works(connection, remote)
    is_asked = threading.Event()

    def report(_done_bytes: int, _total_bytes: int) -> None:
        if is_asked.is_set():
            raise Stopped("cancelled")

    sandbox.faults(storage={"silent": silent})
    asking = threading.Timer(0.5, is_asked.set)
    asking.start()
    began_s = time.monotonic()
    with pytest.raises(Stopped, match="cancelled"):
        connection.files.download(str(remote), tmp_path / "part", progress=report)
    with pytest.raises(Stopped, match="cancelled"):
        connection.files.upload(remote, f"{remote}.copy", progress=report)
    assert time.monotonic() - began_s < options.channel_timeout_s / 2
    asking.join()
    connection.close()


def test_a_claim_of_more_than_any_disk_holds_costs_nothing(
    connect: Callable[[], Connection], sandbox: SandboxProcess, remote: Path, tmp_path: Path
) -> None:
    connection = connect()
    sandbox.faults(storage={"claimed_bytes": 2**60})
    before_s = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
    with pytest.raises(RemoteFileError, match=f"said to be {2**60} bytes"):
        connection.files.download(str(remote), tmp_path / "part")
    with pytest.raises(RemoteFileError, match=f"instead of {2**60}"):
        connection.files.sha256(str(remote))
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_utime - before_s < 10
    assert not (tmp_path / "part").exists()


def test_a_claim_of_more_than_is_free_waits_for_room(
    connect: Callable[[], Connection], sandbox: SandboxProcess, remote: Path, tmp_path: Path
) -> None:
    disk = os.statvfs(tmp_path)
    sandbox.faults(storage={"claimed_bytes": (disk.f_bavail + disk.f_blocks) // 2 * disk.f_frsize})
    with pytest.raises(StoreError, match=r"No space left on device \(\d+ bytes are needed"):
        connect().files.download(str(remote), tmp_path / "part")


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        ({"claimed_bytes": 2 * LARGE_BYTES}, f"{LARGE_BYTES} bytes instead of {2 * LARGE_BYTES}"),
        ({"claimed_bytes": 1_000_000}, "1000001 bytes instead of 1000000"),
        ({"endless_reads": True}, f"{LARGE_BYTES + 1} bytes instead of {LARGE_BYTES}"),
        ({"long_reads": True}, "more bytes than were requested"),
    ],
)
def test_what_does_not_fit_together_is_said(  # noqa: PLR0917 - fixtures and parameters
    connect: Callable[[], Connection],
    sandbox: SandboxProcess,
    remote: Path,
    tmp_path: Path,
    lie: dict[str, object],
    sentence: str,
) -> None:
    connection = connect()
    sandbox.faults(storage=lie)
    with pytest.raises(RemoteFileError, match=sentence):
        connection.files.download(str(remote), tmp_path / "part")
    sandbox.faults(storage={})
    assert connection.files.download(str(remote), tmp_path / "part") == LARGE_BYTES


def test_a_directory_without_an_end_is_said(
    connect: Callable[[], Connection], sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "MOST_ENTRIES", 1000)
    sandbox.faults(storage={"endless_listing": True})
    with pytest.raises(RemoteFileError, match="more than 1000 entries"):
        connect().files.list(str(sandbox.output_dir))


def test_a_download_goes_on_where_it_broke_off(
    connect: Callable[[], Connection], sandbox: SandboxProcess, remote: Path, tmp_path: Path
) -> None:
    """A link that breaks after a third of the file: without a resume the download would never be complete."""
    sandbox.faults(cut_ssh_after_bytes=A_BREAK_BYTES)
    path, tries = tmp_path / ".comfyui_workflow_1.part", 0
    while True:
        tries += 1
        assert tries < 10, "it does not get on"
        try:
            with LocalPart(path, is_resumable=True) as part:
                connect().files.fetch(str(remote), part)
            break
        except ConnectionFailed:
            continue
    assert path.read_bytes() == remote.read_bytes()
    assert tries >= LARGE_BYTES // A_BREAK_BYTES
    remove(path)
    assert not list(tmp_path.glob(".*.part"))


def test_a_part_of_another_version_is_begun_anew(
    connect: Callable[[], Connection], sandbox: SandboxProcess, remote: Path, tmp_path: Path
) -> None:
    path = tmp_path / ".comfyui_workflow_1.part"
    connection = connect()

    def break_off(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > LARGE_BYTES // 2:
            raise Stopped("half of it is enough")

    for change in (lambda: os.utime(remote, (7, 7)), lambda: remote.write_bytes(os.urandom(LARGE_BYTES - 1))):
        with pytest.raises(Stopped), LocalPart(path, is_resumable=True) as part:
            connection.files.fetch(str(remote), part, progress=break_off)
        assert path.stat().st_size > LARGE_BYTES // 2
        change()
        begun: list[int] = []
        with LocalPart(path, is_resumable=True) as part:
            connection.files.fetch(
                str(remote), part, progress=lambda done, _, begun=begun: begun.append(done)
            )
        assert begun[0] == 0
        assert path.read_bytes() == remote.read_bytes()


def test_a_file_that_is_written_over_while_it_is_read_is_said(
    connect: Callable[[], Connection], remote: Path, tmp_path: Path
) -> None:
    os.utime(remote, (7, 7))

    def write_over(done_bytes: int, _total_bytes: int) -> None:
        if 0 < done_bytes < LARGE_BYTES // 2:
            os.utime(remote, (8, 8))

    with pytest.raises(RemoteFileError, match="was changed"):
        connect().files.download(str(remote), tmp_path / "part", progress=write_over)


def test_answers_that_nobody_asked_for_end(connect: Callable[[], Connection], remote: Path) -> None:
    connection = connect()
    assert remote_stat_works(connection, remote)
    with connection.files._channels.lease() as session:
        client = session.client
    fresh = SftpSession(client, 10.0)
    fresh._pending.add(1)
    client.get_channel().in_buffer.feed(b"\0\0\0\x05\x65\x00\0\0\x77" * 20_000)
    with pytest.raises(EOFError):
        fresh.wait(1)
