"""Ports on which programs of the instance listen, read from /proc over SFTP: no shell is needed.

listening_ports(files) -> dict[int, str]    by port, ascending: LOCALHOST, or the only address on which the
                                            port is open; empty if the instance does not tell
"""

import ipaddress
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
LOCALHOST = "localhost"
_LISTENING = "0A"  # TCP_LISTEN of Linux
_ADDRESS = re.compile("[0-9A-F]{8}|[0-9A-F]{32}")


def listening_ports(files: RemoteFiles) -> dict[int, str]:
    """Returns the open ports, and where each is open. Programs of other users are left out: several people
    may share the machine."""
    found = re.search(r"^Uid:\s+(\d{1,10})\b", _text(files, OWN_STATUS), re.MULTILINE)
    user = int(found[1]) if found else None
    places = [place for table in TABLES for place in places_in(_text(files, table), user)]
    by_port = dict(sorted(places))
    return by_port | {port: host for port, host in places if host == LOCALHOST}


def _text(files: RemoteFiles, path: str) -> str:
    """Returns "" if the instance has no such file: not Linux, no IPv6, or no access."""
    try:
        return files.read(path, MOST_BYTES).decode("ascii", "replace")
    except InstanceError as error:
        log.debug("%s of the instance is not known: %s", path, error)
        return ""


def places_in(table: str, user: int | None) -> Iterator[tuple[int, str]]:
    """Parses one table; yields ports with their hosts. `user` is the id of the SSH user: None or root sees
    all sockets, another user its own and those of root. Lines that are not understood are left out: the
    instance is not trusted."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[3] != _LISTENING or not re.fullmatch("[0-9]{1,10}", fields[7]):
            continue
        address, _, port = fields[1].partition(":")
        is_visible = user in (None, ROOT) or int(fields[7]) in (user, ROOT)
        host = _host_of(address)
        if is_visible and host and re.fullmatch("[0-9A-F]{4}", port):
            yield int(port, 16), host


def _host_of(address: str) -> str | None:
    """Returns LOCALHOST if a connection to 127.0.0.1 arrives there. Each 32-bit word of an address is in the
    byte order of the machine: little-endian on every machine with a GPU."""
    if not _ADDRESS.fullmatch(address):
        return None
    words = (bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8))
    ip = ipaddress.ip_address(b"".join(words))
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_unspecified or str(ip) == "127.0.0.1":
        return LOCALHOST
    return None if ip.is_link_local or ip.is_multicast else str(ip)
