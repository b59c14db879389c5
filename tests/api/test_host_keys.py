"""A machine presents another host key than the known one: the API shows both, and accepts exactly the new
one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from comfyui_workflow.app import open_session
from comfyui_workflow.errors import AuthenticationFailed, HostKeyRefused
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.settings import load_settings
from comfyui_workflow.ssh.known_hosts import KnownHosts
from comfyui_workflow.ssh.pool import Pool
from tests.api.conftest import Api
from tests.api.test_instances import BASE, added, eventually, refused, state
from tests.sandbox_process import SandboxProcess

OLD, NEW, THIRD = (paramiko.ECDSAKey.generate() for _ in range(3))
PIN = "SHA256:" + "a" * 43


class Machine:
    """The machine at the address of `primary`; presents the host key `key`."""

    def __init__(self, known_hosts: KnownHosts) -> None:
        self.key = OLD
        self._known_hosts = known_hosts

    def open(self, key: Any) -> Any:
        self._known_hosts.check(key.address.host, key.address.port, self.key, pinned_fingerprint=key.host_key)
        raise AuthenticationFailed(f"{self.key.fingerprint} is the machine we know")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(KnownHosts(tmp_path / "data" / "known_hosts"))


@pytest.fixture
def api(make_api: Callable[..., Api], machine: Machine) -> Iterator[Api]:
    sessions = Pool(machine.open)
    yield make_api(sessions=sessions)
    sessions.close()


def connected(api: Api, **fields: Any) -> None:
    """Adds and connects an instance, with the registry wired to the monitors as in the server."""
    directory, monitors = api.instances.directory, api.instances.monitors
    directory.listen(lambda: monitors.reconcile({each.id: each for each in directory.all()}))
    added(api, **fields)
    api.client.post(f"{BASE}/primary/connect")


def accepted(api: Api, fingerprint: object) -> Any:
    return api.client.post(f"{BASE}/primary/accept-host-key", json={"fingerprint": fingerprint})


def shows(api: Api, machine: Machine, key: paramiko.PKey) -> None:
    machine.key = key
    api.client.post(f"{BASE}/primary/connect")


def is_authorized(api: Api, key: paramiko.PKey) -> bool:
    seen = state(api, "primary")
    return seen["host_key"] is None and f"{key.fingerprint} is the machine we know" in (seen["trouble"] or "")


def offers(api: Api, known: str, offered: paramiko.PKey) -> bool:
    return bool(state(api, "primary")["host_key"] == {"known": known, "offered": offered.fingerprint})


def test_the_new_key_is_accepted_and_a_third_is_not(api: Api, machine: Machine) -> None:
    connected(api)
    eventually(lambda: is_authorized(api, OLD))
    shows(api, machine, NEW)
    eventually(lambda: offers(api, OLD.fingerprint, NEW))
    for fingerprint in (OLD.fingerprint, THIRD.fingerprint, "SHA256:", NEW.fingerprint[:-1]):
        message = refused(accepted(api, fingerprint), 409, "host_key_conflict")
        assert NEW.fingerprint in message
    assert api.instances.known_hosts.fingerprint("198.53.64.194", 40738) == OLD.fingerprint
    machine.key = THIRD  # before we come again
    assert accepted(api, f" {NEW.fingerprint}= ").status_code == 200
    eventually(lambda: offers(api, NEW.fingerprint, THIRD))
    shows(api, machine, NEW)
    eventually(lambda: is_authorized(api, NEW))
    refused(accepted(api, NEW.fingerprint), 409, "host_key_conflict")


def test_where_the_entry_pins_a_key_it_pins_the_new_one(api: Api, machine: Machine) -> None:
    connected(api, host_key=PIN)
    eventually(lambda: offers(api, PIN, OLD))
    assert accepted(api, OLD.fingerprint).status_code == 200
    assert api.client.get(f"{BASE}/primary").json["instance"]["host_key"] == OLD.fingerprint
    eventually(lambda: is_authorized(api, OLD))
    shows(api, machine, NEW)
    eventually(lambda: offers(api, OLD.fingerprint, NEW))


def test_what_the_settings_pin_is_theirs(make_api: Callable[..., Api], machine: Machine) -> None:
    sessions = Pool(machine.open)
    api = make_api(sessions=sessions, ssh_host_key=PIN)
    connected(api)
    eventually(lambda: is_authorized(api, OLD))
    shows(api, machine, NEW)
    eventually(lambda: offers(api, OLD.fingerprint, NEW))
    assert "SSH_HOST_KEY" in refused(accepted(api, NEW.fingerprint), 409, "host_key_conflict")
    sessions.close()


@pytest.mark.parametrize("fingerprint", [None, "", 5, ["SHA256:"], "SHA256:x\ny"])
def test_what_was_never_shown_is_not_accepted(api: Api, machine: Machine, fingerprint: object) -> None:
    added(api)
    answer = accepted(api, fingerprint)
    assert answer.status_code == (409 if isinstance(fingerprint, str) and fingerprint else 400)
    assert api.instances.known_hosts.fingerprint("198.53.64.194", 40738) is None


def test_a_real_machine_is_let_in_again(
    make_api: Callable[..., Api], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", state_file=tmp_path / "state.json")
    sessions = Pool(lambda key: open_session(key, settings))
    api = make_api(sessions=sessions)
    address = parse_ssh_address(sandbox.ssh_string)
    api.instances.known_hosts.check(address.host, address.port, OLD)
    connected(api, ssh_connection=sandbox.ssh_string)
    eventually(lambda: state(api, "primary")["host_key"] is not None)
    seen = state(api, "primary")
    assert (seen["reachability"], seen["host_key"]["known"]) == ("unreachable", OLD.fingerprint)
    assert accepted(api, seen["host_key"]["offered"]).status_code == 200
    eventually(lambda: state(api, "primary")["reachability"] == "ready")
    ready = state(api, "primary")
    assert (ready["host_key"], ready["host_key_fingerprint"]) == (None, seen["host_key"]["offered"])
    sessions.close()


def test_the_host_key_of_an_alias_is_forgotten(make_api: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host gpu\n  HostName 10.0.0.1\n  Port 40738\n")
    api = make_api(ssh_config=tmp_path / "config")
    added(api, ssh_connection="ssh gpu")
    api.instances.known_hosts.check("10.0.0.1", 40738, OLD)
    answer = api.client.post(f"{BASE}/primary/forget-host-key")
    assert (answer.status_code, answer.json["forgotten"]) == (200, OLD.fingerprint)
    assert api.instances.known_hosts.fingerprint("10.0.0.1", 40738) is None
    assert api.client.get(f"{BASE}/primary").json["instance"]["ssh_connection"] == "ssh gpu"


def test_others_keep_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    path.write_text("# a remark\nbroken\n")
    for port in (22, 23):
        hosts.check("gpu", port, OLD)
    with pytest.raises(HostKeyRefused) as refusal:
        hosts.check("GPU", 22, NEW)
    assert refusal.value.offered is not None
    hosts.trust(refusal.value.offered)
    hosts.check("gpu", 22, NEW)
    hosts.check("gpu", 23, OLD)
    with pytest.raises(HostKeyRefused):
        hosts.check("gpu", 22, OLD)
    assert path.read_text().startswith("# a remark\nbroken\n")
