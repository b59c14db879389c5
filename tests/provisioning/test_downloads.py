"""Downloads on a machine behind a real sshd, from a web server that misbehaves."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    ConnectionFailed,
    ProgramFailed,
    ProvisionFailed,
    ProvisionUnavailable,
    Stopped,
)
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.provisioning import downloads
from comfyui_workflow.provisioning.downloads import (
    PlacedFile,
    Progress,
    SpeedMeter,
    WantedFile,
    download,
    progress_text,
)
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.credentials import Auth, Credential, RequestSecrets
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from tests.provisioning.file_server import FileServer, ServedFile, wait_until
from tests.sshd import Sshd

CONTENT = os.urandom(300_000)
NAME = "a model.safetensors"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "it's a machine; $(touch x)" / "models"


@pytest.fixture
def get(connection: Connection, web: FileServer, models: Path) -> Iterator[Callable[..., PlacedFile]]:
    """Downloads a path of the web server, and checks that nothing but the file is left."""

    def download_path(
        path: str = "m.safetensors", *, tokens: dict[str, str] | None = None, **more: Any
    ) -> PlacedFile:
        rules = DownloadRules(hosts=(web.origin,), tokens=tokens or {})
        wanted = WantedFile(url=web.url(path), directory=str(models), name=more.pop("name", NAME), **more)
        return download(connection, wanted, rules, stop=CancelToken(), report=lambda _: None)

    yield download_path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_file_is_downloaded_into_its_place(
    get: Callable[..., PlacedFile], web: FileServer, models: Path
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT)
    placed = get(sha256=sha256(CONTENT), size=len(CONTENT))
    assert placed == PlacedFile(
        path=str(models / NAME), size=len(CONTENT), sha256=sha256(CONTENT), existed=False
    )
    assert (models / NAME).read_bytes() == CONTENT
    assert names(models) == [NAME]
    assert get().existed
    assert len(web.gets("m.safetensors")) == 1


def test_a_file_goes_into_a_subfolder(get: Callable[..., PlacedFile], web: FileServer, models: Path) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT)
    get(name="SDXL/x.safetensors")
    assert (models / "SDXL" / "x.safetensors").read_bytes() == CONTENT


def test_a_transfer_that_breaks_continues_where_it_stopped(
    get: Callable[..., PlacedFile], web: FileServer, models: Path
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT, cut_after=120_000)
    get()
    assert (models / NAME).read_bytes() == CONTENT
    assert [each.range for each in web.gets("m.safetensors")] == [None, "bytes=120000-", "bytes=240000-"]


def test_a_host_without_ranges_is_asked_for_everything_again(
    get: Callable[..., PlacedFile], web: FileServer, models: Path
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT, cut_after=120_000, cuts=1, takes_ranges=False)
    get()
    assert (models / NAME).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_put_together_from_two(
    connection: Connection, get: Callable[..., PlacedFile], web: FileServer, models: Path
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT, cut_after=120_000, cuts=1)
    stop, first = CancelToken(), web.files["m.safetensors"]
    first.pause = threading.Event()
    rules = DownloadRules(hosts=(web.origin,))
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)

    def stop_soon(progress: Progress) -> None:
        stop.cancel()

    with pytest.raises(Stopped):
        download(connection, wanted, rules, stop=stop, report=stop_soon)
    newer = os.urandom(len(CONTENT))
    web.files["m.safetensors"] = ServedFile(content=newer, etag='"2"')
    get()
    assert (models / NAME).read_bytes() == newer


def test_a_cut_connection_leaves_a_part_that_the_next_attempt_continues(
    sshd: Sshd, options: ConnectionOptions, web: FileServer, models: Path
) -> None:
    file = web.files["m.safetensors"] = ServedFile(content=CONTENT, pause=threading.Event())
    rules = DownloadRules(hosts=(web.origin,))
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
    first = open_connection(parse_ssh_address(sshd.ssh_string()), 8188, options)
    with pytest.raises(ConnectionFailed):
        download(first, wanted, rules, stop=CancelToken(), report=lambda _: sshd.kill_connections())
    first.close()
    assert not (models / NAME).exists()
    assert file.pause is not None
    (part,) = (path for path in models.iterdir() if path.suffix == ".part")
    arrived = part.stat().st_size
    assert arrived >= len(CONTENT) // 2
    file.pause.set()
    second = open_connection(parse_ssh_address(sshd.ssh_string()), 8188, options)
    download(second, wanted, rules, stop=CancelToken(), report=lambda _: None)
    second.close()
    assert (models / NAME).read_bytes() == CONTENT
    assert web.gets("m.safetensors")[-1].range == f"bytes={arrived}-"
    assert names(models) == [NAME]


def test_two_that_want_one_file_download_it_once(
    connection: Connection, web: FileServer, models: Path
) -> None:
    file = web.files["m.safetensors"] = ServedFile(content=CONTENT, pause=threading.Event())
    rules = DownloadRules(hosts=(web.origin,))
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
    placed: list[PlacedFile] = []
    reported = [threading.Event() for _ in range(3)]

    def work(event: threading.Event) -> None:
        report = lambda _: event.set()  # noqa: E731
        placed.append(download(connection, wanted, rules, stop=CancelToken(), report=report))

    threads = [threading.Thread(target=work, args=(each,)) for each in reported]
    for thread in threads:
        thread.start()
    assert all(each.wait(20) for each in reported)  # those that wait report too
    assert file.pause is not None
    file.pause.set()
    for thread in threads:
        thread.join(20)
    assert sorted(each.existed for each in placed) == [False, True, True]
    assert len(web.gets("m.safetensors")) == 1
    assert names(models) == [NAME]


def test_a_cancelled_download_stops_the_program(
    connection: Connection, web: FileServer, models: Path
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT, pause=threading.Event())
    stop = CancelToken()
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
    with pytest.raises(Stopped):
        download(
            connection, wanted, DownloadRules(hosts=(web.origin,)), stop=stop, report=lambda _: stop.cancel()
        )
    wait_until(lambda: not programs_with(models))


def programs_with(directory: Path) -> list[str]:
    """The processes that have a file below the directory open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found += [str(link)] if str(link.readlink()).startswith(str(directory)) else []
        except OSError:
            continue
    return [each for each in found if f"/{os.getpid()}/" not in each]


