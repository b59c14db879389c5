"""The values of DistributedSeed, DistributedValue and DistributedModelName, as the plugin computes them."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

CONSTANTS = {
    "PrimitiveInt": "value",
    "PrimitiveFloat": "value",
    "PrimitiveBoolean": "value",
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "INTConstant": "value",
    "FloatConstant": "value",
    "StringConstant": "string",
    "ImpactInt": "value",
    "Seed (rgthree)": "seed",
    "easy seed": "seed",
    "CR Seed": "seed",
}
"""Node classes whose only use is the value of one input."""

INTEGER, FLOAT, TEXT = "INT", "FLOAT", "STRING"


def as_integer(value: object) -> int | None:
    """Returns the number that ComfyUI reads in an input of the type INT."""
    if not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


def values_by_worker(text: object) -> Mapping[str, Any]:
    """Reads the input `worker_values`: JSON, `{"_type": "INT", "1": "first worker's", ...}`."""
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def value_of(default: object, by_worker: Mapping[str, Any], seed_index: int) -> Any:
    """Returns the value for a participant: the default for the master, and where a worker has none or a bad
    one. A default that is not of the wanted type stays as it is."""
    kind = by_worker.get("_type", TEXT)
    if seed_index and (own := by_worker.get(str(seed_index))):
        coerced = _coerced(own, kind)
        if coerced is not None:
            return coerced
    text = default if isinstance(default, str) else json.dumps(default)
    coerced = _coerced(text, kind)
    return text if coerced is None else coerced


def has_own_value(by_worker: Mapping[str, Any], seed_index: int) -> bool:
    own = by_worker.get(str(seed_index)) if seed_index else None
    return bool(own) and _coerced(own, by_worker.get("_type", TEXT)) is not None


def _coerced(value: Any, kind: object) -> Any:
    """Returns the value in the wanted type; None if that fails. JSON has no infinity, so it stays a text."""
    if kind not in (INTEGER, FLOAT):
        return value
    try:
        number = float(value)
        return int(number) if kind == INTEGER else number if isfinite(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def model_name(value: object) -> Any:
    """Returns what DistributedModelName makes of its text: texts, of other values too."""
    if isinstance(value, list):
        texts = [_text(each) for each in value]
        return texts[0] if len(texts) == 1 else texts
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(value, indent=4)
