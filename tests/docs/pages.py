"""The pages of the documentation as data: their fenced blocks, their links, their headings.

page = read_page("docs/tutorial.md")
page.blocks        # Block(info="sh", text="make demo\n", line=12)
page.links         # ["../docs/settings.md#all", …], without those in code
page.anchors       # {"ways-to-install", …}, as GitHub derives them from headings
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)(`{3,})(.*)$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE_SPAN = re.compile(r"`[^`]*`")
_HEADING = re.compile(r"^#{1,6} +(.*?) *$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block; `info` is the text after the opening fence."""

    info: str
    text: str
    line: int

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Page:
    path: Path
    text: str
    blocks: tuple[Block, ...]
    prose: str
    """The text outside of fenced blocks."""

    @property
    def links(self) -> list[str]:
        return _LINK.findall(_CODE_SPAN.sub("", self.prose))

    @property
    def anchors(self) -> frozenset[str]:
        headings = [found[1] for line in self.prose.splitlines() if (found := _HEADING.match(line))]
        return frozenset(_with_numbers([_slug(heading) for heading in headings]))


@cache
def read_page(name: str) -> Page:
    """Parses a page; `name` is its path in the repository."""
    path = ROOT / name
    text = path.read_text()
    prose: list[str] = []
    blocks: list[Block] = []
    opened: list[str] | None = None
    indent = fence = info = ""
    line_opened = 0
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if opened is None and found:
            (indent, fence, info), opened, line_opened = found.groups(), [], number
        elif opened is not None and found and found[2] == fence and not found[3].strip():
            blocks.append(_block(info, opened, line_opened))
            opened = None
        elif opened is not None:
            opened.append(line.removeprefix(indent))
        else:
            prose.append(line)
    assert opened is None, f"{name}:{line_opened}: the block is not closed"
    return Page(path=path, text=text, blocks=tuple(blocks), prose="\n".join(prose))


def all_pages() -> list[str]:
    """Returns the paths of all Markdown files in the root directory and in `docs/`."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def _block(info: str, lines: list[str], line: int) -> Block:
    return Block(info=info.strip(), text="".join(f"{each}\n" for each in lines), line=line)


def _slug(heading: str) -> str:
    """Returns the anchor of a heading like GitHub: lower case, without marks and punctuation, hyphens for
    spaces."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _with_numbers(slugs: list[str]) -> list[str]:
    """Numbers repeated anchors: the second one ends in `-1`."""
    seen: Counter[str] = Counter()
    numbered = []
    for slug in slugs:
        numbered.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return numbered
