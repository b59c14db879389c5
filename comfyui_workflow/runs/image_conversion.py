"""The image format that a client wants instead of the one that ComfyUI saved: its options, parsed. Pure.

The options have the names, ranges and defaults of sharp, the library whose options clients of comfyui-api
send. Each is honoured (`delivery.image_conversion`) or refused; none is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.untrusted import shown

OptionValue = bool | int | str
JPEG_FORMATS = ("jpeg", "jpg")
FORMATS = (*JPEG_FORMATS, "webp")


@dataclass(frozen=True, kw_only=True)
class _Option:
    default: OptionValue
    least: int = 0
    most: int = 0
    words: tuple[str, ...] = ()

    def read(self, name: str, value: Any) -> OptionValue:
        """Raises: InvalidRequest."""
        if isinstance(self.default, bool):
            is_valid, wanted = isinstance(value, bool), "true or false"
        elif isinstance(self.default, str):
            is_valid, wanted = value in self.words, f"one of {', '.join(self.words)}"
        else:
            value = int(value) if isinstance(value, float) and value.is_integer() else value
            is_number = isinstance(value, int) and not isinstance(value, bool)
            is_valid = is_number and self.least <= value <= self.most
            wanted = f"a whole number from {self.least} to {self.most}"
        if not is_valid:
            raise InvalidConversion(f"options.{name}", f"must be {wanted}")
        return value  # type: ignore[no-any-return]


_JPEG = {
    "quality": _Option(default=80, least=1, most=100),
    "progressive": _Option(default=False),
    "chromaSubsampling": _Option(default="4:2:0", words=("4:2:0", "4:4:4")),
    "optimizeCoding": _Option(default=True),
    "mozjpeg": _Option(default=False),
    "trellisQuantisation": _Option(default=False),
    "overshootDeringing": _Option(default=False),
    "optimizeScans": _Option(default=False),
    "quantisationTable": _Option(default=0, most=8),
}
_WEBP = {
    "quality": _Option(default=80, least=1, most=100),
    "alphaQuality": _Option(default=100, most=100),
    "lossless": _Option(default=False),
    "nearLossless": _Option(default=False),
    "smartSubsample": _Option(default=False),
    "preset": _Option(default="default", words=("default", "picture", "photo", "drawing", "icon", "text")),
    "effort": _Option(default=4, most=6),
}
_MOZJPEG: Mapping[str, OptionValue] = {
    "trellisQuantisation": True,
    "overshootDeringing": True,
    "optimizeScans": True,
    "quantisationTable": 3,
}
"""What `mozjpeg` sets, unless an option says otherwise."""


class InvalidConversion(InvalidRequest):
    """An option that does not exist or has a wrong value. `location` is its path, such as
    `options.quality`."""

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location} {reason}".strip())
        self.location = location


@dataclass(frozen=True, kw_only=True)
class ImageConversion:
    format: str
    """One of `FORMATS`; also the ending of the file name."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """The options that the client has set."""

    def document(self) -> dict[str, Any]:
        """Returns the object of a request that `read_conversion` parses."""
        return {"format": self.format, **({"options": dict(self.options)} if self.options else {})}

    @property
    def all_options(self) -> dict[str, OptionValue]:
        """All options of the format, with defaults for those that the client has not set."""
        return {name: self.options.get(name, each.default) for name, each in _options_of(self.format).items()}

    @property
    def effective_options(self) -> dict[str, OptionValue]:
        """All options as they are applied: `mozjpeg` sets others, and `optimizeScans` needs `progressive`."""
        given = {**(_MOZJPEG if self.options.get("mozjpeg") else {}), **self.options}
        effective = {**self.all_options, **given}
        if effective.get("optimizeScans"):
            effective["progressive"] = True
        return effective

    def name_of(self, filename: str) -> str:
        """Returns the name of a converted file: its last ending is replaced."""
        stem, dot, _ = filename.rpartition(".")
        return f"{stem if dot and stem else filename}.{self.format}"


def read_conversion(value: Any) -> ImageConversion:
    """Parses `{"format": "webp", "options": {"quality": 90}}`. Raises: InvalidConversion."""
    if not isinstance(value, dict):
        raise InvalidConversion("", 'must be an object: {"format": "webp", "options": {"quality": 90}}')
    unknown = sorted(value.keys() - {"format", "options"})
    if unknown:
        raise InvalidConversion(shown(unknown[0]), "is unknown: an object has format and options")
    format_, options = value.get("format"), value.get("options")
    if format_ not in FORMATS:
        raise InvalidConversion("format", f"must be one of {', '.join(FORMATS)}")
    if options is not None and not isinstance(options, dict):
        raise InvalidConversion("options", "must be an object")
    return ImageConversion(format=format_, options=dict(_read_options(format_, options or {})))


def _read_options(format_: str, options: Mapping[str, Any]) -> Mapping[str, OptionValue]:
    known = _options_of(format_)
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        reason = f"is not an option of {format_}: there are {', '.join(known)}"
        raise InvalidConversion(f"options.{shown(unknown)}", reason)
    return {name: known[name].read(name, value) for name, value in options.items()}


def _options_of(format_: str) -> Mapping[str, _Option]:
    return _JPEG if format_ in JPEG_FORMATS else _WEBP
