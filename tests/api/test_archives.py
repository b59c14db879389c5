"""ZIP archives of outputs: complete content, safe names, each file once."""

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from comfyui_workflow.api import archives
from comfyui_workflow.runs.events import OutputsFound
from comfyui_workflow.runs.model import OutputFile
from tests.api.conftest import Api
from tests.api.test_batches import order
from tests.api.test_workflow import GRAPH, SSH

BASE = "/comfyui/workflow"


def made(directory: Path, name: str, content: bytes = b"x", **fields: Any) -> OutputFile:
    path = directory / fields.pop("local_name", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return OutputFile(filename=name, local_path=str(path), **fields)


def run_with(api: Api, *outputs: OutputFile, name: str = "my flow.json") -> str:
    body = {"ssh_connection": SSH, "workflow": GRAPH, "workflow_name": name}
    run_id = str(api.client.post(f"{BASE}/execute", json=body).json["workflow_id"])
    api.journal.record(run_id, OutputsFound(outputs=outputs))
    return run_id


def contents(answer: TestResponse) -> dict[str, bytes]:
    assert (answer.status_code, answer.mimetype) == (200, "application/zip")
    assert answer.content_length == len(answer.data)
    with zipfile.ZipFile(BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_outputs_of_a_run_that_are_here(api: Api, tmp_path: Path) -> None:
    gone = replace(made(tmp_path, "gone.png"), local_path=str(tmp_path / "gone"))
    outputs = (
        made(tmp_path, "a.png", b"a" * 100_000),
        made(tmp_path, "b.png", b"b", local_name="b (1).png", subfolder="day/one"),
        made(tmp_path, "old.png", b"old"),
        gone,
        OutputFile(filename="not fetched.png"),
    )
    os.utime(tmp_path / "old.png", (0, 0))
    run_id = run_with(api, *outputs)
    answer = api.client.get(f"{BASE}/{run_id}/outputs.zip")
    found = contents(answer)
    assert found == {"a.png": b"a" * 100_000, "day/one/b (1).png": b"b", "old.png": b"old"}
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my flow.zip"'
    head = api.client.head(f"{BASE}/{run_id}/outputs.zip")
    assert (head.data, head.content_length) == (b"", len(answer.data))


def test_where_none_is_here_a_sentence_says_so(api: Api, tmp_path: Path) -> None:
    run_id = run_with(api, OutputFile(filename="a.png", error="gone"))
    for path in (run_id, "nobody"):
        answer = api.client.get(f"{BASE}/{path}/outputs.zip")
        assert (answer.status_code, answer.json["code"]) == (404, "run_not_found")
    batch_id, _ = order(api, {"workflow": GRAPH})
    for path in (batch_id, "nobody"):
        answer = api.client.get(f"{BASE}/batch/{path}/outputs.zip")
        assert (answer.status_code, answer.json["code"]) == (404, "batch_not_found")


def test_the_outputs_of_a_batch_each_once(api: Api, tmp_path: Path) -> None:
    runs = [{"workflow": GRAPH, "workflow_name": "größe/a?.png"}] * 3
    answer = api.client.post(
        f"{BASE}/batch",
        json={"runs": [{"ssh_connection": SSH, **run} for run in runs], "batch_name": "nüght v1.5"},
    ).json
    same = made(tmp_path, "same.png", b"same")
    for number, run_id in enumerate(answer["workflow_ids"][:2]):
        other = made(tmp_path / str(number), "a.png" if number else "A.PNG", b"%d" % number)
        api.journal.record(run_id, OutputsFound(outputs=(same, other)))
    sent = api.client.get(f"{BASE}/batch/{answer['batch_id']}/outputs.zip")
    assert contents(sent) == {"same.png": b"same", "A.PNG": b"0", "a (2).png": b"1"}
    assert "nüght v1.5.zip" in unquote(sent.headers["Content-Disposition"])


HOSTILE = [
    "a\u202egnp.exe",
    'q"uo<te>.png',
    "CON.png",
    "nul",
    "...png",
    " x. ",
    "\u00e9.png",
    "a:b|c*?.png",
    "\\up.png",
]


def test_no_name_leads_elsewhere_or_reads_otherwise(api: Api, tmp_path: Path) -> None:
    outputs = [made(tmp_path, name, name.encode()) for name in HOSTILE]
    found = contents(api.client.get(f"{BASE}/{run_with(api, *outputs)}/outputs.zip"))
    assert len(found) == len(HOSTILE)
    assert sorted(found.values()) == sorted(name.encode() for name in HOSTILE)
    for name in found:
        assert not re.search('[<>:"|?*\\\\\x00-\x1f\u202e]', name)
        assert not re.fullmatch(r"(?i)(con|nul)(\..*)?", name)
        assert ".." not in name.split("/")
        assert not name.endswith(".")


@pytest.mark.parametrize(
    ("name", "plain"),
    [("größe", "groe"), ("Закат.json", "outputs"), ("日没 2", "2"), ("日没 \U0001f305", "outputs")],
)
def test_a_name_of_any_script_is_told_in_a_header_of_ascii(
    api: Api, tmp_path: Path, name: str, plain: str
) -> None:
    run_id = run_with(api, made(tmp_path, "a.png"), name=name)
    answer = api.client.get(f"{BASE}/{run_id}/outputs.zip")
    assert contents(answer) == {"a.png": b"x"}
    told = answer.headers["Content-Disposition"]
    assert told.isascii()
    assert re.search('filename="? ?(.*?)"?;', told)[1] == f"{plain}.zip"
    assert parse_options_header(told)[1]["filename"] == f"{name.removesuffix('.json')}.zip"


@pytest.mark.parametrize(
    "name", ["", '"; filename="x.exe', "a\r\nSet-Cookie: a=b", "../../x", "a" * 500, "é.json", "日" * 500]
)
def test_a_run_of_any_name_gives_a_file_of_a_safe_one(api: Api, tmp_path: Path, name: str) -> None:
    run_id = run_with(api, made(tmp_path, "a.png"), name=name)
    told = api.client.get(f"{BASE}/{run_id}/outputs.zip").headers
    assert "Set-Cookie" not in told
    kind, options = parse_options_header(told["Content-Disposition"])
    assert (kind, set(options)) == ("attachment", {"filename"})
    assert options["filename"].endswith(".zip")
    assert not re.search(r'[\r\n/\\"]', options["filename"])
    assert len(options["filename"]) < 120


def test_only_so_many_are_sent_at_once_and_each_makes_room(
    make_api: Callable[..., Api], tmp_path: Path
) -> None:
    api = make_api()
    url = f"{BASE}/{run_with(api, made(tmp_path, 'a.png'))}/outputs.zip"
    open_ones = [api.app.test_client().get(url) for _ in range(archives.MOST_AT_ONCE)]
    refused = api.client.get(url)
    assert (refused.status_code, refused.json["code"]) == (503, "server_busy")
    for answer in open_ones:
        answer.close()
    assert api.client.get(url, buffered=True).status_code == 200
    assert api.client.head(url, buffered=True).status_code == 200
    for _ in range(archives.MOST_AT_ONCE + 1):
        assert api.client.get(url, buffered=True).status_code == 200
