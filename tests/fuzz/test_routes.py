"""Whatever is sent to the native API: an answer in JSON that says what happened, and never a bug of ours."""

import io
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import TestResponse

from comfyui_workflow.app import create_flask
from comfyui_workflow.runs.events import OutputsFound, RunFailed
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.run_directory import RecordReader
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from tests.api.conftest import IdleExecutor, parts_of
from tests.checked_client import checked
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, nested, texts, values, wire
from tests.runs.test_state_machine import GRAPH, new_run

BASE = "/comfyui/workflow"
SENTENCES = (400, 401, 403, 404, 405, 409, 412, 413, 415, 416)


@dataclass(frozen=True, kw_only=True)
class Api:
    client: FlaskClient
    store: FileRunStore
    directory: Path
    run_id: str
    output: Path

    def body(self) -> dict[str, Json]:
        """A request in which every field says something."""
        return {
            "ssh_connection": "ssh -p 22 root@192.0.2.1",
            "workflow": GRAPH,
            "workflow_name": "x",
            "input_images": [str(self.output)],
            "output_dir": str(self.directory / "out"),
            "comfyui_port": 8188,
            "comfyui_input_dir": "/in",
            "comfyui_output_dir": "/out",
            "include_previews": True,
        }


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("routes")
    settings = load_settings(
        data_dir=directory / "data", state_file=directory / "state.json", max_upload_mb=1
    )
    store = FileRunStore(settings.data_dir, settings.state_file)
    store.open()
    journal = RunJournal(store)
    app = create_flask(parts_of(settings, journal, store, IdleExecutor()))
    output = directory / "picture.png"
    Image.new("RGB", (40, 30), "red").save(output)
    run = new_run()
    store.add(run)
    journal.record(
        run.run_id, OutputsFound(outputs=(OutputFile(filename="picture.png", local_path=str(output)),))
    )
    journal.record(run.run_id, RunFailed(code="prompt_failed", message="no"))
    yield Api(client=checked(app), store=store, directory=directory, run_id=run.run_id, output=output)
    store.close()


def check(answer: TestResponse) -> None:
    """Never a 5xx, a page or a trace; a failure is a sentence under a code."""
    assert answer.status_code < 500, answer.text
    if answer.status_code in (200, 206, 304) and answer.mimetype != "application/json":
        return
    if answer.request.method == "HEAD":
        return
    if answer.request.method == "OPTIONS" and answer.status_code < 300:
        return
    assert answer.mimetype == "application/json", answer.text
    document = json.loads(answer.text, parse_constant=pytest.fail)
    if answer.request.path == "/health" and answer.status_code == 200:
        return
    assert document["success"] is (answer.status_code < 300)
    if not document["success"]:
        assert answer.status_code in SENTENCES
        assert document["message"]
        assert document["code"]
        assert "Traceback" not in document["message"]


def is_kept_whole(api: Api, answer: TestResponse) -> None:
    """A run that was taken is one that the next start can read."""
    again = api.client.get(f"{BASE}/{answer.json['workflow_id']}/progress")
    check(again)
    assert again.status_code == 200
    path = api.directory / "data" / "runs" / "live" / answer.json["workflow_id"]
    assert {entry.name for entry in path.iterdir()} == {"request.json", "run.jsonl"}
    assert RecordReader(RecordFormat(path.parents[2])).read(path) == api.store.get(path.name)


EDITOR_FILE: dict[str, Json] = {
    "nodes": [
        {
            "id": 1,
            "type": "KSampler",
            "mode": 0,
            "title": "a",
            "inputs": [{"name": "seed", "type": "INT", "link": 1, "widget": {"name": "seed"}}],
            "widgets_values": [5, "fixed", 20, 8, "euler", "normal", 1],
        },
        {"id": 2, "type": "PrimitiveNode", "mode": 0, "widgets_values": [7, "fixed"]},
        {"id": 3, "type": "X", "inputs": [{"name": "text", "widget": {}}], "widgets_values": ["a"]},
    ],
    "links": [[1, 2, 0, 1, 0, "INT"]],
}

paths = st.sampled_from(
    [
        "~",
        "~nobody-at-all/x",
        "/",
        "",
        ".",
        "a" * 300,
        "/" + "a/" * 3000,
        "/proc/self/mem",
        "/dev/null",
        "/etc/passwd/x",
        "\0",
        "//x",
    ]
)


@effort(200)
@given(data=st.data())
def test_execute_takes_or_refuses_any_body(api: Api, data: st.DataObject) -> None:
    body = data.draw(st.one_of(mutations(api.body(), others=values | paths | paths), values))
    answer = api.client.post(f"{BASE}/execute", data=wire(body), content_type="application/json")
    check(answer)
    if answer.status_code == 200:
        is_kept_whole(api, answer)


@effort(100)
@given(data=st.data())
def test_inspect_tells_of_any_workflow_or_says_why_not(api: Api, data: st.DataObject) -> None:
    given_workflow = data.draw(st.one_of(mutations(GRAPH), mutations(EDITOR_FILE), values))
    body = {"workflow": given_workflow}
    answer = api.client.post(f"{BASE}/inspect", data=wire(body), content_type="application/json")
    check(answer)


