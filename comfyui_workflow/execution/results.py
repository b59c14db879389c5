"""Collects the results of a prompt that has ended, whatever shape its nodes give them.

How it works. ComfyUI's history lists files and texts. Some results are not in that list:

- a text may be the path of a file: the instance tells if that file exists and is new;
- an output node may save a file and tell ComfyUI nothing: the file is searched by the names in its inputs;
- a picture may come over the websocket only: see `sent_pictures`;
- a workflow may only show previews: then they are its results;
- a node that loads a file may show it: that is no result;
- a node may save a text beside its picture: see `sidecars`.

For an output node of which nothing can be fetched, a notice says what to do.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from comfyui_workflow.comfyui.history import HistoryEntry, Outcome, wanted_outputs
from comfyui_workflow.comfyui.output_locations import candidates, is_outside, located
from comfyui_workflow.comfyui.shown_results import ShownPath, shows_widget_state
from comfyui_workflow.comfyui.validation_errors import node_name
from comfyui_workflow.errors import RemoteFileError
from comfyui_workflow.execution.output_origin import CLOCK_TOLERANCE_S
from comfyui_workflow.execution.sidecars import sidecars
from comfyui_workflow.execution.untold_files import UntoldFiles
from comfyui_workflow.runs.model import FileType, OutputFile, Run
from comfyui_workflow.sessions.session import ComfyUISession

MOST_NODES_NAMED = 20
PREVIEWS_ONLY = "The workflow saves no file, so its previews were fetched"
NO_OUTPUT = "The prompt made no output: add a node that saves its result, such as SaveImage"
_SAVED_NOWHERE = ("temp", "text", "input")
_WEBSOCKET = "websocket"


@dataclass(frozen=True, kw_only=True)
class Results:
    outputs: tuple[OutputFile, ...]
    notices: tuple[str, ...] = ()


class ResultCollector:
    """Collects the results of one prompt. Raises: the error of a broken session."""

    def __init__(
        self,
        session: ComfyUISession,
        run: Run,
        entry: HistoryEntry,
        output_nodes: Sequence[str],
        sent: Sequence[OutputFile] = (),
        *,
        may_lack_pictures: bool = False,
    ) -> None:
        """`output_nodes`: ids of the output nodes that ComfyUI executed. `sent`: pictures that came over the
        websocket. `may_lack_pictures`: the websocket was away while the prompt ran."""
        self._session = session
        self._run = run
        self._entry = entry
        self._output_nodes = output_nodes
        self._sent = sent
        self._may_lack_pictures = may_lack_pictures

    def collect(self) -> Results:
        told = [self._located(output) for output in self._entry.outputs]
        found = {path: file for path in self._entry.paths if (file := self._file_of(path)) is not None}
        told = [each for output in told if (each := _without_paths(output, found)) is not None]
        outputs = [*told, *found.values()]
        outputs += sidecars(outputs, lambda node_id: self._run.graph.get(node_id, {}), self._written_s)
        outputs += self._sent_by_silent_nodes(outputs)
        if self._entry.outcome is not Outcome.SUCCESS:
            return Results(outputs=wanted_outputs(tuple(outputs), self._run.request.include_previews))
        silent = self._silent_nodes(outputs)
        untold = [file for node_id in silent for file in self._untold_files.of(node_id)]
        outputs += [file for file in untold if file.key not in {output.key for output in outputs}]
        notices = [self._silence_notice(node_id) for node_id in self._silent_nodes(outputs)]
        made = tuple(output for output in outputs if not self._is_loaded_file(output))
        return self._with_previews(made, notices[:MOST_NODES_NAMED])

    def has_silent_nodes(self) -> bool:
        """True if the history has no result of an output node."""
        return bool(self._silent_nodes(self._entry.outputs))

    def _with_previews(self, outputs: tuple[OutputFile, ...], notices: list[str]) -> Results:
        include_previews = self._run.request.include_previews
        previews = [output for output in outputs if output.folder == "temp"]
        is_saved = any(output.folder not in _SAVED_NOWHERE for output in outputs)
        if previews and not is_saved and not include_previews:
            notices = [*notices, PREVIEWS_ONLY]
            include_previews = True
        if not include_previews:
            notices = [*notices, *self._temporary_notices(previews)]
        wanted = wanted_outputs(outputs, include_previews)
        if not wanted and not notices:
            notices = [NO_OUTPUT]
        return Results(outputs=wanted, notices=tuple(dict.fromkeys((*notices, *self._websocket_notices()))))

    def _silent_nodes(self, outputs: Sequence[OutputFile]) -> list[str]:
        """Returns the output nodes that none of the outputs comes from, except those that show something to
        their widget. The ids of nodes that a node creates at run time begin with its id."""
        makers = {output.node_id for output in outputs}
        makers |= {node_id for node_id, ui in self._entry.ui.items() if shows_widget_state(ui)}
        makers |= {maker.partition(".")[0] for maker in makers}
        return [node_id for node_id in self._output_nodes if node_id not in makers]

    def _sent_by_silent_nodes(self, outputs: Sequence[OutputFile]) -> list[OutputFile]:
        """Pictures of a node that also tells ComfyUI of a file are its previews."""
        makers = {output.node_id for output in outputs if output.text is None}
        return [output for output in self._sent if output.node_id not in makers]

    def _is_loaded_file(self, output: OutputFile) -> bool:
        """True for a file that its node has loaded, and shows: an input, or a result of an earlier prompt."""
        path = posixpath.join(output.subfolder, output.filename)
        names = {f"{path} [{output.folder}]", *([path] if output.folder == "input" else [])}
        texts = {str(value).replace("\\", "/") for value in self._inputs_of(output.node_id).values()}
        if names.isdisjoint(texts):
            return False
        after, written_s = self._entry.window[0], self._written_s(output)
        is_older = after is not None and written_s is not None and written_s < after.timestamp()
        is_new_to_prompt = output.is_cached or not is_older
        return output.node_id not in self._output_nodes or not is_new_to_prompt

    def _located(self, output: OutputFile) -> OutputFile:
        """Returns the output with its place. A backslash separates directories on Windows, and is a letter of
        a name elsewhere: the instance tells which."""
        place = located(output, self._session.directories)
        if "\\" not in f"{output.subfolder}{output.filename}":
            return place
        literal = located(output, self._session.directories, has_backslashes=True)
        places = (literal, place) if "\\" in output.filename else (place, literal)
        return next((each for each in places if self._written_s(each) is not None), place)

    def _file_of(self, path: ShownPath) -> OutputFile | None:
        """Returns the file that a shown path names, if it exists and is not older than the prompt. The age of
        a model tells nothing, but a model that the node itself was told to show is none of its results."""
        after, before = self._entry.window
        is_cached = path.node_id in self._entry.cached
        is_made = path.is_model and path.text not in self._inputs_of(path.node_id).values()
        for place in candidates(path.text, self._session.directories()):
            written_s = self._written_s(place)
            if written_s is None:
                continue
            if is_made or is_cached or after is None or written_s >= after.timestamp() - CLOCK_TOLERANCE_S:
                return replace(
                    place,
                    node_id=path.node_id,
                    made_after=after,
                    made_before=before,
                    is_cached=is_cached,
                )
        return None

    def _written_s(self, place: OutputFile) -> float | None:
        """Returns the modification time by the clock of the instance; infinity if it is not known; None if
        the file does not exist."""
        try:
            if is_outside(place):
                path = posixpath.join(place.folder, place.filename)
                found = self._session.connection.files.stat(path)
                return None if found is None or found.is_directory else found.modified_at.timestamp() + 1
            seen = self._session.client.view_info(
                place.filename, subfolder=place.subfolder, folder=place.folder
            )
        except RemoteFileError:
            return None
        return float("inf") if seen.modified_ns is None else seen.modified_ns / 1e9

    @cached_property
    def _untold_files(self) -> UntoldFiles:
        directory = self._session.directories().output_dir or self._run.comfyui_output_dir
        files = self._session.connection.files
        return UntoldFiles(files, self._run.graph, directory, self._entry, self._written_s)

    def _silence_notice(self, node_id: str) -> str:
        node = node_name(node_id, self._run.graph)
        if _WEBSOCKET in self._class_of(node_id).lower():
            return (
                f"{node} sends its pictures over the websocket only, and none arrived. "
                "Execute the run again, or use SaveImage"
            )
        directory = self._session.directories().output_dir or self._run.comfyui_output_dir
        return (
            f"{node} told ComfyUI of no result, so nothing of it was fetched. If it saves a file, look in "
            f"{directory} on the instance. To have it fetched, connect a node that saves or shows it"
        )

    def _temporary_notices(self, previews: Sequence[OutputFile]) -> Iterator[str]:
        """Yields notices about files in the temp directory that a person would miss: a video that is not
        kept, unlike a picture that is only shown."""
        for output in previews:
            inputs = self._inputs_of(output.node_id)
            is_switched_off = inputs.get("save_output") is False
            if output.file_type is FileType.IMAGE and not is_switched_off:
                continue
            what_to_do = "set its save_output to true, or " if is_switched_off else ""
            yield (
                f"{node_name(output.node_id, self._run.graph)} keeps its file only until ComfyUI is started "
                f"again, so it was not fetched: {what_to_do}ask for previews, too "
                "(include_previews, --previews)"
            )

    def _websocket_notices(self) -> Iterator[str]:
        if self._may_lack_pictures:
            for node_id in dict.fromkeys(output.node_id for output in self._sent):
                yield (
                    f"{node_name(node_id, self._run.graph)} sends its pictures over the websocket only, and "
                    "the connection was interrupted while the prompt ran: some may be missing"
                )

    def _class_of(self, node_id: str) -> str:
        return str(self._run.graph.get(node_id, {}).get("class_type", ""))

    def _inputs_of(self, node_id: str) -> dict[str, object]:
        graph = self._run.graph if self._entry.graph is None else self._entry.graph
        return graph.get(node_id, {}).get("inputs") or {}


def _without_paths(output: OutputFile, found: dict[ShownPath, OutputFile]) -> OutputFile | None:
    """Removes the paths of found files from the text of their node; None if nothing else is left of it."""
    named = {path.text for path in found if path.node_id == output.node_id}
    if output.text is None or not named:
        return output
    lines = [line for line in output.text.split("\n") if line not in named]
    return replace(output, text="\n".join(lines)) if any(lines) else None
