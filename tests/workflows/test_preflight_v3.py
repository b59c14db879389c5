"""Preflight of 208 graphs of V3 classes, compared with what a real ComfyUI 0.33.0 answered and ran.

`data/verdicts_v3.json` has each graph with the status of POST /prompt, the errors (node, type, input), the
outputs that were dropped, and how the run of an accepted graph ended. Its input directory had `example.png`
and the directory `3d`. The classes `V3…` are those of a node pack.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.workflows.findings import Severity, errors
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles
from comfyui_workflow.workflows.validation.preflight import Verdict, preflight

DATA = Path(__file__).parent / "data"
DEFINITIONS = Definitions(json.loads((DATA / "verdicts_v3_object_info.json").read_text()))
RECORDED: list[dict[str, Any]] = json.loads((DATA / "verdicts_v3.json").read_text())
NAMES = [each["name"] for each in RECORDED]
FILES = KnownFiles(found=frozenset({("input", "example.png")}), is_asked=True)
ONLY_WARNED = {
    "pack: grow text",  # a class of a pack can check its inputs itself
    "pack: refs text",
    "pack: seed too big",
    "pack: size unknown",
    "many: c2 unknown",
    "many: mt linked text",
    "many: multi unknown",
    "file: LoadAudio parent",  # older versions look outside of the directory, too
    "file: LoadVideo parent",
}
FAILS_UNNOTICED = {
    "link: none",
    "link: object",
    "file: LoadAudio empty",
    "file: LoadVideo empty",
    "convert: null",
    "and: past the last",  # ComfyUI hands a link on to the node even if the class has no such input
    "extra: undeclared linked",
    "stats: other option linked to a broken node",
}
"""Graphs that ComfyUI accepts, but that fail when they run."""
TOLD_AT_EVERY_INPUT = {"file: 3d absent"}


def check(recorded: dict[str, Any]) -> Verdict:
    return preflight(recorded["graph"], DEFINITIONS, files=FILES)


@pytest.mark.parametrize("recorded", RECORDED, ids=NAMES)
def test_what_comfyui_refuses_is_refused_and_nothing_else(recorded: dict[str, Any]) -> None:
    verdict = check(recorded)
    if recorded["name"] in ONLY_WARNED | FAILS_UNNOTICED:
        assert verdict.would_run
    else:
        assert verdict.would_run == (recorded["ran"] == "success"), verdict.findings


@pytest.mark.parametrize("recorded", RECORDED, ids=NAMES)
def test_each_error_is_told_at_its_input(recorded: dict[str, Any]) -> None:
    findings = check(recorded).findings
    places = {(finding.node_id, finding.input_name) for finding in findings}
    for node_id, kind, name in recorded["errors"]:
        if kind.startswith("exception_") or kind == "dependency_cycle":  # told at another node of the chain
            assert findings
        elif recorded["name"] not in TOLD_AT_EVERY_INPUT:
            assert (node_id, name) in places


@pytest.mark.parametrize("recorded", RECORDED, ids=NAMES)
def test_the_same_outputs_are_dropped(recorded: dict[str, Any]) -> None:
    verdict = check(recorded)
    if verdict.would_run and recorded["status"] == 200:
        assert sorted(verdict.dropped_outputs) == recorded["dropped"]


@pytest.mark.parametrize(
    ("name", "node_id", "input_name"),
    [
        ("extra: undeclared linked", "2", "other"),
        ("and: past the last", "2", "values.value10"),
        ("stats: other option linked to a broken node", "2", "source_stats.target_index"),
    ],
)
def test_a_link_at_an_input_that_the_class_has_not_got_is_a_warning(
    name: str, node_id: str, input_name: str
) -> None:
    (recorded,) = [each for each in RECORDED if each["name"] == name]
    assert "unexpected keyword argument" in recorded["ran"]
    (finding,) = [each for each in check(recorded).findings if each.code == "input_unknown"]
    assert (finding.node_id, finding.input_name) == (node_id, input_name)
    assert finding.severity is Severity.WARNING
    graph = {**recorded["graph"], node_id: {**recorded["graph"][node_id], "class_type": "V3Grow"}}
    assert not [each for each in check({"graph": graph}).findings if each.code == "input_unknown"]


def test_the_choice_of_a_dynamic_combo_is_compared_as_it_is_sent() -> None:
    (recorded,) = [each for each in RECORDED if each["name"] == "stats: wrapped"]
    assert recorded["ran"].startswith("error: TypeError")
    (finding,) = errors(check(recorded).findings)
    assert (finding.input_name, finding.code) == ("source_stats", "value_not_in_list")
