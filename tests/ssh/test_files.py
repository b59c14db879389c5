"""Files of an instance, over the sandbox's SSH server and over a real sshd: the same tests, both."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import (
    ConnectionFailed,
    FileRefused,
    RemoteFileError,
    RemoteFileExists,
    RemoteFileMissing,
    Stopped,
    StoreError,
)
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.sftp import files as files_module
from comfyui_workflow.ssh.sftp.files import RemoteFiles
from comfyui_workflow.ssh.sftp.session import SftpSession
from tests.instance import Instance
from tests.ssh.conftest import wait_until
from tests.sshd import Sshd

NAMES = ["picture.png", "with space.png", "ünï-日本語-🙂.png", "'quote\" $(id) `x` ;.png", "-dash", "a" * 200]
SIZES = [0, 1, 32_599, 32_600, 32_601, 1_000_000]


@pytest.fixture
def connection(instance: Instance, options: ConnectionOptions) -> Iterator[Connection]:
    opened = open_connection(parse_ssh_address(instance.ssh_string), instance.comfyui_port, options)
    yield opened
    opened.close()


@pytest.fixture
def files(connection: Connection) -> RemoteFiles:
    return connection.files


@pytest.fixture
def remote(instance: Instance) -> Path:
    """Local path of a directory of the instance."""
    directory = instance.sandbox.input_dir / f"files-{os.getpid()}-{time.monotonic_ns()}"
    directory.mkdir(parents=True)
    return directory


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def local_file(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "local file ü.bin"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_file_goes_up_and_comes_back(
    files: RemoteFiles, remote: Path, tmp_path: Path, size_bytes: int
) -> None:
    content = os.urandom(size_bytes)
    files.upload(local_file(tmp_path, content), f"{remote}/file")
    assert (remote / "file").read_bytes() == content
    assert files.download(f"{remote}/file", tmp_path / "back", expected_size=size_bytes) == size_bytes
    assert (tmp_path / "back").read_bytes() == content
    assert names_in(remote) == ["file"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_names(files: RemoteFiles, remote: Path, tmp_path: Path, name: str) -> None:
    files.upload(local_file(tmp_path, b"content"), f"{remote}/{name}")
    assert names_in(remote) == [name]
    assert [found.name for found in files.list(str(remote))] == [name]
    files.download(f"{remote}/{name}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    files.remove(f"{remote}/{name}")
    assert names_in(remote) == []


def test_nothing_is_ever_overwritten(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    (remote / "file").write_bytes(b"theirs")
    with pytest.raises(RemoteFileExists, match="was not overwritten"):
        files.upload(local_file(tmp_path, b"ours"), f"{remote}/file")
    (remote / "dangling").symlink_to("nowhere")
    with pytest.raises(RemoteFileExists):
        files.upload(local_file(tmp_path, b"ours"), f"{remote}/dangling")
    (remote / "directory").mkdir()
    with pytest.raises(RemoteFileExists):
        files.upload(local_file(tmp_path, b"ours"), f"{remote}/directory")
    assert (remote / "file").read_bytes() == b"theirs"
    assert names_in(remote) == ["dangling", "directory", "file"]


def test_what_appears_at_the_last_moment_is_not_overwritten(
    files: RemoteFiles, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file appears between the check and the rename: then the server refuses the rename."""

    def look_then_appear(session: SftpSession, looking: int) -> bool:
        is_there = look(session, looking)
        (remote / "file").write_bytes(b"theirs")
        return is_there

    look = files_module._exists
    monkeypatch.setattr(files_module, "_exists", look_then_appear)
    with pytest.raises(RemoteFileExists):
        files.upload(local_file(tmp_path, b"ours"), f"{remote}/file")
    assert (remote / "file").read_bytes() == b"theirs"
    assert names_in(remote) == ["file"]


