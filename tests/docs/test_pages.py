"""Rules for every page: its links are valid, the index lists it, and commands have the same spelling
everywhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, all_pages, read_page

PAGES = all_pages()
LONGEST_README = 130
LARGEST_PICTURE = 200_000
MOST_WORDS = 20
"""Maximum number of rows in the glossary."""


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = read_page(name)
    broken = [link for link in page.links if "://" not in link and not _is_there(page.path, link)]
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_commands_are_spelled_one_way(name: str) -> None:
    """Pages write `comfyui-workflow`, with the virtual environment activated once; only a service uses an
    absolute path."""
    text = read_page(name).text.replace(". .venv/bin/activate", "")
    assert re.findall(r"(?<!/)\.venv/bin/\S*", text) == []
    assert "python -m comfyui_workflow" not in text


def test_the_index_names_every_page() -> None:
    index = read_page("docs/README.md")
    named = {str((index.path.parent / link.partition("#")[0]).resolve()) for link in index.links}
    missing = [name for name in PAGES if name.startswith("docs/") and str(ROOT / name) not in named]
    assert missing == ["docs/README.md"]


def test_the_readme_is_short_and_leads_with_a_picture() -> None:
    lines = read_page("README.md").text.splitlines()
    assert len(lines) <= LONGEST_README
    assert lines[2].startswith("![")


def test_pictures_are_small_and_shown() -> None:
    pictures = {str(path) for path in (ROOT / "docs" / "images").iterdir()}
    shown = {
        str((read_page(name).path.parent / link).resolve())
        for name in PAGES
        for link in read_page(name).links
        if link.endswith(".png")
    }
    assert shown == pictures
    assert [name for name in pictures if Path(name).stat().st_size >= LARGEST_PICTURE] == []


def test_the_glossary_is_short() -> None:
    rows = [line for line in read_page("docs/glossary.md").prose.splitlines() if line.startswith("| ")]
    assert len(rows) - 2 <= MOST_WORDS


def _is_there(path: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (path.parent / file).resolve() if file else path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in read_page(str(target.relative_to(ROOT))).anchors
