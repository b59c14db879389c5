"""Imports point down, and each foreign library has its place: docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "comfyui_workflow"

LAYERS = [  # from the ground up; a module may import its own layer and those above it in this list
    {"errors", "untrusted", "fields", "origins", "input_kinds", "private_files", "peer_users"},
    {"runs", "workflows"},
    {
        "settings",
        "login",
        "patience",
        "abreast",
        "disk_flush",
        "wholeness",
        "file_signatures",
        "parts",
        "demo",
        "connection_limits",
    },
    {"stores", "storage", "comfyui", "instances", "settling"},
    {"client"},
    {"journal", "link", "live", "local_port"},
    {"outbox"},
    {
        "inputs",
        "outputs",
        "output_origin",
        "submission",
        "late_copies",
        "prompt_marks",
        "local_files",
        "uploads",
        "preparation",
    },
    {"executors"},
    {"passage", "inspection", "leasing"},
    {"runner"},
    {"fleet"},
    {"service", "expectations"},
    {"batches", "jobs"},
    {"api", "dashboard", "serving", "early_refusals", "server"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PLACES = {
    "flask": {"api", "dashboard", "serving"},
    "flask_cors": {"api"},
    "werkzeug": {"api", "dashboard"},
    "zipstream": {"api"},
    "filetype": {"input_kinds"},
    "limits": {"api"},
    "waitress": {"serving", "early_refusals", "server"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "paramiko": {"instances"},
    "sshtunnel": {"instances"},
    "websocket": {"comfyui"},
    "requests": {"comfyui", "client"},
    "urllib3": {"outbox", "comfyui"},
    "certifi": {"outbox"},
    "AntiSSRF": {"outbox"},
    "asyncssh": {"sandbox"},
    "aiohttp": {"sandbox", "local_port"},
    "numpy": {"sandbox", "demo"},
    "click": {"cli", "sandbox"},
    "rich": {"cli"},
    "msgspec": {"stores"},
    "pydantic": {"runs", "settings", "client", "cli", "sandbox", "outbox"},
}


def modules() -> Iterator[tuple[str, str, Path]]:
    """(the top name below the package, what it imports, the file)."""
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


def test_no_api_imports_another() -> None:
    shared = {
        "archives",
        "asking_again",
        "guard",
        "output_files",
        "fields",
        "job_orders",
        "orders",
        "rate_limits",
        "revalidation",
        "run_list",
        "shared_answers",
        "run_documents",
        "token_guesses",
        "wording",
    }
    names = {path.stem for path in (PACKAGE / "api").glob("*.py")} - shared - {"__init__"}
    for top, imported, path in modules():
        parts = imported.split(".")
        if top == "api" and parts[:2] == ["comfyui_workflow", "api"] and len(parts) > 2:
            assert parts[2] not in names - {path.stem}, f"{path} imports {imported}"
