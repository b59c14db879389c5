"""The view of a 3D scene, which the editor renders when it queues a workflow.

Load3D gives pictures of the view beside the model. There is no view without a browser, but the node loads its
pictures in any case. So if no node uses the view, the node gets a blank picture, and its model is the same.
"""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.graph import used_slots
from comfyui_workflow.workflows.node_definitions import Definitions

BLANK_VIEW = "comfyui-workflow-blank-view.png"
"""Name of the blank picture below ComfyUI's input directory."""
_CLASSES = ("Load3D", "Load3DAnimation")
_OF_THE_MODEL = ("STRING", "FILE_3D")
"""Types of the outputs that the view does not change: the path of the model, and the model."""


def blank_view() -> dict[str, Any]:
    """Returns a value of Load3D. Only ComfyUI 0.3 uses `lineart`."""
    pictures = dict.fromkeys(("image", "mask", "normal", "lineart"), BLANK_VIEW)
    return {**pictures, "camera_info": None, "recording": ""}


def viewport_state(properties: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the state of a 3D viewer with the camera that the file has; None if the file has none. The
    state of a new viewer is known to a browser only."""
    config = as_object(properties.get("Camera Config"))
    camera = as_object(config.get("state"))
    if not camera:
        return None
    fov = {"fov": config["fov"]} if "fov" in config else {}
    return {"camera_info": {**fov, **camera}, "model_3d_info": []}


def needs_view(graph: Mapping[str, Any], node_id: str, definitions: Definitions) -> bool:
    """True if a node uses the view of this node, or if its class is not one of ComfyUI that loads a model."""
    definition = definitions.get(graph[node_id]["class_type"])
    if definition is None or definition.class_type not in _CLASSES:
        return True
    used = used_slots(graph, node_id)
    of_model = {slot for slot, kind in enumerate(definition.outputs) if kind.startswith(_OF_THE_MODEL)}
    return not used <= of_model
