"""Opens an authenticated SSH transport to one machine and checks its host key. The caller does the retries.

open_transport(address, options) -> OpenTransport(transport, wire, host_key_fingerprint)
    Raises: ConnectionFailed, AuthenticationFailed, HostKeyRefused, KeyRefused (the -i file),
    InvalidAddress (the host resolves to a refused address), StoreError (the known hosts file)
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.ssh_exception import IncompatiblePeer

from comfyui_workflow.errors import AuthenticationFailed
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.ssh import keepalive
from comfyui_workflow.ssh.keys import FoundKeys, find_keys
from comfyui_workflow.ssh.options import ConnectionOptions
from comfyui_workflow.ssh.sockets import connect, connection_failed
from comfyui_workflow.ssh.transport_socket import TransportSocket, wire_over_jump, wire_over_socket

# sshd drops connections when more than ten are not authenticated yet (MaxStartups).
HANDSHAKES_AT_ONCE = 3
# sshd closes the connection after six refused keys (MaxAuthTries).
MOST_KEYS = 5
# GCM needs a third of the CPU time of CTR. CTR is for servers without GCM.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")

# paramiko logs each failure with a traceback before it raises it. Here the error is raised and reported once.
LOG_CHANNEL = "comfyui_workflow.ssh"
logging.getLogger(LOG_CHANNEL).setLevel(logging.CRITICAL)

WINDOW_SLACK_BYTES = 1024 * 1024

_handshakes: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_handshakes_lock = threading.Lock()


def _check_window(feed: Callable[[paramiko.Channel, Any], None]) -> Callable[[paramiko.Channel, Any], None]:
    """Adds a check to a channel's feed method: paramiko itself buffers all data, even beyond the window."""

    def checked_feed(channel: Any, message: Any) -> None:
        feed(channel, message)
        buffered_bytes = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if buffered_bytes > channel.in_window_size + WINDOW_SLACK_BYTES:
            raise paramiko.SSHException("the server sends more data than the channel's window allows")

    return checked_feed


class BoundedTransport(paramiko.Transport):
    """A transport that ends if the peer sends more data on a channel than the window allows."""

    _channel_handler_table = {  # noqa: RUF012 - paramiko declares it in this way
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_DATA: _check_window(paramiko.Channel._feed),  # type: ignore[attr-defined]
        MSG_CHANNEL_EXTENDED_DATA: _check_window(paramiko.Channel._feed_extended),  # type: ignore[attr-defined]
    }


@dataclass(frozen=True, kw_only=True)
class OpenTransport:
    transport: paramiko.Transport
    wire: TransportSocket
    host_key_fingerprint: str

    def close(self) -> None:
        """Closes the transport and, through the wire, that of the jump host. Never blocks."""
        self.transport.close()


def open_transport(address: SshAddress, options: ConnectionOptions) -> OpenTransport:
    found = find_keys(named=address.key_file, search=options.key_search)
    if not found.keys:
        raise AuthenticationFailed(_no_key_error(address, found))
    with ExitStack() as on_failure:
        opened = _open_with_keys(address, options, found, on_failure)
        on_failure.pop_all()
        return opened


def _open_with_keys(
    address: SshAddress, options: ConnectionOptions, found: FoundKeys, on_failure: ExitStack
) -> OpenTransport:
    """Opens the transport, and first that of the jump host, with the same keys. `on_failure` gets a callback
    that closes each opened part."""
    if address.jump:
        # The pinned fingerprint is that of the instance. The jump host is checked by the known hosts.
        without_pin = replace(options, pinned_fingerprint=None)
        jump = _open_with_keys(address.jump, without_pin, found, on_failure).transport
        wire = wire_over_jump(_open_jump_channel(jump, address, options), jump)
        on_failure.callback(wire.close)
    with _handshake_slot(address, options):
        if not address.jump:
            wire = _connect(address, options)
            on_failure.callback(wire.close)
        transport = _prepare(wire, address, options)
        on_failure.callback(_close_failed, transport)
        fingerprint = _handshake(transport, address, options)
        wire.handshake_bytes_left = None
        _authenticate(transport, address, found)
    keepalive.watch(
        transport,
        wire,
        interval_s=options.keepalive_interval_s,
        silence_limit_s=options.silence_limit_s,
    )
    return OpenTransport(transport=transport, wire=wire, host_key_fingerprint=fingerprint)


@contextmanager
def _handshake_slot(address: SshAddress, options: ConnectionOptions) -> Iterator[None]:
    with _handshakes_lock:
        new = threading.BoundedSemaphore(HANDSHAKES_AT_ONCE)
        slots = _handshakes.setdefault((address.host, address.port), new)
    if not slots.acquire(timeout=3 * options.connect_timeout_s):
        raise connection_failed(f"too many connections to {address.label} are being opened")
    try:
        yield
    finally:
        slots.release()


