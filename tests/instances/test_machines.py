"""Logins and ports of named instances, looked up by the address of their machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.comfyui.login import Login, decode_login
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.machines import NamedMachines
from comfyui_workflow.instances.model import key_of_instance
from comfyui_workflow.instances.schema import read_instance
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.sessions.session import InstanceKey
from comfyui_workflow.stores.files.logins import FileLoginStore

HERE, ELSEWHERE = "ssh -p 22 root@192.0.2.1", "ssh root@192.0.2.2"
FIRST = read_instance({"name": "first", "ssh_connection": HERE, "comfyui_port": 8188}, "first")
SECOND = read_instance({"name": "second", "ssh_connection": HERE, "comfyui_port": 8189}, "second")
OTHER = read_instance({"name": "other", "ssh_connection": ELSEWHERE, "comfyui_port": 8190}, "other")


@pytest.fixture
def logins(tmp_path: Path) -> FileLoginStore:
    return FileLoginStore(tmp_path / "logins")


@pytest.fixture
def machines(logins: FileLoginStore) -> NamedMachines:
    made = NamedMachines(logins)
    made.follow(lambda: (FIRST, SECOND, OTHER))
    return made


def key_at(ssh_connection: str, port: int) -> InstanceKey:
    return InstanceKey(address=parse_ssh_address(ssh_connection), comfyui_port=port)


def test_no_instance_stands_in_for_another_on_its_machine(machines: NamedMachines) -> None:
    assert machines.taken_ports(key_of_instance(FIRST)) == {8189}
    assert machines.taken_ports(key_of_instance(SECOND)) == {8188}
    assert machines.taken_ports(key_of_instance(OTHER)) == frozenset()
    assert machines.taken_ports(key_at(HERE, 8080)) == frozenset()


def test_the_login_of_a_machine(machines: NamedMachines, logins: FileLoginStore) -> None:
    assert machines.login(key_of_instance(FIRST)) == {}
    logins.put("first", Login(token="one"))
    logins.put("second", Login(user="u", password="p:ä"))
    assert machines.login(key_of_instance(FIRST)) == {"Authorization": "Bearer one"}
    assert machines.login(key_of_instance(SECOND)) == {"Authorization": "Basic dTpwOsOk"}
    assert machines.login(key_at(HERE, 8080)) == {"Authorization": "Bearer one"}
    assert machines.login(replace(key_of_instance(SECOND), is_exact=True)) == {
        "Authorization": "Basic dTpwOsOk"
    }
    assert machines.login(key_at(ELSEWHERE, 8188)) == {}
    logins.forget("first")
    logins.forget("first")
    assert logins.get("first") is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"token": 5}', b'{"user": ""}', b"\xff", b"{" * 9999]
)
def test_a_damaged_login_is_none(logins: FileLoginStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "logins").mkdir()
    (tmp_path / "logins" / "first").write_bytes(content)
    assert logins.get("first") is None
    with pytest.raises(ValueError):
        decode_login(content)


def test_a_login_shows_no_secret() -> None:
    assert "one" not in repr(Login(token="one"))
    assert "pass" not in repr(Login(user="u", password="pass"))


def test_the_file_of_the_instances_holds_no_login() -> None:
    with pytest.raises(InvalidRequest, match="comfyui_token is not kept in the file"):
        read_instance({"name": "a", "ssh_connection": HERE, "comfyui_token": "x"}, "a")


def test_an_instance_named_by_an_alias_is_found_by_the_address_of_its_machine(logins: FileLoginStore) -> None:
    def resolved(key: InstanceKey) -> InstanceKey:
        is_alias = key.address.host == "gpu"
        return replace(key, address=parse_ssh_address(HERE)) if is_alias else key

    by_alias = read_instance({"name": "third", "ssh_connection": "ssh gpu", "comfyui_port": 8191}, "third")
    made = NamedMachines(logins, resolved)
    made.follow(lambda: (by_alias, SECOND))
    logins.put("third", Login(token="three"))
    assert made.login(key_at(HERE, 8191)) == {"Authorization": "Bearer three"}
    assert made.taken_ports(key_at(HERE, 8191)) == {8189}
