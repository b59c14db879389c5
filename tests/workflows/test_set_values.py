"""Values of a request get the type that the node class declares; none silently becomes another value."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidInputs
from comfyui_workflow.workflows.set_values import as_declared
from tests.workflows.making import definition


def declared(kind: Any) -> Any:
    found = definition(x=kind if isinstance(kind, list) else [kind]).input("x")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("INT", "20", 20),
        ("INT", " 20.0 ", 20),
        ("INT", "1e3", 1000),
        ("INT", 1e15, 10**15),
        ("INT", "18446744073709551615", 2**64 - 1),
        ("INT", True, True),
        ("INT", "many", "many"),
        ("INT", "0,01", "0,01"),
        ("INT", "1e999999999", "1e999999999"),
        ("INT", "9" * 5000, "9" * 5000),
        ("FLOAT", "1.50", 1.5),
        ("FLOAT", ".5", 0.5),
        ("FLOAT", 7, 7),
        ("FLOAT", "1e-3", 0.001),
        ("BOOLEAN", "False", False),
        ("BOOLEAN", " NEIN", False),
        ("BOOLEAN", "WAHR", True),
        ("BOOLEAN", "YANLIŞ", False),
        ("BOOLEAN", "0", False),
        ("BOOLEAN", 1, True),
        ("BOOLEAN", False, False),
        ("STRING", 1984, "1984"),
        ("STRING", 1.5, "1.5"),
        ("STRING", True, "true"),
        ("STRING", "no", "no"),
        ([["512", "768"]], 512, "512"),
        ([[512, 768]], "512", 512),
        ([["Enable", "True"]], True, "True"),
        ([["euler"]], "euler", "euler"),
        ([["euler"]], " euler ", "euler"),
        ([["a", " a "]], " a ", " a "),
        ([["euler"]], "Heun", "Heun"),
        ([["1", "1.0"]], 3, 3),
        ("*", "1.50", "1.50"),
        ("INT", None, None),
        ("INT", [1], [1]),
    ],
)
def test_a_value_gets_the_declared_type(kind: Any, value: object, expected: object) -> None:
    found = as_declared(declared(kind), value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("INT", 20.7, r'input "x" is 20\.7, it must be INT \(a whole number\)'),
        ("INT", "20.7", r"is '20\.7', it must be INT \(a whole number\)"),
        ("INT", "nan", "is 'nan', it must be INT"),
        ("FLOAT", "NaN", "is 'NaN', it must be FLOAT"),
        ("FLOAT", "-inf", "is '-inf', it must be FLOAT"),
        ("BOOLEAN", "perhaps", r"is 'perhaps', it must be BOOLEAN \(write true or false\)"),
        ("BOOLEAN", "", r"is '', it must be BOOLEAN \(write true or false\)"),
    ],
)
def test_a_value_that_would_become_another_one_is_refused(kind: Any, value: object, sentence: str) -> None:
    with pytest.raises(InvalidInputs, match=sentence):
        as_declared(declared(kind), value)
