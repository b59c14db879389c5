"""Custom workflows from files: declared JSON, Python, and the JavaScript and TypeScript of comfyui-api."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.errors import CustomWorkflowBroken, CustomWorkflowNotFound, InvalidRequest
from comfyui_workflow.services.custom_workflows.scripts import Scripts
from comfyui_workflow.services.custom_workflows.service import CustomWorkflows
from tests.services.custom_files import (
    COMMON_JS,
    GRAPH,
    PARAMETERS,
    PYTHON,
    TYPESCRIPT,
    install_npm_packages,
    write,
)

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "workflows"


@pytest.fixture
def npm_packages(directory: Path) -> None:
    install_npm_packages(directory)


def write_declared(directory: Path, name: str = "cat.json", **fields: Any) -> None:
    write(directory, name, json.dumps({"workflow": GRAPH, "parameters": PARAMETERS, **fields}))


def test_without_a_directory_there_are_none() -> None:
    assert CustomWorkflows(None).all() == []
    with pytest.raises(CustomWorkflowNotFound, match="there are: none"):
        CustomWorkflows(None).get("cat")


def test_a_file_is_named_by_its_path(directory: Path) -> None:
    write_declared(directory, "cats/cat.json", summary="Cats", description="Paints cats.")
    write(directory, "plain.json", json.dumps(GRAPH))
    write(directory, "README.md", "x")
    write(directory, ".hidden/a.json", json.dumps(GRAPH))
    write(directory, "node_modules/a.json", json.dumps(GRAPH))
    custom = CustomWorkflows(directory)
    assert [each.name for each in custom.all()] == ["cats/cat", "plain"]
    found = custom.get("cats/cat")
    assert (found.kind, found.summary, found.description) == ("json", "Cats", "Paints cats.")
    assert found.schema is not None
    assert found.schema["required"] == ["prompt"]
    made = custom.order("cats/cat", {"prompt": "a lake"})
    assert made.workflow.graph == GRAPH
    assert made.inputs == {"Prompt.text": "a lake", "3.steps": 25}


def test_a_declaration_can_be_beside_the_file(directory: Path) -> None:
    write(directory, "cat.json", json.dumps(GRAPH))
    write(directory, "cat.parameters.json", json.dumps({"parameters": {"steps": "3.steps"}}))
    custom = CustomWorkflows(directory)
    assert [each.name for each in custom.all()] == ["cat"]
    assert custom.order("cat", {"steps": 3}).inputs == {"3.steps": 3}
    write(directory, "cat.parameters.json", json.dumps({"parameters": {"count": "3.steps"}}))
    os.utime(directory / "cat.parameters.json", (1, 1))
    assert custom.order("cat", {"count": 3}).inputs == {"3.steps": 3}


def test_a_new_file_needs_no_restart(directory: Path) -> None:
    custom = CustomWorkflows(directory)
    assert custom.all() == []
    write_declared(directory)
    assert [each.name for each in custom.all()] == ["cat"]
    (directory / "cat.json").unlink()
    assert custom.all() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cat.json is not valid JSON"),
        ("[" * 100_000, "cat.json is not valid JSON"),
        ("3", "cat.json: "),
        (json.dumps({"parameters": {}}), "cat.json: The file has parameters, but no workflow"),
        (
            json.dumps({"workflow": GRAPH, "parameters": {"a": "77.x"}}),
            'cat.json: parameters.a: inputs: "77.x"',
        ),
        (json.dumps({"1": {"inputs": {}}}), "cat.json: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why(directory: Path, content: str, said: str) -> None:
    write(directory, "cat.json", content)
    write(directory, "dog.json", json.dumps(GRAPH))
    broken, usable = CustomWorkflows(directory).all()
    assert (broken.schema, usable.trouble) == (None, None)
    assert str(broken.trouble).startswith(said)
    with pytest.raises(CustomWorkflowBroken) as refused:
        CustomWorkflows(directory).order("cat", {})
    assert str(refused.value) == broken.trouble


@pytest.mark.parametrize("name", ["../cat", "cats/../cat", "/etc/passwd", "cat.json", "", "cat\0", "C:\\cat"])
def test_a_name_is_never_a_path(directory: Path, name: str) -> None:
    write_declared(directory)
    write_declared(directory.parent)
    with pytest.raises(CustomWorkflowNotFound):
        CustomWorkflows(directory).order(name, {"prompt": "x"})


def test_a_python_file_is_a_typed_request(directory: Path) -> None:
    write(directory, "square.py", PYTHON)
    write(directory, "_helper.py", "raise SystemExit(3)")
    custom = CustomWorkflows(directory)
    (found,) = custom.all()
    assert (found.kind, found.summary, found.description) == ("python", "Square", "Paints a square.")
    assert found.schema is not None
    assert found.schema["properties"]["size"] | {"title": ""} == {
        "default": 64,
        "maximum": 512,
        "minimum": 16,
        "title": "",
        "type": "integer",
    }
    assert found.schema["properties"]["colour"]["properties"]["red"]["type"] == "integer"
    made = custom.order("square", {"text": "hello", "size": 32})
    assert made.workflow.graph["1"]["inputs"] == {"width": 32, "height": 32}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "input.text: Field required"),
        ({"text": "x", "size": 1}, "input.size: Input should be greater than or equal to 16"),
        ({"text": "x", "colour": {"red": "r"}}, "input.colour.red: Input should be a valid integer"),
        ({"text": "boom"}, "the workflow cannot be made: no paint left"),
    ],
)
def test_a_value_that_does_not_fit_the_typed_request(
    directory: Path, values: dict[str, Any], said: str
) -> None:
    write(directory, "square.py", PYTHON)
    with pytest.raises(InvalidRequest) as refused:
        CustomWorkflows(directory).order("square", values)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = ", "a.py: SyntaxError"),
        ("import nothing_of_that_name", "a.py: ModuleNotFoundError"),
        ("x = 1", "a.py: it must define a pydantic model Request and a function generate(request)"),
        ("Request = dict\ngenerate = print", "a.py: Request must be a pydantic model"),
        ("import os; os._exit(3)", "a.py ended without a workflow"),
        (PYTHON.replace("return {", "return {1, 2} or {"), "a.py: its workflow is not JSON"),
        (PYTHON.replace("return {", "return 3 or {"), "a.py makes no workflow"),
    ],
)
def test_a_python_file_that_is_none(directory: Path, content: str, said: str) -> None:
    write(directory, "a.py", content)
    with pytest.raises(CustomWorkflowBroken) as refused:
        CustomWorkflows(directory).order("a", {"text": "x"})
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("name", ["a.py", pytest.param("a.js", marks=needs_node)])
def test_a_file_has_a_time_limit(directory: Path, name: str) -> None:
    endless = "while True: pass" if name == "a.py" else "for (;;);"
    write(directory, name, endless)
    custom = CustomWorkflows(directory, Scripts(directory, time_limit_s=0.5))
    with pytest.raises(CustomWorkflowBroken, match=r"has taken longer than 0\.5 seconds"):
        custom.order("a", {})


@pytest.mark.parametrize("name", ["a.py", pytest.param("a.js", marks=needs_node)])
def test_a_file_sees_no_secret_of_the_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "a.js":
        install_npm_packages(directory)
    monkeypatch.setenv("COMFYUI_WORKFLOW_API_TOKEN", "secret-of-the-server")
    code = {
        "a.py": PYTHON.replace('"p"', 'repr(dict(__import__("os").environ))'),
        "a.js": COMMON_JS.replace("width: input.size", "text: JSON.stringify(process.env)"),
    }[name]
    write(directory, name, code)
    values = {"text": "x"} if name == "a.py" else {}
    made = CustomWorkflows(directory).order("a", values)
    assert "secret" not in json.dumps(made.workflow.graph)


@needs_node
@pytest.mark.usefixtures("npm_packages")
def test_a_typescript_file_of_comfyui_api_runs_as_it_is(directory: Path) -> None:
    write(directory, "sd/txt2img.ts", TYPESCRIPT)
    write(directory, "sd/types.d.ts", "export {}")
    custom = CustomWorkflows(directory)
    (found,) = custom.all()
    assert (found.name, found.kind, found.summary, found.trouble) == (
        "sd/txt2img",
        "typescript",
        "Text to image",
        None,
    )
    assert found.schema == {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "description": "What to paint"},
            "steps": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            "seed": {"type": "integer"},
            "sampler": {"type": "string", "default": "euler"},
            "checkpoint": {"type": "string"},
        },
        "required": ["prompt"],
    }
    made = custom.order("sd/txt2img", {"prompt": "a lake", "checkpoint": "any.safetensors"})
    assert made.workflow.graph["6"]["inputs"] == {"text": "a lake"}
    assert made.workflow.graph["3"]["inputs"]["steps"] == 20


@needs_node
@pytest.mark.usefixtures("npm_packages")
def test_names_of_samplers_and_models_are_checked_where_they_are_known(directory: Path) -> None:
    write(directory, "a.ts", TYPESCRIPT)
    known = {"samplers": ["euler", "ddim"], "models": {"checkpoints": ["sd.safetensors"]}}
    custom = CustomWorkflows(directory, context=lambda: known)
    assert (custom.get("a").schema or {})["properties"]["checkpoint"]["default"] == "sd.safetensors"
    with pytest.raises(InvalidRequest, match=r"input\.sampler: Invalid enum value"):
        custom.order("a", {"prompt": "x", "sampler": "other"})
    with pytest.raises(InvalidRequest, match=r"input\.checkpoint: Invalid input"):
        custom.order("a", {"prompt": "x", "checkpoint": "other"})


@needs_node
@pytest.mark.usefixtures("npm_packages")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "input.prompt: Required"),
        ({"prompt": 7}, "input.prompt: Expected string, received number"),
        ({"prompt": "x", "steps": 1000}, "input.steps: Number must be less than or equal to 100"),
        ({"prompt": "boom"}, "the workflow cannot be made: no paint left"),
    ],
)
def test_a_value_that_does_not_fit_zod(directory: Path, values: dict[str, Any], said: str) -> None:
    write(directory, "a.ts", TYPESCRIPT)
    with pytest.raises(InvalidRequest) as refused:
        CustomWorkflows(directory).order("a", values)
    assert str(refused.value).startswith(said)


@needs_node
@pytest.mark.usefixtures("npm_packages")
def test_a_compiled_file_is_preferred_to_its_source(directory: Path) -> None:
    write(directory, "a.ts", "this is no TypeScript (")
    write(directory, "a.js", COMMON_JS)
    (found,) = CustomWorkflows(directory).all()
    assert (found.kind, found.trouble) == ("javascript", None)
    assert CustomWorkflows(directory).order("a", {}).workflow.graph["1"]["inputs"]["width"] == 64


@needs_node
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.js", "throw new Error('no luck')", "a.js: no luck"),
        ("a.js", "require('nothing-of-that-name')", "a.js: Cannot find module"),
        ("a.js", "exports.default = {}", "a.js: it must export a workflow"),
        ("a.js", "process.exit(0)", "a.js ended without a workflow"),
    ],
)
def test_a_javascript_file_that_is_none(directory: Path, name: str, content: str, said: str) -> None:
    write(directory, name, content)
    with pytest.raises(CustomWorkflowBroken) as refused:
        CustomWorkflows(directory).order("a", {})
    assert str(refused.value).startswith(said)


@needs_node
@pytest.mark.usefixtures("npm_packages")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ts", "const a: = 3;", "a.ts: "),
        ("a.js", COMMON_JS.replace("return {", "return 3 || {"), "a.js makes no workflow"),
    ],
)
def test_a_javascript_file_with_its_packages_that_is_none(
    directory: Path, name: str, content: str, said: str
) -> None:
    write(directory, name, content)
    with pytest.raises(CustomWorkflowBroken) as refused:
        CustomWorkflows(directory).order("a", {})
    assert str(refused.value).startswith(said)
    assert "npm" not in str(refused.value)


CONFIG_ONLY = 'exports.default = { steps: require("../config").default.samplers };'
ZOD_4 = "exports.z = { object: () => ({ _def: {}, _zod: {} }), number: () => ({ default: () => ({}) }) };"


@needs_node
@pytest.mark.parametrize(
    ("name", "content", "package"),
    [
        ("a.js", COMMON_JS, "zod@3"),
        ("a.js", CONFIG_ONLY, "zod@3"),
        ("a.js", "require('zod/v3')", "zod@3"),
        ("a.js", "require('./lib/schema.js')", "zod@3"),
        ("a.js", 'import { z } from "zod";', "sucrase@3"),
        ("a.js", "export default {};", "sucrase@3"),
        ("a.ts", TYPESCRIPT, "sucrase@3"),
        ("a.ts", "exports.a = 1;", "sucrase@3"),
    ],
)
def test_a_missing_npm_package_is_named_with_its_command(
    tmp_path: Path, name: str, content: str, package: str
) -> None:
    directory = tmp_path / "my workflows"
    write(directory, f"sd/{name}", content)
    write(directory, "sd/lib/schema.js", "require('zod')")
    custom = CustomWorkflows(directory)
    said = f"{name} needs the npm package {package}: run npm install --prefix '{directory}' zod@3 sucrase@3"
    assert custom.get("sd/a").trouble == said
    with pytest.raises(CustomWorkflowBroken) as refused:
        custom.order("sd/a", {})
    assert str(refused.value) == said


@needs_node
def test_another_generation_of_zod_is_refused(directory: Path) -> None:
    write(directory, "node_modules/zod/index.js", ZOD_4)
    write(directory, "a.js", COMMON_JS)
    said = f"a.js needs the npm package zod@3: run npm install --prefix {directory} zod@3 sucrase@3"
    assert CustomWorkflows(directory).get("a").trouble == said


@needs_node
def test_a_package_is_found_as_soon_as_it_is_installed(directory: Path) -> None:
    write(directory, "sd/a.js", COMMON_JS)
    custom = CustomWorkflows(directory)
    assert "npm install" in str(custom.get("sd/a").trouble)
    install_npm_packages(directory)
    assert [(each.name, each.trouble) for each in custom.all()] == [("sd/a", None)]


@needs_node
@pytest.mark.usefixtures("npm_packages")
def test_sucrase_is_not_needed_for_a_file_without_import(directory: Path) -> None:
    zod = (directory / "node_modules" / "zod").resolve()
    (directory / "node_modules").unlink()
    (directory / "node_modules").mkdir()
    (directory / "node_modules" / "zod").symlink_to(zod)
    write(directory, "a.js", COMMON_JS)
    assert CustomWorkflows(directory).get("a").trouble is None


@needs_node
@pytest.mark.usefixtures("npm_packages")
def test_config_uses_the_zod_of_the_file(directory: Path) -> None:
    same = COMMON_JS.replace(
        "var RequestSchema",
        "var samplers = require('../config').default.samplers;\n"
        "if (!(samplers instanceof zod_1.ZodString)) throw new Error('another zod');\n"
        "var RequestSchema",
    )
    nearer = directory / "near" / "node_modules"
    shutil.copytree((directory / "node_modules" / "zod").resolve(), nearer / "zod")
    write(directory, "a.js", same)
    write(directory, "near/a.js", same)
    assert [each.trouble for each in CustomWorkflows(directory).all()] == [None, None]


def test_javascript_needs_node(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    write(directory, "a.js", COMMON_JS)
    (found,) = CustomWorkflows(directory).all()
    assert found.trouble == "a.js needs Node.js: install it on the machine of this server"
