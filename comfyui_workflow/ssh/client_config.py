"""Reads the user's SSH configuration (~/.ssh/config), which says what `ssh gpu` means.

resolve(address, config_file) -> SshAddress     raises InvalidAddress

How it works: the file and its includes become one list of lines with the few keywords that this server uses.
Each Host line becomes a Match line; the criteria of an included file are added to those of the block that
includes it. paramiko parses these lines and finds the values for a host. No line runs a command: a Match
that needs one never applies, and a host with a ProxyCommand is refused.

The files are read again when one of them changes, so a change applies to the next connection.
"""

import getpass
import glob
import logging
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import paramiko

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import SshAddress, read_jump
from comfyui_workflow.parsing.ssh_command_line import refused_part
from comfyui_workflow.parsing.ssh_destination import is_number, read_host, read_port, read_user
from comfyui_workflow.parsing.ssh_keywords import is_off
from comfyui_workflow.parsing.text_encoding import decoded

log = logging.getLogger(__name__)

LARGEST_FILE_BYTES = 1024 * 1024
DEEPEST_INCLUDE = 16
MOST_JUMPS = 8

_USED = ("hostname", "port", "user", "identityfile", "identitiesonly", "identityagent", "proxyjump")
_CRITERIA = ("host", "originalhost", "user", "localuser")
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)")
_NEVER = ("originalhost", "!*")
_DEFAULT_AGENT = "SSH_AUTH_SOCK"

Criteria = tuple[str, ...]
Stamps = dict[Path, tuple[int, int] | None]
"""Files and directories, with the time and the size that they had when they were read."""


class _HostTable(paramiko.SSHConfig):
    TOKENS_BY_CONFIG_KEY: dict[str, list[str]] = {}  # noqa: RUF012 - `_expand` does it: paramiko's tokens look up names


_tables: dict[Path, tuple[Stamps, _HostTable | None]] = {}


def resolve(address: SshAddress, config_file: Path | None) -> SshAddress:
    """Returns the address with what the configuration adds: host name, port, user, keys and jump hosts. What
    the ssh string gives itself has precedence.

    Raises: InvalidAddress if the configuration needs a command, has an invalid value, or if its jump hosts
    form a circle.
    """
    return _resolve(address, _read_table(config_file) if config_file else None, MOST_JUMPS)


def _resolve(address: SshAddress, table: _HostTable | None, jumps_left: int) -> SshAddress:
    alias = address.alias or address.host
    found = _look_up(alias, table) if table else {}
    try:
        resolved = _with_values(address, alias, found)
        jump = _jump(resolved, alias, found)
    except InvalidAddress as error:
        raise InvalidAddress(f"The SSH configuration of {alias} cannot be used. {error}") from error
    if is_number(resolved.host):
        raise refused_part(resolved.host, "this is not an IP address, and no alias in the SSH configuration")
    if jump is None:
        return replace(resolved, jump=None)
    if not jumps_left:
        raise InvalidAddress(
            f"{alias} has more than {MOST_JUMPS} jump hosts, or a circle of them (ProxyJump)."
        )
    return replace(resolved, jump=_resolve(jump, table, jumps_left - 1))


def _look_up(alias: str, table: _HostTable) -> dict[str, Any]:
    try:
        return dict(table.lookup(alias))
    except (KeyError, OSError) as error:  # from getpass: paramiko needs the name of the user
        log.warning("the SSH configuration is not used: the user of this server has no name (%s)", error)
        return {}


def _with_values(address: SshAddress, alias: str, found: dict[str, Any]) -> SshAddress:
    host, port, user = address.host, address.port, address.user
    if "hostname" in found and "host" not in address.given and found["hostname"] != alias:
        host = read_host(_expand(found["hostname"], {"h": alias}))
    if "port" in found and "port" not in address.given:
        port = read_port(found["port"])
    if "user" in found and "user" not in address.given:
        user = read_user(found["user"])
    tokens = {"d": str(_in_home("~")), "h": host, "n": alias, "p": str(port), "r": user}
    files = [_expand(file, tokens) for file in found.get("identityfile", ()) if file.lower() != "none"]
    agent = str(found.get("identityagent", _DEFAULT_AGENT))
    return replace(
        address,
        host=host,
        port=port,
        user=user,
        alias=alias,
        configured_key_files=tuple(files),
        identities_only=address.identities_only or found.get("identitiesonly", "").lower() == "yes",
        agent_socket=None if agent == _DEFAULT_AGENT or agent.startswith("$") else _expand(agent, tokens),
    )


def _jump(address: SshAddress, alias: str, found: dict[str, Any]) -> SshAddress | None:
    """Returns the jump host of the ssh string or, if it gives none, of the configuration. A host that is its
    own jump host is connected directly, so that `Host *` may name one for all others."""
    if "jump" in address.given or address.jump:
        return address.jump
    if "proxyjump" in found:
        tokens = {"h": address.host, "p": str(address.port), "r": address.user}
        jump = read_jump(_expand(found["proxyjump"], tokens))
        return None if jump and jump.host in (alias, address.host) else jump
    if found.get("proxycommand") is not None:
        raise InvalidAddress(
            "It has a ProxyCommand, and this server runs no commands. Use ProxyJump there, or -J in the ssh "
            "string."
        )
    return None


