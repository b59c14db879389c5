"""Records: damage is detected, newer versions are refused, older ones are read, paths survive a move."""

import json
import random
from pathlib import Path

import pytest

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.stores.files.record_format import NewerRecord, RecordFormat
from tests.damage import damaged
from tests.stores.test_run_contract import opened, run_number

RECORD = json.dumps({"workflow_id": "x", "n": 1, "text": "\u00e4", "path": "/data/uploads/a.png"}).encode()
WHERE = Path("run.json")


@pytest.mark.parametrize("record", [RECORD, b"{}", b'{"1":{}}'])
def test_a_record_comes_back_as_it_was(record: bytes) -> None:
    sealed = RecordFormat().seal(record)
    assert json.loads(sealed)["version"] == 1
    assert RecordFormat().unseal(sealed, WHERE) == record
    assert RecordFormat().unseal(record, WHERE) == record  # of an earlier release


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_record_is_refused_or_is_as_it_was(seed: int) -> None:
    spoiled = damaged(RecordFormat().seal(RECORD), random.Random(seed))
    try:
        read = RecordFormat().unseal(spoiled, WHERE)
    except (StoreError, NewerRecord):
        return
    try:
        assert json.loads(read) == json.loads(RECORD)
    except ValueError:
        return  # no record is read of what is no JSON


def test_no_single_bit_makes_a_record_one_of_a_newer_release() -> None:
    sealed = RecordFormat().seal(RECORD)
    for at in range(len(sealed)):
        for bit in range(8):
            spoiled = sealed[:at] + bytes([sealed[at] ^ (1 << bit)]) + sealed[at + 1 :]
            try:
                RecordFormat().unseal(spoiled, WHERE)
            except StoreError:
                continue


def test_paths_below_the_data_directory_move_along() -> None:
    sealed = RecordFormat(Path("/data")).seal(RECORD)
    moved = json.loads(RecordFormat(Path("/elsewhere/data")).unseal(sealed, WHERE))
    assert moved["path"] == "/elsewhere/data/uploads/a.png"
    assert json.loads(RecordFormat(Path("/data")).unseal(sealed, WHERE)) == json.loads(RECORD)


@pytest.mark.parametrize("version", [4, 6, 99])
@pytest.mark.parametrize("name", ["request.json", "run.jsonl"])
@pytest.mark.parametrize("place", ["live", "finished"])
def test_a_record_of_a_newer_release_is_refused_and_left_as_it_is(
    tmp_path: Path, version: int, name: str, place: str
) -> None:
    store = opened(tmp_path)
    store.add(run_number(1))
    store.close()
    record = tmp_path / "data" / "runs" / "live" / run_number(1).run_id
    if place == "finished":
        record = record.rename(tmp_path / "data" / "runs" / "finished" / record.name)
    path = record / name
    path.write_bytes(path.read_bytes().replace(b'{"version":1,', b'{"version":%d,' % version))
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"{path.name} was written by a newer release"):
            opened(tmp_path)
    assert path.read_bytes() == before
