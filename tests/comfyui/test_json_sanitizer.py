"""Tests that responses of ComfyUI are passed on as valid JSON."""

import json
from typing import Any

import pytest

from comfyui_workflow.comfyui.json_sanitizer import sanitize_json
from comfyui_workflow.errors import ComfyUIUnavailable


def test_numbers_that_json_has_not_got_are_null() -> None:
    answer = json.loads('{"a": [NaN, Infinity, -Infinity, 1.5, 2, true, null, "NaN"], "b": {"c": -0.0}}')
    assert sanitize_json(answer) == {"a": [None, None, None, 1.5, 2, True, None, "NaN"], "b": {"c": 0.0}}


def test_what_is_nested_without_end_is_no_answer() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"x": [deep]}
    with pytest.raises(ComfyUIUnavailable):
        sanitize_json(deep)
