"""Parser of SSH strings as users paste them. Pure: opens no file, runs no command, never uses a shell.

parse_ssh_address(text) -> SshAddress; raises InvalidAddress, which names the refused part.

How it works: `read_words` splits the pasted text into words, `_read_options` groups the words into options
with the rules of `ssh` itself, and `_Draft` collects the options and builds the address. An option is used,
or ignored with a notice for the user, or refused. `ssh_keywords` lists the keywords of -o.

The address is what was written: `ssh.client_config` adds what the SSH configuration says about the host.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_command_line import read_words, refused_part
from comfyui_workflow.parsing.ssh_config_block import read_block
from comfyui_workflow.parsing.ssh_destination import read_destination, read_host, read_port, read_user
from comfyui_workflow.parsing.ssh_keywords import ignored_notice, is_off, refusal_reason

_IGNORED_SILENTLY = "NfTtnqvakxeKy"
_IGNORED_WITH_NOTICE = {
    "4": "-4 is ignored: the address family is chosen by the host name.",
    "6": "-6 is ignored: the address family is chosen by the host name.",
    "A": "-A is ignored: the SSH agent is never forwarded.",
    "C": "-C is ignored: pictures do not get smaller by compression.",
    "X": "-X is ignored: X11 is not forwarded.",
    "Y": "-Y is ignored: X11 is not forwarded.",
    "B": "-B is ignored: the system chooses the local address.",
    "b": "-b is ignored: the system chooses the local address.",
    "c": "-c is ignored: this server chooses the cipher.",
    "m": "-m is ignored: this server chooses the MAC.",
    "g": "-g is ignored: the tunnel listens on 127.0.0.1 only.",
}
_TAKES_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"
_REFUSED = {
    "D": "dynamic forwarding is not accepted",
    "E": "log files are not written",
    "F": "only the SSH configuration file of the settings is read",
    "G": "printing the configuration is not accepted",
    "I": "PKCS#11 libraries are not loaded",
    "M": "connection sharing is not accepted",
    "P": "ssh takes the port with a small letter: -p",
    "R": "remote forwarding is not accepted",
    "S": "connection sharing is not accepted",
    "W": "forwarding of standard input and output is not accepted",
    "w": "tunnel devices are not accepted",
}
_OTHER_PROGRAMS = (
    *("scp", "sftp", "rsync", "pscp", "mosh", "autossh", "plink", "putty", "sudo"),
    *("gcloud", "vastai", "runpodctl"),
)
_PASTE_SSH = "paste the ssh command of the machine, which begins with ssh"
_USUAL_COMFYUI_PORTS = (8188, 18188)
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - as a destination it means the machine itself
_RUNPOD_PROXY = (
    "ssh.runpod.io has no SFTP and hardly any tunnel: "
    'use the pod\'s "SSH over exposed TCP" command, the one with an IP address and -p.'
)


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """SSH address of an instance. `key_files` are paths on this server; `comfyui_host` and `comfyui_port` are
    the right side of -L, as seen from the instance.

    `given` has the names of the fields that the text sets itself (host, port, user, jump): the SSH
    configuration cannot change them. `alias` is the name to look up there, if it is not `host`.
    `configured_key_files` and `agent_socket` come from the SSH configuration, never from a text.
    `notices` are sentences for the user about options that were accepted but ignored.
    """

    host: str
    port: int = 22
    user: str = "root"
    key_files: tuple[str, ...] = ()
    identities_only: bool = False
    comfyui_port: int | None = None
    comfyui_host: str = "localhost"
    jump: "SshAddress | None" = None
    alias: str | None = field(default=None, compare=False)
    given: frozenset[str] = field(default=frozenset(), compare=False)
    configured_key_files: tuple[str, ...] = field(default=(), compare=False)
    agent_socket: str | None = field(default=None, compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def parse_ssh_address(text: object) -> SshAddress:
    """Reads `ssh ...` commands, `ssh://` addresses, bare `user@host:port` and Host blocks.

    Raises: InvalidAddress.
    """
    words = _words(text)
    if words and words[0].lower().rpartition("/")[2] in ("ssh", "ssh.exe"):
        words = words[1:]
    elif words:
        _refuse_other_program(words)
    draft = _Draft()
    for option in _read_options(words):
        draft.add(option)
    return draft.finish()


def _words(text: object) -> list[str]:
    words = read_words(text)
    return read_block(words) or words


def _refuse_other_program(words: list[str]) -> None:
    program = words[0].lower().removesuffix(".exe")
    if program == "sshpass":
        raise refused_part(words[0], "passwords are not accepted, only keys")
    if program in _OTHER_PROGRAMS and len(words) > 1:
        raise refused_part(words[0], _PASTE_SSH)
    if program.startswith(("http://", "https://")):
        raise refused_part(words[0], f"this is a web page; {_PASTE_SSH}")


def read_jump(text: str) -> SshAddress | None:
    """Reads the hosts of -J or ProxyJump, separated by commas; the last one reaches the instance. None for
    `none`. Raises: InvalidAddress."""
    if text.lower() == "none":
        return None
    jump: SshAddress | None = None
    for hop in text.split(","):
        destination = read_destination(hop.strip())
        written = {"port": destination.port, "user": destination.user, "jump": jump}
        jump = SshAddress(
            host=destination.host,
            port=destination.port or 22,
            user=destination.user or "root",
            jump=jump,
            given=frozenset(name for name, value in written.items() if value is not None),
        )
    return jump


def with_absolute_keys(text: str, absolute: Callable[[str], str]) -> str:
    """Applies `absolute` to the key files that an ssh string names. Returns the text itself if that changes
    none of them, or if the text cannot be split into words."""
    try:
        words = _words(text)
    except InvalidAddress:
        return text
    changed = list[str]()
    before = None
    for word in words:
        option = before or _KEY_OPTION.match(word)
        start = option.end() if option and not before else 0
        keyword = _KEY_KEYWORD.match(word, start)
        if option and option[1] == "o":
            start = keyword.end() if keyword else len(word)
        has_key = option is not None and start < len(word)
        changed.append(word[:start] + absolute(word[start:]) if has_key else word)
        before = option if option and not before and option.end() == len(word) else None
    return text if changed == words else shlex.join(changed)


_KEY_OPTION = re.compile(rf"-[^-{_TAKES_VALUE}]*([io])")
_KEY_KEYWORD = re.compile(r"\s*IdentityFile\s*[=\s]\s*", re.IGNORECASE)


class _Option(NamedTuple):
    letter: str  # empty for a word that is not an option
    value: str

    def refuse(self, reason: str) -> Exception:
        return refused_part(f"-{self.letter} {self.value}".rstrip() if self.letter else self.value, reason)


def _read_options(words: list[str]) -> Iterator[_Option]:
    """Reads options as ssh does: flags may share a dash (-Nf), a value may follow its option directly (-p22),
    `--` ends the options."""
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            yield from (_Option("", rest) for rest in remaining)
        elif word.startswith("-") and word != "-":
            yield from _read_cluster(word, remaining)
        else:
            yield _Option("", word)


def _read_cluster(word: str, remaining: Iterator[str]) -> Iterator[_Option]:
    for position, letter in enumerate(word[1:], start=2):
        if letter not in _TAKES_VALUE:
            yield _Option(letter, "")
            continue
        value = word[position:] or next(remaining, None)
        if not value:
            raise refused_part(f"-{letter}", "its value is missing")
        yield _Option(letter, value)
        return


class _Forward(NamedTuple):
    host: str
    port: int


class _Draft:
    """Address under construction. A value that is given twice must be the same both times."""

    def __init__(self) -> None:
        self.address: SshAddress | None = None
        self.values: dict[str, str | int] = {}
        self.key_files: list[str] = []
        self.forwards: list[_Forward] = []
        self.jumps: list[SshAddress | None] = []
        self.identities_only = False
        self.notices: list[str] = []

    def add(self, option: _Option) -> None:
        match option.letter:
            case "":
                self._add_word(option)
            case "p":
                self._set("port", read_port(option.value), option)
            case "l":
                self._set("user", read_user(option.value), option)
            case "i":
                self.key_files.append(option.value)
            case "L":
                self.forwards.append(_read_forward(option, option.value))
            case "J":
                self._add_jump(option, option.value)
            case "o":
                self._add_keyword(option)
            case letter if letter in _IGNORED_WITH_NOTICE:
                self.notices.append(_IGNORED_WITH_NOTICE[letter])
            case letter if letter not in _IGNORED_SILENTLY:
                raise option.refuse(_REFUSED.get(letter, "this option is not accepted"))

    def finish(self) -> SshAddress:
        if self.address is None:
            raise InvalidAddress("The SSH address names no host.")
        if self.address.host == "ssh.runpod.io":
            self.notices.append(_RUNPOD_PROXY)
        forward = self._choose_forward()
        host = self.values.get("host")
        address = replace(
            self.address,
            host=str(host or self.address.host),
            alias=self.address.host if host else None,
            port=int(self.values.get("port", self.address.port)),
            user=str(self.values.get("user", self.address.user)),
            key_files=tuple(dict.fromkeys(self.key_files)),
            identities_only=self.identities_only,
            jump=self.jumps[0] if self.jumps else None,
            given=frozenset(self.values) | ({"jump"} if self.jumps else set()),
            notices=tuple(dict.fromkeys(self.notices)),
        )
        if forward:
            address = replace(address, comfyui_host=forward.host, comfyui_port=forward.port)
        return address

    def _add_word(self, option: _Option) -> None:
        if self.address is not None:
            if option.value.isdecimal():
                raise option.refuse(f"a port is written -p {option.value}")
            raise option.refuse("commands to run on the instance are not accepted")
        destination = read_destination(option.value)
        self.address = SshAddress(host=destination.host)
        if destination.port is not None:
            self._set("port", destination.port, option)
        if destination.user is not None:
            self._set("user", destination.user, option)

    def _set(self, name: str, value: str | int, option: _Option) -> None:
        if self.values.setdefault(name, value) != value:
            raise option.refuse(f"two different {name}s are given")

    def _add_keyword(self, option: _Option) -> None:
        keyword, _, value = option.value.replace("=", " ", 1).strip().partition(" ")
        value = value.strip().removeprefix('"').removesuffix('"')
        match keyword.lower():
            case "port":
                self._set("port", read_port(value), option)
            case "user":
                self._set("user", read_user(value), option)
            case "hostname":
                self._set("host", read_host(value), option)
            case "identityfile":
                self.key_files += [value] if value else []
            case "identitiesonly":
                self.identities_only = not is_off(value)
            case "localforward":
                self.forwards.append(_read_forward(option, ":".join(value.split())))
            case "proxyjump":
                self._add_jump(option, value)
            case "proxycommand" if is_off(value):
                self._add_jump(option, "none")
            case _:
                self._ignore(keyword, value)

    def _ignore(self, keyword: str, value: str) -> None:
        """Adds the notice about a keyword that is not used. Raises: InvalidAddress for an unknown keyword,
        and for one that could do harm, unless its value turns it off."""
        reason = refusal_reason(keyword)
        if reason and not is_off(value):
            raise refused_part(f"-o {keyword}", reason)
        notice = ignored_notice(keyword)
        if notice:
            self.notices.append(notice)

    def _add_jump(self, option: _Option, hosts: str) -> None:
        if self.jumps:
            raise option.refuse("-J is given twice")
        self.jumps.append(read_jump(hosts))

    def _choose_forward(self) -> _Forward | None:
        """Returns the forward that leads to ComfyUI: the one to a usual ComfyUI port, else the first."""
        if not self.forwards:
            return None
        usual = [forward for forward in self.forwards if forward.port in _USUAL_COMFYUI_PORTS]
        chosen = (usual or self.forwards)[0]
        if len({forward.port for forward in self.forwards}) > 1:
            self.notices.append(f"Of several -L the one to port {chosen.port} is taken as ComfyUI's.")
        return chosen


def _read_forward(option: _Option, text: str) -> _Forward:
    """Parses `[bind:]port:host:port`. The left side is checked and not used: the server chooses its local
    port. The right side is the instance itself, or another host that the instance reaches."""
    left, (host, port) = _split_forward(option, text)
    read_port(left)
    host = read_host(host)
    if host in _ANY_ADDRESS:
        host = "localhost"
    if _is_no_host(host):
        raise option.refuse("-L may not lead to a link-local or multicast address")
    return _Forward(host, read_port(port))


def _is_no_host(host: str) -> bool:
    """True for addresses where no ComfyUI can be; clouds serve credentials at link-local addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_link_local or address.is_multicast


def _split_forward(option: _Option, text: str) -> tuple[str, tuple[str, str]]:
    rest, _, port = text.rpartition(":")
    if rest.endswith("]"):
        rest, _, host = rest[:-1].rpartition(":[")
    else:
        rest, _, host = rest.rpartition(":")
    left = rest.rpartition(":")[2]
    if not left or not host or "/" in text:
        raise option.refuse("-L must read port:host:port, such as 8188:localhost:8188")
    return left, (host, port)