def test_of_many_uploads_of_one_name_one_wins(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    locals_ = [tmp_path / str(number) for number in range(6)]
    for local in locals_:
        local.write_bytes(local.name.encode() * 50_000)

    def upload(local: Path) -> bytes | None:
        try:
            files.upload(local, f"{remote}/file")
        except RemoteFileExists:
            return None
        return local.read_bytes()

    with ThreadPoolExecutor(6) as threads:
        won = [content for content in threads.map(upload, locals_) if content]
    assert won == [(remote / "file").read_bytes()]
    assert names_in(remote) == ["file"]


def test_what_stat_tells(files: RemoteFiles, remote: Path) -> None:
    (remote / "file").write_bytes(b"12345")
    os.utime(remote / "file", (1_700_000_000, 1_700_000_000))
    found = files.stat(f"{remote}/file")
    assert found is not None
    assert (found.name, found.size_bytes, found.is_directory) == ("file", 5, False)
    assert found.modified_at.isoformat() == "2023-11-14T22:13:20+00:00"
    directory = files.stat(str(remote))
    assert directory is not None
    assert directory.is_directory
    assert files.stat(f"{remote}/nothing") is None
    assert files.stat(f"{remote}/no/such/directory") is None


def test_a_directory_is_listed_by_name(files: RemoteFiles, remote: Path) -> None:
    for name in ("b", "c", "a"):
        (remote / name).write_bytes(name.encode())
    (remote / "d").mkdir()
    assert [(found.name, found.is_directory) for found in files.list(str(remote))] == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("d", True),
    ]
    with pytest.raises(RemoteFileMissing, match="cannot be listed"):
        files.list(f"{remote}/nothing")


def test_directories_are_made_with_their_parents(files: RemoteFiles, remote: Path) -> None:
    files.make_directory(f"{remote}/a/b ü/c")
    files.make_directory(f"{remote}/a/b ü/c/")
    assert (remote / "a" / "b ü" / "c").is_dir()
    (remote / "file").touch()
    with pytest.raises(RemoteFileError):
        files.make_directory(f"{remote}/file/below")
    with pytest.raises(RemoteFileError):
        files.make_directory(f"{remote}/file")


def test_one_directory_made_by_many(files: RemoteFiles, remote: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(files.make_directory, [f"{remote}/a/b/c/d"] * 8))
    assert (remote / "a/b/c/d").is_dir()


def test_removing_twice_is_fine(files: RemoteFiles, remote: Path) -> None:
    (remote / "file").touch()
    files.remove(f"{remote}/file")
    files.remove(f"{remote}/file")
    assert names_in(remote) == []


