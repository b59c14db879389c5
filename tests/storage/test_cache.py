"""Downloads: joined, resumed, checked, cached by URL, limited in size, and kept from private addresses."""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    InvalidRequest,
    Stopped,
    StorageError,
    StorageUnavailable,
    StoreError,
    UrlRefused,
)
from comfyui_workflow.runs.credentials import NO_SECRETS, Auth, Credential, RequestSecrets
from comfyui_workflow.safe_http.addresses import Endpoint, resolve_name
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.services import input_urls
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.storage.cache import DownloadCache
from comfyui_workflow.storage.events import TellEvent, tell_nobody
from comfyui_workflow.storage.http import HttpHeader
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from tests.storage.file_server import Asked, FileServer, serving_files

BIG = bytes(range(251)) * 20_000
ANYWHERE = GuardedClient(may_reach_private=True)


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serving_files() as served:
        served.files["/big.bin"] = BIG
        yield served


def cache_in(  # type: ignore[no-untyped-def]
    directory: Path,
    *,
    most_bytes: int = 0,
    client: GuardedClient = ANYWHERE,
    tell: TellEvent = tell_nobody,
    **settings: object,
):
    registry = StorageRegistry(StorageSettings(**settings), client)  # type: ignore[arg-type]
    return DownloadCache(
        directory, registry, guarded=client, trusted=ANYWHERE, most_bytes=most_bytes, tell=tell
    )


@pytest.fixture
def cache(tmp_path: Path) -> DownloadCache:
    return cache_in(tmp_path / "cache")  # type: ignore[no-any-return]


def get(
    cache: DownloadCache, url: str, path: Path, secrets: RequestSecrets = NO_SECRETS, **options: object
) -> bytes:
    cache.get(url, path, secrets, stop=CancelToken(), **options)  # type: ignore[arg-type]
    return path.read_bytes()


