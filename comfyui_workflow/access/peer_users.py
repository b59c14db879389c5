"""Identification of the user at the other end of a local TCP connection, by asking the Linux kernel.

How it works. Both ends of such a connection are sockets of this kernel. The client's socket is looked up with
`sock_diag(7)`: its local address is the peer address of the accepted connection, its remote address is our
own. That is one lookup in the kernel's hash table, independent of the number of connections. If `sock_diag`
is not allowed or not built in, `/proc/net/tcp` and `tcp6` are read, which takes longer with more connections.

A socket counts only while a process has it open (its inode is not 0). For a closed socket the kernel reports
user 0, even if another user had opened it. So a client that sends and disconnects before it was accepted has
no user.
"""

import errno
import os
import pwd
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SETTING = "COMFYUI_WORKFLOW_LOCAL_USERS"
ROOT = 0
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NETLINK_SOCK_DIAG = 4
_ANY_STATE = _NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_RESPONSE = struct.Struct("=BBBB48sIIIII")
"""`inet_diag_msg`: family, state, timer, retransmits, socket id; expires, two queues, uid, inode."""
_TIMEOUT_S = 2.0
_INET_NAMES = {socket.AF_INET: "tcp", socket.AF_INET6: "tcp6"}
_NOT_SUPPORTED = (
    errno.EPERM,
    errno.EACCES,
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.ENOSYS,
)

_of_thread = threading.local()

Address = tuple[str, int]


class PeerUsers:
    """Authorization of local users: the server's own user, root, and those in `others`. Thread-safe.

    `others=None` allows all users. On systems other than Linux all users are allowed, because the user of a
    connection is unknown there."""

    def __init__(self, others: frozenset[int] | None = frozenset()) -> None:
        own = {os.getuid(), os.geteuid()} if sys.platform == "linux" else set[int]()
        self._allowed = None if others is None else others | own | {ROOT}

    def refusal(self, connection: socket.socket) -> str | None:
        """Returns an error message if the client of an accepted connection is refused, otherwise None."""
        if self._allowed is None or sys.platform != "linux":
            return None
        try:
            uid = uid_of_peer(connection)
        except OSError as error:
            return f"The user of this connection cannot be determined ({error.strerror}). {_advice()}"
        if uid is None:
            return f"This connection does not come from a process of this machine. {_advice()}"
        if uid in self._allowed and uid != _overflow_uid():
            return None
        owner = _name(os.getuid())
        return f"This server is {owner}'s and answers no other user: you are {_name(uid)}. {_advice()}"


def is_of_another_user(connection: socket.socket) -> bool:
    """True if an accepted connection certainly belongs to another user than this process.

    For ports that only this user should use. False if the user is unknown."""
    if sys.platform != "linux":
        return False
    try:
        return uid_of_peer(connection) not in (os.getuid(), os.geteuid())
    except OSError:
        return False


def uid_of_peer(connection: socket.socket) -> int | None:
    """Returns the user of the process that has the client's socket open.

    None if no process of this machine has it open (any more). Raises: OSError if the kernel does not
    response, also if the connection has ended."""
    client, server = connection.getpeername(), connection.getsockname()
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    try:
        return _ask_kernel(family, client, server)
    except OSError as error:
        if error.errno not in (*_NOT_SUPPORTED, errno.ENOENT):
            raise
        if error.errno == errno.ENOENT and _is_lookup_supported():
            return None
    return _read_tables(family, client, server)


def _ask_kernel(family: socket.AddressFamily, client: Address, server: Address) -> int | None:
    """Looks up the client's socket with `sock_diag`. Raises: OSError; ENOENT if there is no such socket."""
    packed = [
        socket.inet_pton(family, address[0].partition("%")[0]).ljust(16, b"\0")
        for address in (client, server)
    ]
    wanted = struct.pack("!HH", client[1], server[1]) + b"".join(packed)
    wanted += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE) + wanted
    response = _exchange(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + request)
    if _HEADER.unpack_from(response)[1] == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", response, _HEADER.size)[0]
        raise OSError(number, os.strerror(number))
    *_, found, _, _, _, uid, inode = _RESPONSE.unpack_from(response, _HEADER.size)
    is_same = found[:4] == wanted[:4]  # a listener on the client's port matches too, but has no peer
    return int(uid) if inode and is_same else None


def _exchange(request: bytes) -> bytes:
    """Asks over a socket that the thread keeps: opening one takes longer than the lookup. Raises: OSError."""
    kernel: socket.socket | None = getattr(_of_thread, "kernel", None)
    if kernel is None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        kernel = _of_thread.kernel = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        kernel.settimeout(_TIMEOUT_S)
    try:
        kernel.send(request)
        return kernel.recv(8192)
    except OSError:  # the response may still come: it must not answer the next request
        _of_thread.kernel = None
        kernel.close()
        raise


def _is_lookup_supported() -> bool:
    """True if `sock_diag` finds a test connection of this process. Without `tcp_diag` it finds none."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            try:
                return _ask_kernel(socket.AF_INET, client.getsockname(), accepted.getsockname()) is not None
            except OSError:
                return False


def _read_tables(family: socket.AddressFamily, client: Address, server: Address) -> int | None:
    """Looks up the client's socket in `/proc/net`. Raises: OSError."""
    tables = {_INET_NAMES[family]: (_proc_address(family, client), _proc_address(family, server))}
    plain = [address[0].removeprefix("::ffff:") for address in (client, server)]
    if all("." in host for host in plain):
        as_v4, as_v6 = [
            tuple(
                _proc_address(kind, (prefix + host, address[1]))
                for host, address in zip(plain, (client, server), strict=True)
            )
            for kind, prefix in ((socket.AF_INET, ""), (socket.AF_INET6, "::ffff:"))
        ]
        tables = {"tcp": (as_v4[0], as_v4[1]), "tcp6": (as_v6[0], as_v6[1])}
    for name, (local, remote) in tables.items():
        for fields in _lines(name):
            if fields[1] == local and fields[2] == remote:
                return int(fields[7]) if int(fields[9]) else None
    return None


def _lines(table: str) -> Iterator[list[str]]:
    """Yields the fields of each line of a table in `/proc/net`. Raises: OSError."""
    with Path("/proc/net", table).open() as file:
        next(file, None)
        for line in file:
            yield line.split()


def _proc_address(family: socket.AddressFamily, address: Address) -> str:
    """Formats an address like `/proc/net/tcp`: hexadecimal words in the byte order of the machine."""
    words = struct.iter_unpack("=I", socket.inet_pton(family, address[0].partition("%")[0]))
    return "".join(f"{word:08X}" for (word,) in words) + f":{address[1]:04X}"


@cache
def _overflow_uid() -> int | None:
    """The overflow user. In a user namespace (a container) it stands for all users that have no number there.
    None outside of one. Neither changes while a process runs."""
    try:
        is_whole = Path("/proc/self/uid_map").read_text().split()[:3] == ["0", "0", "4294967295"]
        return None if is_whole else int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _advice() -> str:
    return (
        f"To allow other users, set {SETTING} to their names or to `any`, or set an API token with "
        "COMFYUI_WORKFLOW_API_TOKEN"
    )
