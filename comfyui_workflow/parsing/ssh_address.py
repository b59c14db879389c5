"""Parser of SSH strings as users paste them. Pure: opens no file, runs no command, never uses a shell.

parse_ssh_address(text) -> SshAddress; raises InvalidAddress, which names the refused part.

How it works: `read_words` splits the pasted text into words, `_read_options` groups the words into options
with the rules of `ssh` itself, and `_Draft` collects the options and builds the address. An option is used,
or ignored with a notice for the user, or refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_command_line import read_words, refused_part
from comfyui_workflow.parsing.ssh_destination import read_destination, read_port, read_user

_IGNORED_SILENTLY = "NfTtnqvakx"
_IGNORED_WITH_NOTICE = {
    "4": "-4 is ignored: the address family is chosen by the host name.",
    "6": "-6 is ignored: the address family is chosen by the host name.",
    "A": "-A is ignored: the SSH agent is never forwarded.",
    "C": "-C is ignored: pictures do not get smaller by compression.",
    "X": "-X is ignored: X11 is not forwarded.",
    "Y": "-Y is ignored: X11 is not forwarded.",
    "g": "-g is ignored: the tunnel listens on 127.0.0.1 only.",
}
_TAKES_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"
_REFUSED = {
    "D": "dynamic forwarding is not accepted",
    "E": "log files are not written",
    "F": "SSH configuration files are not read",
    "G": "printing the configuration is not accepted",
    "I": "PKCS#11 libraries are not loaded",
    "M": "connection sharing is not accepted",
    "R": "remote forwarding is not accepted",
    "S": "connection sharing is not accepted",
    "W": "forwarding of standard input and output is not accepted",
    "w": "tunnel devices are not accepted",
}
_USUAL_COMFYUI_PORTS = (8188, 18188)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_RUNPOD_PROXY = (
    "ssh.runpod.io has no SFTP and hardly any tunnel: "
    'use the pod\'s "SSH over exposed TCP" command, the one with an IP address and -p.'
)


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """SSH address of an instance. `key_file` is a path on this server; `comfyui_host` and `comfyui_port` are
    the right side of -L.

    `notices` are sentences for the user about options that were accepted but ignored.
    """

    host: str
    port: int = 22
    user: str = "root"
    key_file: str | None = None
    comfyui_port: int | None = None
    comfyui_host: str = "localhost"
    jump: "SshAddress | None" = None
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def parse_ssh_address(text: object) -> SshAddress:
    """Reads `ssh ...` commands, `ssh://` addresses and bare `user@host:port`.

    Raises: InvalidAddress.
    """
    words = read_words(text)
    if words and words[0].lower().rpartition("/")[2] in ("ssh", "ssh.exe"):
        words = words[1:]
    if words and words[0] == "sshpass":
        raise refused_part("sshpass", "passwords are not accepted, only keys")
    draft = _Draft()
    for option in _read_options(words):
        draft.add(option)
    return draft.finish()


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
        self.jump: SshAddress | None = None
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
                self.forwards.append(_read_forward(option))
            case "J":
                self._add_jump(option)
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
        address = replace(self.address, key_file=self._choose_key_file(), jump=self.jump)
        if forward:
            address = replace(address, comfyui_host=forward.host, comfyui_port=forward.port)
        return replace(
            address,
            port=int(self.values.get("port", address.port)),
            user=str(self.values.get("user", address.user)),
            notices=tuple(dict.fromkeys(self.notices)),
        )

    def _add_word(self, option: _Option) -> None:
        if self.address is not None:
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
        match keyword.lower():
            case "port":
                self._set("port", read_port(value.strip()), option)
            case "stricthostkeychecking":
                self.notices.append("StrictHostKeyChecking is ignored: the host key is always checked.")
            case _:
                raise refused_part(f"-o {keyword}", "of the -o options only Port is accepted")

    def _add_jump(self, option: _Option) -> None:
        if self.jump is not None:
            raise option.refuse("-J is given twice")
        for hop in option.value.split(","):
            destination = read_destination(hop)
            self.jump = SshAddress(
                host=destination.host,
                port=destination.port or 22,
                user=destination.user or "root",
                jump=self.jump,
            )

    def _choose_key_file(self) -> str | None:
        if len(self.key_files) > 1:
            self.notices.append(f"Of several -i only the first is used: {self.key_files[0]}")
        return self.key_files[0] if self.key_files else None

    def _choose_forward(self) -> _Forward | None:
        """Returns the forward that leads to ComfyUI: the one to a usual ComfyUI port, else the first."""
        if not self.forwards:
            return None
        usual = [forward for forward in self.forwards if forward.port in _USUAL_COMFYUI_PORTS]
        chosen = (usual or self.forwards)[0]
        if len({forward.port for forward in self.forwards}) > 1:
            self.notices.append(f"Of several -L the one to port {chosen.port} is taken as ComfyUI's.")
        return chosen


def _read_forward(option: _Option) -> _Forward:
    """Parses `[bind:]port:host:port`. The left side is checked and not used: the server chooses its local
    port. The right side must be the instance itself."""
    left, right = _split_forward(option)
    host, port = right
    read_port(left)
    if host.lower() not in _LOCAL_NAMES:
        raise option.refuse("-L may only lead to localhost on the instance")
    return _Forward(host.lower(), read_port(port))


def _split_forward(option: _Option) -> tuple[str, tuple[str, str]]:
    rest, _, port = option.value.rpartition(":")
    if rest.endswith("]"):
        rest, _, host = rest[:-1].rpartition(":[")
    else:
        rest, _, host = rest.rpartition(":")
    left = rest.rpartition(":")[2]
    if not left or not host or "/" in option.value:
        raise option.refuse("-L must read port:localhost:port")
    return left, (host, port)
