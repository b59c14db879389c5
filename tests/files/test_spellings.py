"""Paths in the spelling of another system."""

import unicodedata
from pathlib import Path

import pytest

from comfyui_workflow.files.spellings import existing_spelling


def test_what_exists_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    composed, decomposed = (unicodedata.normalize(form, "Bücher/Café.png") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).parent.mkdir()
    (tmp_path / decomposed).touch()
    found = str(tmp_path / decomposed)
    for path in (composed, decomposed, composed.replace("/", "\\")):
        assert existing_spelling(f"{tmp_path}/{path}") == found
        assert existing_spelling(f"~/{path}") == found


def test_a_name_with_a_backslash_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").touch()
    (tmp_path / "a\\b.png").touch()
    assert existing_spelling(f"{tmp_path}/a\\b.png") == f"{tmp_path}/a\\b.png"


@pytest.mark.parametrize("path", ["no.png", "~no/such.png", "\0.png", "a" * 5000, "", "é\\ü/"])
def test_what_does_not_exist_stays_as_it_is(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert existing_spelling(path) == path
