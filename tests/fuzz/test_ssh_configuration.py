"""Whatever is in ~/.ssh/config: an address, or a refusal in a sentence."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.client_config import resolve
from tests.fuzz.effort import effort
from tests.fuzz.test_ssh_strings import check

KEYWORDS = (
    "Host Match Include HostName Port User IdentityFile IdentitiesOnly IdentityAgent ProxyJump ProxyCommand"
)
VALUES = [
    "gpu",
    "*",
    "!gpu",
    "!*",
    "other",
    "all",
    "final",
    "canonical",
    "exec",
    "host",
    "originalhost",
    "localuser",
    "none",
    "yes",
    "22",
    "99999",
    "1.2.3.4",
    "%h",
    "%%",
    "%z",
    "%d/%u/%r",
    "~/x",
    "~nobody-here/x",
    "a,b@c:3",
    "ssh://x:y",
    "config",
    "*",
    "**",
    "[",
    '"',
    "'",
    "\\",
    "=",
    "#",
    ",",
    "\x00",
    "\t",
]
words = st.sampled_from(VALUES) | st.text(max_size=4)
line = st.builds(
    lambda indent, keyword, sign, values: f"{indent}{keyword}{sign}{' '.join(values)}",
    st.sampled_from(["", "  ", "\t"]),
    st.sampled_from(KEYWORDS.split()) | st.text(max_size=6),
    st.sampled_from([" ", "=", " = ", ""]),
    st.lists(words, max_size=4),
)
files = st.lists(line, max_size=8).map("\n".join) | st.text()


@effort(400)
@given(files, files)
def test_a_configuration_gives_an_address_or_a_refusal_in_a_sentence(text: str, included: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config"
        config.write_text(text, errors="replace")
        config.with_name("gpu").write_text(f"{included}\nInclude config", errors="replace")
        try:
            address = resolve(parse_ssh_address("ssh gpu"), config)
        except InvalidAddress as error:
            assert str(error).endswith(".")
            assert str(error).isprintable()
        else:
            check(address)
            assert all(file.isprintable() for file in address.configured_key_files)
