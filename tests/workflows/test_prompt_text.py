"""Text processing when the editor queues a prompt: comments, choices, file names."""

import pytest

from comfyui_workflow.workflows.editor.prompt_text import (
    LONGEST_NAME,
    dynamic_prompt,
    with_replacements,
)
from tests.workflows.making import AT


def last(choices: list[str]) -> str:
    return choices[-1]


@pytest.mark.parametrize(
    ("text", "queued"),
    [
        ("plain", "plain"),
        ("a // b\nhttps://x.y/z", "a \nhttps:"),
        ("a // b\r\nc", "a \r\nc"),
        ("a // b\u2028c", "a \u2028c"),
        ("a /* b\nc */ d /* open", "a  d /* open"),
        ("a /* open // b\nc", "a /* open \nc"),
        ("a /* x /* y */ z */", "a  z */"),
        ("/*/ a */b", "b"),
        ("//* a\nb */", "\nb */"),
        ("{a|b} x", "b x"),
        ("{a|{c|d}|} x", " x"),
        ("{a|b{c|d}} x", "bd x"),
        ("{only} x", "only x"),
        ("{} x {|}", " x "),
        ("a {b", "a b"),
        ("a {b|c", "a c"),
        ("a } b | c", "a } b | c"),
        ("{a // b}c", "a "),
        (r"\{a\|b\} \\ \n \/ \x", r"{a|b} \\ \n \/ \x"),
        ("a \\", "a \\"),
    ],
)
def test_a_dynamic_prompt(text: str, queued: str) -> None:
    assert dynamic_prompt(text, last) == queued


def test_the_choice_is_offered_inner_brackets_first() -> None:
    offered: list[list[str]] = []
    assert dynamic_prompt("{a|{c|d}}{e|f}", lambda choices: offered.append(choices) or choices[0]) == "ae"
    assert offered == [["c", "d"], ["a", "c"], ["e", "f"]]


VALUES = {("Empty", "width"): "64", ("Text", "text"): 'a/b?c<d>e\\f:g*h|i"j\nk', ("Long", "text"): "x" * 9000}


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("%Empty.width%_%Empty.width%", "64_64"),
        ("%Empty.nope%_%Nope.width%", "%Empty.nope%_%Nope.width%"),
        ("%width%x%height%", "%width%x%height%"),
        ("%a.b.c%", "%a.b.c%"),
        ("100%_50%", "100%_50%"),
        ("%%Empty.width%%", "%64%"),
        ("%Text.text%", "a_b_c_d_e_f_g_h_i_j_k"),
        ("%date:yyyy-MM-dd_hh-mm-ss%", "2025-03-04_05-06-07"),
        ("%date:M/d/yy h:m:s%", "3/4/25 5:6:7"),
        ("%date:yyy%", "yyy"),
        ("%date:Today%", "To4ay"),
        ("%date:yyyy.MM%", "%date:yyyy.MM%"),
        ("%date:yyyy.MM.dd%", "2025"),
        ("%date:%_%date%", "_%date%"),
        ("%year%-%month%", "%year%-%month%"),
    ],
)
def test_a_name_of_files(prefix: str, name: str) -> None:
    assert with_replacements(prefix, AT, lambda *words: VALUES.get(words)) == name


def test_what_is_too_long_for_a_name_is_not_looked_at() -> None:
    text = "%Empty.width%" + "x" * LONGEST_NAME
    assert with_replacements(text, AT, lambda *words: "64") == text
    assert len(with_replacements("%Long.text%", AT, lambda *words: VALUES.get(words))) == LONGEST_NAME
