"""Uploads with the official library, and downloads by URL, against the part of the hub that they speak to."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import StorageError, StorageUnavailable
from comfyui_workflow.runs.credentials import NO_SECRETS
from comfyui_workflow.runs.upload_target import UploadTarget, read_upload
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.cache import DownloadCache
from comfyui_workflow.storage.http import HttpHeader
from comfyui_workflow.storage.huggingface import HuggingFace, HuggingFaceAccount
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from tests.storage.hub_server import TOKEN, Hub, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Without xet, whose servers are no part of the hub: files take the way of Git LFS."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running_hub() as running:
        yield running


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(range(256)) * 100)
    return path


def target(**fields: object) -> UploadTarget:
    found = read_upload({"hf_upload": {"repo": "me/pictures", **fields}}).target
    assert found is not None
    return found


def account(hub: Hub, token: str | None = TOKEN) -> HuggingFace:
    return HuggingFace(HuggingFaceAccount(token=token, endpoint=hub.url))


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_an_upload_arrives_in_its_repository(hub: Hub, picture: Path, kind: str) -> None:
    files = hub.repos[f"{kind}s/me/pictures"] = {}
    where = target(repo_type=kind, directory="renders")
    url = account(hub).put(where, picture, where.key("run", "a.png"), "image/png", secrets=NO_SECRETS)
    folder = "datasets/" if kind == "dataset" else ""
    assert url == f"https://huggingface.co/{folder}me/pictures/resolve/main/renders/run/a.png"
    assert files == {"renders/run/a.png": picture.read_bytes()}


def test_a_repository_that_is_not_there_and_a_wrong_token_are_errors(hub: Hub, picture: Path) -> None:
    with pytest.raises(StorageError, match="404") as missing:
        account(hub).put(target(), picture, "a.png", "image/png", secrets=NO_SECRETS)
    hub.repos["models/me/pictures"] = {}
    with pytest.raises(StorageError, match="401") as wrong:
        account(hub, "hf_wrong").put(target(), picture, "a.png", "image/png", secrets=NO_SECRETS)
    with pytest.raises(StorageError, match="set HF_TOKEN"):
        account(hub, None).put(target(), picture, "a.png", "image/png", secrets=NO_SECRETS)
    assert not missing.value.is_transient
    assert "hf_wrong" not in str(wrong.value)


def test_a_busy_hub_may_be_tried_again(hub: Hub, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["models/me/pictures"], hub.faults = {}, [500]
    with pytest.raises(StorageUnavailable, match="500"):
        account(hub).put(target(), picture, "a.png", "image/png", secrets=NO_SECRETS)


def test_without_the_library_the_error_says_what_to_install(
    hub: Hub, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(StorageError, match=r"pip install 'comfyui-over-ssh\[huggingface\]'"):
        account(hub).put(target(), picture, "a.png", "image/png", secrets=NO_SECRETS)


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/me/pictures/in/b.bin",
        "https://huggingface.co/datasets/me/pictures/resolve/main/in/b.bin",
        "https://huggingface.co/datasets/me/pictures/blob/main/in/b.bin",
    ],
)
def test_a_file_is_downloaded_with_the_token(hub: Hub, tmp_path: Path, url: str) -> None:
    hub.repos["datasets/me/pictures"] = {"in/b.bin": b"content"}
    guarded, anywhere = GuardedClient(may_reach_private=False), GuardedClient(may_reach_private=True)
    settings = StorageSettings(hugging_face=HuggingFaceAccount(token=TOKEN, endpoint=hub.url))
    cache = DownloadCache(
        tmp_path / "cache", StorageRegistry(settings, guarded), guarded=guarded, trusted=anywhere
    )
    cache.get(url, tmp_path / "b.bin", NO_SECRETS, stop=CancelToken())
    assert (tmp_path / "b.bin").read_bytes() == b"content"
    assert hub.authorizations == {f"Bearer {TOKEN}"}


OTHERS = [
    "https://example.com/me/repo/resolve/main/a.png",
    "https://huggingface.co.example.com/me/repo/resolve/main/a.png",
    "https://huggingface.co@example.com/me/repo/resolve/main/a.png",
    "https://huggingface.com/me/repo/resolve/main/a.png",
    "https://cdn-lfs.huggingface.co/a.png",
    "http://huggingface.co/me/repo/resolve/main/a.png",
    "https://example.com/https://huggingface.co/me/repo/resolve/main/a.png",
    "https://example.com/?url=https://huggingface.co/a.png",
]


@pytest.mark.parametrize("url", OTHERS)
def test_the_token_goes_to_no_other_host(url: str) -> None:
    """Nor to one of the same name without encryption."""
    settings = StorageSettings(hugging_face=HuggingFaceAccount(token=TOKEN))
    signed = StorageRegistry(settings, GuardedClient(may_reach_private=False)).signed(url, NO_SECRETS)
    assert (signed.url, dict(signed.headers)) == (url, {})


@pytest.mark.parametrize(
    "url", ["https://huggingface.co/me/repo/resolve/main/a.png", "hf://me/repo/a.png", "HF://me/repo/a.png"]
)
def test_the_header_of_the_settings_does_not_replace_the_token(url: str) -> None:
    header = HttpHeader(name="Authorization", value="Bearer of others")
    settings = StorageSettings(hugging_face=HuggingFaceAccount(token=TOKEN), http_header=header)
    signed = StorageRegistry(settings, GuardedClient(may_reach_private=False)).signed(url, NO_SECRETS)
    assert signed.url == "https://huggingface.co/me/repo/resolve/main/a.png"
    assert signed.headers == {"Authorization": f"Bearer {TOKEN}"}