@effort(150)
@given(
    field=st.sampled_from(
        [
            "workflow_file",
            "input_images",
            "output_dir",
            "ssh_connection",
            "workflow_name",
            "comfyui_input_dir",
        ]
    ),
    text=texts | paths,
)
def test_execute_takes_or_refuses_any_text_in_any_field(api: Api, field: str, text: str) -> None:
    body = api.body()
    body[field] = [text] if field == "input_images" else text
    if field == "workflow_file":
        del body["workflow"]
    answer = api.client.post(f"{BASE}/execute", data=wire(body), content_type="application/json")
    check(answer)
    if answer.status_code == 200:
        is_kept_whole(api, answer)


@effort(60)
@given(
    content=st.one_of(
        st.binary(max_size=40),
        values.map(lambda value: wire(value).encode()),
        mutations(GRAPH).map(lambda v: wire(v).encode()),
    )
)
@example(content=b"[" * 100_000)
@example(content=wire(nested(300)).encode())
def test_a_workflow_file_may_hold_anything(api: Api, content: bytes) -> None:
    file = api.directory / "workflow.json"
    file.write_bytes(content)
    body = {**api.body(), "workflow_file": str(file)}
    del body["workflow"]
    answer = api.client.post(f"{BASE}/execute", json=body)
    check(answer)
    if answer.status_code == 200:
        is_kept_whole(api, answer)


TYPES = [
    "application/json",
    "application/json; charset=utf-16",
    'application/json; charset="',
    "text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=",
    "application/x-www-form-urlencoded",
    "application/x+json",
    "",
    "application/json;" * 50,
    "\xff",
    "multipart/form-data; boundary=" + "x" * 300,
]
ROUTES = [
    "/execute",
    "/files",
    "",
    "/state",
    "/{id}/progress",
    "/{id}/cancel",
    "/{id}/retry",
    "/{id}/outputs",
    "/{id}/outputs/0",
    "/{id}/active",
    "/{id}",
    "/{id}/outputs/99999999999999999999",
    "/{id}/outputs/-1",
    "/{id}/outputs/٣",
    "/{id}/outputs/" + "0" * 5000,
    "/x/progress",
    "/..%2f..%2fx/progress",
    "/%00/active",
    "/%ff/outputs",
    "/" + "x" * 5000 + "/progress",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"]
header_texts = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=15
)
HEADERS: dict[str, list[str]] = {
    "Host": [
        "localhost",
        "127.0.0.1:99999",
        "[",
        "]",
        "[::1",
        "a b",
        "evil.example",
        "localhost:x",
        "@",
        "\xff",
        "localhost:" + "9" * 5000,
    ],
    "Origin": [
        "null",
        "http://localhost",
        "http://localhost:1",
        "http://[",
        "https://evil.example",
        "\xff",
        "file://",
        "http://localhost\xa0",
    ],
    "Range": [
        "bytes=0-3",
        "bytes=-1",
        "bytes=9-1",
        "bytes=0-0,2-3",
        "bytes=999999999999999999999-",
        "bytes=x",
        "bytes=-" + "9" * 5000,
        "x=1-2",
        "bytes=0-" + "9" * 5000,
    ],
    "If-Range": ['"x"', "Thu, 01 Jan 1970 00:00:00 GMT", "x", 'W/"'],
    "If-None-Match": ["*", '"x"', 'W/"', '"' * 300, ","],
    "If-Match": ["*", '"x"', ","],
    "If-Modified-Since": [
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Mon, 32 Foo 0000 99:99:99 +9999",
        "0",
    ],
    "If-Unmodified-Since": ["Thu, 01 Jan 0001 00:00:00 -2359", "x"],
    "Authorization": [
        "Bearer",
        "Bearer x",
        "Basic \xff",
        "Basic eA==",
        "Digest a=b",
        "\xff",
        "Bearer " + "x" * 5000,
    ],
    "Content-Length": ["0", "-1", "x", "99999999999999999999", "5", "9" * 5000],
    "Transfer-Encoding": ["chunked", "x"],
    "Sec-Fetch-Site": ["cross-site", "same-origin", "x"],
    "Cookie": ["a=b", "=", ";;;", "\xff=\xff", "session=x"],
    "Accept": ["text/html", "*/*;q=x", "\xff"],
    "Accept-Encoding": ["gzip", "\xff"],
    "Expect": ["100-continue"],
    "X-Forwarded-Host": ["evil.example"],
    "X-HTTP-Method-Override": ["DELETE"],
    "Access-Control-Request-Method": ["POST", "\xff"],
    "Access-Control-Request-Headers": ["content-type", ",,", "\xff"],
}
headers = st.sets(st.sampled_from(list(HEADERS)), max_size=2).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.sampled_from(HEADERS[name]) | header_texts for name in names}
    )
)
queries = st.one_of(
    st.just(""),
    st.lists(
        st.tuples(
            st.sampled_from(["limit", "before", "status", "name", "instance", "batch", "preview", "x"]),
            st.one_of(
                st.sampled_from(
                    [
                        "0",
                        "1",
                        "500",
                        "0" * 5000,
                        "9" * 5000,
                        "-1",
                        "٣",
                        "1e3",
                        "",
                        "true",
                        "000000001" + "0" * 9,
                        "000000001" + "0" * 5000,
                        "%ff",
                        "%00",
                        "&&",
                        "%",
                        "comfyui_workflow_1_a",
                        "16",
                        "2048",
                    ]
                ),
                st.text(max_size=5).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
            ),
        )
    ).map(lambda pairs: "&".join(f"{n}={v}" for n, v in pairs)),
)