def test_the_hash_is_of_the_content_as_it_is_now(files: RemoteFiles, remote: Path) -> None:
    for content in (b"one", b"two", os.urandom(300_000)):
        (remote / "file").write_bytes(content)
        assert files.sha256(f"{remote}/file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(RemoteFileMissing):
        files.sha256(f"{remote}/nothing")


def test_the_hash_of_an_unchanged_file_is_remembered(files: RemoteFiles, remote: Path) -> None:
    def write(content: bytes) -> None:
        (remote / "file").write_bytes(content)
        os.utime(remote / "file", (1_700_000_000, 1_700_000_000))

    write(b"one")
    first = files.sha256(f"{remote}/file")
    write(b"two")  # of the same age and size: who asks must not have read it again
    assert files.sha256(f"{remote}/file") == first
    os.utime(remote / "file", (1_700_000_001, 1_700_000_001))
    assert files.sha256(f"{remote}/file") == hashlib.sha256(b"two").hexdigest()


# --- what does not work ---------------------------------------------------------------------------


def test_what_is_not_there_is_said(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteFileMissing, match="nothing cannot be read: it is not on"):
        files.download(f"{remote}/nothing", tmp_path / "back")
    with pytest.raises(RemoteFileMissing, match="cannot be written"):
        files.upload(local_file(tmp_path, b"x"), f"{remote}/no/such/directory")
    with pytest.raises(RemoteFileError, match="is a directory"):
        files.download(str(remote), tmp_path / "back")
    assert files.stat(str(remote)) is not None


def test_another_size_than_expected_is_said(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    (remote / "file").write_bytes(b"12345")
    with pytest.raises(RemoteFileError, match="has 5 bytes instead of 6"):
        files.download(f"{remote}/file", tmp_path / "back", expected_size=6)


def test_local_trouble_is_ours(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    (remote / "file").write_bytes(b"12345")
    with pytest.raises(FileRefused, match="Cannot read"):
        files.upload(tmp_path / "nothing", f"{remote}/new")
    with pytest.raises(StoreError, match="Cannot write"):
        files.download(f"{remote}/file", tmp_path / "no" / "directory")
    with pytest.raises(StoreError, match="Cannot write /dev/full: No space left"):
        files.download(f"{remote}/file", Path("/dev/full"))
    assert names_in(remote) == ["file"]


def test_progress_is_told_and_may_abort(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    told: list[tuple[int, int]] = []
    assert files.stat(str(remote)) is not None, "there is a session, and nothing to wait for"
    files.upload(local_file(tmp_path, content), f"{remote}/file", progress=lambda *step: told.append(step))
    assert told[0] == (0, 3_000_000)
    assert told[-1] == (3_000_000, 3_000_000)
    assert told == sorted(told)

    def abort(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > 1_000_000:
            raise Stopped("Stopped by the test.")

    with pytest.raises(Stopped):
        files.upload(local_file(tmp_path, content), f"{remote}/other", progress=abort)
    with pytest.raises(Stopped):
        files.download(f"{remote}/file", tmp_path / "back", progress=abort)
    assert names_in(remote) == ["file"]
    assert files.download(f"{remote}/file", tmp_path / "back") == 3_000_000


def test_many_transfers_at_once(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    contents = {f"file {number}": os.urandom(100_000 + number) for number in range(20)}

    def there_and_back(name: str) -> bool:
        (tmp_path / name).write_bytes(contents[name])
        files.upload(tmp_path / name, f"{remote}/{name}")
        files.download(f"{remote}/{name}", tmp_path / f"{name} back")
        return (tmp_path / f"{name} back").read_bytes() == contents[name]

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(there_and_back, contents))
    assert names_in(remote) == sorted(contents)


def test_small_questions_do_not_wait_for_large_files(
    files: RemoteFiles, remote: Path, tmp_path: Path
) -> None:
    (remote / "file").write_bytes(b"x" * 100_000)
    is_reading, may_end = threading.Semaphore(0), threading.Event()

    def wait(_done_bytes: int, _total_bytes: int) -> None:
        is_reading.release()
        assert may_end.wait(20)

    with ThreadPoolExecutor(6) as threads:
        reads = [
            threads.submit(files.download, f"{remote}/file", tmp_path / str(number), progress=wait)
            for number in range(6)
        ]
        for _ in range(4):
            assert is_reading.acquire(timeout=10)
        assert files.stat(f"{remote}/file") is not None
        may_end.set()
        assert [read.result(20) for read in reads] == [100_000] * 6


def test_who_waits_for_a_transfer_may_stop_waiting(files: RemoteFiles, remote: Path, tmp_path: Path) -> None:
    (remote / "file").write_bytes(b"x" * 100_000)
    is_reading, may_end = threading.Semaphore(0), threading.Event()

    def wait(_done_bytes: int, _total_bytes: int) -> None:
        is_reading.release()
        assert may_end.wait(20)

    def stop(_done_bytes: int, _total_bytes: int) -> None:
        raise Stopped("Stopped by the test.")

    with ThreadPoolExecutor(4) as threads:
        for number in range(4):
            threads.submit(files.download, f"{remote}/file", tmp_path / str(number), progress=wait)
        for _ in range(4):
            assert is_reading.acquire(timeout=10)
        with pytest.raises(Stopped):
            files.download(f"{remote}/file", tmp_path / "back", progress=stop)
        may_end.set()


def test_a_cut_in_the_middle_is_transient(
    instance: Instance, connection: Connection, remote: Path, tmp_path: Path
) -> None:
    def cut(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > 1_000_000:
            instance.cut()

    local = local_file(tmp_path, os.urandom(20_000_000))
    with pytest.raises(ConnectionFailed, match="was cut"):
        connection.files.upload(local, f"{remote}/file", progress=cut)
    assert not (remote / "file").exists()
    wait_until(lambda: not connection.is_alive)
    with pytest.raises(ConnectionFailed):
        connection.files.stat(str(remote))


# --- servers of their own kind --------------------------------------------------------------------


def test_a_server_with_few_sessions_is_enough(
    server: Sshd, options: ConnectionOptions, tmp_path: Path
) -> None:
    server.stop()
    server.add_config("MaxSessions 1")
    server.start()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    with ThreadPoolExecutor(4) as threads:
        reads = [
            threads.submit(connection.files.download, str(tmp_path / "file"), tmp_path / str(number))
            for number in range(4)
        ]
        assert [read.result(20) for read in reads] == [100_000] * 4
    with pytest.raises(RemoteFileError):
        connection.files.upload(tmp_path / "file", str(tmp_path / "file"))
    assert connection.files.stat(str(tmp_path / "file")) is not None
    connection.close()


@pytest.mark.parametrize(
    "text",
    [
        "echo Welcome to the machine",
        "printf hi",
        r"printf '\\033[33mOnly /workspace persists\\033[0m\\r\\n\\000\\000\\000'",
        "yes 'The message of the day' | head -c 60000",
    ],
)
def test_text_that_a_machine_prints_before_sftp_is_skipped(
    server: Sshd, options: ConnectionOptions, tmp_path: Path, text: str
) -> None:
    server.stop()
    server.serve_files_by(f"{text}; exec $SFTP_SERVER")
    server.start()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    with ThreadPoolExecutor(3) as threads:
        copies = [tmp_path / str(number) for number in range(3)]
        reads = threads.map(lambda copy: connection.files.download(str(tmp_path / "file"), copy), copies)
        assert list(reads) == [100_000] * 3
    assert connection.files.refusal(0.0) == ""
    connection.close()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'Please login as the user \"ubuntu\"'",
            'no SFTP. It says: "Please login as the user "ubuntu""',
        ),
        (r"printf '\033]0;title\007\033[1mNo\033[0m\nshell \001 here\n'", 'It says: "No shell here"'),
        ("yes endless | head -c 200000", 'It says: "endless endless'),
        ("exit 1", r"offers no SFTP\.$"),
    ],
)
def test_what_a_machine_prints_in_place_of_sftp_is_told(
    server: Sshd, options: ConnectionOptions, script: str, told: str
) -> None:
    server.stop()
    server.serve_files_by(script)
    server.start()
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    with pytest.raises(RemoteFileError, match=told) as failure:
        connection.files.stat("/")
    assert len(str(failure.value)) < 600
    assert connection.is_alive
    connection.close()


def test_a_reason_is_told_while_the_program_that_printed_it_goes_on(
    server: Sshd, options: ConnectionOptions
) -> None:
    server.stop()
    server.serve_files_by("echo The account has expired; exec sleep 60")
    server.start()
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    wait_until(lambda: connection.files.refusal(0.0) == "The account has expired")
    connection.close()


def test_a_server_without_sftp_is_said(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    server.add_config("ForceCommand /bin/false")
    server.start()
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    with pytest.raises(RemoteFileError, match="offers no SFTP"):
        connection.files.stat("/")
    assert connection.is_alive
    connection.close()


def test_a_file_nobody_may_write_is_said(server: Sshd, options: ConnectionOptions, tmp_path: Path) -> None:
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, options)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    for remote in ("/proc/nothing/file", "/proc/file"):
        with pytest.raises(RemoteFileError, match="cannot be written"):
            connection.files.upload(tmp_path / "file", remote)
    assert connection.files.stat("/") is not None
    connection.close()


def test_a_silent_channel_is_given_up(server: Sshd, options: ConnectionOptions) -> None:
    hasty = replace(options, channel_timeout_s=0.5)
    connection = open_connection(parse_ssh_address(server.ssh_string()), 8188, hasty)
    assert connection.files.stat("/") is not None
    server.freeze()
    with pytest.raises(ConnectionFailed, match="does not answer"):
        connection.files.stat("/")
    server.thaw()
    assert connection.files.stat("/") is not None
    connection.close()
