"""Host keys of the instances, in a known_hosts file of this server: trust on first use.

KnownHosts(path)
    check(host, port, key, *, pinned_fingerprint=None)   raises HostKeyRefused
    key_types(host, port) -> tuple[str, ...]             types of the known keys, to request them first
    fingerprint(host, port) -> str | None                "SHA256:..."
    forget(host, port) -> bool                           True if a key was removed
    trust(offered)                                       replaces the known keys by this key

    damaged() -> tuple[str, ...]                         sentences: which parts of the file cannot be read
    adopt()                                              adds checksums to the lines of an earlier release

How it works: the file has OpenSSH's format, is private, and is replaced as a whole at each change. Lines that
cannot be parsed are kept. Each line of this server ends with a comment: a digest of the host and a checksum.
The last line of the file is the number of those lines. So damaged and lost lines are noticed, and a host
whose line is damaged or lost is refused until a person accepts its key. It is never treated as a new host.
"""

import hashlib
import os
import re
import tempfile
import threading
import zlib
from pathlib import Path

import paramiko

from comfyui_workflow.errors import HostKeyRefused, OfferedKey, StoreError

_MARK = "comfyui-workflow:"
_TRAILER = re.compile(rf"# {_MARK} ([0-9]+) keys?")
_LOST_MARK = f"# {_MARK} keys were lost"
"""Line that is added to the file when lost keys are noticed, and stays until a person removes it."""

_write_lock = threading.Lock()
"""One lock for the process: each connection has a `KnownHosts` object of its own, for the same file."""


