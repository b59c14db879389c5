"""Values that a request sets, in the type that the node class declares.

How it works: ComfyUI converts with `int`, `float`, `bool` and `str` of Python. So the text "no" becomes True,
20.7 becomes 20, and "nan" becomes a number, all without an error. Values of tables and of other programs are
often texts or numbers of another type. Here they get the declared type, and a value that would silently
become another one is refused. Everything else stays as it is: validation decides.
"""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from comfyui_workflow.errors import InvalidInputs
from comfyui_workflow.workflows.input_errors import wrong_type
from comfyui_workflow.workflows.node_definitions import InputDefinition

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?")
_LONGEST_NUMBER = 100
_NO_NUMBERS = frozenset({"nan", "inf", "infinity"})
_TRUE_WORDS = frozenset(
    {
        *("1", "true", "yes", "on"),
        *("ja", "wahr", "oui", "vrai", "sí", "sì", "si", "sim", "verdadero", "verdadeiro", "vero"),
        *("waar", "tak", "prawda", "sant", "sand", "sann", "tosi", "evet", "doğru", "да", "истина"),
    }
)
"""Yes, as programs write it, and TRUE as the spreadsheets of other languages save it in CSV files."""
_FALSE_WORDS = frozenset(
    {
        *("0", "false", "no", "off"),
        *("nein", "falsch", "non", "faux", "não", "falso"),
        *("nee", "onwaar", "nie", "fałsz", "falskt", "falsk", "usann", "epätosi", "hayır", "yanliş"),
        *("нет", "ложь"),
    }
)


def as_declared(declared: InputDefinition, value: Any) -> Any:
    """Returns the value in the type of the input. Raises: InvalidInputs if ComfyUI would take another value
    without an error."""
    convert = _CONVERSIONS.get(declared.type)
    is_plain = isinstance(value, str | int | float)
    return convert(declared, value) if convert is not None and is_plain else value


def _whole_number(declared: InputDefinition, value: Any) -> Any:
    number = _number(declared, value)
    if number is None:
        return value
    if number != number.to_integral_value():
        raise InvalidInputs(f"{wrong_type(declared.name, value, declared.type)} (a whole number)")
    return int(number)


def _real_number(declared: InputDefinition, value: Any) -> Any:
    number = _number(declared, value)
    return value if number is None or isinstance(value, int) else float(number)


def _number(declared: InputDefinition, value: Any) -> Decimal | None:
    """Returns None for True, False, and a text that is no number. Raises: InvalidInputs for NaN, infinity."""
    if isinstance(value, bool):
        return None
    written = value.strip() if isinstance(value, str) else repr(value)
    if written.lower().lstrip("+-") in _NO_NUMBERS:
        raise InvalidInputs(wrong_type(declared.name, value, declared.type))
    is_number = len(written) <= _LONGEST_NUMBER and _NUMBER.fullmatch(written)
    return Decimal(written) if is_number else None


def _truth(declared: InputDefinition, value: Any) -> Any:
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().casefold()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise InvalidInputs(f"{wrong_type(declared.name, value, declared.type)} (write true or false)")


def _text(_declared: InputDefinition, value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


def _choice(declared: InputDefinition, value: Any) -> Any:
    """Returns the choice that is written like the value: "512" for 512, or 512 for "512"."""
    choices = declared.choices or ()
    for given in (value, value.strip()) if isinstance(value, str) else (value,):
        if any(given == choice and type(given) is type(choice) for choice in choices):
            return given
    written = _text(declared, value).strip().casefold()
    is_text = isinstance(value, str)
    alike = [
        choice
        for choice in choices
        if isinstance(choice, str) is not is_text and _text(declared, choice).casefold() == written
    ]
    return alike[0] if len(alike) == 1 else value


_CONVERSIONS: Mapping[str, Callable[[InputDefinition, Any], Any]] = {
    "INT": _whole_number,
    "FLOAT": _real_number,
    "BOOLEAN": _truth,
    "STRING": _text,
    "COMBO": _choice,
}