def _connect(address: SshAddress, options: ConnectionOptions) -> TransportSocket:
    return wire_over_socket(
        connect(
            address.host,
            address.port,
            timeout_s=options.connect_timeout_s,
            allow_loopback=options.allow_loopback_hosts,
        )
    )


def _open_jump_channel(
    jump: paramiko.Transport, address: SshAddress, options: ConnectionOptions
) -> paramiko.Channel:
    try:
        return jump.open_channel(
            "direct-tcpip",
            dest_addr=(address.host, address.port),
            src_addr=("127.0.0.1", 0),
            timeout=options.connect_timeout_s,
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise connection_failed(f"the jump host does not reach {address.label}", error) from error


def _prepare(wire: TransportSocket, address: SshAddress, options: ConnectionOptions) -> paramiko.Transport:
    transport = BoundedTransport(wire)  # type: ignore[arg-type]
    transport.set_log_channel(LOG_CHANNEL)
    transport.banner_timeout = options.connect_timeout_s
    transport.handshake_timeout = options.connect_timeout_s
    transport.auth_timeout = options.connect_timeout_s
    transport.channel_timeout = options.connect_timeout_s  # type: ignore[attr-defined]
    security = transport.get_security_options()
    security.ciphers = CIPHERS
    security.key_types = _known_types_first(address, options, tuple(security.key_types))
    return transport


def _known_types_first(
    address: SshAddress, options: ConnectionOptions, all_types: tuple[str, ...]
) -> tuple[str, ...]:
    """Sorts the key types so that the known ones are requested first. A host with several keys then shows the
    known key, and a different host is recognised."""
    known = options.known_hosts.key_types(address.host, address.port)
    if "ssh-rsa" in known:
        known = (*known, "rsa-sha2-512", "rsa-sha2-256")
    return tuple(sorted(all_types, key=lambda name: name not in known))


def _handshake(transport: paramiko.Transport, address: SshAddress, options: ConnectionOptions) -> str:
    try:
        # paramiko's own timeout covers only the time up to the first packet of the key exchange.
        transport.start_client(timeout=options.silence_limit_s)
        if not transport.initial_kex_done:
            raise TimeoutError
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        failure = connection_failed(f"no SSH handshake with {address.label}", error)
        failure.is_transient = not isinstance(error, IncompatiblePeer)
        raise failure from error
    pin = options.pinned_fingerprint
    options.known_hosts.check(address.host, address.port, key, pinned_fingerprint=pin)
    return key.fingerprint


def _authenticate(transport: paramiko.Transport, address: SshAddress, found: FoundKeys) -> None:
    """Tries every key on this one connection: the server counts new connections as further attacks."""
    refused: list[paramiko.PKey] = []
    for key in found.keys[:MOST_KEYS]:
        if _try_key(transport, address, key, was_refused=bool(refused)):
            return
        refused.append(key)
        if not transport.is_active():
            break
    fingerprints = ", ".join(key.fingerprint for key in refused)
    raise AuthenticationFailed(_login_error(address, f"it accepts none of the keys {fingerprints}", found))


def _try_key(
    transport: paramiko.Transport, address: SshAddress, key: paramiko.PKey, *, was_refused: bool
) -> bool:
    try:
        transport.auth_publickey(address.user, key)
    except paramiko.BadAuthenticationType as error:
        raise AuthenticationFailed(
            f"{address.label} does not accept keys, only {', '.join(error.allowed_types)}."
        ) from error
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():
            raise connection_failed(f"{address.label} did not answer when the key was offered") from error
        # A server may close the connection after a refused key. If no key was refused yet, the network
        # failed.
        if not transport.is_active() and not was_refused:
            raise connection_failed(
                f"{address.label} closed the connection while it checked the key"
            ) from error
        return False
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise connection_failed(
            f"the connection to {address.label} was lost while it checked the key", error
        ) from error
    return transport.is_authenticated()


def _close_failed(transport: paramiko.Transport) -> None:
    transport.close()
    transport.packetizer.complete_handshake()  # stops the timer of a failed handshake


def _no_key_error(address: SshAddress, found: FoundKeys) -> str:
    """Error sentence: why no key could be read or, if no key was found, how to make one."""
    advice = " ".join(found.problems) or (
        "Make one on this machine with ssh-keygen -t ed25519 and add the public key to the instance, "
        "or name one with -i in the ssh string."
    )
    return f"Cannot log in to {address.label}: there is no key to show. {advice}"


def _login_error(address: SshAddress, reason: str, found: FoundKeys) -> str:
    problems = "".join(f" {problem}" for problem in found.problems)
    return f"Cannot log in to {address.label}: {reason}. Add the public key to the instance.{problems}"
