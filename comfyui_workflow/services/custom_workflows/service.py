"""Service for custom workflows: finds the files of a directory, describes them, and makes orders from them.

How it works. The name of a workflow is the path of its file below the directory, without the suffix. The
directory is read again for each request, so that a new file needs no restart; what a file says is kept until
the file changes. A name is looked up among the files that were found, and is never made into a path.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import CustomWorkflowBroken, CustomWorkflowNotFound, InvalidRequest
from comfyui_workflow.parsing.untrusted import as_object, shown
from comfyui_workflow.services.custom_workflows.scripts import SCRIPT_SUFFIXES, RequirementMissing, Scripts
from comfyui_workflow.workflows.custom import (
    DECLARATION_FIELDS,
    Declaration,
    DeclaredWorkflow,
    declared_workflow,
    inlined,
    read_declaration,
    without_declaration,
)
from comfyui_workflow.workflows.input_formats import LARGEST_WORKFLOW_BYTES, read_workflow
from comfyui_workflow.workflows.model import Workflow

log = logging.getLogger(__name__)

SUFFIXES = (".py", ".js", ".ts", ".json")
"""Of files with the same name, the first kind is taken: a .js may have been made from the .ts."""
DECLARATION_SUFFIX = ".parameters.json"
MOST_FILES = 1000
DEEPEST = 8
_LEFT_OUT = frozenset({"node_modules", "__pycache__"})
_FILES_OF_NPM = frozenset({"package.json", "package-lock.json", "npm-shrinkwrap.json", "tsconfig.json"})

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CustomDescription:
    """A custom workflow as it is listed."""

    name: str
    kind: str
    """`python`, `javascript`, `typescript` or `json`."""
    summary: str | None = None
    description: str | None = None
    schema: Json | None = None
    """JSON Schema of the `input` of a request. None if the file cannot be used."""
    trouble: str | None = None
    """Why the file cannot be used."""


@dataclass(frozen=True, kw_only=True)
class CustomOrder:
    """The part of an order that comes from a custom workflow."""

    workflow: Workflow
    inputs: Json
    files: tuple[str, ...]
    """Values of parameters that are files, as the request named them."""
    values: Json
    """The values of the request, with defaults."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    stamp: tuple[int, ...]
    description: CustomDescription
    declared: DeclaredWorkflow | None


KINDS = {".py": "python", ".js": "javascript", ".ts": "typescript", ".json": "json"}


