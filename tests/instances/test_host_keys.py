"""Host keys: trusted on first use, never exchanged in silence."""

import threading
from pathlib import Path

import paramiko
import pytest

from comfyui_workflow.errors import HostKeyRefused, StoreError
from comfyui_workflow.instances.host_keys import KnownHosts

FIRST, SECOND = (paramiko.ECDSAKey.generate() for _ in range(2))
OTHER_TYPE = paramiko.RSAKey.generate(2048)


@pytest.fixture
def hosts(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "data" / "known_hosts")


def test_first_use_is_trusted_and_remembered(hosts: KnownHosts) -> None:
    assert hosts.fingerprint("gpu", 2222) is None
    hosts.check("gpu", 2222, FIRST)
    again = KnownHosts(hosts.path)
    again.check("GPU", 2222, FIRST)
    assert again.fingerprint("gpu", 2222) == FIRST.fingerprint
    assert again.key_types("gpu", 2222) == ("ecdsa-sha2-nistp256",)


@pytest.mark.parametrize("key", [SECOND, OTHER_TYPE])
def test_another_key_is_refused_with_both_fingerprints(hosts: KnownHosts, key: paramiko.PKey) -> None:
    hosts.check("gpu", 2222, FIRST)
    with pytest.raises(HostKeyRefused) as refusal:
        hosts.check("gpu", 2222, key)
    for part in (FIRST.fingerprint, key.fingerprint, "[gpu]:2222", "forget"):
        assert part in str(refusal.value)
    assert hosts.fingerprint("gpu", 2222) == FIRST.fingerprint


def test_ports_are_machines_of_their_own(hosts: KnownHosts) -> None:
    hosts.check("gpu", 1, FIRST)
    hosts.check("gpu", 2, SECOND)
    hosts.check("gpu", 22, OTHER_TYPE)
    assert hosts.fingerprint("gpu", 1) == FIRST.fingerprint


def test_a_forgotten_machine_may_be_another(hosts: KnownHosts) -> None:
    hosts.check("gpu", 1, FIRST)
    hosts.check("gpu", 2, FIRST)
    assert hosts.forget("gpu", 1)
    assert not hosts.forget("gpu", 1)
    hosts.check("gpu", 1, SECOND)
    hosts.check("gpu", 2, FIRST)


def test_a_pin_decides_alone(hosts: KnownHosts) -> None:
    hosts.check("gpu", 1, FIRST)
    hosts.check("gpu", 1, SECOND, pinned_fingerprint=SECOND.fingerprint)
    with pytest.raises(HostKeyRefused, match="pin"):
        hosts.check("gpu", 1, FIRST, pinned_fingerprint=SECOND.fingerprint)
    with pytest.raises(HostKeyRefused, match="pin"):
        hosts.check("new", 1, FIRST, pinned_fingerprint=SECOND.fingerprint)
    assert hosts.fingerprint("new", 1) is None


def test_the_file_is_openssh_format_and_private(hosts: KnownHosts) -> None:
    hosts.check("gpu", 2222, FIRST)
    hosts.check("2001:db8::1", 22, FIRST)
    assert hosts.path.stat().st_mode & 0o777 == 0o600
    read = paramiko.HostKeys(str(hosts.path))
    assert read.check("[gpu]:2222", FIRST)
    assert read.check("2001:db8::1", FIRST)


def test_lines_it_does_not_understand_stay(hosts: KnownHosts) -> None:
    strange = (
        b"# mine\n\n[gpu]:1 ssh-ed25519 notbase64!\n[gpu]:1\n[gpu]:1 ssh-nothing AAAA\n"
        b"@cert-authority * ssh-rsa AAAA\n|1|abc=|def= ssh-rsa AAAA\n\xff\xfe binary\x0b \x85\r\n"
    )
    hosts.path.parent.mkdir()
    hosts.path.write_bytes(strange)
    hosts.check("gpu", 1, FIRST)
    hosts.check("gpu", 1, FIRST)
    assert hosts.path.read_bytes().startswith(strange)
    assert hosts.forget("gpu", 1)
    assert hosts.path.read_bytes() == strange


def test_many_first_uses_at_once_are_all_remembered(hosts: KnownHosts) -> None:
    threads = [threading.Thread(target=hosts.check, args=("gpu", port, FIRST)) for port in range(1, 33)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [hosts.fingerprint("gpu", port) for port in range(1, 33)] == [FIRST.fingerprint] * 32


def test_a_planted_symlink_is_replaced_not_followed(hosts: KnownHosts, tmp_path: Path) -> None:
    hosts.path.parent.mkdir()
    (tmp_path / "victim").write_text("precious\n")
    hosts.path.symlink_to(tmp_path / "victim")
    hosts.check("gpu", 1, FIRST)
    assert (tmp_path / "victim").read_text() == "precious\n"
    assert not hosts.path.is_symlink()


def test_a_place_that_takes_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="known hosts"):
        KnownHosts(tmp_path / "file" / "known_hosts").check("gpu", 1, FIRST)
