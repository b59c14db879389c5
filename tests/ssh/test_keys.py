"""Private keys: found in order, refused with a reason."""

import subprocess
from pathlib import Path

import pytest

from comfyui_workflow.errors import KeyRefused
from comfyui_workflow.ssh.keys import KeySearch, find_keys, load_key
from tests.sshd import require_sshd


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "", pem: bool = False) -> Path:
    require_sshd()
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "ssh-keygen",
        "-q",
        "-t",
        kind,
        "-N",
        passphrase,
        "-f",
        str(path),
        *(["-m", "PEM"] if pem else []),
    ]
    subprocess.run(command, check=True, timeout=30)
    return path


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("passphrase", ["", "open sesame ü"])
def test_the_usual_keys_open(tmp_path: Path, kind: str, passphrase: str) -> None:
    key = make_key(tmp_path / "key", kind=kind, passphrase=passphrase)
    assert load_key(key, passphrase or "not needed").can_sign()


def test_a_pem_key_opens(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key.pem", kind="rsa", passphrase="secret", pem=True)
    assert load_key(key, "secret").can_sign()


def test_a_key_is_opened_once_until_it_changes(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    first = load_key(key, None)
    assert load_key(key, None) is first
    key.unlink()
    make_key(key)
    assert load_key(key, None) != first


@pytest.mark.parametrize(
    ("passphrase", "reason"),
    [
        (None, r"is encrypted: set its passphrase \(COMFYUI_WORKFLOW_SSH_KEY_PASSPHRASE\)"),
        ("wrong", "passphrase does not open"),
    ],
)
def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path, passphrase: str | None, reason: str) -> None:
    key = make_key(tmp_path / "key", passphrase="secret")
    with pytest.raises(KeyRefused, match=reason):
        load_key(key, passphrase)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\xff\x00\xfe", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"x" * 100_000],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(KeyRefused, match="not a private key"):
        load_key(tmp_path / "file", "passphrase")


def test_a_public_key_is_refused_as_such(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    with pytest.raises(KeyRefused, match=r"without \.pub"):
        load_key(tmp_path / "key.pub", None)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "/nowhere/key"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(KeyRefused):
        load_key(Path(path), None)


def test_keys_come_in_order_and_once(tmp_path: Path) -> None:
    named, configured = make_key(tmp_path / "named"), make_key(tmp_path / "configured")
    usual = make_key(tmp_path / "home" / "id_rsa", kind="rsa")
    newer = make_key(tmp_path / "home" / "id_ed25519")
    search = KeySearch(configured=configured, directory=tmp_path / "home")
    found = find_keys(named=str(named), search=search)
    assert list(found.keys) == [load_key(path, None) for path in (named, configured, newer, usual)]
    assert len(find_keys(named=str(configured), search=search).keys) == 3


def test_a_missing_key_is_a_problem_to_tell(tmp_path: Path) -> None:
    usual = make_key(tmp_path / "id_ed25519")
    found = find_keys(named="/nowhere/key", search=KeySearch(directory=tmp_path))
    assert list(found.keys) == [load_key(usual, None)]
    assert found.problems == ("The key file /nowhere/key does not exist on this server.",)


def test_named_keys_stay_in_the_allowed_directories(tmp_path: Path) -> None:
    inside, outside = make_key(tmp_path / "keys" / "key"), make_key(tmp_path / "elsewhere" / "key")
    (tmp_path / "keys" / "link").symlink_to(outside)
    search = KeySearch(directory=None, allowed_directories=(tmp_path / "keys",))
    assert find_keys(named=str(inside), search=search).keys
    messages = set()
    for name in ("elsewhere/key", "elsewhere/nothing", "keys/../elsewhere/key", "keys/link", "keys2/key"):
        with pytest.raises(KeyRefused) as refusal:
            find_keys(named=str(tmp_path / name), search=search)
        messages.add(str(refusal.value).replace(name, "NAME"))
    assert len(messages) == 1, "the refusal must not tell whether there is a file"