class CustomWorkflows:
    """See the module. Thread-safe. Without a directory there are none."""

    def __init__(
        self,
        directory: Path | None,
        scripts: Scripts | None = None,
        context: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`context` returns what JavaScript files see of the server: `samplers`, `schedulers`,
        `warmup_checkpoint`, and `models` (names by folder); each can be left out."""
        self._directory = None if directory is None else directory.absolute()
        self._scripts = scripts or Scripts(self._directory or Path.cwd())
        self._context = context
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def all(self) -> list[CustomDescription]:
        """Returns every custom workflow, sorted by name."""
        found = dict(self._files())
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if name in found}
        return [self._read(name, path).description for name, path in sorted(found.items())]

    def get(self, name: str) -> CustomDescription:
        """Raises: CustomWorkflowNotFound."""
        return self._read(name, self._path(name)).description

    def order(self, name: str, values: Mapping[str, Any]) -> CustomOrder:
        """Makes the workflow of a request.

        Raises: CustomWorkflowNotFound; CustomWorkflowBroken if the file cannot be used; InvalidRequest if the
        values do not fit, WorkflowNotMade if no workflow can be made from them; ServerBusy."""
        path = self._path(name)
        if path.suffix in SCRIPT_SUFFIXES:
            made = self._scripts.generate(path, values, self._context())
            workflow = _workflow_of(path, made.workflow)
            return CustomOrder(workflow=workflow, inputs={}, files=(), values=made.values)
        known = self._read(name, path)
        if known.declared is None:
            raise CustomWorkflowBroken(known.description.trouble or f"{path.name} cannot be used")
        workflow, bound = known.declared.workflow, known.declared.bind(values)
        return CustomOrder(workflow=workflow, inputs=bound.inputs, files=bound.files, values=bound.values)

    def _path(self, name: str) -> Path:
        found = dict(self._files())
        if name not in found:
            names = ", ".join(sorted(found)[:20]) or "none"
            raise CustomWorkflowNotFound(f"There is no custom workflow {shown(name)!r}; there are: {names}")
        return found[name]

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Yields (name, path). Hidden files, those that begin with `_`, and those of npm are left out."""
        if self._directory is None:
            return
        by_name: dict[str, Path] = {}
        for path in _walk(self._directory):
            if path.suffix not in SUFFIXES or path.name.endswith((DECLARATION_SUFFIX, ".d.ts")):
                continue
            if path.name.startswith((".", "_")) or path.name in _FILES_OF_NPM:
                continue
            name = path.relative_to(self._directory).with_suffix("").as_posix()
            before = by_name.get(name)
            if before is None or SUFFIXES.index(path.suffix) < SUFFIXES.index(before.suffix):
                by_name[name] = path
        yield from by_name.items()

    def _read(self, name: str, path: Path) -> _Known:
        stamp = (*_stamp(path), *_stamp(_declaration_path(path)))
        with self._lock:
            known = self._known.get(name)
        if known is not None and known.stamp == stamp:
            return known
        blank = CustomDescription(name=name, kind=KINDS[path.suffix])
        try:
            known = self._read_again(blank, path, stamp)
        except RequirementMissing as error:  # not kept: installing it does not change the file
            return _Known(stamp=stamp, description=replace(blank, trouble=str(error)), declared=None)
        with self._lock:
            self._known[name] = known
        return known

    def _read_again(self, blank: CustomDescription, path: Path, stamp: tuple[int, ...]) -> _Known:
        """Raises: RequirementMissing."""
        declared = None
        try:
            if path.suffix in SCRIPT_SUFFIXES:
                said = self._scripts.describe(path, self._context())
            else:
                declared = read_file(path)
                said = {**vars(declared), "schema": declared.schema()}
            description = replace(
                blank,
                summary=_text(said.get("summary")),
                description=_text(said.get("description")),
                schema=inlined(as_object(said.get("schema"))),
            )
        except RequirementMissing:
            raise
        except CustomWorkflowBroken as error:
            description = replace(blank, trouble=str(error))
        return _Known(stamp=stamp, description=description, declared=declared)


def read_file(path: Path) -> DeclaredWorkflow:
    """Reads a workflow file and its declaration, in the same file or beside it.
    Raises: CustomWorkflowBroken."""
    try:
        value, beside = _json_of(path), _declaration_path(path)
        if beside.exists():
            declared = _json_of(beside)
            if not isinstance(declared, dict):
                raise InvalidRequest(f'{beside.name} must be an object: {{"parameters": {{…}}}}')
            return declared_workflow(read_workflow(value), read_declaration(declared))
        if (
            isinstance(value, dict)
            and isinstance(value.get("parameters"), dict)
            and "class_type" not in value["parameters"]
        ):
            known = {each: value.get(each) for each in DECLARATION_FIELDS}
            return declared_workflow(read_workflow(without_declaration(value)), read_declaration(known))
        return declared_workflow(read_workflow(value), Declaration())
    except InvalidRequest as error:
        raise CustomWorkflowBroken(f"{path.name}: {error}") from error


def _json_of(path: Path) -> Any:
    """Raises: CustomWorkflowBroken."""
    try:
        if path.stat().st_size > LARGEST_WORKFLOW_BYTES:
            raise CustomWorkflowBroken(f"{path.name} is too large to be a workflow")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CustomWorkflowBroken(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CustomWorkflowBroken(f"{path.name} is not valid JSON: {error}") from error


def _workflow_of(path: Path, made: object) -> Workflow:
    try:
        return read_workflow(made)
    except InvalidRequest as error:
        raise CustomWorkflowBroken(f"{path.name} makes no workflow: {error}") from error


def _declaration_path(path: Path) -> Path:
    return path.with_suffix(DECLARATION_SUFFIX)


def _walk(directory: Path) -> Iterator[Path]:
    """Yields the regular files below the directory, in a fixed order. Links to directories are not
    followed."""
    found = 0
    for parent, directories, names in os.walk(directory):
        depth = len(Path(parent).relative_to(directory).parts)
        directories[:] = sorted(
            each
            for each in directories
            if not each.startswith(".") and each not in _LEFT_OUT and depth < DEEPEST
        )
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file():
                found += 1
                if found > MOST_FILES:
                    log.warning("%s has more than %d files: the others are left out", directory, MOST_FILES)
                    return
                yield path


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _text(value: object) -> str | None:
    return value.strip() if isinstance(value, str) and value.strip() else None
