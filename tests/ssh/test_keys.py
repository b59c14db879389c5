"""Private keys: found in order, refused with a reason."""

import subprocess
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from comfyui_workflow.errors import KeyRefused
from comfyui_workflow.ssh.keys import FoundKeys, KeySearch, WantedKeys, find_keys, load_key
from tests.sshd import require_sshd


def find(*named: str | Path, search: KeySearch, **wanted: object) -> FoundKeys:
    return find_keys(WantedKeys(named=tuple(map(str, named)), **wanted), search)  # type: ignore[arg-type]


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
        *(["-b", "2048"] if kind == "rsa" else []),  # longer ones take a second to make
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


MAKERS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def make_pkcs8(path: Path, kind: str, passphrase: str = "") -> Path:
    """Writes a key as 1Password and openssl do."""
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    pkcs8 = serialization.PrivateFormat.PKCS8
    path.write_bytes(MAKERS[kind]().private_bytes(serialization.Encoding.PEM, pkcs8, encryption))
    return path


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("passphrase", ["", "open sesame ü"])
def test_pkcs8_keys_open(tmp_path: Path, kind: str, passphrase: str) -> None:
    key = load_key(make_pkcs8(tmp_path / "key.pem", kind, passphrase), passphrase or "not needed")
    assert key.can_sign()
    signature = key.sign_ssh_data(b"data", "rsa-sha2-512" if kind == "rsa" else None)  # type: ignore[arg-type]
    signature.rewind()
    public = paramiko.PKey.from_type_string(key.get_name(), key.asbytes())
    assert public.verify_ssh_sig(b"data", signature)


def test_an_encrypted_pkcs8_key_needs_its_passphrase(tmp_path: Path) -> None:
    key = make_pkcs8(tmp_path / "key", "ed25519", "secret")
    with pytest.raises(KeyRefused, match=r"is encrypted: set its passphrase .* ssh-add"):
        load_key(key, None)
    with pytest.raises(KeyRefused, match="passphrase does not open"):
        load_key(key, "wrong")


def test_a_key_with_windows_line_ends_opens(tmp_path: Path) -> None:
    key = make_pkcs8(tmp_path / "key", "ed25519")
    key.write_bytes(key.read_bytes().replace(b"\n", b"\r\n"))
    assert load_key(key, None).can_sign()


