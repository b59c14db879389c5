"""Upload of outputs to a bucket, against a server with the S3 API."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from comfyui_workflow.errors import StorageError, UrlRefused, WebUnavailable
from comfyui_workflow.runs.credentials import Auth, Credential, RequestSecrets
from comfyui_workflow.runs.upload_target import UploadKind, UploadTarget
from comfyui_workflow.safe_http.client import Body, GuardedClient, HttpAnswer
from comfyui_workflow.storage.base import S3Account
from comfyui_workflow.storage.s3 import Bucket, S3Access, S3Storage, parse_endpoint
from tests.storage.s3_server import keys_in, make_bucket

SECRET = "very secret"
NOWHERE = "http://s3.invalid"
ANYWHERE = GuardedClient(may_reach_private=True)


def bucket(url: str, name: str | None = None) -> Bucket:
    return Bucket(endpoint_url=url, access_key_id="id", secret_access_key=SECRET, bucket_name=name)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a b.png"
    path.write_bytes(b"picture")
    return path


def test_the_url_leads_to_the_file_for_seven_days(s3_url: str, picture: Path) -> None:
    make_bucket(s3_url, "outputs")
    url = S3Storage(bucket(s3_url, "outputs")).put(picture, "job/0a1b2c3d.png", "image/png")
    answer = requests.get(url, timeout=10)
    assert (answer.content, answer.headers["Content-Type"]) == (b"picture", "image/png")
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["604800"]
    assert keys_in(s3_url, "outputs") == ["job/0a1b2c3d.png"]


def test_a_large_file_goes_in_parts(s3_url: str, tmp_path: Path) -> None:
    make_bucket(s3_url, "videos")
    path = tmp_path / "v.mp4"
    path.write_bytes(bytes(range(256)) * 80_000)
    url = S3Storage(bucket(f"{s3_url}/videos")).put(path, "v.mp4", "video/mp4")
    assert requests.get(url, timeout=10).content == path.read_bytes()


def test_with_a_way_of_its_own_every_request_takes_it(s3_url: str, tmp_path: Path) -> None:
    make_bucket(s3_url, "films")
    path = tmp_path / "v.mp4"
    path.write_bytes(bytes(range(256)) * 80_000)
    asked: list[str] = []

    def send(method: str, url: str, content: Body, headers: Mapping[str, str]) -> HttpAnswer:
        asked.append(method)
        return ANYWHERE.exchange(method, url.replace(NOWHERE, s3_url), content, headers)

    url = S3Storage(bucket(f"{NOWHERE}/films"), send).put(path, "v.mp4", "video/mp4")
    assert requests.get(url.replace(NOWHERE, s3_url), timeout=10).content == path.read_bytes()
    assert (asked[0], asked[-1], asked.count("PUT")) == ("POST", "HEAD", 3)
    assert keys_in(s3_url, "films") == ["v.mp4"]


def test_a_way_that_is_refused_is_an_error_at_once(picture: Path) -> None:
    asked: list[str] = []

    def send(method: str, url: str, content: Body, headers: Mapping[str, str]) -> HttpAnswer:
        asked.append(url)
        raise UrlRefused("it leads to an address that is not public")

    with pytest.raises(StorageError, match=r"a b.png could not be uploaded to the bucket b: .*not public"):
        S3Storage(bucket(NOWHERE, "b"), send).put(picture, "k", "image/png")
    assert len(asked) == 1


def test_a_way_that_is_broken_is_tried_again(s3_url: str, picture: Path) -> None:
    make_bucket(s3_url, "patient")
    troubles = [WebUnavailable("it took too long"), WebUnavailable("it took too long")]

    def send(method: str, url: str, content: Body, headers: Mapping[str, str]) -> HttpAnswer:
        if troubles:
            raise troubles.pop()
        return ANYWHERE.exchange(method, url, content, headers)

    S3Storage(bucket(s3_url, "patient"), send).put(picture, "k", "image/png")
    assert keys_in(s3_url, "patient") == ["k"]


def test_a_bucket_that_is_not_there_is_an_error(s3_url: str, picture: Path) -> None:
    with pytest.raises(StorageError, match=r"a b.png could not be uploaded to the bucket nowhere: .*exist"):
        S3Storage(bucket(s3_url, "nowhere")).put(picture, "k", "image/png")


def test_nobody_there_is_an_error_without_the_secret(picture: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StorageError) as caught:
        S3Storage(bucket(f"http://127.0.0.1:{port}", "b")).put(picture, "k", "image/png")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(bucket("http://x"))


def test_what_was_taken_and_is_not_there_is_an_error(picture: Path) -> None:
    with takes_and_forgets() as url, pytest.raises(StorageError, match=r"a b\.png"):
        S3Storage(bucket(url, "b")).put(picture, "k", "image/png")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://s3.example", ("https://s3.example", None, "us-east-1", "")),
        ("https://s3.example:9000/mine/", ("https://s3.example:9000", "mine", "us-east-1", "")),
        ("https://s3.example/mine/sub/dir", ("https://s3.example", "mine", "us-east-1", "sub/dir/")),
        (
            "https://my.pics.s3.eu-west-1.amazonaws.com",
            ("https://s3.eu-west-1.amazonaws.com", "my.pics", "eu-west-1", ""),
        ),
        (
            "https://s3.us-west-2.amazonaws.com",
            ("https://s3.us-west-2.amazonaws.com", None, "us-west-2", ""),
        ),
        (
            "https://pics.ams3.digitaloceanspaces.com",
            ("https://ams3.digitaloceanspaces.com", "pics", "us-east-1", ""),
        ),
        ("http://[::1]:9000/b", ("http://[::1]:9000", "b", "us-east-1", "")),
    ],
)
def test_the_url_may_name_the_bucket(url: str, place: tuple[str, str | None, str, str]) -> None:
    found = parse_endpoint(bucket(url))
    wanted = (place[0], place[1] or time.strftime("%m-%y"), *place[2:])
    assert (found.endpoint_url, found.bucket_name, found.region, found.key_prefix) == wanted


def test_a_region_of_a_request_that_is_none_is_an_error(picture: Path) -> None:
    auth = Auth(kind="s3", name="id", secret="hush", region="example.com/")
    secrets = RequestSecrets(credentials=(Credential(url_pattern="**", auth=auth),))
    access = S3Access(S3Account(), GuardedClient(may_reach_private=False).exchange)
    with pytest.raises(StorageError, match="region"):
        access.signed("s3://bucket/key", secrets)
    with pytest.raises(StorageError, match="region"):
        target = UploadTarget(kind=UploadKind.S3, place="bucket")
        access.put(target, picture, "key", "image/png", secrets=secrets)


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://[", "http://h:99999"])
def test_a_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(StorageError, match="not a URL"):
        parse_endpoint(bucket(url))


@contextmanager
def takes_and_forgets() -> Iterator[str]:
    """A server that accepts every request and stores nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.answer(200)

        def do_HEAD(self) -> None:
            self.answer(404)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