class KnownHosts:
    """See the module. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(
        self, host: str, port: int, key: paramiko.PKey, *, pinned_fingerprint: str | None = None
    ) -> None:
        """Accepts a known key. Accepts and saves the key of a host that is not known yet.

        Raises: HostKeyRefused; StoreError if a new key cannot be saved.
        """
        if pinned_fingerprint:
            _check_pin(host, port, key, pinned_fingerprint)
            return
        with _write_lock:
            known = self._known_keys(host, port)
            if not known:
                self._check_damage(host, port, key)
                self._append(host, port, key)
            elif key not in known:
                raise _changed_key_error(host, port, known[0], key)

    def damaged(self) -> tuple[str, ...]:
        """Raises: StoreError."""
        lines = self._lines()
        found = [f"line {n} is damaged" for n, line in enumerate(lines, start=1) if _is_damaged(line)]
        return (*found, "keys were lost") if self._has_lost_keys() else tuple(found)

    def adopt(self) -> None:
        """Adds the checksum comment to the lines of an earlier release. Raises: StoreError."""
        with _write_lock:
            lines = self._lines()
            if any(_add_checksum(line) != line for line in lines):
                self._write(lines)

    def _check_damage(self, host: str, port: int, key: paramiko.PKey) -> None:
        """Refuses a host without a readable line if its line may be damaged or lost. A damaged line that
        still has the whole offered key is removed: the host is the known one.
        Raises: HostKeyRefused, StoreError."""
        lines, name = self._lines(), _name(host, port)
        mentions = [line for line in lines if _is_damaged(line) and _mentions(line, name)]
        if any(key.get_base64() in line for line in mentions):  # the known host
            self._write([line for line in lines if line not in mentions])
        elif mentions or self._has_lost_keys():
            raise self._damaged_line_error(host, port, key, is_line_there=bool(mentions))

    def _damaged_line_error(
        self, host: str, port: int, key: paramiko.PKey, *, is_line_there: bool
    ) -> HostKeyRefused:
        what = (
            "The line with its known key"
            if is_line_there
            else "A part of the file, which may have held its known key,"
        )
        shell_address = f"'[{host}]:{port}'" if ":" in host else f"{host}:{port}"
        remedy = (
            f"forget the damaged line with: comfyui-workflow hosts forget {shell_address}"
            if is_line_there
            else f'remove the line "{_LOST_MARK}" from that file, to trust machines on first use again'
        )
        return _refusal(
            f"{_name(host, port)} shows the host key {key.fingerprint} ({key.get_name()}). {what} is damaged "
            f"in {self.path}, so this server cannot check that this is the same machine as before. Accept "
            f"this key if it is right, or {remedy}. Nothing was sent to it.",
            _offered(host, port, "unknown: its line is damaged", key),
        )

    def key_types(self, host: str, port: int) -> tuple[str, ...]:
        return tuple(key.get_name() for key in self._known_keys(host, port))

    def fingerprint(self, host: str, port: int) -> str | None:
        known = self._known_keys(host, port)
        return known[0].fingerprint if known else None

    def forget(self, host: str, port: int) -> bool:
        """Removes the keys of a host: the next machine that answers there is trusted.
        Returns True if a key was removed. Raises: StoreError."""
        with _write_lock:
            kept = self._lines_without(host, port)
            if len(kept) == len(self._lines()):
                return False
            self._write(kept)
            return True

    def trust(self, offered: OfferedKey) -> None:
        """Replaces the known keys of a host by the offered key. The next connection must show this key.
        Raises: StoreError."""
        with _write_lock:
            name = _name(offered.host, offered.port)
            self._write([*self._lines_without(offered.host, offered.port), f"{name} {offered.key}"])

    def _lines_without(self, host: str, port: int) -> list[str]:
        """All lines without those of this host; damaged lines that mention the host are left out too."""
        name = _name(host, port)
        return [
            line
            for line in self._lines()
            if _read_line(line, name) is None and not (_is_damaged(line) and _mentions(line, name))
        ]

    def _known_keys(self, host: str, port: int) -> list[paramiko.PKey]:
        found = (_read_line(line, _name(host, port)) for line in self._lines())
        return [key for key in found if key is not None]

    def _append(self, host: str, port: int, key: paramiko.PKey) -> None:
        self._write([*self._lines(), f"{_name(host, port)} {key.get_name()} {key.get_base64()}"])

    def _has_lost_keys(self) -> bool:
        """True if lines are missing: the file is empty or cut off, or has NUL bytes instead of text."""
        text = self._text()
        if text is None:
            return False
        lines = text.split("\n")
        if _LOST_MARK in lines or "\0" in text or not text.endswith("\n"):
            return True
        counts = [int(found[1]) for line in lines if (found := _TRAILER.fullmatch(line))]
        ours = sum(_MARK in line and not line.startswith("#") for line in lines)
        return ours < counts[-1] if counts else ours > 0

    def _lines(self) -> list[str]:
        text = self._text()
        return text.removesuffix("\n").split("\n") if text else []

    def _text(self) -> str | None:
        try:
            return self.path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"Cannot read the known hosts {self.path}: {error.strerror}.") from error

    def _write(self, lines: list[str]) -> None:
        """Writes the lines with their checksums, and the trailer with their number. The mark of lost keys is
        added if keys are lost. Raises: StoreError."""
        kept = [_add_checksum(line) for line in lines if not _TRAILER.fullmatch(line)]
        if self._has_lost_keys() and _LOST_MARK not in kept:
            kept.append(_LOST_MARK)
        count = sum(_MARK in line and not line.startswith("#") for line in kept)
        text = "".join(f"{line}\n" for line in [*kept, f"# {_MARK} {count} keys"])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _replace(self.path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise StoreError(f"Cannot write the known hosts {self.path}: {error.strerror}.") from error


def _replace(path: Path, content: bytes) -> None:
    """Replaces the file by a new one that only its owner can read. A symlink at `path` is replaced, not
    followed. Raises: OSError."""
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
    """Formats a host as OpenSSH does: with the port if it is not 22."""
    host = host.lower()
    return host if port == 22 else f"[{host}]:{port}"


def _checksum_comment(name: str, line: str) -> str:
    """Returns the comment of a line: a digest of the host, and a checksum of the line."""
    return f"{_MARK}{_digest(name)}:{zlib.crc32(line.encode('utf-8', 'surrogateescape')):08x}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _add_checksum(line: str) -> str:
    """Adds the checksum comment to a readable line of one host without a comment. Returns other lines
    unchanged."""
    words = line.split()
    if len(words) != 3 or "," in words[0] or _read_key(line) is None:
        return line
    return f"{' '.join(words)} {_checksum_comment(words[0], ' '.join(words))}"


def _is_damaged(line: str) -> bool:
    """True if a line of this server does not match its checksum, or another line cannot be parsed as the key
    that it should be. Comments, marked lines (`@`), hashed lines (`|`) and lines with a key type that is not
    in `_KEY_TYPES` are never damaged, except for lines with NUL bytes or too few words."""
    words = line.split()
    if not words or line[0] in "#@|":
        return False
    if _MARK in line:
        return (
            len(words) != 4
            or words[3] != _checksum_comment(words[0], " ".join(words[:3]))
            or not _read_key(line)
        )
    return len(words) < 3 or (words[1] in _KEY_TYPES and _read_key(line) is None) or "\0" in line


_KEY_TYPES = frozenset({"ssh-rsa", "ssh-ed25519", *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521))})


def _mentions(line: str, name: str) -> bool:
    return name in line.lower() or _digest(name) in line


def _read_line(line: str, name: str) -> paramiko.PKey | None:
    """Returns the key in a line if the line is about this host. Damaged, hashed and marked lines have no
    key."""
    words = line.split()
    if len(words) < 3 or name not in words[0].split(",") or _is_damaged(line):
        return None
    return _read_key(line)


def _read_key(line: str) -> paramiko.PKey | None:
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
    except (paramiko.SSHException, paramiko.hostkeys.InvalidHostKey, ValueError):
        return None
    return entry.key if entry else None


def _check_pin(host: str, port: int, key: paramiko.PKey, pinned_fingerprint: str) -> None:
    if key.fingerprint.rstrip("=") != pinned_fingerprint.strip().rstrip("="):
        raise _refusal(
            f"The host key of {_name(host, port)} is {key.fingerprint} ({key.get_name()}), "
            f"but the settings pin it to {pinned_fingerprint}. Nothing was sent to it.",
            _offered(host, port, pinned_fingerprint, key),
        )


def _changed_key_error(host: str, port: int, known: paramiko.PKey, key: paramiko.PKey) -> HostKeyRefused:
    shell_address = f"'[{host}]:{port}'" if ":" in host else f"{host}:{port}"  # quoted for a shell
    return _refusal(
        f"Another machine answers at {_name(host, port)}: "
        f"its host key is {key.fingerprint} ({key.get_name()}), "
        f"we know {known.fingerprint} ({known.get_name()}). Rented addresses often pass to other machines; "
        "if you have just rented this one, forget the old key with: comfyui-workflow hosts forget "
        f"{shell_address} and try again. Nothing was sent to it.",
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
