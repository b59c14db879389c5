"""Parser of [user@]host[:port] in all its forms, IPv6 included. Pure.

read_destination(text) -> Destination; read_host(text) -> str; read_port(text) -> int; read_user(text) -> str.
All raise InvalidAddress.
"""

import ipaddress
import re
from typing import NamedTuple

from comfyui_workflow.parsing.ssh_command_line import refused_part

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,127}")
_SCHEMES = ("ssh://", "sftp://", "scp://")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_SHORT_NUMBER = re.compile(r"[0-9]{1,5}")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::(.*))?")


class Destination(NamedTuple):
    host: str
    port: int | None
    user: str | None


def read_destination(text: str) -> Destination:
    rest = text
    if text.lower().startswith(_SCHEMES):
        rest = text.partition("://")[2].removesuffix("/")
    user, at, rest = rest.rpartition("@")
    host, port = _split_port(rest, text)
    return Destination(_read_host(host, text), port, read_user(user) if at else None)


def read_host(text: str) -> str:
    return _read_host(text, text)


def is_number(host: str) -> bool:
    """True for a host such as 4090. It may be an alias in the SSH configuration; to a resolver it would be an
    IP address."""
    return _SHORT_NUMBER.fullmatch(host) is not None


def read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise refused_part(text, "a port is a number from 1 to 65535")
    return int(text)


def read_user(text: str) -> str:
    if ":" in text:
        raise refused_part(f"{text}@", "passwords are not accepted, only keys")
    if not _USER.fullmatch(text):
        raise refused_part(text, "this is not a user name")
    return text


def _split_port(rest: str, text: str) -> tuple[str, int | None]:
    if bracketed := _BRACKETED.fullmatch(rest):
        host, port = bracketed.groups()
        if ":" not in host:
            raise refused_part(text, "only an IPv6 address is written in brackets")
        return host, None if port is None else read_port(port)
    if rest.count(":") == 1:
        host, _, port = rest.partition(":")
        return host, read_port(port)
    return rest, None


def _read_host(host: str, text: str) -> str:
    """Returns the normalized host: connections are shared by host, so one host must have one spelling."""
    if ":" in host:
        return _read_ipv6(host, text)
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise refused_part(text, "this is not a host name")
    if _NUMBER.fullmatch(labels[-1]) and not is_number(host):
        _read_ipv4(host, text)
    return host


def _read_ipv6(host: str, text: str) -> str:
    try:
        if "%" in host:
            raise ValueError
        return ipaddress.IPv6Address(host).compressed
    except ValueError:
        raise refused_part(text, "this is not an IPv6 address") from None


def _read_ipv4(host: str, text: str) -> None:
    """Refuses a name that ends in a number and is no full IPv4 address: a resolver would read 127.1 or 0x7f.1
    as an address."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise refused_part(text, "this is not an IP address") from None
