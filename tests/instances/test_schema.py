"""Validation of an instance entry, field by field; every error names the field."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.schema import (
    new_id,
    read_id,
    read_instance,
    refuse_clash,
    refuse_unknown,
)

SSH = "ssh -p 40738 root@198.53.64.194"
FINGERPRINT = "SHA256:" + "a" * 43


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "Primary", "ssh_connection": SSH, **fields}


def test_what_is_not_said_is_as_usual() -> None:
    instance = read_instance(entry(), "primary")
    assert (instance.comfyui_port, instance.enabled, instance.tags) == (18188, True, ())
    assert instance.comfyui_input_dir == "/workspace/ComfyUI/input"
    assert (instance.price_per_hour, instance.host_key, instance.local_port) == (None, None, None)


def test_null_is_as_if_it_was_not_said() -> None:
    optional = (
        "comfyui_port", "comfyui_input_dir", "comfyui_output_dir", "enabled", "tags", "price_per_hour",
        "host_key", "local_port", "keep_connected",
    )  # fmt: skip
    nulls = dict.fromkeys(optional)
    assert read_instance(entry(**nulls), "primary") == read_instance(entry(), "primary")


def test_the_right_side_of_l_is_the_port_unless_one_is_named() -> None:
    forwarding = f"{SSH} -L 8080:localhost:8188"
    assert read_instance(entry(ssh_connection=forwarding), "x").comfyui_port == 8188
    assert read_instance(entry(ssh_connection=forwarding, comfyui_port=9000), "x").comfyui_port == 9000


def test_everything_can_be_said() -> None:
    instance = read_instance(
        entry(
            name="  Die Große ",
            tags=["big", "24GB", "big"],
            price_per_hour=0,
            host_key=FINGERPRINT,
            local_port=8188,
            enabled=False,
        ),
        "x",
    )
    assert (instance.name, instance.tags) == ("Die Große", ("big", "24GB"))
    assert (instance.price_per_hour, instance.host_key, instance.local_port) == (0.0, FINGERPRINT, 8188)
    assert not instance.enabled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None), ("name", ""), ("name", "  "), ("name", 7), ("name", "x" * 65), ("name", "a\nb"),
        ("name", "\u202ea"), ("name", "\ud83d"), ("name", "any"), ("name", "ANY"), ("name", "any:big"),
        ("name", "Any : big"), ("name", "costs"), ("name", "root@host"), ("name", "host:22"),
        ("name", "ssh host"), ("name", "host -p 22"), ("name", "ssh://host"), ("name", "a/b"), ("name", ".."),
        ("ssh_connection", None), ("ssh_connection", ""), ("ssh_connection", 7), ("ssh_connection", "any"),
        ("ssh_connection", "any:big"), ("ssh_connection", "ssh -D 1 root@host"), ("ssh_connection", "a b"),
        ("ssh_connection", "root:secret@host"),
        ("comfyui_port", 0), ("comfyui_port", 65536), ("comfyui_port", "8188"), ("comfyui_port", True),
        ("comfyui_port", 8188.0),
        ("comfyui_input_dir", "input"), ("comfyui_input_dir", 7), ("comfyui_output_dir", "/a\nb"),
        ("enabled", "yes"), ("enabled", 1),
        ("tags", "big"), ("tags", [""]), ("tags", ["a b"]), ("tags", ["a,b"]), ("tags", ["a:b"]),
        ("tags", ["x" * 33]), ("tags", [7]), ("tags", [["a"]]), ("tags", {"a": 1}), ("tags", ["x"] * 33),
        ("tags", ["\ud83d"]),
        ("price_per_hour", -0.1), ("price_per_hour", float("nan")), ("price_per_hour", float("inf")),
        ("price_per_hour", "1"), ("price_per_hour", True), ("price_per_hour", 10**400),
        ("host_key", "MD5:aa"), ("host_key", "SHA256:"), ("host_key", 7), ("host_key", ""),
        ("local_port", 0), ("local_port", 1023), ("local_port", 65536), ("local_port", "8188"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_instance(entry(**{field: value}), "x")
    assert str(refusal.value).startswith(field)


@pytest.mark.parametrize(
    "name", ["primary", "gpu1.example.com", "My GPU", "A (24 GB) – Łódź", "host: a", "?#%"]
)
def test_a_name_is_what_people_call_it(name: str) -> None:
    assert read_instance(entry(name=name), "x").name == name


def test_no_two_share_a_name_an_id_or_a_port() -> None:
    primary = read_instance(entry(local_port=8188), "primary")
    for fields, instance_id, field in (
        (entry(name="PRIMARY"), "x", "name"),
        (entry(name="Second"), "primary", "id"),
        (entry(name="Second", local_port=8188), "x", "local_port"),
    ):
        with pytest.raises(InvalidRequest, match=rf"^{field}: .*Primary"):
            refuse_clash(read_instance(fields, instance_id), [primary])
    named_as_an_id = read_instance(entry(name="gpu-1"), "x")
    with pytest.raises(InvalidRequest, match=r"^id: another instance is called gpu-1"):
        refuse_clash(read_instance(entry(name="GPU 1"), "gpu-1"), [named_as_an_id])


@pytest.mark.parametrize("field", ["nmae", "Name", "", "\x1b[2J", "state", "id"])
def test_a_slip_of_the_hand_is_noticed(field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        refuse_unknown({**entry(), field: "x"})
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("Primary", (), "primary"),
        ("Die Große (24 GB)", (), "die-groe-24-gb"),
        ("Łódź", (), "odz"),
        ("東京", (), "instance"),
        ("primary", ("primary", "primary-2"), "primary-3"),
        ("Costs!", (), "costs-2"),
        ("x" * 64, (), "x" * 56),
    ],
)
def test_an_id_is_made_of_the_name(name: str, taken: tuple[str, ...], expected: str) -> None:
    made = new_id(name, taken)
    assert made == expected
    assert read_id({"id": made}) == made


@pytest.mark.parametrize("value", ["", "A", "a b", "-a", "a-", "any", "costs", "x" * 65, 7, "ä"])
def test_an_id_is_of_few_letters(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^id"):
        read_id({"id": value})
