"""Upload targets and credentials: read from a request, shown without their secrets, kept in no record."""

from dataclasses import replace
from typing import Any

import pytest

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.codec import decode_request, encode_request
from comfyui_workflow.runs.credentials import (
    Auth,
    Credential,
    RequestSecrets,
    decode_secrets,
    encode_secrets,
    read_credentials,
    read_glob,
    without_secrets,
)
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import AnyInstance
from comfyui_workflow.runs.upload_target import (
    UploadTarget,
    check_storage_url,
    hugging_face_url,
    name_of_url,
    read_upload,
    upload_field,
)
from comfyui_workflow.workflows.model import Workflow


def target(given: object, **options: Any) -> UploadTarget:
    found = read_upload(given, **options).target
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"s3": {"bucket": "b-1", "prefix": "/a//b/"}}, "s3://b-1/a/b/RUN/x.png"),
        ({"hf_upload": {"repo": "me/r"}}, "https://huggingface.co/me/r/resolve/main/RUN/x.png"),
        (
            {"hf_upload": {"repo": "me/r", "repo_type": "dataset", "revision": "a/b", "directory": "/"}},
            "https://huggingface.co/datasets/me/r/resolve/a%2Fb/RUN/x.png",
        ),
        ({"azure_blob_upload": {"container": "box", "blob_prefix": "p"}}, "azure://box/p/RUN/x.png"),
        ({"http_upload": {"url_prefix": "https://h/p/"}}, "https://h/p/RUN/x.png"),
        ("s3://b-1/a/b/", "s3://b-1/a/b/RUN/x.png"),
        ("s3://b-1", "s3://b-1/RUN/x.png"),
        ("hf://datasets/me/r@dev/dir", "https://huggingface.co/datasets/me/r/resolve/dev/dir/RUN/x.png"),
        ("https://me.blob.core.windows.net/box/p", "azure://box/p/RUN/x.png"),
        ("https://h/p", "https://h/p/RUN/x.png"),
    ],
)
def test_a_target_makes_keys_and_urls(given: object, url: str) -> None:
    found = target(given)
    assert found.url_of(found.key("RUN", "x.png")) == url
    flat = target(given, by_run=False)
    assert flat.url_of(flat.key("RUN", "x.png")) == url.replace("RUN/", "")
    assert target(upload_field(found)) == replace(found)


def test_the_first_field_wins_in_its_order() -> None:
    both = {
        "http_upload": {"url_prefix": "https://h"},
        "azure_blob_upload": {"container": "box"},
        "hf_upload": {"repo": "a/b"},
        "s3": {"bucket": "bucket", "async": True},
    }
    order = []
    while both:
        found = target({"prompt": {}, **both})
        order.append(found.kind.value)
        del both[found.kind.value]
    assert order == ["s3", "hf_upload", "azure_blob_upload", "http_upload"]
    assert target({"s3": {"bucket": "bucket", "async": True}}).is_async is True
    assert target({"s3": {"bucket": "bucket"}}).is_async is None


@pytest.mark.parametrize(
    "given",
    [
        7,
        [],
        {"s3": "b"},
        {"s3": {}},
        {"s3": {"bucket": ""}},
        {"s3": {"bucket": "a/b"}},
        {"s3": {"bucket": "bucket", "prefix": "../up"}},
        {"s3": {"bucket": "bucket", "prefix": "x" * 2000}},
        {"s3": {"bucket": "bucket", "async": "yes"}},
        {"s3": {"bucket": "bucket", "prefix": "a\nb"}},
        {"hf_upload": {"repo": "a/b/c"}},
        {"hf_upload": {"repo": "a/b", "repo_type": "space"}},
        {"azure_blob_upload": {"container": 5}},
        {"http_upload": {"url_prefix": "ftp://h"}},
        {"http_upload": {"url_prefix": "https://"}},
        "ftp://h/x",
        "file:///etc",
        "s3://",
        "/a/path",
        "hf://datasets",
        "https://[::1",
    ],
)
def test_what_is_no_target_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequest):
        read_upload(given)


@pytest.mark.parametrize(
    ("pattern", "url", "is_match"),
    [
        ("https://h/*", "https://h/a", True),
        ("https://h/*", "https://h/a/b", False),
        ("https://h/**", "https://h/a/b?c=d", True),
        ("https://*.h/**", "https://a.b.h/x", True),
        ("s3://bucket/?.png", "s3://bucket/a.png", True),
        ("s3://bucket/?.png", "s3://bucket/ab.png", False),
        ("https://h/a.b", "https://h/axb", False),
        ("**", "", True),
        ("*", "a/b", False),
        ("**/x/*", "http://q/x/y", True),
        ("", "a", False),
    ],
)
def test_a_pattern(pattern: str, url: str, is_match: bool) -> None:
    assert read_glob(pattern).matches(url) is is_match


