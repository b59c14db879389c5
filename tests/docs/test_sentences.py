"""The documentation quotes error messages exactly as the program prints them."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from shlex import quote

import paramiko
import pytest

from tests.docs.conftest import Desk
from tests.docs.pages import ROOT, read_page
from tests.sandbox_process import SandboxProcess

_PUT_IN = "\0"
_ENDS = " .:;,()\"'"
_ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
SENTENCES = _ROW.findall(read_page("docs/troubleshooting.md").text)
QUOTED = re.sub(r"\n(> )?", " ", read_page("README.md").prose)
"""The quotes of the README, each on one line."""
MakeDesk = Callable[[list[SandboxProcess]], Desk]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_of_the_troubleshooting_page_is_in_the_code(sentence: str) -> None:
    """Every piece between two `…` occurs in the code, and at least one piece has two words or more."""
    pieces = [piece.strip(_ENDS) for piece in sentence.split("…")]
    assert max(len(piece.split()) for piece in pieces) >= 2
    assert [piece for piece in pieces if not _is_said(piece)] == []


def test_each_sentence_is_explained_once() -> None:
    assert len(SENTENCES) > 80
    assert sorted(set(SENTENCES)) == sorted(SENTENCES)


def test_the_readme_says_what_a_wrong_port_says(desk: MakeDesk, sandbox: SandboxProcess) -> None:
    ssh = sandbox.ssh_string.replace(f":localhost:{sandbox.comfyui_port}", ":localhost:18188")
    assert _said_of(desk, sandbox, ssh) in QUOTED


def test_the_readme_says_what_a_missing_key_says(desk: MakeDesk, sandbox: SandboxProcess) -> None:
    """The home directory of the desk contains no SSH keys."""
    said = _said_of(desk, sandbox, re.sub(r"-i \S+", "", sandbox.ssh_string))
    assert said in QUOTED


def test_the_readme_says_what_a_wrong_key_says(
    desk: MakeDesk, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    wrong = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(wrong))
    said = _said_of(desk, sandbox, re.sub(r"-i \S+", f"-i {wrong}", sandbox.ssh_string))
    assert said in QUOTED


def test_the_readme_says_what_a_missing_model_says(desk: MakeDesk, sandbox: SandboxProcess) -> None:
    said = _said_of(desk, sandbox, sandbox.ssh_string, "--set 4.ckpt_name=sd_xl_base_1.0.safetensors")
    beginning, _, there = said.partition("; it has: ")
    assert f"{beginning}; it has: " in QUOTED
    assert "v1-5-pruned-emaonly.safetensors" in there


def _said_of(desk: MakeDesk, sandbox: SandboxProcess, ssh: str, options: str = "") -> str:
    """Returns the error message of `validate`, with the address replaced by that of the README."""
    done = desk([]).run(f"comfyui-workflow validate cat.json --ssh {quote(ssh)} {options}")
    assert done.returncode != 0
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()[0].removeprefix("Error: ")
    said = said.replace(f"sandbox@127.0.0.1:{sandbox.ssh_port}", "root@198.53.64.194:40738")
    return re.sub(r"SHA256:\S+\.(?= Add)", "SHA256:….", said)


def _is_said(piece: str) -> bool:
    """True if one text of the code contains the piece, or if two texts contain its beginning and its end."""
    if any(piece in said for said in _sentences()):
        return True
    words = piece.split()
    halves = ((" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(2, len(words) - 1))
    return any(
        any(begin in said for said in _sentences()) and any(end in said for said in _sentences())
        for begin, end in halves
    )


@cache
def _sentences() -> list[str]:
    """Returns all texts of the code and of the page, with a mark for inserted values."""
    sources = [ROOT / "app.py", *(ROOT / "comfyui_workflow").rglob("*.py")]
    pages = [*(ROOT / "static").rglob("*.js"), *(ROOT / "templates").glob("*.html")]
    return [said for path in sources for said in _texts(path)] + [path.read_text() for path in pages]


def _texts(path: Path) -> Iterator[str]:
    """Yields the string literals of a module; f-strings as a whole."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else _PUT_IN for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
