"""Readers for local files, with the checks of the server."""

import json
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions


def read_workflow(path: Path) -> Workflow:
    """Raises: FileRefused, InvalidGraph."""
    files = PathPolicy(readable_dirs=None, writable_dirs=())
    return files.read_workflow(str(path)).workflow


def read_definitions(path: Path) -> Definitions:
    """Reads the node classes from a file with the response to GET /object_info. Raises: InvalidRequest."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict) or not any(map(_is_class, value.values())):
        raise InvalidRequest(
            f"{path} has no node classes: it must contain the response of the instance to GET /object_info"
        )
    return Definitions(value)


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("input"), dict) and "output" in value
