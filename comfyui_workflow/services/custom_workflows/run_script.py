"""Runs a Python workflow file, in a process of its own: `scripts.py` starts it. Imports nothing of the
server.

Reads `{"command": "describe" | "generate", "file": path, "input": object}` from stdin. Writes one JSON object
to stdout: the description, or `{"workflow": object, "input": the values with defaults}`, or
`{"error": sentence, "is_input": bool}`, with `reason` if the values fit and the workflow cannot be made.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class Unusable(Exception):
    """The file is not a workflow file."""


def load(path: str) -> ModuleType:
    sys.path.insert(0, str(Path(path).parent))
    spec = importlib.util.spec_from_file_location("custom_workflow", path)
    if spec is None or spec.loader is None:
        raise Unusable("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic resolves annotations there
    spec.loader.exec_module(module)
    for name in ("Request", "generate"):
        if not callable(getattr(module, name, None)):
            raise Unusable(
                "it must define a pydantic model Request and a function generate(request), which returns "
                "a workflow"
            )
    if not hasattr(module.Request, "model_json_schema"):
        raise Unusable("Request must be a pydantic model")
    return module


def describe(module: ModuleType) -> dict[str, Any]:
    return {
        "schema": module.Request.model_json_schema(),
        "summary": getattr(module, "SUMMARY", None),
        "description": module.__doc__,
    }


def generate(module: ModuleType, values: object) -> dict[str, Any]:
    try:
        request = module.Request.model_validate(values)
    except ValueError as error:
        raise WrongInput(_sentence(error)) from error
    try:
        return {"workflow": module.generate(request), "input": request.model_dump(mode="json")}
    except Exception as error:
        raise WrongInput(f"the workflow cannot be made: {error}", reason=str(error)) from error


class WrongInput(Exception):
    """The values do not fit; or, with a reason, no workflow can be made from them."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


def _sentence(error: ValueError) -> str:
    """Returns one sentence for the first error of a pydantic ValidationError."""
    found: list[dict[str, Any]] = getattr(error, "errors", lambda: [])()
    if not found:
        return str(error)
    return f"{'.'.join(map(str, ('input', *found[0]['loc'])))}: {found[0]['msg']}"


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        module = load(asked["file"])
        return describe(module) if asked["command"] == "describe" else generate(module, asked["input"])
    except WrongInput as error:
        return {"error": str(error), "is_input": True, "reason": error.reason}
    except Unusable as error:
        return {"error": str(error), "is_input": False}
    except Exception as error:  # noqa: BLE001 - whatever the file raises is the answer
        return {"error": f"{type(error).__name__}: {error}", "is_input": False}


def main() -> None:
    asked = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # what the file prints is no part of the answer
    given = answer(asked)
    try:
        text = json.dumps(given)
    except (TypeError, ValueError) as error:
        text = json.dumps({"error": f"its workflow is not JSON: {error}", "is_input": False})
    out.write(text)


if __name__ == "__main__":
    main()
