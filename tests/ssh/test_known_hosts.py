"""Host keys: trusted on first use, never replaced without a person's consent."""

import random
import threading
from pathlib import Path

import paramiko
import pytest

from comfyui_workflow.errors import HostKeyRefused, StoreError
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.damage import damaged

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
        b"# mine\n\n[other]:1 ssh-ed25519 notbase64!\n[other]:1\n[gpu]:1 ssh-nothing AAAA\n"
        b"@cert-authority * ssh-rsa AAAA\n|1|abc=|def= ssh-rsa AAAA\n\xff\xfe binary\x0b \x85\r\n"
    )
    hosts.path.parent.mkdir()
    hosts.path.write_bytes(strange)
    hosts.check("gpu", 1, FIRST)
    hosts.check("gpu", 1, FIRST)
    assert hosts.path.read_bytes().startswith(strange)
    assert hosts.forget("gpu", 1)
    assert hosts.path.read_bytes() == strange + b"# comfyui-workflow: 0 keys\n"


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


PLACES = [("gpu", 22), ("gpu", 40738), ("10.0.0.7", 2222)]


def _remember(hosts: KnownHosts) -> dict[tuple[str, int], paramiko.PKey]:
    keys = dict(zip(PLACES, (FIRST, SECOND, OTHER_TYPE), strict=True))
    for (host, port), key in keys.items():
        hosts.check(host, port, key)
    return keys


def _is_trusted(hosts: KnownHosts, host: str, port: int, key: paramiko.PKey) -> bool:
    try:
        hosts.check(host, port, key)
    except HostKeyRefused:
        return False
    return True


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_makes_a_known_machine_one_that_is_seen_first(hosts: KnownHosts, seed: int) -> None:
    """A different key is refused, whichever byte is flipped and wherever the file is cut off."""
    keys = _remember(hosts)
    hosts.path.write_bytes(damaged(hosts.path.read_bytes(), random.Random(seed)))
    whole = hosts.path.read_bytes()
    for host, port in keys:
        assert not _is_trusted(hosts, host, port, paramiko.ECDSAKey.generate()), whole
    kept = set(whole.splitlines())
    assert {line for line in hosts.path.read_bytes().splitlines() if not line.startswith(b"#")} <= kept


def test_a_machine_whose_line_is_damaged_is_told_and_can_be_accepted(hosts: KnownHosts) -> None:
    _remember(hosts)
    hosts.path.write_bytes(hosts.path.read_bytes().replace(b"[gpu]:40738", b"[gpv]:40738"))
    assert hosts.damaged() == ("line 2 is damaged",)
    with pytest.raises(HostKeyRefused, match="Accept this key if it is right") as refusal:
        hosts.check("gpu", 40738, FIRST)
    assert refusal.value.offered is not None
    hosts.trust(refusal.value.offered)
    hosts.check("gpu", 40738, FIRST)
    assert hosts.damaged() == ()
    hosts.check("new", 22, FIRST)


def test_the_machine_itself_mends_its_line(hosts: KnownHosts) -> None:
    keys = _remember(hosts)
    hosts.path.write_bytes(hosts.path.read_bytes().replace(b"[gpu]:40738", b"[gpv]:40738"))
    hosts.check("gpu", 40738, keys["gpu", 40738])
    assert hosts.damaged() == ()
    assert not _is_trusted(hosts, "gpu", 40738, FIRST)


def test_lost_lines_stay_told_until_a_person_has_acted(hosts: KnownHosts) -> None:
    keys = _remember(hosts)
    content = hosts.path.read_bytes()
    hosts.path.write_bytes(b"".join(content.splitlines(keepends=True)[:1]))
    assert hosts.damaged() == ("keys were lost",)
    with pytest.raises(HostKeyRefused) as refusal:
        hosts.check("gpu", 40738, keys["gpu", 40738])
    assert refusal.value.offered is not None
    hosts.trust(refusal.value.offered)
    hosts.check("gpu", 40738, keys["gpu", 40738])
    assert not _is_trusted(hosts, "10.0.0.7", 2222, FIRST)
    lines = hosts.path.read_text().splitlines()
    hosts.path.write_text("".join(f"{line}\n" for line in lines if "were lost" not in line))
    hosts.check("10.0.0.7", 2222, FIRST)


def test_lines_of_an_earlier_release_get_their_check(hosts: KnownHosts) -> None:
    hosts.path.parent.mkdir()
    line = f"[gpu]:1 {FIRST.get_name()} {FIRST.get_base64()}"
    hosts.path.write_text(f"{line}\n")
    assert hosts.damaged() == ()
    hosts.adopt()
    assert hosts.path.read_text().startswith(f"{line} comfyui-workflow:")
    hosts.check("gpu", 1, FIRST)
    assert hosts.forget("gpu", 1)
    hosts.check("gpu", 1, SECOND)