GET: dict[str, Json] = {"method": "GET", "query": "", "headers": {}, "content_type": "", "body": b""}


@effort(400)
@given(
    method=st.sampled_from(["GET", "POST"]) | st.sampled_from(METHODS),
    route=st.sampled_from(ROUTES),
    query=queries,
    headers=headers,
    content_type=st.sampled_from(TYPES) | header_texts,
    body=st.sampled_from([b"", b"{}", b"[]", b"null", b"--x\r\n", b"\xff"]) | st.binary(max_size=40),
)
@example(**GET, route="/{id}/outputs/" + "0" * 5000)
@example(**{**GET, "headers": {"If-Match": "*"}}, route="/{id}/outputs/0")
@example(**{**GET, "query": "limit=000000001" + "0" * 9}, route="")
@example(**{**GET, "query": "limit=000000001" + "0" * 5000}, route="")
@example(**{**GET, "query": "preview=000000016" + "0" * 5000}, route="/{id}/outputs/0")
def test_every_route_answers_in_json(  # noqa: PLR0917 - hypothesis names them
    api: Api, method: str, route: str, query: str, headers: dict[str, str], content_type: str, body: bytes
) -> None:
    answer = api.client.open(
        BASE + route.replace("{id}", api.run_id),
        method=method,
        query_string=query,
        headers={"Content-Type": content_type, **headers},
        data=body,
    )
    answer.get_data()
    check(answer)


FILE_NAMES = [
    "a.png",
    "",
    "..",
    "../x",
    "a/b",
    "C:\\x",
    "\0",
    "x" * 300,
    "é",
    "\xff",
    '"',
    "a\r\nX: y",
    "%00",
    "\u202e",
]


@effort(100)
@given(
    field=st.sampled_from(["file", "", "\xff", "x" * 300]),
    name=st.sampled_from(FILE_NAMES) | st.text(max_size=6),
    content=st.binary(max_size=30),
    spoil=st.sampled_from(["", "cut", "boundary", "headers"]),
    size=st.sampled_from([0, 1, 1_100_000]),
)
def test_any_upload_is_kept_under_its_name_or_refused(  # noqa: PLR0917 - hypothesis names them
    api: Api, field: str, name: str, content: bytes, spoil: str, size: int
) -> None:
    content += b"x" * size
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'.encode(
        "utf-8", "surrogatepass"
    )
    body = (
        b"--B\r\n" + (head if spoil != "headers" else b"\xff:\xff\r\n") + b"\r\n" + content + b"\r\n--B--\r\n"
    )
    body = body[: len(body) // 2] if spoil == "cut" else body
    boundary = "C" if spoil == "boundary" else "B"
    answer = api.client.post(
        f"{BASE}/files", data=body, content_type=f"multipart/form-data; boundary={boundary}"
    )
    check(answer)
    if answer.status_code == 200:
        for kept in answer.json["files"]:
            path = Path(kept["path"])
            assert path.resolve().is_relative_to(api.directory / "data" / "uploads")
            assert path.name == kept["filename"]
            shutil.rmtree(path.parent)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", (30, 20), 7).save(stream, kind)
    return stream.getvalue()


PICTURES = {
    kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "TGA", "PPM", "PCX")
}
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@st.composite
def broken_pictures(draw: st.DrawFn) -> bytes:
    content = bytearray(PICTURES[draw(st.sampled_from(list(PICTURES)))])
    for _ in range(draw(st.integers(0, 6))):
        content[draw(st.integers(0, min(len(content), 120) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(content)) | st.just(len(content)))
    return bytes(content[:end]) + draw(st.binary(max_size=8))


@effort(200)
@given(
    content=broken_pictures() | st.binary(max_size=60),
    ending=st.sampled_from(["png", "svg", "html", "txt", "mp4", ""]),
)
def test_an_output_of_any_content_is_sent_or_has_no_preview(api: Api, content: bytes, ending: str) -> None:
    api.output.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preview = api.client.get(f"{BASE}/{api.run_id}/outputs/0?preview=64")
    check(preview)
    whole = api.client.get(f"{BASE}/{api.run_id}/outputs/0")
    assert whole.status_code == 200
    assert whole.data == content
    for answer in (preview, whole) if preview.status_code == 200 else (whole,):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