def test_fifty_requests_for_one_url_are_one_download(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    all_wait = threading.Event()
    files.on_request = lambda _: all_wait.wait(30)
    url, seen = f"{files.url}/big.bin", list[int]()
    with ThreadPoolExecutor(50) as pool:
        futures = [
            pool.submit(get, cache, url, tmp_path / f"{number}.bin", report=lambda done, _: seen.append(done))
            for number in range(50)
        ]
        all_wait.set()
        assert all(future.result(60) == BIG for future in futures)
    # a request that came after the download asks once whether the file has changed
    whole = [each for each in files.asked if "If-None-Match" not in each.headers]
    assert len(whole) == 1
    assert max(seen) == len(BIG)


def test_a_cut_download_is_resumed_at_its_end(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    files.faults = ["cut 2000000", "cut 1000000"]
    url = f"{files.url}/big.bin"
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            get(cache, url, tmp_path / "a")
    assert get(cache, url, tmp_path / "a") == BIG
    assert [each.headers.get("Range") for each in files.asked] == [None, "bytes=2000000-", "bytes=3000000-"]


def test_another_version_is_not_joined_to_the_first_half(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    files.faults = ["cut 2000000"]
    url = f"{files.url}/big.bin"
    with pytest.raises(StorageUnavailable):
        get(cache, url, tmp_path / "a")
    files.files["/big.bin"] = BIG[::-1]
    assert get(cache, url, tmp_path / "a") == BIG[::-1]


def test_the_second_request_downloads_nothing_while_the_file_is_the_same(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    url, sizes = f"{files.url}/big.bin", list[int]()
    get(cache, url, tmp_path / "a")
    assert get(cache, url, tmp_path / "b", report=lambda done, _: sizes.append(done)) == BIG
    assert sizes == []
    files.files["/big.bin"] = b"new"
    assert get(cache, url, tmp_path / "c") == b"new"
    assert (tmp_path / "a").read_bytes() == BIG
    files.faults = [503]
    assert get(cache, url, tmp_path / "d") == b"new"


def test_without_versions_the_cached_file_is_used(files: FileServer, tmp_path: Path) -> None:
    files.has_etags = False
    cache = cache_in(tmp_path / "cache")
    for name in "ab":
        assert get(cache, f"{files.url}/big.bin", tmp_path / name) == BIG
    assert files.count("GET", "/big.bin") == 1


def test_the_longest_name_is_placed(cache: DownloadCache, files: FileServer, tmp_path: Path) -> None:
    assert get(cache, f"{files.url}/big.bin", tmp_path / ("a" * 251 + ".bin")) == BIG


def test_the_name_in_the_cache_is_the_hash_of_the_url(cache: DownloadCache) -> None:
    url = "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor&size=pruned&fp=fp16"
    assert cache._name(url, NO_SECRETS) == "Pk6VSKLStckZydwGhX0bM8TqaqHEW9yt"
    assert cache._name("https://h/a.PNG?x=1", NO_SECRETS).endswith(".PNG")


def test_the_credentials_of_a_request_open_no_file_for_others(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    files.wants = {"Authorization": "Bearer mine"}
    url = f"{files.url}/big.bin"
    mine = RequestSecrets(
        credentials=(Credential(url_pattern="**", auth=Auth(kind="bearer", secret="mine")),)
    )
    assert get(cache, url, tmp_path / "a", mine) == BIG
    with pytest.raises(StorageError, match="wants credentials"):
        get(cache, url, tmp_path / "b")


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        (Auth(kind="bearer", secret="t"), ("Authorization", "Bearer t")),
        (Auth(kind="basic", name="u", secret="p"), ("Authorization", "Basic dTpw")),
        (Auth(kind="header", name="X-Key", secret="k"), ("X-Key", "k")),
    ],
)
def test_credentials_go_to_the_server_of_the_url_only(
    cache: DownloadCache, files: FileServer, tmp_path: Path, auth: Auth, header: tuple[str, str]
) -> None:
    with serving_files() as other:
        other.files["/moved.bin"] = b"there"
        files.redirects["/old.bin"] = f"{other.url}/moved.bin"
        secrets = RequestSecrets(credentials=(Credential(url_pattern="**", auth=auth),))
        assert get(cache, f"{files.url}/old.bin", tmp_path / "a", secrets) == b"there"
        name, value = header
        assert files.asked[0].headers[name] == value
        assert name not in other.asked[0].headers


def test_a_query_credential_is_added_to_the_url(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    auth = Auth(kind="query", name="to ken", secret="a&b")
    secrets = RequestSecrets(credentials=(Credential(url_pattern="**", auth=auth),))
    get(cache, f"{files.url}/big.bin?x=1", tmp_path / "a", secrets)
    assert files.asked[0].path == "/big.bin?x=1&to%20ken=a%26b"


def test_the_header_of_the_settings_goes_to_matching_urls(files: FileServer, tmp_path: Path) -> None:
    header = HttpHeader(name="X-Auth", value="v", url_pattern=f"{files.url}/private/**")
    files.files |= {"/private/a.bin": b"1", "/public.bin": b"2"}
    cache = cache_in(tmp_path / "cache", http_header=header)
    get(cache, f"{files.url}/private/a.bin", tmp_path / "a")
    get(cache, f"{files.url}/public.bin", tmp_path / "b")
    assert [each.headers.get("X-Auth") for each in files.asked] == ["v", None]


def test_a_cancelled_request_leaves_the_download_to_the_others(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    asked, go_on, stop = threading.Event(), threading.Event(), CancelToken()

    def hold(_: Asked) -> None:
        asked.set()
        go_on.wait(30)

    def stopping(_done: int, _total: int) -> None:
        stop.check()

    files.on_request = hold
    url = f"{files.url}/big.bin"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, url, tmp_path / "a", NO_SECRETS, report=stopping, stop=stop)
        assert asked.wait(30)
        second = pool.submit(get, cache, url, tmp_path / "b")
        stop.cancel()
        go_on.set()
        with pytest.raises(Stopped):
            first.result(30)
        assert second.result(30) == BIG


def test_a_request_that_gives_up_does_not_fail_the_others(
    cache: DownloadCache, files: FileServer, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: Asked) -> None:
        asked.set()
        go_on.wait(30)

    def too_large(_done_bytes: int, _total_bytes: int) -> None:
        raise InvalidRequest("too large for me")

    files.on_request = hold
    url = f"{files.url}/big.bin"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(get, cache, url, tmp_path / "a", report=too_large)
        assert asked.wait(30)
        second = pool.submit(get, cache, url, tmp_path / "b")
        go_on.set()
        assert second.result(30) == BIG
        with pytest.raises(InvalidRequest, match="too large for me"):
            first.result(30)


def test_a_workflow_is_not_waited_for_without_end(
    cache: DownloadCache, files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: Asked) -> None:
        asked.set()
        go_on.wait(30)

    files.on_request = hold
    monkeypatch.setattr(input_urls, "LONGEST_DOWNLOAD_S", 0.05)
    uploads = Uploads(tmp_path / "uploads", 60, lambda: [])
    urls = UrlInputs(storages=StorageRegistry(StorageSettings(), ANYWHERE), cache=cache, uploads=uploads)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(get, cache, f"{files.url}/big.bin", tmp_path / "a")
        assert asked.wait(30)
        with pytest.raises(InvalidRequest, match="takes longer than"):
            urls.read_workflow(f"{files.url}/big.bin", NO_SECRETS)
        go_on.set()
        assert first.result(30) == BIG


def test_the_least_recently_used_files_are_removed(files: FileServer, tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "cache", most_bytes=2500)
    for number, name in enumerate("abc"):
        files.files[f"/{name}"] = name.encode() * 1000
        get(cache, f"{files.url}/{name}", tmp_path / name)
        for path in (tmp_path / "cache").iterdir():
            os.utime(path, (path.stat().st_atime, 1000 + number))
    files.files["/d"] = b"d" * 1000
    get(cache, f"{files.url}/d", tmp_path / "d")
    kept = {path.read_bytes()[:1] for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}
    assert b"d" in kept
    assert len(kept) == 2
    assert (tmp_path / "a").read_bytes() == b"a" * 1000


def test_downloads_and_removals_are_told_without_secrets(files: FileServer, tmp_path: Path) -> None:
    told = list[tuple[str, dict[str, object]]]()

    def tell(event: str, data: Mapping[str, object], _instance: str | None = None) -> None:
        told.append((event, dict(data)))

    cache = cache_in(tmp_path / "cache", most_bytes=1500, tell=tell)
    files.files |= {"/a": b"a" * 1000, "/b": b"b" * 1000}
    urls = [f"{files.url}/a?token=hid", f"{files.url}/b"]
    for number, url in enumerate([urls[0], urls[0], urls[1]]):  # the second time it is in the cache
        get(cache, url, tmp_path / f"{number}")
    assert [event for event, _ in told] == ["file_downloaded", "file_downloaded", "file_deleted"]
    assert [data["url"] for _, data in told] == [told[0][1]["url"], urls[1], told[0][1]["url"]]
    assert "hid" not in str(told)
    assert [data["size"] for _, data in told] == [1000] * 3
    assert told[0][1]["local_path"] == told[2][1]["local_path"]
    assert [list(data)[3:] for _, data in told] == [["duration"], ["duration"], []]


def test_a_full_disk_first_costs_the_cache_its_files(
    cache: DownloadCache, files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.files["/old"] = b"old"
    get(cache, f"{files.url}/old", tmp_path / "old")
    (tmp_path / "old").unlink()
    real, is_full = os.write, [True]

    def write(file: int, data: bytes) -> int:
        if is_full[0] and [*(tmp_path / "cache").glob("[!.]*")]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    assert get(cache, f"{files.url}/big.bin", tmp_path / "a") == BIG
    (tmp_path / "a").unlink()
    files.files["/more"] = b"more"
    monkeypatch.setattr(os, "write", _full)
    with pytest.raises(StoreError, match="No space left"):
        get(cache, f"{files.url}/more", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def _full(_file: int, _data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_has_no_secret(
    cache: DownloadCache, files: FileServer, tmp_path: Path, status: int
) -> None:
    files.faults = [status]
    with pytest.raises(StorageError, match=f"status {status}") as caught:
        get(cache, f"{files.url}/big.bin?sig=hush", tmp_path / "a")
    assert not caught.value.is_transient
    assert "hush" not in str(caught.value)


def test_private_addresses_are_refused_at_each_step(files: FileServer, tmp_path: Path) -> None:
    """A name that leads there, and a redirect. `public.example` is the file server, called public."""

    def resolve(host: str, port: int) -> list[Endpoint]:
        return list(resolve_name("127.0.0.1", port))

    def is_public(_: object) -> bool:
        return False

    client = GuardedClient(may_reach_private=False, resolve=resolve, is_public=is_public)
    cache = cache_in(tmp_path / "cache", client=client)
    port = files.url.rpartition(":")[2]
    for url in (f"http://public.example:{port}/big.bin", f"{files.url}/big.bin", "s3://b/k"):
        with pytest.raises((UrlRefused, StorageError)):
            get(cache, url, tmp_path / "a")
    assert files.asked == []
    calls = iter([True, False])
    redirecting = GuardedClient(may_reach_private=False, resolve=resolve, is_public=lambda _: next(calls))
    files.redirects["/old.bin"] = "http://metadata.example/latest"
    with pytest.raises(UrlRefused, match="not public"):
        get(
            cache_in(tmp_path / "c2", client=redirecting),
            f"http://public.example:{port}/old.bin",
            tmp_path / "a",
        )
