"""The user at the other end of a TCP connection within this machine, as the Linux kernel knows it.

How it works. Both ends of such a connection are sockets of this kernel. `sock_diag(7)` is asked for one of
them, the client's: its local address is our peer's address, its remote address is ours. That is one look into
the kernel's hash table, however many connections there are. Where it is not allowed, or not built in,
`/proc/net/tcp` and `tcp6` are read, which takes longer the more connections there are.

A socket counts only while a process has it (its inode is not 0): of one that was closed the kernel tells user
0, also where another user had it. So a client that sends and hangs up before it was accepted is nobody.
"""

import errno
import os
import pwd
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

SETTING = "COMFYUI_WORKFLOW_LOCAL_USERS"
ROOT = 0
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NETLINK_SOCK_DIAG = 4
_ANY_STATE = _NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_ANSWER = struct.Struct("=BBBB48sIIIII")
"""`inet_diag_msg`: family, state, timer, retransmits, the socket's id; expires, two queues, uid, inode."""
_ANSWER_WITHIN_S = 2.0
_INET_NAMES = {socket.AF_INET: "tcp", socket.AF_INET6: "tcp6"}
_NOT_TOLD = (errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOSYS)

Address = tuple[str, int]


class PeerUsers:
    """The users of this machine that a server answers: its own, root, and those in `others`; `None` answers
    everybody, and so does any system but Linux, which does not tell. May be used by several threads."""

    def __init__(self, others: frozenset[int] | None = frozenset()) -> None:
        own = {os.getuid(), os.geteuid()} if sys.platform == "linux" else set[int]()
        self._answered = None if others is None else others | own | {ROOT}

    def refusal(self, connection: socket.socket) -> str | None:
        """A sentence for the client of an accepted connection; None where it is answered."""
        if self._answered is None or sys.platform != "linux":
            return None
        try:
            uid = uid_of_peer(connection)
        except OSError as error:
            return f"This system does not tell whose connection this is ({error.strerror}). {_advice()}"
        if uid is None:
            return f"This connection is of no process of this machine. {_advice()}"
        if uid in self._answered and not _is_overflow(uid):
            return None
        owner = _name(os.getuid())
        return f"This server is {owner}'s and answers no other user: you are {_name(uid)}. {_advice()}"


def is_of_another_user(connection: socket.socket) -> bool:
    """Whether an accepted connection is certainly not of this process's user: for ports that nobody else has
    any business with."""
    if sys.platform != "linux":
        return False
    try:
        return uid_of_peer(connection) not in (os.getuid(), os.geteuid())
    except OSError:
        return False


def uid_of_peer(connection: socket.socket) -> int | None:
    """Of the process that has the client's end. None where no process of this machine has it, or has it any
    more. Raises: OSError where the kernel does not tell, also for a connection that is gone."""
    client, server = connection.getpeername(), connection.getsockname()
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    try:
        return _ask_kernel(family, client, server)
    except OSError as error:
        if error.errno not in (*_NOT_TOLD, errno.ENOENT):
            raise
        if error.errno == errno.ENOENT and _does_kernel_tell():
            return None
    return _look_up(family, client, server)


def _ask_kernel(family: socket.AddressFamily, client: Address, server: Address) -> int | None:
    """Raises: OSError; ENOENT for a socket that is not there."""
    packed = [
        socket.inet_pton(family, address[0].partition("%")[0]).ljust(16, b"\0")
        for address in (client, server)
    ]
    wanted = struct.pack("!HH", client[1], server[1]) + b"".join(packed)
    wanted += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    question = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE) + wanted
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as kernel:
        kernel.settimeout(_ANSWER_WITHIN_S)
        kernel.send(_HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + question)
        answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(number, os.strerror(number))
    *_, found, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    is_the_one = found[:4] == wanted[:4]  # a listener at the client's port has no other end
    return int(uid) if inode and is_the_one else None


def _does_kernel_tell() -> bool:
    """Whether it tells of a connection of our own: without `tcp_diag` it knows of none."""
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


def _look_up(family: socket.AddressFamily, client: Address, server: Address) -> int | None:
    """Raises: OSError."""
    tables = {_INET_NAMES[family]: (_told(family, client), _told(family, server))}
    plain = [address[0].removeprefix("::ffff:") for address in (client, server)]
    if all("." in host for host in plain):
        as_v4, as_v6 = [
            tuple(
                _told(kind, (prefix + host, address[1]))
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
    """Raises: OSError."""
    with Path("/proc/net", table).open() as file:
        next(file, None)
        for line in file:
            yield line.split()


def _told(family: socket.AddressFamily, address: Address) -> str:
    """As `/proc/net/tcp` writes an address: words of the machine's byte order, in hexadecimal."""
    words = struct.iter_unpack("=I", socket.inet_pton(family, address[0].partition("%")[0]))
    return "".join(f"{word:08X}" for (word,) in words) + f":{address[1]:04X}"


def _is_overflow(uid: int) -> bool:
    """The user that stands for all that a user namespace (a container) has no number for."""
    try:
        is_whole = Path("/proc/self/uid_map").read_text().split()[:3] == ["0", "0", "4294967295"]
        return not is_whole and uid == int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return False


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _advice() -> str:
    return (
        f"{SETTING} names users who may use it, or `any`; with COMFYUI_WORKFLOW_API_TOKEN whoever has the "
        "token may"
    )
