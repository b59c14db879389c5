"""Uploads to and downloads from Azure Blob Storage, against Azurite, Microsoft's own emulator."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import StorageError
from comfyui_workflow.runs.credentials import NO_SECRETS
from comfyui_workflow.runs.upload_target import UploadTarget, read_upload
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.azure import AzureAccount, AzureBlobs
from comfyui_workflow.storage.cache import DownloadCache
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from tests.foreign_client import INSTALLED

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The public key of every emulator."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = INSTALLED / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not program.exists():
        pytest.skip(f"{program} is not there: tests/install_foreign_clients.sh could not install it")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    place = tmp_path_factory.mktemp("azurite")
    command = [
        "node",
        str(program),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(place),
    ]
    with subprocess.Popen(
        [*command, "--skipApiVersionCheck", "--disableTelemetry"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "successfully listens" in line:
                break
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
        process.kill()


def account(endpoint: str, key: str = KEY) -> AzureAccount:
    return AzureAccount(
        connection_string=f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
        f"BlobEndpoint={endpoint};"
    )


@pytest.fixture
def blobs(endpoint: str, request: pytest.FixtureRequest) -> AzureBlobs:
    made = AzureBlobs(account(endpoint))
    made._service.create_container(container(request.node.name))
    return made


def container(name: str) -> str:
    return "c" + str(abs(hash(name)))


def target(name: str, prefix: str = "") -> UploadTarget:
    found = read_upload({"azure_blob_upload": {"container": container(name), "blob_prefix": prefix}}).target
    assert found is not None
    return found


def test_a_file_goes_there_in_parts_and_comes_back(
    blobs: AzureBlobs, endpoint: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, seen = tmp_path / "v.mp4", list[int]()
    path.write_bytes(bytes(range(250)) * 40_000)
    where = target(request.node.name, "a b/c")
    url = blobs.put(
        where,
        path,
        where.key("run", "v 1.mp4"),
        "video/mp4",
        secrets=NO_SECRETS,
        report=lambda done, _: seen.append(done),
    )
    assert url == f"{endpoint}/{where.place}/a%20b/c/run/v%201.mp4"
    assert len(seen) > 1
    assert seen[-1] == path.stat().st_size
    guarded, anywhere = GuardedClient(may_reach_private=False), GuardedClient(may_reach_private=True)
    storages = StorageRegistry(StorageSettings(azure=account(endpoint)), guarded)
    storages.check(url)
    cache = DownloadCache(tmp_path / "cache", storages, guarded=guarded, trusted=anywhere)
    cache.get(url, tmp_path / "back.mp4", NO_SECRETS, stop=CancelToken())
    assert (tmp_path / "back.mp4").read_bytes() == path.read_bytes()
    assert requests.get(url, timeout=10).status_code in (403, 404)


def test_the_later_upload_replaces_the_blob(
    blobs: AzureBlobs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where, path = target(request.node.name), tmp_path / "a"
    for content in (b"first", b"second"):
        path.write_bytes(content)
        blobs.put(where, path, "a", "text/plain", secrets=NO_SECRETS)
    client = blobs._service.get_blob_client(where.place, "a")
    assert client.download_blob().readall() == b"second"


def test_a_container_that_is_not_there_and_a_wrong_key_are_errors(
    blobs: AzureBlobs, endpoint: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with pytest.raises(StorageError, match="does not exist") as missing:
        blobs.put(target("nowhere"), path, "a", "text/plain", secrets=NO_SECRETS)
    assert not missing.value.is_transient
    wrong = AzureBlobs(account(endpoint, KEY[::-1].replace("=", "") + "=="))
    with pytest.raises(StorageError) as refused:
        wrong.put(target(request.node.name), path, "a", "text/plain", secrets=NO_SECRETS)
    assert KEY not in str(refused.value)


def test_without_an_account_the_error_says_what_to_set(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with pytest.raises(StorageError, match="set AZURE_STORAGE_CONNECTION_STRING"):
        AzureBlobs(AzureAccount()).put(target("x"), path, "a", "text/plain", secrets=NO_SECRETS)


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        (AzureAccount(), None),
        (AzureAccount(account="me", key="k"), "https://me.blob.core.windows.net"),
        (
            AzureAccount(connection_string="AccountName=me;AccountKey=k==;EndpointSuffix=core.windows.net"),
            "https://me.blob.core.windows.net",
        ),
        (
            AzureAccount(connection_string="UseDevelopmentStorage=true"),
            "http://127.0.0.1:10000/devstoreaccount1",
        ),
    ],
)
def test_the_endpoint_of_an_account(given: AzureAccount, endpoint: str | None) -> None:
    assert given.endpoint == endpoint
    assert "k==" not in repr(given)
