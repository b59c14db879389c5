"""Targets: the accepted texts, and their records."""

import json
from dataclasses import replace

import pytest

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.model import Placement, Run
from comfyui_workflow.runs.target import (
    Address,
    AnyInstance,
    InstanceId,
    Target,
    UnreadableTarget,
    address_of,
    read_any,
    tag_of,
    target_of_record,
)
from tests.runs.test_state_machine import new_run

SSH = "ssh -p 40738 root@198.51.100.7 -L 8080:localhost:8080"


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("any", ""),
        ("ANY", ""),
        (" any ", ""),
        ("any:SDXL", "sdxl"),
        ("any : a b ", "a b"),
        ("ANY:x:y", "x:y"),
    ],
)
def test_any_instance_with_or_without_a_tag(text: str, tag: str) -> None:
    assert read_any(text) == target_of_record(text) == AnyInstance(text=text, tag=tag)


@pytest.mark.parametrize("text", ["any:", "any: ", "anything", "ssh root@any", "any@host", SSH, ""])
def test_others_name_one_machine(text: str) -> None:
    assert read_any(text) is None
    assert tag_of(target_of_record(text)) is None


def test_an_address_is_the_ssh_string_and_what_it_says() -> None:
    target = target_of_record(SSH)
    assert target == Address(text=SSH, ssh=parse_ssh_address(SSH))
    assert address_of(target).label == "root@198.51.100.7:40738"


def test_a_text_that_is_no_address_any_more_says_so_when_somebody_wants_to_go_there() -> None:
    target = target_of_record("ssh -W a:1 root@host")
    assert isinstance(target, UnreadableTarget)
    with pytest.raises(InvalidAddress) as refused:
        parse_ssh_address("ssh -W a:1 root@host")
    with pytest.raises(InvalidAddress, match="forwarding of standard input") as told:
        address_of(target)
    assert str(told.value) == str(refused.value)


@pytest.mark.parametrize("target", [InstanceId(text="gpu", instance_id="gpu-1"), AnyInstance()])
def test_what_is_no_machine_by_itself_has_no_address(target: Target) -> None:
    with pytest.raises(InvalidAddress, match="until an instance was chosen"):
        address_of(target)


def asked(target: Target) -> Run:
    run = new_run()
    return replace(run, request=replace(run.request, target=target))


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (target_of_record(SSH), {"ssh_connection": SSH, "instance_id": None}),
        (InstanceId(text="Gpu", instance_id="gpu"), {"ssh_connection": "Gpu", "instance_id": "gpu"}),
        (AnyInstance(text="any:A", tag="a"), {"ssh_connection": "any:A", "instance_id": None}),
        (target_of_record("ssh -D 1 x"), {"ssh_connection": "ssh -D 1 x", "instance_id": None}),
    ],
)
def test_a_record_keeps_the_text_and_is_read_as_the_same_target(target: Target, kept: dict[str, str]) -> None:
    run = asked(target)
    record = encode_request(run.request)
    fields = json.loads(record)
    assert {name: fields[name] for name in kept} == kept
    assert "target" not in fields
    assert decode_run(record, encode_run(run)) == run


def test_a_run_goes_to_its_placement_once_it_has_one() -> None:
    run = asked(AnyInstance())
    placement = Placement(
        instance_id="gpu",
        name="gpu",
        ssh_connection=SSH,
        comfyui_port=8188,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
        reason="free",
    )
    assert replace(run, placement=placement).address == parse_ssh_address(SSH)
