"""Finds the private keys for the login to an instance, in the order in which they are tried.

find_keys(named=..., search=KeySearch(...)) -> FoundKeys(keys, problems)
load_key(path, passphrase) -> paramiko.PKey          cached; raises KeyRefused with the reason

Order: the -i file of the address, the configured key, id_ed25519, id_ecdsa and id_rsa of the key directory,
the keys of the agent (only if `use_agent`). A key that cannot be read is reported only if no other key is
accepted, as ssh does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.pkey import UnknownKeyType

from comfyui_workflow.errors import KeyRefused

USUAL_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
LARGEST_KEY_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class KeySearch:
    """Sources of keys. `allowed_directories=None`: -i may name any file of this server."""

    configured: Path | None = None
    passphrase: str | None = None
    directory: Path | None = Path("~/.ssh")
    allowed_directories: tuple[Path, ...] | None = None
    use_agent: bool = False


@dataclass(frozen=True, kw_only=True)
class FoundKeys:
    keys: tuple[paramiko.PKey, ...]
    problems: tuple[str, ...]


def find_keys(*, named: str | None, search: KeySearch) -> FoundKeys:
    """Finds and loads the keys. `named` is the -i file.

    Raises: KeyRefused if the -i file is outside of the allowed directories."""
    keys: dict[str, paramiko.PKey] = {}
    problems = []
    for path in _candidates(named, search):
        try:
            key = load_key(path, search.passphrase)
        except KeyRefused as error:
            problems.append(str(error))
        else:
            keys.setdefault(key.fingerprint, key)
    if search.use_agent:
        try:
            for agent_key in paramiko.Agent().get_keys():
                keys.setdefault(agent_key.fingerprint, agent_key)
        except (paramiko.SSHException, OSError) as error:
            problems.append(f"The SSH agent does not answer: {error}.")
    return FoundKeys(keys=tuple(keys.values()), problems=tuple(problems))


def load_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Loads a private key. The result is cached per file: decrypting a key takes a second of CPU time.

    Raises: KeyRefused.
    """
    try:
        if not path.exists():
            raise KeyRefused(f"The key file {path} does not exist on this server.")
        if not path.is_file() or path.stat().st_size > LARGEST_KEY_BYTES:
            raise KeyRefused(f"{path} is not a private key.")
        status = path.stat()
        return _load(path, status.st_mtime_ns, status.st_size, passphrase)
    except OSError as error:
        raise KeyRefused(f"The key file {path} cannot be read: {error.strerror}.") from error


def _candidates(named: str | None, search: KeySearch) -> Iterator[Path]:
    if named:
        yield _allowed(named, search.allowed_directories)
    if search.configured:
        yield _expand(search.configured)
    if search.directory:
        usual = (_expand(search.directory) / name for name in USUAL_NAMES)
        yield from (path for path in usual if path.exists())


def _allowed(named: str, directories: tuple[Path, ...] | None) -> Path:
    """Returns the path if it is in an allowed directory. The error for another path is the same whether the
    file exists or not. Raises: KeyRefused."""
    path = _expand(Path(named))
    if directories is None:
        return path
    path = path.resolve()
    if not any(path.is_relative_to(_expand(directory).resolve()) for directory in directories):
        raise KeyRefused(
            f"-i {named} is outside of the directories that keys may come from: leave -i out to use "
            "the key of the settings, or put the key into an allowed directory of this server."
        )
    return path


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise KeyRefused(f"The key file {path} cannot be found: there is no such home directory.") from error


@lru_cache(maxsize=64)
def _load(path: Path, _modified_ns: int, _size_bytes: int, passphrase: str | None) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except TypeError:  # paramiko's sign of an encrypted key, before any decryption
        return _load_encrypted(path, passphrase)
    except (ValueError, IndexError, paramiko.SSHException, UnknownKeyType) as error:
        raise _not_a_key(path) from error


def _load_encrypted(path: Path, passphrase: str | None) -> paramiko.PKey:
    if not passphrase:
        raise KeyRefused(
            f"The key file {path} is encrypted: set its passphrase (COMFYUI_WORKFLOW_SSH_KEY_PASSPHRASE), "
            "or use another key."
        )
    try:
        # The type stubs require str; the crypto library below requires bytes.
        return paramiko.PKey.from_path(path, cast(Any, passphrase.encode()))
    except (ValueError, TypeError, paramiko.SSHException, UnknownKeyType) as error:
        raise KeyRefused(f"The passphrase does not open the key file {path}.") from error


def _not_a_key(path: Path) -> KeyRefused:
    if path.suffix == ".pub":
        return KeyRefused(f"{path} is a public key: name the private one beside it, without .pub.")
    return KeyRefused(
        f"{path} is not a private key that can be used (OpenSSH or PEM; Ed25519, ECDSA or RSA)."
    )
