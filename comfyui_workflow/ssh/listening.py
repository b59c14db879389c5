"""Ports on which programs of the instance listen, read from /proc over SFTP: no shell is needed.

listening_ports(files) -> tuple[int, ...]    ascending; empty if the instance does not tell
"""

import logging
import re
from collections.abc import Iterator

from comfyui_workflow.errors import InstanceError
from comfyui_workflow.ssh.sftp.files import RemoteFiles

log = logging.getLogger(__name__)

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
OWN_STATUS = "/proc/self/status"
MOST_BYTES = 1024 * 1024
ROOT = 0
_LISTENING = "0A"  # TCP_LISTEN of Linux
_ANY, _ANY_6 = "0" * 8, "0" * 32
_LOOPBACK_6 = ("0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
"""127.0.0.1 as an IPv6 address, and ::1. Each 32-bit word of an address is in the byte order of the machine:
little-endian on every machine with a GPU."""


def listening_ports(files: RemoteFiles) -> tuple[int, ...]:
    """Returns the ports that accept connections to localhost of the instance. Programs of other users are
    left out: several people may share the machine."""
    found = re.search(r"^Uid:\s+(\d{1,10})\b", _text(files, OWN_STATUS), re.MULTILINE)
    user = int(found[1]) if found else None
    return tuple(sorted({port for table in TABLES for port in ports_in(_text(files, table), user)}))


def _text(files: RemoteFiles, path: str) -> str:
    """Returns "" if the instance has no such file: not Linux, no IPv6, or no access."""
    try:
        return files.read(path, MOST_BYTES).decode("ascii", "replace")
    except InstanceError as error:
        log.debug("%s of the instance is not known: %s", path, error)
        return ""


def ports_in(table: str, user: int | None) -> Iterator[int]:
    """Parses one table. `user` is the id of the SSH user: None or root sees all sockets, another user its own
    and those of root. Lines that are not understood are left out: the instance is not trusted."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[3] != _LISTENING or not re.fullmatch("[0-9]{1,10}", fields[7]):
            continue
        address, _, port = fields[1].partition(":")
        is_visible = user in (None, ROOT) or int(fields[7]) in (user, ROOT)
        if is_visible and _is_local(address) and re.fullmatch("[0-9A-F]{4}", port):
            yield int(port, 16)


def _is_local(address: str) -> bool:
    is_loopback = len(address) == len(_ANY) and address.endswith("7F")
    return is_loopback or address in (_ANY, _ANY_6, *_LOOPBACK_6)
