"""Opens a TCP connection to an SSH server, with a timeout and a check of the address.

connect(host, port, *, timeout_s, allow_loopback) -> socket.socket
    Raises: ConnectionFailed, InvalidAddress (the host resolves to a refused address)
"""

import ipaddress
import re
import socket
import struct
import threading
import time

from comfyui_workflow.errors import ConnectionFailed, InvalidAddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# The kernel's detection of a dead connection, in seconds. `keepalive` also detects a frozen peer.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 5, 3
_UNACKNOWLEDGED_S = 20
# SO_LINGER with 0 seconds: unsent data is discarded when the connection is closed or the process is killed.
# Otherwise the kernel would retry for minutes, and a prompt could arrive after it was submitted again.
_DISCARD_UNSENT = struct.pack("ii", 1, 0)


def connect(host: str, port: int, *, timeout_s: float, allow_loopback: bool) -> socket.socket:
    """Opens a TCP connection within `timeout_s`.

    The check comes after the name is resolved, and the connection uses the checked addresses: a second lookup
    could give another address."""
    deadline = time.monotonic() + timeout_s
    addresses = _resolve(host, timeout_s)
    for address in addresses:
        check_address(host, address, allow_loopback=allow_loopback)
    return _connect_to_first(addresses, host, port, deadline)


def check_address(host: str, address: IpAddress, *, allow_loopback: bool) -> None:
    """Refuses link-local and multicast addresses and, unless allowed, loopback addresses.

    Cloud providers serve credentials (instance metadata) at link-local addresses.

    Raises: InvalidAddress.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast:
        raise InvalidAddress(f"The host {host} leads to {address}, where no instance can be: refused.")
    if not allow_loopback and (address.is_loopback or address.is_unspecified):
        raise InvalidAddress(
            f"The host {host} leads to {address}, this server itself: refused by its settings."
        )


def _resolve(host: str, timeout_s: float) -> list[IpAddress]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return _look_up(host, timeout_s)


def _look_up(host: str, timeout_s: float) -> list[IpAddress]:
    """Resolves a name in a thread of its own, because the system's resolver has no timeout. After
    `timeout_s` the thread is abandoned."""
    answer: list[IpAddress | OSError] = []

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            answer.append(error)
        else:
            answer.extend(ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found)

    thread = threading.Thread(target=resolve, name=f"resolve {host}"[:60], daemon=True)
    thread.start()
    thread.join(timeout_s)
    return _addresses_in(host, list(answer))


def _addresses_in(host: str, answer: list[IpAddress | OSError]) -> list[IpAddress]:
    addresses = [item for item in answer if not isinstance(item, OSError)]
    if addresses:
        return addresses
    failure = next((item for item in answer if isinstance(item, OSError)), None)
    no_alias = "" if "." in host else ", and the SSH configuration has no HostName for it"
    error = connection_failed(f"the name {host} cannot be resolved{no_alias}", failure)
    error.is_transient = getattr(failure, "errno", None) != socket.EAI_NONAME
    raise error from failure


def _connect_to_first(addresses: list[IpAddress], host: str, port: int, deadline: float) -> socket.socket:
    failure: OSError = TimeoutError("timed out")
    for position, address in enumerate(addresses):
        left_s = (deadline - time.monotonic()) / (len(addresses) - position)
        try:
            return _set_options(socket.create_connection((str(address), port), timeout=max(left_s, 0.1)))
        except OSError as error:
            failure = error
    raise connection_failed(f"{host} port {port} cannot be reached", failure) from failure


def _set_options(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_UNSENT)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_S * 1000),
    ):
        if hasattr(socket, name):  # some systems lack some of these options
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def connection_failed(what: str, cause: BaseException | None = None) -> ConnectionFailed:
    """Returns the error for a connection that could not be opened, with the reason of `cause`."""
    reason = _reason(cause) if cause else ""
    return ConnectionFailed(f"Failed to create SSH tunnel: {what}{f' ({reason})' if reason else ''}.")


def _reason(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, EOFError):
        return "the server closed the connection"
    text = str(getattr(cause, "strerror", None) or cause)
    return re.sub(r" *\[Errno -?\d+\] *", ": ", text).strip(" .:")
