"""Imports point down, and each foreign library has its place: docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "comfyui_workflow"

LAYERS = [  # from the ground up; a module may import its own layer and those above it in this list
    {"errors"},
    {"parsing", "access", "retry", "concurrency", "lifecycle", "server_address"},
    {"workflows"},
    {"runs"},
    {"files"},
    {"settings"},
    {"ssh", "storage", "safe_http"},
    {"comfyui"},
    {"stores"},
    {"delivery", "sessions"},
    {"provisioning"},
    {"proxy"},
    {"instances"},
    {"scheduling"},
    {"execution"},
    {"distributed"},
    {"client"},
    {"services"},
    {"server"},
    {"api"},
    {"web"},
    {"app"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PLACES = {
    "flask": {"api", "web", "server", "app"},
    "flask_cors": {"api"},
    "werkzeug": {"api", "web"},
    "zipstream": {"api"},
    "filetype": {"files"},
    "limits": {"api"},
    "waitress": {"server"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "azure": {"storage"},
    "huggingface_hub": {"storage"},
    "paramiko": {"ssh"},
    "cryptography": {"ssh"},
    "sshtunnel": {"ssh"},
    "websocket": {"comfyui"},
    "requests": {"comfyui"},
    "urllib3": {"safe_http", "comfyui", "client"},
    "certifi": {"safe_http", "client"},
    "AntiSSRF": {"safe_http"},
    "asyncssh": {"sandbox"},
    "aiohttp": {"sandbox", "proxy"},
    "numpy": {"sandbox", "demo"},
    "pyvips": {"delivery"},
    "click": {"cli", "sandbox"},
    "rich": {"cli"},
    "msgspec": {"stores", "client"},
    "pydantic": {"runs", "settings", "cli", "sandbox", "api"},
    "yaml": {"web"},
    "python_calamine": {"cli"},
}

WORDS_OF_RUNPOD = re.compile(
    r"""["'`]COMPLETED|JobStatus\.COMPLETED|IN_QUEUE|IN_PROGRESS|TIMED_OUT|(?i:worker-comfyui|runpod)"""
)
NAMES_OF_OTHERS = {"app.py", "settings.py", "client", "ssh", "parsing"}


@cache
def modules() -> tuple[tuple[str, str, Path], ...]:
    """(the top name below the package, what it imports, the file)."""
    return tuple(_imports())


def _imports() -> Iterator[tuple[str, str, Path]]:
    for path in PACKAGE.rglob("*.py"):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield top, node.module, path
            elif isinstance(node, ast.Import):
                yield from ((top, alias.name, path) for alias in node.names)


def test_imports_point_down() -> None:
    for top, imported, path in modules():
        parts = imported.split(".")
        if top in ("sandbox", "demo", "__init__") or parts[0] != "comfyui_workflow" or len(parts) == 1:
            continue
        if parts[1] == "sandbox":
            assert top == "cli", f"{path} imports the sandbox"
            continue
        assert LEVEL[parts[1]] <= LEVEL[top], f"{path} ({top}) imports {imported}"


def test_the_sandbox_knows_nothing_of_the_product() -> None:
    for top, imported, path in modules():
        if top == "sandbox" and imported.startswith("comfyui_workflow."):
            assert imported.split(".")[1] in ("sandbox", "demo"), f"{path} imports {imported}"


@pytest.mark.parametrize("library", PLACES)
def test_each_library_has_its_place(library: str) -> None:
    users = {top for top, imported, _ in modules() if imported.split(".")[0] == library}
    assert users <= PLACES[library]


def test_the_core_is_pure() -> None:
    impure = {"os", "time", "threading", "socket", "subprocess", "logging", "random", "requests", "flask"}
    for top, imported, path in modules():
        if top in ("runs", "workflows"):
            assert imported.split(".")[0] not in impure, f"{path} imports {imported}"


def test_only_the_composition_root_chooses_a_store() -> None:
    implementations = ("comfyui_workflow.stores.files", "comfyui_workflow.stores.memory")
    for top, imported, path in modules():
        if top not in ("stores", "app", "sandbox", "execution"):  # execution: the process's own token
            assert not imported.startswith(implementations), f"{path} imports {imported}"


def test_no_api_imports_another() -> None:
    folders = {path.name for path in (PACKAGE / "api").iterdir() if path.is_dir()}
    for top, imported, path in modules():
        parts = imported.split(".")
        if top == "api" and parts[:2] == ["comfyui_workflow", "api"] and len(parts) > 2:
            assert parts[2] not in folders - {path.parent.name}, f"{path} imports {imported}"


def test_words_of_one_api_are_in_its_folder() -> None:
    """`app` joins the APIs, `settings` hears a worker's own names, `ssh` knows the gateway of a provider."""
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        is_exempt = inside.parts[:2] == ("api", "runpod") or inside.parts[0] in NAMES_OF_OTHERS
        found = None if is_exempt else WORDS_OF_RUNPOD.search(path.read_text())
        assert found is None, f"{path} has {found[0]}"


def test_few_modules_are_outside_of_the_packages() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 8


LONGEST_FUNCTION = 40
"""Lines of a function in an API or the page: more than half a screen."""


def test_functions_of_the_apis_are_short() -> None:
    for path in (file for room in ("api", "web") for file in (PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"
