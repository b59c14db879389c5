"""What can be asked and answered is in the documents: nothing is missing there, nothing made up."""

import re
from pathlib import Path

from app import create_server
from comfyui_workflow import errors
from comfyui_workflow.api import health, workflow
from comfyui_workflow.cli import main
from comfyui_workflow.settings import load_settings

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api" / "workflow.md").read_text()
README = (ROOT / "README.md").read_text()
NEVER_ANSWERED = {"error", "configuration"}
NOT_OF_THE_TREE = {"internal", "outputs_missing", "refused", "http"}


def test_every_route_is_documented_and_nothing_else(tmp_path: Path) -> None:
    rules = create_server(load_settings(data_dir=tmp_path)).app.url_map.iter_rules()
    routes = {
        f"{method} {_as_documented(rule.rule)}"
        for rule in rules
        if rule.rule.startswith((workflow.PREFIX, health.PATH))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", API, flags=re.MULTILINE)) == routes


def test_every_field_of_execute_is_documented() -> None:
    source = Path(workflow.__file__).read_text()
    read = set(re.findall(r'(?:\(body, |body\.get\()"(\w+)"', source))
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


def _as_documented(rule: str) -> str:
    named = rule.removeprefix(workflow.PREFIX).replace("<int:number>", "<n>")
    return named or '""'


def _codes(kind: type[errors.WorkflowError]) -> set[str]:
    """Of the tree in `errors`; the commands add some of their own."""
    is_ours = kind.__module__ == errors.__name__
    return ({kind.code} if is_ours else set()).union(*(_codes(each) for each in kind.__subclasses__()))