def test_keys_that_ssh_has_not_are_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(
        ed448.Ed448PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(KeyRefused, match="not a private key that can be used"):
        load_key(tmp_path / "key", None)


def test_a_key_of_putty_is_told(tmp_path: Path) -> None:
    (tmp_path / "key.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    with pytest.raises(KeyRefused, match=r"PuTTY's format: convert it with puttygen key\.ppk"):
        load_key(tmp_path / "key.ppk", None)


def test_a_key_is_tried_with_its_certificate_and_without_it(tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    wanted, search = WantedKeys(named=(str(key),)), KeySearch(directory=None)
    assert [each.public_blob for each in find_keys(wanted, search).keys] == [None]
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "root", str(key.with_suffix(".pub"))]
    subprocess.run(sign, check=True, timeout=30)
    certified, plain = find_keys(wanted, search).keys
    assert certified.public_blob.key_type == "ssh-ed25519-cert-v01@openssh.com"  # type: ignore[union-attr]
    assert plain.public_blob is None


@pytest.mark.parametrize("content", ["of another key", "", "no certificate", "\0\xff"])
def test_a_certificate_that_cannot_be_used_does_not_cost_the_key(tmp_path: Path, content: str) -> None:
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other", kind="ecdsa")
    sign = ["ssh-keygen", "-q", "-s", str(key), "-I", "me", "-n", "root", str(other.with_suffix(".pub"))]
    subprocess.run(sign, check=True, timeout=30)
    of_other = (tmp_path / "other-cert.pub").read_text()
    (tmp_path / "key-cert.pub").write_text(of_other if "other" in content else content, encoding="latin-1")
    found = find_keys(WantedKeys(named=(str(key),)), KeySearch(directory=None))
    assert [each.public_blob for each in found.keys] == [None]
    assert "key-cert.pub does not belong to the key beside it" in found.problems[0]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize(
    "saved", ["utf-16", "utf-16-le", "utf-8-sig", r"\n", "one line", "no end", "indented"]
)
def test_a_key_opens_as_programs_and_people_save_it(tmp_path: Path, kind: str, saved: str) -> None:
    key = make_key(tmp_path / "key", kind=kind)
    text = key.read_text()
    changed = {
        r"\n": text.replace("\n", r"\n"),
        "one line": text.replace("\n", " "),
        "no end": text.rstrip(),
        "indented": "\n\n" + text.replace("\n", "\n    "),
    }
    key.write_bytes(changed.get(saved, text).encode(saved if saved.startswith("utf") else "utf-8"))
    assert load_key(key, None).can_sign()


def test_a_key_that_was_not_copied_whole_is_told(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    lines = key.read_text().splitlines(keepends=True)
    for part in (lines[:-1], lines[1:], lines[:2], lines[:2] + lines[3:]):
        key.write_text("".join(part))
        with pytest.raises(KeyRefused, match=r"damaged or cut short\. Copy the whole file"):
            load_key(key, None)


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
    (tmp_path / "key-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com AAAA me")
    with pytest.raises(KeyRefused, match=r"is a public key: .* without -cert\.pub"):
        load_key(tmp_path / "key-cert.pub", None)
    (tmp_path / "putty").write_text("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n")
    with pytest.raises(KeyRefused, match="is a public key"):
        load_key(tmp_path / "putty", None)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "/nowhere/key"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(KeyRefused):
        load_key(Path(path), None)


def test_keys_come_in_order_and_once(tmp_path: Path) -> None:
    named, configured = make_key(tmp_path / "named"), make_key(tmp_path / "configured")
    usual = make_key(tmp_path / "home" / "id_rsa", kind="rsa")
    newer = make_key(tmp_path / "home" / "id_ed25519")
    search = KeySearch(configured=configured, directory=tmp_path / "home")
    found = find(named, search=search)
    assert list(found.keys) == [load_key(path, None) for path in (named, configured, newer, usual)]
    assert len(find(configured, search=search).keys) == 3


def test_a_missing_key_is_a_problem_to_tell(tmp_path: Path) -> None:
    usual = make_key(tmp_path / "id_ed25519")
    found = find("/nowhere/key", search=KeySearch(directory=tmp_path))
    assert list(found.keys) == [load_key(usual, None)]
    assert found.problems == ("The key file /nowhere/key does not exist on this server.",)


def test_named_keys_stay_in_the_allowed_directories(tmp_path: Path) -> None:
    inside, outside = make_key(tmp_path / "keys" / "key"), make_key(tmp_path / "elsewhere" / "key")
    (tmp_path / "keys" / "link").symlink_to(outside)
    search = KeySearch(directory=None, allowed_directories=(tmp_path / "keys",))
    assert find(inside, search=search).keys
    messages = set()
    for name in ("elsewhere/key", "elsewhere/nothing", "keys/../elsewhere/key", "keys/link", "keys2/key"):
        with pytest.raises(KeyRefused) as refusal:
            find(tmp_path / name, search=search)
        messages.add(str(refusal.value).replace(name, "NAME"))
    assert len(messages) == 1, "the refusal must not tell whether there is a file"


def test_a_relative_name_is_looked_up_here_and_in_the_key_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_key(tmp_path / "home" / "key.pem")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    search = KeySearch(directory=tmp_path / "home")
    assert list(find("key.pem", search=search).keys) == [load_key(home, None)]
    here = make_key(tmp_path / "here" / "key.pem")
    assert list(find("key.pem", search=search).keys) == [load_key(here, None)]
    limited = KeySearch(directory=tmp_path / "home", allowed_directories=(tmp_path / "home",))
    assert list(find("key.pem", search=limited).keys) == [load_key(home, None)]


def test_all_named_keys_are_found(tmp_path: Path) -> None:
    one, two, usual = (make_key(tmp_path / name) for name in ("one", "two", "id_ed25519"))
    search = KeySearch(directory=tmp_path)
    assert list(find(one, two, search=search).keys) == [load_key(path, None) for path in (one, two, usual)]
    assert list(find(one, two, search=search, only=True).keys) == [load_key(one, None), load_key(two, None)]
    assert list(find(search=search, only=True).keys) == [load_key(usual, None)]


def test_the_configuration_does_not_widen_the_allowed_directories(tmp_path: Path) -> None:
    inside, outside = make_key(tmp_path / "keys" / "key"), make_key(tmp_path / "elsewhere" / "key")
    search = KeySearch(directory=None, allowed_directories=(tmp_path / "keys",))
    found = find(search=search, in_configuration=(str(outside), str(inside)))
    assert list(found.keys) == [load_key(inside, None)]
    assert found.problems == (
        "A key file of the SSH configuration is outside of the directories that keys may come from.",
    )
