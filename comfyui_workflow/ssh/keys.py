"""Finds the private keys for the login to an instance, in the order in which they are tried.

find_keys(wanted, search) -> FoundKeys(keys, problems)       wanted: WantedKeys, search: KeySearch
load_key(path, passphrase) -> paramiko.PKey                  cached; raises KeyRefused with the reason

Order: the -i files of the address, the files of the SSH configuration, the configured key, id_ed25519,
id_ecdsa and id_rsa of the key directory, the keys of the agent. A key that cannot be read is reported only
if no other key is accepted, as ssh does. If the agent holds the private half of a file that is encrypted or
public, the key of the agent takes its place. A key with a certificate beside it is tried twice, with the
certificate and without it: a machine may know only the key, and a certificate expires.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path

import paramiko
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from comfyui_workflow.errors import KeyRefused
from comfyui_workflow.parsing.text_encoding import decoded
from comfyui_workflow.ssh.agent import Agent, open_agent

USUAL_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
LARGEST_KEY_BYTES = 64 * 1024
NO_AGENT = "none"

PrivateKey = PrivateKeyTypes
_KEY_CLASSES: tuple[tuple[type, type[paramiko.PKey]], ...] = (
    (Ed25519PrivateKey, paramiko.Ed25519Key),
    (EllipticCurvePrivateKey, paramiko.ECDSAKey),
    (RSAPrivateKey, paramiko.RSAKey),
)
_UNREADABLE = (ValueError, IndexError, UnsupportedAlgorithm, paramiko.SSHException)


@dataclass(frozen=True, kw_only=True)
class KeySearch:
    """Sources of keys. `allowed_directories=None`: an address may name any file of this server."""

    configured: Path | None = None
    passphrase: str | None = None
    directory: Path | None = Path("~/.ssh")
    allowed_directories: tuple[Path, ...] | None = None
    use_agent: bool = False


@dataclass(frozen=True, kw_only=True)
class WantedKeys:
    """Key files of one address. `only`: no others are tried, if there are any (IdentitiesOnly)."""

    named: tuple[str, ...] = ()
    """Files of -i in the ssh string."""
    in_configuration: tuple[str, ...] = ()
    """Files that the SSH configuration of this server names for the host."""
    only: bool = False
    agent_socket: str | None = None
    """Socket of the agent; None means that of the environment."""


@dataclass(frozen=True, kw_only=True)
class FoundKeys:
    keys: tuple[paramiko.PKey, ...]
    problems: tuple[str, ...]
    agent: Agent | None = field(default=None, compare=False)

    def close(self) -> None:
        """Closes the connection to the agent, whose keys cannot sign afterwards."""
        if self.agent:
            self.agent.close()


def find_keys(wanted: WantedKeys, search: KeySearch) -> FoundKeys:
    """Finds and loads the keys. Close the result after the login.

    Raises: KeyRefused if a -i file is outside of the allowed directories."""
    problems: list[str] = []
    candidates = list(_candidates(wanted, search, problems))
    agent = _agent(wanted, search, problems)
    in_agent = {key.get_base64(): key for key in agent.keys} if agent else {}
    keys: dict[str, paramiko.PKey] = {}
    for path in candidates:
        try:
            key = load_key(path, search.passphrase)
        except KeyRefused as error:
            held = in_agent.get(_public_half(path))
            if held is None:
                problems.append(str(error))
            else:
                keys.setdefault(held.get_base64(), held)
            continue
        certified = _certified(key, path, problems)
        if certified:
            keys.setdefault(f"{key.get_base64()} of {path}", certified)
        keys.setdefault(key.get_base64(), key)
    if not (wanted.only and candidates):
        for name, held in in_agent.items():
            keys.setdefault(name, held)
    return FoundKeys(keys=tuple(keys.values()), problems=tuple(problems), agent=agent)


def load_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Loads a private key. The result is cached per file: decrypting a key takes a second of CPU time.

    Raises: KeyRefused.
    """
    try:
        if not path.exists():
            raise KeyRefused(f"The key file {path} does not exist on this server.")
        if not path.is_file() or path.stat().st_size > LARGEST_KEY_BYTES:
            raise KeyRefused(f"{path} is not a private key.")
        return _load(path, (path.stat().st_mtime_ns, path.stat().st_size), passphrase)
    except OSError as error:
        raise KeyRefused(f"The key file {path} cannot be read: {error.strerror}.") from error


def _candidates(wanted: WantedKeys, search: KeySearch, problems: list[str]) -> Iterator[Path]:
    for name in wanted.named:
        yield _allowed(name, search)
    for name in wanted.in_configuration:
        try:
            yield _allowed(name, search)
        except KeyRefused:
            problems.append(
                "A key file of the SSH configuration is outside of the directories that keys may come from."
            )
    if wanted.only and (wanted.named or wanted.in_configuration):
        return
    if search.configured:
        yield _expand(search.configured)
    if search.directory:
        usual = (_expand(search.directory) / name for name in USUAL_NAMES)
        yield from (path for path in usual if path.exists())


