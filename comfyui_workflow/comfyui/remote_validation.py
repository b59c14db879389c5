"""Predicts ComfyUI's validation of a graph, from its node definitions and the files on the instance."""

from collections.abc import Iterable

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles, ReferencedFile, referenced_files
from comfyui_workflow.workflows.validation.preflight import Verdict, preflight
from comfyui_workflow.workflows.validation.replacements import NO_REPLACEMENTS, Replacements

MOST_FILES_CHECKED = 50


def verdict_of(
    client: ComfyUIClient,
    graph: Graph,
    definitions: Definitions,
    *,
    provided: frozenset[str] = frozenset(),
    replaced: Replacements = NO_REPLACEMENTS,
) -> Verdict:
    """Returns the verdict of the preflight for this ComfyUI. Checks at most MOST_FILES_CHECKED files.
    `provided`: names of files that the run will upload; `replaced`: node classes that this ComfyUI
    replaces itself."""
    named = referenced_files(graph, definitions)
    listed = {(each.folder, each.name) for each in named if each.is_listed}
    to_check = _files_to_check(named, provided)
    existing = {
        (folder, name)
        for folder, name in to_check[:MOST_FILES_CHECKED]
        if client.has_file(name, folder=folder)
    }
    files = KnownFiles(
        provided=provided, found=frozenset(listed | existing), is_asked=len(to_check) <= MOST_FILES_CHECKED
    )
    return preflight(graph, definitions, files=files, replaced=replaced)


def _files_to_check(named: Iterable[ReferencedFile], provided: frozenset[str]) -> list[tuple[str, str]]:
    """Returns (folder, name), once for each file that is neither provided nor listed: each check is a round
    trip."""
    return list(
        dict.fromkeys(
            (each.folder, each.name)
            for each in named
            if not each.is_listed and (each.folder != "input" or each.name not in provided)
        )
    )