REFUSALS = [
    (ServedFile(content=CONTENT, status=404), {}, "127.0.0.1 answers 404 for a model"),
    (ServedFile(content=CONTENT, token="t"), {}, "answers 401 for .* needs a token"),
    (ServedFile(content=CONTENT), {"sha256": "0" * 64}, "other content than it should have"),
    (ServedFile(content=CONTENT), {"size": 5}, "has 300000 bytes at 127.0.0.1, not the expected 5"),
    (ServedFile(content=b""), {}, "is empty"),
    (ServedFile(content=CONTENT, content_type="text/html"), {}, "sends a web page instead"),
    (ServedFile(content=CONTENT, announced=10**16), {}, "the disk of the machine has"),
    (ServedFile(content=CONTENT, location="http://169.254.169.254/x"), {}, "which is not encrypted"),
    (ServedFile(content=CONTENT, location="https://127.0.0.2/x"), {}, "which is no public address"),
    (ServedFile(content=CONTENT, location="file:///etc/passwd"), {}, "no web address"),
    (ServedFile(content=CONTENT, location="/m.safetensors"), {}, "redirects too often"),
]


@pytest.mark.parametrize("file, wanted, reason", REFUSALS, ids=[reason for _, _, reason in REFUSALS])
def test_what_cannot_be_had_is_refused_with_the_reason(
    get: Callable[..., PlacedFile],
    web: FileServer,
    file: ServedFile,
    wanted: dict[str, Any],
    reason: str,
) -> None:
    web.files["m.safetensors"] = file
    with pytest.raises(ProvisionFailed, match=reason) as refused:
        get(**wanted)
    assert not refused.value.is_transient


