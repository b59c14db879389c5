"""The documentation lists exactly the fields, error codes and commands that exist."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comfyui_workflow import errors
from comfyui_workflow.api import health, webhook_field
from comfyui_workflow.api import run_requests as requests
from comfyui_workflow.api.native import batches, instances, rerun, runs, webhooks
from comfyui_workflow.api.runpod import routes
from comfyui_workflow.app import create_server
from comfyui_workflow.cli import main
from comfyui_workflow.delivery.webhooks.serializers import delivery_document
from comfyui_workflow.instances.schema import KNOWN_FIELDS
from comfyui_workflow.instances.serializers import state_document
from comfyui_workflow.instances.state import InstanceState
from comfyui_workflow.runs.webhook import new_delivery
from comfyui_workflow.settings import load_settings

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api" / "workflow.md").read_text()
BATCHES = (ROOT / "docs" / "api" / "batch.md").read_text()
INSTANCES = (ROOT / "docs" / "api" / "instances.md").read_text()
WEBHOOKS = (ROOT / "docs" / "api" / "webhooks.md").read_text()
JOBS = (ROOT / "docs" / "api" / "worker-comfyui.md").read_text()
README = (ROOT / "README.md").read_text()
BATCH_FIELDS = {"runs", "rows", "matrix", "batch_name", "stagger_s", "on_error"}
NEVER_ANSWERED = {"error", "configuration"}
NOT_OF_THE_TREE = {
    "image_not_fetched",
    "internal",
    "invalid_order",
    "not_resubmitted",
    "outputs_missing",
    "outputs_lost",
    "no_instance",
    "refused",
    "parts_failed",
    "instance_lost",
    "http",
}


@pytest.mark.parametrize(
    ("document", "prefixes"),
    [
        (API, (runs.PREFIX, health.PATH)),
        (INSTANCES, (instances.PREFIX,)),
        (BATCHES, (batches.PREFIX,)),
        (WEBHOOKS, (webhooks.PREFIX,)),
    ],
    ids=["workflow", "instances", "batches", "webhooks"],
)
def test_every_route_is_documented_and_nothing_else(
    tmp_path: Path, document: str, prefixes: tuple[str, ...]
) -> None:
    rules = create_server(load_settings(data_dir=tmp_path)).app.url_map.iter_rules()
    routes = {
        f"{method} {_as_documented(rule.rule, prefixes[0])}"
        for rule in rules
        if rule.rule.startswith(prefixes)
        and (rule.rule.startswith(batches.PREFIX) == prefixes[0].startswith(batches.PREFIX))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) [^`]+)`", document, flags=re.MULTILINE)) == routes


def test_every_route_of_jobs_is_documented_and_at_its_bare_path_where_that_is_free(tmp_path: Path) -> None:
    below = f"{routes.PREFIX}/<endpoint_id>"
    known = {
        (method, rule.rule)
        for rule in create_server(load_settings(data_dir=tmp_path)).app.url_map.iter_rules()
        if rule.rule.startswith((below, *routes.BARE))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    documented = set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", JOBS, flags=re.MULTILINE))
    assert documented == {f"{method} {rule.removeprefix(below)}" for method, rule in known}
    everywhere = {(method, rule.removeprefix(below)) for method, rule in known}
    is_health = {each for each in everywhere if each[1] == health.PATH}
    assert {(method, rule) for method, rule in known if not rule.startswith(below)} == everywhere - is_health


def test_every_field_of_an_instance_is_documented() -> None:
    assert _first_cells(INSTANCES, "## Fields") == KNOWN_FIELDS


def test_every_field_of_a_state_is_documented() -> None:
    answered = state_document(InstanceState(), datetime.now(UTC))
    assert _first_cells(INSTANCES, "## State") == set(answered)


def test_every_field_of_a_webhook_is_documented() -> None:
    answered = delivery_document(new_delivery("https://a.example/", "run", 2, datetime.now(UTC)))
    assert _first_cells(WEBHOOKS, "## Fields") == {*answered, "attempts"}


def test_every_field_of_execute_is_documented() -> None:
    source = "".join(Path(module.__file__ or "").read_text() for module in (requests, rerun, webhook_field))
    read = set(re.findall(r'(?:\(body, |body\.get\()"(\w+)"', source)) - BATCH_FIELDS
    table = API.partition("## execute")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == read


def test_every_error_code_is_documented_and_nothing_else() -> None:
    table = API.partition("## Error codes")[2]
    first_cells = re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
    documented = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}
    assert documented == (_codes(errors.WorkflowError) - NEVER_ANSWERED) | NOT_OF_THE_TREE


def test_every_command_is_in_the_readme() -> None:
    table = README.partition("## Commands")[2].partition("##")[0]
    named = {words.split()[0] for words in re.findall(r"`([a-z][^`]*)`", table) if "…" not in words[:20]}
    assert set(main.commands) <= named


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def _first_cells(document: str, heading: str) -> set[str]:
    table = document.partition(heading)[2].partition("\n##")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def _as_documented(rule: str, prefix: str) -> str:
    named = rule.removeprefix(prefix).replace("<int:number>", "<n>")
    return named or '""'


def _codes(kind: type[errors.WorkflowError]) -> set[str]:
    """Codes outside of the tree in `errors`; the commands add some of their own."""
    is_ours = kind.__module__ == errors.__name__
    return ({kind.code} if is_ours else set()).union(*(_codes(each) for each in kind.__subclasses__()))
