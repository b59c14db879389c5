"""Which machine answers at which address: trust on first use, in our own known_hosts file.

KnownHosts(path)
    check(host, port, key, *, pinned_fingerprint=None)   raises HostKeyRefused
    key_types(host, port) -> tuple[str, ...]             what we know of it, to ask the server for the same
    fingerprint(host, port) -> str | None                "SHA256:..."
    forget(host, port) -> bool                           True when there was something to forget
    trust(offered)                                       that key and no other, from now on

The file is in OpenSSH's format, private, replaced as a whole at each change. Lines that are not understood
stay where they are.
"""

import os
import tempfile
import threading
from pathlib import Path

import paramiko

from comfyui_workflow.errors import HostKeyRefused, OfferedKey, StoreError

_changing = threading.Lock()
"""One for all: connections each have a `KnownHosts` of their own, of the same file."""


class KnownHosts:
    """May be used from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(
        self, host: str, port: int, key: paramiko.PKey, *, pinned_fingerprint: str | None = None
    ) -> None:
        """Accepts the machine we know, or one we see for the first time and from now on know.

        Raises: HostKeyRefused; StoreError when a new machine cannot be written down.
        """
        if pinned_fingerprint:
            _check_pin(host, port, key, pinned_fingerprint)
            return
        with _changing:
            known = self._known_keys(host, port)
            if not known:
                self._remember(host, port, key)
            elif key not in known:
                raise _changed(host, port, known[0], key)

    def key_types(self, host: str, port: int) -> tuple[str, ...]:
        return tuple(key.get_name() for key in self._known_keys(host, port))

    def fingerprint(self, host: str, port: int) -> str | None:
        known = self._known_keys(host, port)
        return known[0].fingerprint if known else None

    def forget(self, host: str, port: int) -> bool:
        """From now on whichever machine answers there first is trusted."""
        with _changing:
            kept = self._lines_of_others(host, port)
            if len(kept) == len(self._lines()):
                return False
            self._write(kept)
            return True

    def trust(self, offered: OfferedKey) -> None:
        """Exactly the key that was shown: what the machine shows next is checked against it.
        Raises: StoreError."""
        with _changing:
            name = _name(offered.host, offered.port)
            self._write([*self._lines_of_others(offered.host, offered.port), f"{name} {offered.key}"])

    def _lines_of_others(self, host: str, port: int) -> list[str]:
        return [line for line in self._lines() if _read_line(line, _name(host, port)) is None]

    def _known_keys(self, host: str, port: int) -> list[paramiko.PKey]:
        found = (_read_line(line, _name(host, port)) for line in self._lines())
        return [key for key in found if key is not None]

    def _remember(self, host: str, port: int, key: paramiko.PKey) -> None:
        self._write([*self._lines(), f"{_name(host, port)} {key.get_name()} {key.get_base64()}"])

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"Cannot read the known hosts {self.path}: {error.strerror}.") from error
        return text.removesuffix("\n").split("\n") if text else []

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _replace(self.path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise StoreError(f"Cannot write the known hosts {self.path}: {error.strerror}.") from error


def _replace(path: Path, content: bytes) -> None:
    """By a new file that only we can read; a symlink planted there is replaced, not followed."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _name(host: str, port: int) -> str:
    """As OpenSSH writes it: the port is named when it is not the usual one."""
    host = host.lower()
    return host if port == 22 else f"[{host}]:{port}"


def _read_line(line: str, name: str) -> paramiko.PKey | None:
    """The key of this line if it is about that machine; broken, hashed and marked lines are about nobody."""
    words = line.split()
    if len(words) < 3 or name not in words[0].split(","):
        return None
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
    except (paramiko.SSHException, paramiko.hostkeys.InvalidHostKey):
        return None
    return entry.key if entry else None


def _check_pin(host: str, port: int, key: paramiko.PKey, pinned_fingerprint: str) -> None:
    if key.fingerprint.rstrip("=") != pinned_fingerprint.strip().rstrip("="):
        raise _refusal(
            f"The host key of {_name(host, port)} is {key.fingerprint} ({key.get_name()}), "
            f"but the settings pin it to {pinned_fingerprint}. Nothing was sent to it.",
            _offered(host, port, pinned_fingerprint, key),
        )


def _changed(host: str, port: int, known: paramiko.PKey, key: paramiko.PKey) -> HostKeyRefused:
    place = f"'[{host}]:{port}'" if ":" in host else f"{host}:{port}"  # as a shell takes it
    return _refusal(
        f"Another machine answers at {_name(host, port)}: "
        f"its host key is {key.fingerprint} ({key.get_name()}), "
        f"we know {known.fingerprint} ({known.get_name()}). Rented addresses often pass to other machines; "
        f"if you rented this one anew, forget the old key with: comfyui-workflow hosts forget {place} "
        "and try again. Nothing was sent to it.",
        _offered(host, port, known.fingerprint, key),
    )


def _refusal(sentence: str, offered: OfferedKey) -> HostKeyRefused:
    refusal = HostKeyRefused(sentence)
    refusal.offered = offered
    return refusal


def _offered(host: str, port: int, known: str, key: paramiko.PKey) -> OfferedKey:
    return OfferedKey(
        host=host,
        port=port,
        known=known,
        fingerprint=key.fingerprint,
        key=f"{key.get_name()} {key.get_base64()}",
    )