def _expand(value: str, tokens: dict[str, str]) -> str:
    """Replaces %h and the other tokens of ssh_config. An unknown token stays as it is."""

    def replacement(token: re.Match[str]) -> str:
        if token[1] == "u":
            return getpass.getuser()
        return {**tokens, "%": "%"}.get(token[1], token[0])

    return re.sub("%(.)", replacement, value)


def _read_table(config_file: Path) -> _HostTable | None:
    """None if no file has a line that this server uses. Cached until a file changes."""
    file = _in_home(config_file)
    stamps, table = _tables.get(file, ({}, None))
    if stamps and stamps == {path: _stamp(path) for path in stamps}:
        return table
    read: Stamps = {}
    blocks = groupby(_settings_of(file, (), (), read), key=lambda setting: setting[0])
    lines = [line for criteria, settings in blocks for line in _block(criteria, settings)]
    table = _HostTable() if lines else None
    if table:
        table.parse(lines)  # type: ignore[arg-type] # it only iterates over the lines
    _tables[file] = (read, table)
    return table


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def _block(criteria: Criteria, settings: Iterable[tuple[Criteria, str]]) -> list[str]:
    return [f"Match {shlex.join(criteria) or 'all'}", *(line for _, line in settings)]


def _settings_of(
    file: Path, outer: Criteria, includers: tuple[Path, ...], read: Stamps
) -> Iterator[tuple[Criteria, str]]:
    """Yields the lines of a file and its includes, in paramiko's form, with the criteria of their blocks.
    `outer` are the criteria of the block that includes the file. Adds what is read to `read`."""
    if file in includers or len(includers) > DEEPEST_INCLUDE:
        return
    chain, criteria = (*includers, file), outer
    read[file] = _stamp(file)
    for keyword, words in _lines_in(file):
        if keyword == "include":
            for each in _included_files(words, chain[0].parent, read):
                yield from _settings_of(each, criteria, chain, read)
        elif keyword == "host":
            criteria = (*outer, "originalhost", ",".join(words).lower())
        elif keyword == "match":
            criteria = (*outer, *_match_criteria(words))
        elif keyword == "proxycommand":
            yield criteria, _proxy_line(words)
        elif keyword in _USED:
            yield criteria, f'{keyword} "{words[0]}"'


def _proxy_line(words: list[str]) -> str:
    """Returns ProxyJump for a command that does the same with ssh; another command is never run."""
    command = [word for word in words if word != "-q"]
    match [command[0].rpartition("/")[2], *command[1:]]:
        case ["ssh", "-W", "%h:%p", host] | ["ssh", host, "-W", "%h:%p"] | ["ssh", host, "nc", "%h", "%p"]:
            return f'proxyjump "{host}"'
        case [word] if is_off(word):
            return "proxycommand none"
    return "proxycommand given"


def _match_criteria(words: list[str]) -> Criteria:
    """Returns the criteria of a Match line. Criteria that need a command, the network or the first lookup of
    a canonical name never apply."""
    remaining, criteria = iter(words), list[str]()
    for word in remaining:
        name = word.lower().removeprefix("!")
        sign = "!" if word.startswith("!") else ""
        if name in _CRITERIA:
            pattern = next(remaining, "")
            criteria += [sign + name, pattern.lower() if name.endswith("host") else pattern]
        elif name == "final":
            criteria.append(sign + name)
        elif (sign, name) not in (("", "all"), ("!", "canonical")):
            return _NEVER
    return tuple(criteria)


def _lines_in(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the keyword and the words of each line. A file that cannot be read has none."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_FILE_BYTES:
            return
        text, _ = decoded(file.read_bytes())
    except UnicodeDecodeError:
        log.warning("the SSH configuration %s is not a text", file)
        return
    except OSError as error:
        log.warning("the SSH configuration %s cannot be read: %s", file, error.strerror)
        return
    for line in text.expandtabs().splitlines():
        found = _LINE.match(line)
        if found is None or line.lstrip().startswith("#") or not line.isprintable():
            continue
        try:
            words = shlex.split(found[2], comments=True)
        except ValueError:  # a quote that is not closed
            words = found[2].split()
        if words:
            yield found[1].lower(), words


def _included_files(patterns: list[str], directory: Path, read: Stamps) -> list[Path]:
    places = [directory / _in_home(pattern) for pattern in patterns]
    read.update((place.parent, _stamp(place.parent)) for place in places)
    return [Path(name) for place in places for name in sorted(glob.glob(str(place)))]  # noqa: PTH207 - absolute


def _in_home(path: Path | str) -> Path:
    """Replaces ~ by the home directory, if there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