def _allowed(named: str, search: KeySearch) -> Path:
    """Returns the path of a named key. A relative name is looked up in the working directory of this server,
    then in the key directory. The error for a path outside of the allowed directories is the same whether
    the file exists or not. Raises: KeyRefused."""
    paths = [_expand(Path(named))]
    if not paths[0].is_absolute() and search.directory:
        paths.append(_expand(search.directory) / named)
    if search.allowed_directories is not None:
        allowed = [_expand(directory).resolve() for directory in search.allowed_directories]
        paths = [path.resolve() for path in paths]
        paths = [path for path in paths if any(path.is_relative_to(each) for each in allowed)]
    if not paths:
        raise KeyRefused(
            f"-i {named} is outside of the directories that keys may come from: leave -i out to use "
            "the key of the settings, or put the key into an allowed directory of this server."
        )
    return next((path for path in paths if path.exists()), paths[0])


def _agent(wanted: WantedKeys, search: KeySearch, problems: list[str]) -> Agent | None:
    if not search.use_agent or wanted.agent_socket == NO_AGENT:
        return None
    try:
        return open_agent(wanted.agent_socket)
    except (paramiko.SSHException, OSError) as error:
        problems.append(f"The SSH agent does not answer: {error}.")
        return None


def _public_half(path: Path) -> str:
    """Returns the public key, in base64, of a public key file or of the one beside a private key file; empty
    if there is none."""
    for public in (path, path.with_name(f"{path.name}.pub")):
        try:
            is_readable = public.is_file() and public.stat().st_size <= LARGEST_KEY_BYTES
            words = public.read_text(errors="replace").split() if is_readable else []
        except OSError:
            continue
        if len(words) > 1 and words[0].startswith(_PUBLIC_TYPES):
            return words[1]
    return ""


_PUBLIC_TYPES = ("ssh-", "ecdsa-", "sk-")
_PUBLIC_BEGINNINGS = (*(each.encode() for each in _PUBLIC_TYPES), b"---- BEGIN SSH2 PUBLIC KEY")
_BEGIN = b"PRIVATE KEY-----"


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise KeyRefused(f"The key file {path} cannot be found: there is no such home directory.") from error


@lru_cache(maxsize=64)
def _load(path: Path, _stamp: tuple[int, int], passphrase: str | None) -> paramiko.PKey:
    content = _as_text(path.read_bytes())
    try:
        private = _parse(content, None)
    except TypeError:  # the sign of an encrypted key, before any decryption
        private = _decrypt(path, content, passphrase)
    except _UNREADABLE as error:
        raise _not_a_key(path, content) from error
    return _to_paramiko(path, content, private)


def _as_text(content: bytes) -> bytes:
    """Returns the key in UTF-8 and with line breaks: PowerShell saves UTF-16, and variables and secrets often
    have \\n in place of a line break."""
    try:
        text, _ = decoded(content)
    except UnicodeDecodeError:
        return content
    return (text if "\n" in text.strip() else text.replace("\\n", "\n")).encode()


def _decrypt(path: Path, content: bytes, passphrase: str | None) -> PrivateKey:
    if not passphrase:
        raise KeyRefused(
            f"The key file {path} is encrypted: set its passphrase (COMFYUI_WORKFLOW_SSH_KEY_PASSPHRASE), "
            "add it to the SSH agent with ssh-add, or use another key."
        )
    try:
        return _parse(content, passphrase.encode())
    except (*_UNREADABLE, TypeError, InvalidTag) as error:
        raise KeyRefused(f"The passphrase does not open the key file {path}.") from error


def _parse(content: bytes, passphrase: bytes | None) -> PrivateKey:
    """Parses OpenSSH's format, PEM and PKCS#8."""
    try:
        return serialization.load_ssh_private_key(content, passphrase)
    except ValueError:
        return serialization.load_pem_private_key(content, passphrase)


def _to_paramiko(path: Path, content: bytes, private: PrivateKey) -> paramiko.PKey:
    """paramiko itself reads OpenSSH's format and PEM, but not PKCS#8."""
    try:
        key_class = next(own for foreign, own in _KEY_CLASSES if isinstance(private, foreign))
        text = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ).decode()
        return key_class.from_private_key(StringIO(text))
    except (StopIteration, *_UNREADABLE) as error:
        raise _not_a_key(path, content) from error


def _certified(key: paramiko.PKey, path: Path, problems: list[str]) -> paramiko.PKey | None:
    """Returns a copy of the key with the certificate beside it; None if there is no usable one."""
    certificate = _certificate_of(path)
    if not certificate.exists():
        return None
    certified = copy.copy(key)
    try:
        certified.load_certificate(str(certificate))
    except (ValueError, IndexError, OSError, paramiko.SSHException):
        problems.append(f"The certificate {certificate} does not belong to the key beside it.")
        return None
    return certified


def _certificate_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-cert.pub")


def _not_a_key(path: Path, content: bytes) -> KeyRefused:
    if path.suffix == ".pub" or content.startswith(_PUBLIC_BEGINNINGS):
        end = "-cert.pub" if path.name.endswith("-cert.pub") else ".pub"
        return KeyRefused(f"{path} is a public key: name the private one beside it, without {end}.")
    if content.startswith(b"PuTTY-"):
        return KeyRefused(
            f"{path} is in PuTTY's format: convert it with puttygen {path.name} -O private-openssh -o key."
        )
    if _BEGIN in content:
        return KeyRefused(
            f"{path} is not a private key that can be used: it is damaged or cut short. Copy the whole file "
            "again, from its BEGIN line to its END line."
        )
    return KeyRefused(
        f"{path} is not a private key that can be used (OpenSSH or PEM; Ed25519, ECDSA or RSA)."
    )
