import numpy as np
import pytest

from tests.sandbox.nodes.context import Context


@pytest.mark.parametrize(
    ("class_type", "value"),
    [
        ("PrimitiveString", "a"),
        ("PrimitiveStringMultiline", "a\nb"),
        ("PrimitiveInt", -7),
        ("PrimitiveFloat", 0.5),
        ("PrimitiveBoolean", False),
    ],
)
def test_a_primitive_gives_its_value(context: Context, class_type: str, value: object) -> None:
    assert context.value(class_type, value=value) == value


def test_strings_are_joined(context: Context) -> None:
    assert context.value("StringConcatenate", string_a="a", string_b="b", delimiter=", ") == "a, b"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (7, "7"), (True, "True"), (None, "None"), ([1, "ü"], '[1, "\\u00fc"]'), ({1}, "{1}")],
)
def test_any_value_is_shown_as_text(context: Context, value: object, text: str) -> None:
    assert context.shown("PreviewAny", source=value) == {"text": [text]}


def test_an_array_is_shown_too(context: Context) -> None:
    (text,) = context.shown("PreviewAny", source=np.zeros(2, np.float32))["text"]
    assert text == "[0. 0.]"