@pytest.mark.timeout(10)
def test_no_pattern_is_slow() -> None:
    read_glob("**a*b" * 400).matches("ab" * 4000)


def test_the_first_matching_credential_wins() -> None:
    credentials = read_credentials(
        [
            {"url_pattern": "https://other/**", "auth": {"type": "bearer", "token": "no"}},
            {"url_pattern": "https://h/*", "auth": {"type": "basic", "username": "u", "password": "p"}},
            {"url_pattern": "**", "auth": {"type": "query", "query_param": "k", "query_value": "v"}},
        ]
    )
    secrets = RequestSecrets(credentials=credentials)
    kinds = [secrets.auth_for(url) for url in ("https://h/a", "https://h/a/b", "s3://b/k")]
    assert [each and each.kind for each in kinds] == ["basic", "query", "query"]
    assert RequestSecrets().auth_for("https://h") is None


@pytest.mark.parametrize(
    "given",
    [
        "x",
        [1],
        [{"url_pattern": "**"}],
        [{"url_pattern": "https://\ud800/**", "auth": {"type": "bearer", "token": "t0psecret"}}],
        [{"auth": {"type": "bearer", "token": "t0psecret"}}],
        [{"url_pattern": "**", "auth": {"type": "magic", "token": "t0psecret"}}],
        [{"url_pattern": "**", "auth": {"type": "bearer"}}],
        [{"url_pattern": "**", "auth": {"type": "bearer", "token": "t0psecret\r\nHost: x"}}],
        [
            {
                "url_pattern": "**",
                "auth": {"type": "header", "header_name": "Host", "header_value": "t0psecret"},
            }
        ],
        [
            {
                "url_pattern": "**",
                "auth": {"type": "header", "header_name": "a b", "header_value": "t0psecret"},
            }
        ],
        [{"url_pattern": "**", "auth": {"type": "s3", "access_key_id": "a", "secret_access_key": 5}}],
        [{"url_pattern": "**", "auth": {"type": "bearer", "token": "t0psecret"}}] * 101,
    ],
)
def test_bad_credentials_are_refused_without_their_secrets(given: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_credentials(given)
    assert "t0psecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a.png", "https://h/a.png"),
        ("https://h/a?type=Model&format=SafeTensor", "https://h/a?type=Model&format=SafeTensor"),
        ("https://u:p@h:81/a.png", "https://h:81/a.png"),
        ("https://h/a?X-Amz-Signature=abc&type=x", "https://h/a?X-Amz-Signature=...&type=x"),
        ("https://h/a?id=" + "x" * 65, "https://h/a?id=..."),
        ("https://h/a?tokenonly", "https://h/a?tokenonly=..."),
        ("https://h/a#frag", "https://h/a"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert RequestSecrets(urls={shown: url}).complete(shown) == url
    assert RequestSecrets(urls={"/a.png": url}).of_download(shown, "/a.png").complete(shown) == url
    assert not RequestSecrets().of_download(shown, "/a.png")


def test_no_record_has_the_secrets_of_its_request() -> None:
    secrets = RequestSecrets(
        credentials=(Credential(url_pattern="**", auth=Auth(kind="bearer", secret="hush")),),
        urls={"https://h/a": "https://u:hush@h/a"},
    )
    request = RunRequest(
        target=AnyInstance(),
        workflow=Workflow(graph={}),
        workflow_name="w",
        output_dir="/o",
        comfyui_port=1,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
        upload=target("s3://bucket/p"),
        secrets=secrets,
    )
    content = encode_request(request)
    assert b"hush" not in content
    assert "hush" not in repr(request)
    assert decode_request(content, None) == request
    assert not decode_request(content, None).secrets
    assert decode_secrets(encode_secrets(secrets)) == secrets


def test_a_url_names_a_file() -> None:
    assert name_of_url("s3://bucket/dir/a%20b.png") == "dir/a b.png"
    for url in ("https://h/", "https://h", "s3://bucket/dir/", "https://h/a b", "https://[", "x" * 9000):
        with pytest.raises(InvalidRequest):
            check_storage_url(url)


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("hf://o/r/a b.bin", "https://huggingface.co/o/r/resolve/main/a%20b.bin"),
        ("hf://datasets/o/r@v1/d/a.bin", "https://huggingface.co/datasets/o/r/resolve/v1/d/a.bin"),
        ("https://huggingface.co/o/r/blob/main/a.bin", "https://huggingface.co/o/r/resolve/main/a.bin"),
        ("https://huggingface.co/o/r/resolve/main/a.bin", "https://huggingface.co/o/r/resolve/main/a.bin"),
        ("https://example.com/o/r/blob/main/a.bin", None),
    ],
)
def test_urls_of_hugging_face(url: str, web: str | None) -> None:
    assert hugging_face_url(url) == web
