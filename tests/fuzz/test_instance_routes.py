"""Whatever is sent to the routes of the named instances, and whatever their file holds: an answer in JSON
that says what happened, never a bug of ours; and what was taken is there at the next start."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from comfyui_workflow.app import create_flask
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.api.conftest import IdleExecutor, parts_of
from tests.checked_client import checked
from tests.fuzz.effort import effort
from tests.fuzz.test_routes import METHODS, TYPES, headers
from tests.fuzz.values import Json, mutations, texts, values, wire
from tests.instances.files import directory_in

BASE = "/comfyui/instances"
STATUSES = (200, 201, 400, 401, 403, 404, 405, 409, 413, 415, 502, 503)
FULL: dict[str, Json] = {
    "name": "Primary",
    "ssh_connection": "ssh -p 22 root@192.0.2.1",
    "comfyui_port": 8188,
    "comfyui_input_dir": "/in",
    "comfyui_output_dir": "/out",
    "enabled": True,
    "tags": ["big", "24GB"],
    "price_per_hour": 0.4,
    "host_key": "SHA256:" + "a" * 43,
    "local_port": 8188,
    "keep_connected": False,
}


@dataclass(frozen=True, kw_only=True)
class Api:
    client: FlaskClient
    directory: InstanceRegistry
    file: Path

    def emptied(self) -> "Api":
        for instance in self.directory.all():
            self.directory.remove(instance.id)
        return self

    def is_kept(self) -> bool:
        again = directory_in(self.file)
        again.load()
        return again.all() == self.directory.all()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("instances")
    settings = load_settings(data_dir=directory, state_file=directory / "state.json", max_upload_mb=1)
    store = MemoryRunStore()
    parts = parts_of(settings, RunJournal(store), store, IdleExecutor())
    yield Api(
        client=checked(create_flask(parts)),
        directory=parts.instances.directory,
        file=settings.instances_path,
    )
    parts.instances.monitors.close(5)


def check(answer: TestResponse) -> None:
    if answer.request.method in ("HEAD", "OPTIONS"):
        assert answer.status_code < 500 or answer.status_code == 502
        return
    assert answer.status_code in STATUSES, answer.text
    document = json.loads(answer.text, parse_constant=pytest.fail)
    assert document["success"] is (answer.status_code < 300)
    if not document["success"]:
        assert document["message"]
        assert document["code"]
        assert "Traceback" not in document["message"]


@effort(200)
@given(body=st.one_of(mutations(FULL), values))
def test_add_takes_or_refuses_any_body(api: Api, body: Json) -> None:
    answer = api.emptied().client.post(BASE, data=wire(body), content_type="application/json")
    check(answer)
    assert (answer.status_code == 201) is (len(api.directory.all()) == 1)
    assert api.is_kept()


@effort(200)
@given(field=st.sampled_from(list(FULL)), value=values | texts, is_new=st.booleans())
def test_any_value_in_any_field_is_taken_or_refused_by_its_name(
    api: Api, field: str, value: Json, is_new: bool
) -> None:
    api.emptied()
    body = wire({**FULL, field: value} if is_new else {field: value})
    if is_new:
        answer = api.client.post(BASE, data=body, content_type="application/json")
    else:
        api.directory.add(FULL)
        answer = api.client.patch(f"{BASE}/primary", data=body, content_type="application/json")
    check(answer)
    if answer.status_code == 400 and answer.json["message"] != "Request body is not valid JSON":
        assert answer.json["message"].startswith(field)
    assert api.is_kept()


@effort(150)
@given(name=texts | st.text(max_size=64))
@example(name="a\\b")
@example(name="%2e%2e")
@example(name=" .")
def test_whoever_was_added_is_found_by_name_and_by_id(api: Api, name: str) -> None:
    answer = api.emptied().client.post(
        BASE, data=wire({**FULL, "name": name}), content_type="application/json"
    )
    check(answer)
    if answer.status_code == 201:
        document = answer.json["instance"]
        for word in (document["id"], document["name"], document["name"].casefold()):
            found = api.client.get(f"{BASE}/{quote(word, safe='')}")
            assert found.json["instance"]["id"] == document["id"]


ROUTES = [
    "",
    "/{id}",
    "/{id}/system_stats",
    "/{id}/queue",
    "/{id}/logs",
    "/{id}/free",
    "/{id}/interrupt",
    "/{id}/provision",
    "/{id}/connect",
    "/{id}/disconnect",
    "/{id}/forget-host-key",
    "/{id}/nothing",
    "x",
    "/costs",
    "/%00",
    "/%ff",
    "/" + "a" * 5000,
]


@effort(300)
@given(
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE"]) | st.sampled_from(METHODS),
    route=st.sampled_from(ROUTES),
    query=st.sampled_from(["", "lines=1", "lines=0", "lines=x", "lines=" + "9" * 5000, "lines=%00", "x"]),
    headers=headers,
    content_type=st.sampled_from(TYPES),
    body=st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff"])
    | mutations(FULL).map(lambda v: wire(v).encode()),
)
def test_every_route_answers_in_json(  # noqa: PLR0917 - hypothesis names them
    api: Api, method: str, route: str, query: str, headers: dict[str, str], content_type: str, body: bytes
) -> None:
    api.emptied().directory.add(FULL)
    answer = api.client.open(
        BASE + route.replace("{id}", "primary"),
        method=method,
        query_string=query,
        headers={"Content-Type": content_type, **headers},
        data=body,
    )
    check(answer)


@effort(100)
@given(
    body=mutations({"unload_models": True, "free_memory": True, "prompt_id": "a", "workflow_id": ""})
    | values,
    route=st.sampled_from(["free", "interrupt"]),
)
def test_what_is_asked_of_one_may_be_anything(api: Api, body: Json, route: str) -> None:
    api.emptied().directory.add(FULL)
    check(api.client.post(f"{BASE}/primary/{route}", data=wire(body), content_type="application/json"))


MANIFEST: dict[str, Json] = {
    "apt": ["ffmpeg", "libgl1=1.0"],
    "pip": ["numpy==2.1.0", "x[y]>=1,<2; python_version>'3'", "git+https://github.com/u/r@v1"],
    "custom_nodes": ["fancy@1.0", "https://github.com/u/r/tree/main", "u/r"],
    "models": {
        "before_start": [
            {"url": "https://h/x?token=1", "local_path": "loras/x.safetensors", "sha256": "a" * 64}
        ],
        "after_start": [],
    },
}


@effort(200)
@given(manifest=mutations(MANIFEST) | values | texts)
@example(manifest="a: [")
@example(manifest="x: 2026-99-99")
@example(manifest="? [a]\n: b")
@example(manifest="? {a: b}\n: c")
@example(manifest="<<: [a]")
@example(manifest="a: !!binary x")
@example(manifest="\x00")
@example(manifest="%YAML 9.9\n---\na")
def test_a_manifest_may_be_anything(api: Api, manifest: Json) -> None:
    api.emptied().directory.add(FULL)
    body = wire({"manifest": manifest, "dry_run": True})
    answer = api.client.post(f"{BASE}/primary/provision", data=body, content_type="application/json")
    check(answer)
    assert answer.status_code in (400, 502)


FILE: dict[str, Json] = {
    "comment": [1.5],
    "instances": [{"id": "a", **FULL}, {**FULL, "name": "b", "local_port": None, "colour": {"x": None}}],
}


@effort(200)
@given(
    content=st.one_of(
        st.binary(max_size=40),
        values.map(lambda value: wire(value).encode()),
        mutations(FILE).map(lambda value: wire(value).encode()),
        mutations(FILE, others=texts).map(lambda value: wire(value).encode()),
    )
)
@example(content=b"[" * 100_000)
@example(content=b'{"instances": [' + b"[" * 900)
@example(content=b'{"instances": [], "x": ' + b"9" * 5000 + b"}")
def test_the_file_may_hold_anything(
    api: Api, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = Path(tmp_path_factory.getbasetemp()) / "anything.json"
    file.write_bytes(content)
    directory = directory_in(file)
    try:
        directory.load()
    except ConfigurationError as error:
        assert str(file) in str(error)
        return
    before = directory.all()
    added = directory.add({"name": "one more", "ssh_connection": "root@192.0.2.9"})
    again = directory_in(file)
    again.load()
    assert again.all() == (*before, added)
