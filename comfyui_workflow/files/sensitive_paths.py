"""Paths of this machine that are never an input and never a directory for outputs, for any caller: hidden
files, keys and credentials, and system files."""

import re
from collections.abc import Iterable
from pathlib import Path

LOOKED_AT_BYTES = 64 * 1024
_SYSTEM = tuple(
    Path(each)
    for each in (
        *("/etc", "/proc", "/sys", "/dev", "/boot", "/bin", "/sbin", "/lib", "/lib64"),
        *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/local/bin", "/usr/local/sbin", "/var/spool"),
    )
)
_NOT_SYSTEM = (Path("/dev/shm"),)  # noqa: S108 - an in-memory directory for files of all users
_STARTED_FROM = {"launchagents", "launchdaemons"}
"""Directories whose files macOS starts. On Linux such directories are hidden or belong to the system."""
_KEY_NAME = re.compile(
    r"id_[a-z0-9_-]+(\.(pub|old|bak|orig|key|txt))*"
    r"|.*\.(pem|key|p12|pfx|pkcs12|ppk|jks|keystore|keytab|kdbx?|asc|gpg|pgp|ovpn|agekey|cer|crt|der|p8)"
    r"|(authorized_keys|known_hosts|ssh_host_.*_key)\d*"
    r"|_?netrc|_?pgpass|htpasswd|passwd|shadow|gshadow|sudoers|kubeconfig|wallet\.dat"
    r"|(aws_|gcloud_|google_|azure_)?(credentials?|secrets?|tokens?|api_?keys?|passwords?)(\.(json|ya?ml|toml|ini|txt|csv|env|db|xml|cfg|conf))?"
    r"|(client_secret|service[-_]account|application_default_credentials).*\.json"
    r"|(logins|key4|login data|cookies)(\.(json|db|sqlite))?"
)
_KEY_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"|PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1|openssh-key-v1\0"
)


def reason_not_to_use(path: Path, roots: Iterable[Path]) -> str | None:
    """Returns why a resolved path may be neither an input nor a directory for outputs, as the end of a
    sentence; None if it may be. `roots` are directories from the settings: a root may be hidden, but hidden
    paths below it are refused."""
    below = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
    parts = min((each.parts for each in below), key=len, default=path.parts)
    hidden = next((part for part in parts if part.startswith(".")), None)
    if hidden is not None:
        return f"{hidden} is hidden"
    if not below and _is_of_system(path):
        return "it belongs to the system"
    if any(part.lower() in _STARTED_FROM for part in parts):
        return "programs are started from there"
    return None


def is_key_name(name: str) -> bool:
    """True if a file of this name is probably a key or a credential."""
    return _KEY_NAME.fullmatch(name.lower()) is not None


def holds_private_key(head: bytes) -> bool:
    """True if the first bytes of a file (`LOOKED_AT_BYTES`) contain a private key."""
    return _KEY_CONTENT.search(head) is not None


def _is_of_system(path: Path) -> bool:
    if any(path.is_relative_to(directory) for directory in _NOT_SYSTEM):
        return False
    return any(path.is_relative_to(directory) for directory in _SYSTEM)