def test_a_host_that_fails_again_and_again_is_tried_later(
    get: Callable[..., PlacedFile], web: FileServer
) -> None:
    web.files["m.safetensors"] = ServedFile(content=CONTENT, status=503)
    with pytest.raises(ProvisionUnavailable, match="answers 503"):
        get()
    assert len(web.gets("m.safetensors")) == 5


def test_a_token_goes_to_its_host_only(get: Callable[..., PlacedFile], web: FileServer) -> None:
    with FileServer().running() as elsewhere:
        elsewhere.files["m"] = ServedFile(content=CONTENT)
        web.files["m.safetensors"] = ServedFile(content=b"", token="secret", location=elsewhere.url("m"))
        with pytest.raises(ProvisionFailed, match="not encrypted"):
            get(tokens={"127.0.0.1": "secret"})
        assert elsewhere.asked == []
    web.files["m.safetensors"].location = web.url("there")
    web.files["there"] = ServedFile(content=CONTENT, token="secret")
    assert get(tokens={"127.0.0.1": "secret"}).size == len(CONTENT)


def test_a_token_does_not_follow_a_redirect_to_another_host(
    connection: Connection, web: FileServer, models: Path
) -> None:
    with FileServer().running() as storage:
        storage.files["m"] = ServedFile(content=CONTENT)
        web.files["m.safetensors"] = ServedFile(content=b"", token="secret", location=storage.url("m"))
        rules = DownloadRules(hosts=(web.origin, storage.origin), tokens={"127.0.0.1": "secret"})
        wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
        download(connection, wanted, rules, stop=CancelToken(), report=lambda _: None)
        assert [each.authorization for each in storage.asked] == [None]


def test_hugging_face_tells_the_hash_before_its_storage_sends_the_file(
    get: Callable[..., PlacedFile], web: FileServer
) -> None:
    web.files["there"] = ServedFile(content=CONTENT)
    linked = {"X-Linked-ETag": f'"{sha256(b"other")}"', "X-Linked-Size": str(len(CONTENT))}
    web.files["m.safetensors"] = ServedFile(content=b"", location=web.url("there"), headers=linked)
    with pytest.raises(ProvisionFailed, match="other content"):
        get()
    web.files["m.safetensors"].headers["X-Linked-ETag"] = f'"{sha256(CONTENT)}"'
    assert get().sha256 == sha256(CONTENT)


def test_a_secret_is_in_no_list_of_processes(connection: Connection, web: FileServer, models: Path) -> None:
    file = web.files["m.safetensors"] = ServedFile(
        content=CONTENT, token="very-secret", pause=threading.Event()
    )
    seen: list[str] = []

    def look(_: Progress) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(path.read_bytes().decode(errors="replace"))
            except OSError:
                continue
        assert file.pause is not None
        file.pause.set()

    rules = DownloadRules(hosts=(web.origin,), tokens={"127.0.0.1": "very-secret"})
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
    download(connection, wanted, rules, stop=CancelToken(), report=look)
    assert any("sys.stdin.buffer" in each for each in seen)
    assert not any("very-secret" in each or web.origin in each for each in seen)
    assert "very-secret" not in repr(rules)


def test_a_machine_that_runs_no_commands_says_so(
    sshd: Sshd, options: ConnectionOptions, web: FileServer, models: Path
) -> None:
    sshd.stop()
    sshd.add_config("ForceCommand echo only files here; false")
    sshd.start()
    opened = open_connection(parse_ssh_address(sshd.ssh_string()), 8188, options)
    wanted = WantedFile(url=web.url("m.safetensors"), directory=str(models), name=NAME)
    with pytest.raises(ProgramFailed, match=r'ended with status 1\. It says: "only files here"'):
        download(
            opened, wanted, DownloadRules(hosts=(web.origin,)), stop=CancelToken(), report=lambda _: None
        )
    opened.close()


def test_a_directory_that_may_not_be_written_is_an_error(
    get: Callable[..., PlacedFile], web: FileServer, models: Path
) -> None:
    models.parent.mkdir()
    models.write_text("a file")
    web.files["m.safetensors"] = ServedFile(content=CONTENT)
    with pytest.raises(ProvisionFailed, match="cannot be stored: "):
        get()


