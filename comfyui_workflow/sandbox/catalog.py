"""The node classes that the server has, as the imitated version of ComfyUI declares them."""

from collections.abc import Iterator
from typing import Any

from comfyui_workflow.sandbox.dynamic_inputs import LiveInputs, live_inputs
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeClasses, SandboxNode
from comfyui_workflow.sandbox.nodes.earlier import EARLIER, Earlier

_PRICE_BADGE = {
    "engine": "jsonata",
    "depends_on": {"widgets": [], "inputs": [], "input_groups": []},
    "expr": '{"type":"usd","usd":0}',
}


class Catalog:
    """Node classes by name. The version can change at any time, and with it the classes and their inputs."""

    def __init__(self, *, node_classes: NodeClasses, folders: Folders, faults: FaultBoard) -> None:
        self.folders = folders
        self._node_classes = node_classes
        self._faults = faults

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __getitem__(self, name: str) -> type[SandboxNode]:
        """Raises: KeyError."""
        if name not in self:
            raise KeyError(name)
        return self._node_classes[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._node_classes if name in self)

    def get(self, name: str) -> type[SandboxNode] | None:
        node_class = self._node_classes.get(name)
        return node_class if node_class and self._faults.version.has(node_class.SINCE) else None

    def input_types(self, name: str) -> InputTypes:
        declared = self[name].input_types(self.folders)
        if not self._faults.version.has_newer_declarations:
            return _as_earlier(declared, self._earlier(name))
        return _as_in_v3(declared) if self[name].IS_V3 else declared

    def live_inputs(self, node: dict[str, Any]) -> LiveInputs:
        """Returns the inputs that the class of a node has, given the values of the node."""
        return live_inputs(self.input_types(node["class_type"]), node["inputs"])

    def outputs(self, name: str) -> tuple[str, ...]:
        """Returns the types of the outputs of a class."""
        earlier = self._earlier(name).outputs
        return self[name].RETURN_TYPES if earlier is None else earlier

    def serialize(self, name: str) -> dict[str, Any]:
        """Returns the entry of a class in the response to GET /object_info."""
        node_class, input_types, outputs = self[name], self.input_types(name), list(self.outputs(name))
        earlier = self._earlier(name)
        display_name = node_class.DISPLAY_NAME if earlier.display_name is None else earlier.display_name
        return {
            "input": input_types,
            "input_order": {group: list(inputs) for group, inputs in input_types.items()},
            "output": outputs,
            "output_is_list": [False] * len(outputs),
            "output_name": list(node_class.RETURN_NAMES or outputs) if outputs else [],
            "name": name,
            "display_name": display_name or name,
            "description": node_class.DESCRIPTION,
            "python_module": node_class.MODULE,
            "category": node_class.CATEGORY if earlier.category is None else earlier.category,
            "output_node": node_class.OUTPUT_NODE,
            **self._flags(node_class, len(outputs)),
        }

    def _flags(self, node_class: type[SandboxNode], output_count: int) -> dict[str, Any]:
        """Returns the keys that the older versions do not send, or send only for some classes."""
        if not self._faults.version.has_newer_declarations:
            return {"api_node": True} if node_class.API_NODE else {}
        flags: dict[str, Any] = {
            "is_input_list": node_class.INPUT_IS_LIST,
            "has_intermediate_output": False,
            "search_aliases": None if node_class.IS_V3 else [],
        }
        if not node_class.IS_V3:
            kinds = {"deprecated": node_class.DEPRECATED, "experimental": node_class.EXPERIMENTAL}
            return flags | {name: True for name, is_so in kinds.items() if is_so}
        return flags | {
            "output_tooltips": [None] * output_count,
            "output_matchtypes": list(node_class.OUTPUT_TEMPLATES) or None,
            "deprecated": node_class.DEPRECATED,
            "experimental": node_class.EXPERIMENTAL,
            "dev_only": False,
            "api_node": node_class.API_NODE,
            "price_badge": _PRICE_BADGE if node_class.API_NODE else None,
            "essentials_category": None,
        }

    def _earlier(self, name: str) -> Earlier:
        if self._faults.version.has_newer_declarations:
            return Earlier()
        return EARLIER.get(name, Earlier())


def _as_earlier(declared: InputTypes, earlier: Earlier) -> InputTypes:
    return {
        section: {
            name: earlier.inputs.get(name, value)
            for name, value in inputs.items()
            if name not in earlier.without
        }
        for section, inputs in declared.items()
    }


def _as_in_v3(declared: InputTypes) -> InputTypes:
    """Returns the declarations as newer classes send them: each has options, and a hidden one is a list."""
    return {
        section: {
            name: (value,) if section == "hidden" else value if len(value) > 1 else (*value, {})
            for name, value in inputs.items()
        }
        for section, inputs in declared.items()
    }
