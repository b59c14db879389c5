"""Values of a hostile or broken peer: random JSON, and valid JSON with something changed."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

Json = Any
HALF_CHARACTER = "\ud83d"

texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(st.characters(), max_size=8),
    st.sampled_from(
        ["", HALF_CHARACTER, "\0", "../x", "/", "a" * 300, "NaN", "\x1b[2J", "é", "<script>", "1e999"]
    ),
)
numbers = st.one_of(
    st.integers(-3, 300),
    st.integers(),
    st.floats(),
    st.sampled_from([2**63, -(2**64), 10**400, -0.0, float("nan"), float("inf"), 1e308]),
)
plain = st.one_of(st.none(), st.booleans(), numbers, texts)


def nested(depth: int, *, in_object: bool = False) -> Json:
    value: Json = []
    for _ in range(depth):
        value = {"x": value} if in_object else [value]
    return value


deep = st.builds(nested, st.sampled_from([10, 150, 300, 900]), in_object=st.booleans())
values = st.one_of(
    plain,
    st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=8,
    ),
    deep,
)
objects = st.dictionaries(texts, values, max_size=5)

Path = tuple[str | int, ...]


def places(value: Json, here: Path = ()) -> list[Path]:
    """Every place in a value, the value itself first."""
    found: list[Path] = [here]
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        found.extend(places(inner, (*here, key)))
    return found


@st.composite
def mutations(
    draw: st.DrawFn, valid: Json, *, most: int = 3, others: st.SearchStrategy[Json] = values
) -> Json:
    """A valid value in which up to `most` places are something else, are missing or are there twice."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            continue
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        _change(draw, holder, place[-1], others)
    return value


def _change(draw: st.DrawFn, holder: Json, key: str | int, others: st.SearchStrategy[Json]) -> None:
    match draw(st.sampled_from(["replace", "replace", "remove", "again"])):
        case "replace":
            holder[key] = draw(others)
        case "remove":
            del holder[key]
        case "again" if isinstance(holder, list):
            holder.append(holder[key])
        case "again":
            holder[draw(texts)] = holder[key]


def wire(value: Json) -> str:
    """The bytes on the wire; lone surrogates are escaped, and numbers may be invalid in JSON."""
    return json.dumps(value)