@pytest.mark.parametrize(
    "url, name, reason",
    [
        ("https://example.com/a.safetensors", "a.safetensors", "example.com is not in"),
        ("http://huggingface.co/a.safetensors", "a.safetensors", "not encrypted"),
        ("https://huggingface.co.evil.com/a.safetensors", "a.safetensors", "is not in"),
        ("https://me:pw@huggingface.co/a.safetensors", "a.safetensors", "contains a password"),
        ("https://huggingface.co/a.py", "a.py", "not that of a model file"),
        ("https://huggingface.co:99999/a.ckpt", "a.ckpt", "not valid"),
        ("https://huggingface.co/a.safetensors", "a.safetensors", None),
        ("https://cdn.huggingface.co/a.safetensors", "a.safetensors", None),
        ("http://10.0.0.5:8000/a.safetensors", "a.safetensors", None),
        ("http://10.0.0.5:8001/a.safetensors", "a.safetensors", "not encrypted"),
    ],
)
def test_the_settings_say_which_hosts_are_allowed(url: str, name: str, reason: str | None) -> None:
    refusal = DownloadRules(hosts=("huggingface.co", "http://10.0.0.5:8000")).refusal(url, name)
    assert (refusal is None) if reason is None else reason in str(refusal)


@pytest.mark.parametrize(
    "url, auth, sent, headers",
    [
        ("https://a/b?k=...#1", None, "https://a/b?k=hid", {"Authorization": "Bearer setting"}),
        ("https://a/c", None, "https://a/c", {"Authorization": "Basic bWU6cC93"}),
        ("https://a/d", Auth(kind="bearer", secret="t"), "https://a/d", {"Authorization": "Bearer t"}),
        ("https://a/d", Auth(kind="header", name="X-Key", secret="t"), "https://a/d", {"X-Key": "t"}),
        ("https://a/d", Auth(kind="query", name="k", secret="t"), "https://a/d?k=t", {}),
    ],
)
def test_secrets_of_the_request_have_precedence(
    url: str, auth: Auth | None, sent: str, headers: dict[str, str]
) -> None:
    credentials = () if auth is None else (Credential(url_pattern="https://a/*", auth=auth),)
    urls = {"https://a/b?k=...#1": "https://a/b?k=hid", "https://a/c": "https://me:p%2Fw@a/c"}
    rules = DownloadRules(hosts=("a",), tokens={"a": "setting"})
    signed = rules.signed(url, RequestSecrets(credentials=credentials, urls=urls))
    assert (signed.url, signed.headers) == (sent, headers)


def test_credentials_of_another_kind_of_storage_are_refused() -> None:
    secrets = RequestSecrets(
        credentials=(Credential(url_pattern="**", auth=Auth(kind="s3", name="id", secret="hid")),)
    )
    with pytest.raises(ProvisionFailed, match="type s3 are not for https://a/b") as refused:
        DownloadRules(hosts=("a",)).signed("https://a/b", secrets)
    assert "hid" not in str(refused.value)


def test_progress_is_told_in_words() -> None:
    times = iter([0.0, 1.0, 2.0])
    meter = SpeedMeter(lambda: next(times))
    speeds = [meter.speed(done) for done in (0, 50_000_000, 100_000_000)]
    assert speeds == [0.0, 50e6, 50e6]
    progress = Progress(done_bytes=100_000_000, total_bytes=6_940_000_000, bytes_per_s=50e6)
    expected = "Downloading x on the instance: 100.0 MB of 6.94 GB, 50.0 MB/s, 3 min left"
    assert progress_text("x", progress) == expected
    unknown = Progress(done_bytes=1000, total_bytes=None)
    assert progress_text("x", unknown) == "Downloading x on the instance: 1 KB"


def test_an_answer_of_another_shape_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = WantedFile(url="https://h/x.ckpt", directory="/m", name="x.ckpt")
    with pytest.raises(ProvisionFailed, match="no usable answer"):
        downloads._outcome(wanted, {"placed": 5})
