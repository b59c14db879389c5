"""Whatever is pasted as an ssh string: an address that says the same when it is read again, or a refusal."""

import time
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.parsing.ssh_command_line import LONGEST_CHARACTERS
from tests.fuzz.effort import effort
from tests.fuzz.values import values

LIMIT_S = 10.0
VALID = [
    "ssh -p 40738 root@198.53.64.194 -L 8080:localhost:8080",
    "ssh root@ssh4.vast.ai -p 12345 -i ~/.ssh/id_ed25519",
    "ssh://user@[2001:db8::1]:2222/",
    "gpu.example:22",
    "ssh -J jump@bastion:2200,second -o Port=22 -o StrictHostKeyChecking=no me@host",
    "$ ssh -tt -4C 'ubuntu@10.0.0.7'",
]
PIECES = [
    "ssh",
    "ssh.exe",
    "sshpass",
    "-p",
    "-p22",
    "-L",
    "8080:localhost:8188",
    "[::1]:1:[::1]:2",
    "-i",
    "~/.ssh/key",
    "-J",
    "a@b:1,c",
    "-o",
    "Port=7",
    "ProxyCommand=x",
    "IdentityFile=y",
    "LogLevel=QUIET",
    "HostName=z",
    "LocalForward",
    "-l",
    "root",
    "--",
    "-",
    "root@",
    "@",
    ":",
    "::",
    "[",
    "]",
    "%",
    "host",
    "127.1",
    "0x7f",
    "2001:db8::1",
    "ssh://",
    "`",
    "```bash\n",
    "\\\n",
    "—p",
    "“",
    "'",
    '"',
    "\u200b",
    "\u2028",
    "\x00",
    "\ud800",
    "１２",
    "٣",
    "=",
    ",",
    ".",
    "/",
    "$(x)",
    ";",
    "é",
    "-tttt",
    "-Nf4",
    "😀",
    "\t",
    "\r\n",
    "\x85",
]
from_pieces = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).flatmap(
    lambda pieces: st.sampled_from([" ", ""]).map(lambda blank: blank.join(pieces))
)


@st.composite
def edited(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[end:]
    return text


repeated = st.builds(
    lambda piece, times: piece * times, st.sampled_from(PIECES), st.integers(1, LONGEST_CHARACTERS)
)


@effort(600)
@given(st.one_of(edited(), from_pieces, repeated, st.text(), values))
@example(":" * LONGEST_CHARACTERS)
@example("[" * LONGEST_CHARACTERS)
def test_an_ssh_string_is_an_address_or_is_refused_in_a_sentence(text: object) -> None:
    began = time.process_time()
    try:
        address = parse_ssh_address(text)
    except InvalidAddress as error:
        assert str(error).endswith(".")
        assert len(str(error)) < 300
        assert str(error).isprintable()
    else:
        check(address)
        assert parse_ssh_address(written(address)) == address
    assert time.process_time() - began < LIMIT_S


def check(address: SshAddress) -> None:
    assert address.host
    assert address.host == address.host.lower()
    assert not address.host.startswith("-")
    assert 1 <= address.port <= 65535
    assert address.user
    assert not address.user.startswith("-")
    assert address.comfyui_port is None or 1 <= address.comfyui_port <= 65535
    assert address.comfyui_host
    assert not address.comfyui_host.startswith("-")
    for part in (address.host, address.user, address.comfyui_host, *address.key_files):
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in part)
    if address.jump:
        check(address.jump)


def written(address: SshAddress) -> str:
    """The address as one would type it."""
    words = ["ssh", "-p", str(address.port), "-l", address.user]
    for file in address.key_files:
        words += ["-i", quoted(file)]
    if address.identities_only:
        words += ["-o", "IdentitiesOnly=yes"]
    if address.comfyui_port:
        host = f"[{address.comfyui_host}]" if ":" in address.comfyui_host else address.comfyui_host
        words += ["-L", f"1:{host}:{address.comfyui_port}"]
    if address.jump:
        words += ["-J", ",".join(hops(address.jump))]
    return " ".join([*words, "--", address.host])


def hops(jump: SshAddress) -> list[str]:
    host = f"[{jump.host}]" if ":" in jump.host else jump.host
    return [*(hops(jump.jump) if jump.jump else []), f"{jump.user}@{host}:{jump.port}"]


def quoted(word: str) -> str:
    return '"' + word.replace('"', '"\'"\'"') + '"' if '"' in word or "'" in word or " " in word else word
