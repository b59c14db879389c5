"""Opens an authenticated SSH transport to one machine and checks its host key. The caller does the retries.

open_transport(address, options) -> OpenTransport(transport, wire, host_key_fingerprint)
    Raises: ConnectionFailed, AuthenticationFailed, HostKeyRefused, KeyRefused (the -i file),
    InvalidAddress (the host resolves to a refused address), StoreError (the known hosts file)
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.ssh_exception import IncompatiblePeer

from comfyui_workflow.errors import AuthenticationFailed, ConnectionFailed
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.parsing.untrusted import shown, spoken
from comfyui_workflow.ssh import chacha20, keepalive
from comfyui_workflow.ssh.agent import SIGNATURE_S, AgentKey
from comfyui_workflow.ssh.keys import FoundKeys, WantedKeys, find_keys
from comfyui_workflow.ssh.options import ConnectionOptions
from comfyui_workflow.ssh.sockets import connect, connection_failed
from comfyui_workflow.ssh.transport_socket import TransportSocket, wire_over_jump, wire_over_socket

# sshd drops connections when more than ten are not authenticated yet (MaxStartups).
HANDSHAKES_AT_ONCE = 3
# sshd closes the connection after six refused keys (MaxAuthTries).
MOST_KEYS = 6
# GCM needs a third of the CPU time of CTR. The others are for servers without GCM.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    chacha20.NAME,
)
# paramiko knows this key exchange by its older name only.
CURVE25519, CURVE25519_OLDER_NAME = "curve25519-sha256", "curve25519-sha256@libssh.org"

PROVIDER_KEYS = "the SSH keys of your provider (vast.ai: Keys; RunPod: Settings, SSH Public Keys)"

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


Offer = dict[str, Any]
"""Names of the algorithms that a server offers, as lists by kind."""


class BoundedTransport(paramiko.Transport):
    """A transport that ends if the peer sends more data on a channel than the window allows. It has a cipher
    and a name of a key exchange more than paramiko, and keeps the offer of the server."""

    offer: Offer | None = None
    _cipher_info = {  # noqa: RUF012 - paramiko declares it in this way
        **paramiko.Transport._cipher_info,  # type: ignore[attr-defined]
        chacha20.NAME: chacha20.CIPHER,
    }
    _kex_info = {  # noqa: RUF012
        **paramiko.Transport._kex_info,  # type: ignore[attr-defined]
        CURVE25519: KexCurve25519,
    }

    _channel_handler_table = {  # noqa: RUF012 - paramiko declares it in this way
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_DATA: _check_window(paramiko.Channel._feed),  # type: ignore[attr-defined]
        MSG_CHANNEL_EXTENDED_DATA: _check_window(paramiko.Channel._feed_extended),  # type: ignore[attr-defined]
    }

    def _really_parse_kex_init(self, message: Any, ignore_first_byte: bool = False) -> Offer:
        offer: Offer = super()._really_parse_kex_init(message, ignore_first_byte)  # type: ignore[misc]
        if not ignore_first_byte:
            self.offer = dict(offer)
            _agree_on_unused_macs(self, offer)
        return offer


def _agree_on_unused_macs(transport: BoundedTransport, offer: Offer) -> None:
    """Replaces the MACs that a server offers where the cipher has its own: paramiko would refuse the server
    over a MAC that nobody uses."""
    for side in ("client", "server"):
        agreed = [each for each in CIPHERS if each in offer[f"{side}_encrypt_algo_list"]]
        if agreed and transport._cipher_info[agreed[0]].get("is_aead"):
            offer[f"{side}_mac_algo_list"] = list(transport.preferred_macs)


@dataclass(frozen=True, kw_only=True)
class OpenTransport:
    transport: paramiko.Transport
    wire: TransportSocket
    host_key_fingerprint: str

    def close(self) -> None:
        """Closes the transport and, through the wire, that of the jump host. Never blocks."""
        self.transport.close()


def open_transport(address: SshAddress, options: ConnectionOptions) -> OpenTransport:
    """`address` is resolved: see `client_config`."""
    with ExitStack() as on_failure:
        opened = _open(address, options, (), on_failure)
        on_failure.pop_all()
        return opened


def _open(
    address: SshAddress, options: ConnectionOptions, keys_of_instance: tuple[str, ...], on_failure: ExitStack
) -> OpenTransport:
    """Opens the transport, and first that of the jump host, which also gets the keys of the instance.
    `on_failure` gets a callback that closes each opened part."""
    named = (*address.key_files, *keys_of_instance)
    with closing(find_keys(_wanted_keys(address, named), options.key_search)) as found:
        if not found.keys:
            raise AuthenticationFailed(_no_key_error(address, found))
        return _open_with_keys(address, options, found, on_failure)


def _wanted_keys(address: SshAddress, named: tuple[str, ...]) -> WantedKeys:
    return WantedKeys(
        named=tuple(dict.fromkeys(named)),
        in_configuration=address.configured_key_files,
        only=address.identities_only,
        agent_socket=address.agent_socket,
    )


def _open_with_keys(
    address: SshAddress, options: ConnectionOptions, found: FoundKeys, on_failure: ExitStack
) -> OpenTransport:
    if address.jump:
        # The pinned fingerprint is that of the instance. The jump host is checked by the known hosts.
        without_pin = replace(options, pinned_fingerprint=None)
        jump = _open(address.jump, without_pin, address.key_files, on_failure).transport
        wire = wire_over_jump(_open_jump_channel(jump, address, options), jump)
        on_failure.callback(wire.close)
    with _handshake_slot(address, options):
        if not address.jump:
            wire = _connect(address, options)
            on_failure.callback(wire.close)
        transport = _prepare(wire, address, options)
        on_failure.callback(_close_failed, transport)
        fingerprint = _handshake(transport, wire, address, options)
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


def _prepare(wire: TransportSocket, address: SshAddress, options: ConnectionOptions) -> BoundedTransport:
    transport = BoundedTransport(wire, packetizer_class=chacha20.Packetizer)  # type: ignore[arg-type]
    transport.set_log_channel(LOG_CHANNEL)
    transport.banner_timeout = options.connect_timeout_s
    transport.handshake_timeout = options.connect_timeout_s
    transport.auth_timeout = options.connect_timeout_s
    transport.channel_timeout = options.connect_timeout_s  # type: ignore[attr-defined]
    security = transport.get_security_options()
    security.ciphers = CIPHERS
    place = security.kex.index(CURVE25519_OLDER_NAME)
    security.kex = (*security.kex[:place], CURVE25519, *security.kex[place:])
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


def _handshake(
    transport: BoundedTransport, wire: TransportSocket, address: SshAddress, options: ConnectionOptions
) -> str:
    try:
        # paramiko's own timeout covers only the time up to the first packet of the key exchange.
        transport.start_client(timeout=options.silence_limit_s)
        if not transport.initial_kex_done:
            raise TimeoutError
        key = transport.get_remote_server_key()
    except IncompatiblePeer as error:
        failure = connection_failed(_incompatible_error(transport, address))
        failure.is_transient = False
        raise failure from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _no_handshake(address, bytes(wire.beginning), error) from error
    pin = options.pinned_fingerprint
    options.known_hosts.check(address.host, address.port, key, pinned_fingerprint=pin)
    return key.fingerprint


_WEB_SERVERS = (b"HTTP/", b"\x15\x03", b"\x16\x03")
"""Beginnings of the answers of a web server: HTTP, and an alert or a handshake of TLS."""


def _no_handshake(address: SshAddress, heard: bytes, error: BaseException) -> ConnectionFailed:
    """Tells what answers in place of an SSH server. A text such as "Exceeded MaxStartups" may pass, also
    silence while a machine starts; a web server does not become an SSH server."""
    what = f"no SSH handshake with {address.label}"
    if heard.startswith(_WEB_SERVERS):
        failure = connection_failed(f"{what}: a web server answers there, so this is not the port of SSH")
        failure.is_transient = False
        return failure
    if heard and b"SSH-" not in heard:
        what += f': in place of an SSH server, something says "{spoken(heard)}"'
    elif not heard:
        what += ", which accepts the connection and says nothing: its SSH server may still be starting"
    return connection_failed(what, error)


_KINDS = (
    ("key exchange", "kex_algo_list", "preferred_kex", "KexAlgorithms"),
    ("host key algorithm", "server_key_algo_list", "preferred_keys", "HostKeyAlgorithms"),
    ("cipher", "server_encrypt_algo_list", "preferred_ciphers", "Ciphers"),
    ("MAC", "server_mac_algo_list", "preferred_macs", "MACs"),
)
"""Kind of algorithm; list in the offer; what this side has, as a property of the transport; name in
sshd_config."""


def _incompatible_error(transport: BoundedTransport, address: SshAddress) -> str:
    """Error sentence: the first kind of algorithm without agreement, and what both sides have."""
    offer = transport.offer or {}
    for kind, offered_name, own_name, directive in _KINDS:
        offered, own = offer.get(offered_name, []), getattr(transport, own_name)
        if not set(offered) & set(own):
            names = "".join(c for c in ", ".join(offered) if c.isprintable())
            return (
                f"the SSH server of {address.label} offers no {kind} that this server has. "
                f"It offers {shown(names) or 'none'}; this server has {', '.join(own)}. "
                f"Add one of them to {directive} in its sshd_config"
            )
    return f"the SSH server of {address.label} and this server have no algorithms in common"


def _authenticate(transport: paramiko.Transport, address: SshAddress, found: FoundKeys) -> None:
    """Tries every key on this one connection: the server counts new connections as further attacks."""
    refused: list[paramiko.PKey] = []
    for key in found.keys[:MOST_KEYS]:
        if _try_key(transport, address, key, was_refused=bool(refused)):
            return
        refused.append(key)
        if not transport.is_active():
            break
    raise AuthenticationFailed(_login_error(address, refused, found) + _said_before_login(transport))


def _try_key(
    transport: paramiko.Transport, address: SshAddress, key: paramiko.PKey, *, was_refused: bool
) -> bool:
    if isinstance(key, AgentKey):
        transport.auth_timeout = SIGNATURE_S
    try:
        more = transport.auth_publickey(address.user, key)
    except paramiko.BadAuthenticationType as error:
        raise AuthenticationFailed(
            f"{address.label} does not accept keys, only {', '.join(error.allowed_types)}."
        ) from error
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():
            says = _said_before_login(transport).rstrip(".")
            what = f"{address.label} did not answer when the key was offered"
            raise connection_failed(f"{what}.{says}" if says else what) from error
        # A server may close the connection after a refused key. If no key was refused yet, the network
        # failed.
        if not transport.is_active() and not was_refused:
            raise connection_failed(
                f"{address.label} closed the connection while it checked the key"
            ) from error
        return False
    except (paramiko.SSHException, EOFError, OSError) as error:
        if isinstance(key, AgentKey) and key.has_refused:
            raise AuthenticationFailed(_agent_error(address, key)) from error
        raise connection_failed(
            f"the connection to {address.label} was lost while it checked the key", error
        ) from error
    if more:
        raise AuthenticationFailed(
            f"{address.label} accepts the key, and wants {', '.join(more)} too: this server uses keys only."
        )
    return transport.is_authenticated()


def _close_failed(transport: paramiko.Transport) -> None:
    transport.close()
    transport.packetizer.complete_handshake()  # stops the timer of a failed handshake


def _no_key_error(address: SshAddress, found: FoundKeys) -> str:
    """Error sentence: why no key could be read or, if no key was found, how to make one."""
    advice = " ".join(found.problems) or (
        "Make one on this machine with ssh-keygen -t ed25519, paste the content of ~/.ssh/id_ed25519.pub "
        f"into {PROVIDER_KEYS}, and restart the machine. Or name a key with -i in the ssh string."
    )
    return f"Cannot log in to {address.label}: there is no key to show. {advice}"


def _login_error(address: SshAddress, refused: list[paramiko.PKey], found: FoundKeys) -> str:
    names = ", ".join(dict.fromkeys(key.fingerprint for key in refused))
    untried = len(found.keys) - len(refused)
    sentences = [
        f"Cannot log in to {address.label}: it accepts none of the keys {names}.",
        f"{untried} more were not tried: name the right one with -i in the ssh string." if untried else "",
        f"Add the public key to {PROVIDER_KEYS}, and restart the machine.",
        _user_advice(address),
        *found.problems,
    ]
    return " ".join(filter(None, sentences))


def _user_advice(address: SshAddress) -> str:
    if "user" in address.given or address.user != "root":
        return ""
    return f"The ssh string names no user: write it if it is not root, as in ubuntu@{address.host}."


def _said_before_login(transport: paramiko.Transport) -> str:
    """Sentence with the banner that the machine sent for the login; empty if it sent none."""
    banner = spoken(transport.get_banner() or b"")
    return f' It says: "{banner}"' if banner else ""


def _agent_error(address: SshAddress, key: AgentKey) -> str:
    return (
        f"Cannot log in to {address.label}: the SSH agent does not sign with its key {key.fingerprint}. "
        "Unlock the agent and confirm the login there, or name a key file with -i in the ssh string."
    )
