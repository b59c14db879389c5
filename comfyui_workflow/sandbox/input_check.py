"""Validation of one input of a node: presence, type, range; and the conversion of its value."""

from typing import Any

from comfyui_workflow.sandbox.links import accepted_names
from comfyui_workflow.sandbox.node import SandboxNode
from comfyui_workflow.sandbox.versions import Version

_CONVERSIONS: dict[str, type] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_LONGEST_LISTED_COMBO = 20

Reason = dict[str, Any]
"""{"type", "message", "details", "extra_info"}: one entry of a node's errors."""


def overrides_validation(node_class: type[SandboxNode]) -> bool:
    return node_class.validate_inputs.__func__ is not SandboxNode.validate_inputs.__func__  # type: ignore[attr-defined]


class InputCheck:
    """One input of one node: its declaration, and its value in the graph. Nested inputs have dotted names."""

    def __init__(
        self,
        name: str,
        kind: Any,
        options: dict[str, Any],
        inputs: dict[str, Any],
        node_class: type[SandboxNode],
    ) -> None:
        self.name = name
        self.kind = kind
        self._options = options
        self._inputs = inputs
        self._node_class = node_class

    @property
    def value(self) -> Any:
        return self._inputs[self.name]

    @property
    def config(self) -> list[Any]:
        return [self.kind, self._options]

    def reason(self, kind: str, message: str, details: str, **extra: Any) -> Reason:
        extra_info = {"input_name": self.name, "input_config": self.config, **extra}
        return {"type": kind, "message": message, "details": details, "extra_info": extra_info}

    def missing(self, *, is_required: bool, is_nested: bool) -> list[Reason]:
        if not is_required:
            return []
        return [
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": self.name.split(".")[-1] if is_nested else self.name,
                "extra_info": {"input_name": self.name},
            }
        ]

    def widget(self, version: Version) -> list[Reason]:
        """Converts the value in place, then checks range or list, unless the class does that itself."""
        if isinstance(self.value, dict) and "__value__" in self.value:
            self._inputs[self.name] = self.value["__value__"]
        try:
            self._convert()
        except Exception as error:  # noqa: BLE001 - ComfyUI reports whatever a conversion raises
            return [self._not_converted(error)]
        if overrides_validation(self._node_class):
            names, takes_any = accepted_names(self._node_class.validate_inputs)
            if takes_any or self.name in names:
                return []
        return self._out_of_range() or self._not_in_list(version)

    def _convert(self) -> None:
        if isinstance(self.kind, str) and self.kind in _CONVERSIONS:
            self._inputs[self.name] = _CONVERSIONS[self.kind](self.value)

    def _not_converted(self, error: Exception) -> Reason:
        message = f"Failed to convert an input value to a {self.kind} value"
        details = f"{self.name}, {self.value}, {error}"
        extra = {"received_value": self.value, "exception_message": str(error)}
        return self.reason("invalid_input_type", message, details, **extra)

    def _out_of_range(self) -> list[Reason]:
        value, options = self.value, self._options
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return [self.reason("value_smaller_than_min", message, self.name, received_value=value)]
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return [self.reason("value_bigger_than_max", message, self.name, received_value=value)]
        return []

    def _not_in_list(self, version: Version) -> list[Reason]:
        options = self._choices(version)
        if options is None or self.value in options:
            return []
        is_long = len(options) > _LONGEST_LISTED_COMBO
        listed = f"(list of length {len(options)})" if is_long else str(options)
        shown = repr(self.value) if version.explains_refusals else f"'{self.value}'"
        details = f"{self.name}: {shown} not in {listed}"
        reason = self.reason("value_not_in_list", "Value not in list", details, received_value=self.value)
        if is_long:
            reason["extra_info"]["input_config"] = None
        return [reason]

    def _choices(self, version: Version) -> list[Any] | None:
        """Returns the allowed values; None for any value."""
        if isinstance(self.kind, list):
            return self.kind
        is_checked = self.kind == "COMBO" and version.checks_every_list
        return list(self._options.get("options", [])) if is_checked else None
