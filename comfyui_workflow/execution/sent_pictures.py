"""Pictures that an output node sends over the websocket, and saves nowhere (SaveImageWebsocket and similar
nodes).

How it works. The thread of the websocket only collects the pictures: it must not wait for a disk. The thread
of the run writes each one to a hidden file in the output directory. After the prompt has ended, they become
outputs, under the folder `websocket`. A restarted server finds the hidden files again; a prompt that is
submitted again begins without them.
"""

import hashlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from comfyui_workflow.comfyui.previews import Preview
from comfyui_workflow.comfyui.shown_results import name_of_node
from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import FileType, OutputFile, Run

FOLDER = "websocket"
"""`OutputFile.folder` of these pictures: ComfyUI has no file of them."""
MOST_PICTURES = 10_000
"""Limit for one node."""
MOST_WAITING_BYTES = 256 * 1024 * 1024
"""Limit for the pictures that the run has not written yet; further ones are dropped."""
_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


class SentPictures:
    """The pictures of one prompt. `offer` is called by the thread of the websocket, everything else by the
    thread of the run."""

    def __init__(self, run: Run, node_ids: Collection[str]) -> None:
        """`node_ids` are the output nodes: pictures of other nodes are previews."""
        self._run = run
        self._node_ids = frozenset(node_ids)
        self._lock = threading.Lock()
        self._waiting: list[Preview] = []
        self._waiting_bytes = 0
        self.has_dropped = False
        self._counts = {node_id: _count(run, node_id) for node_id in self._node_ids}

    def offer(self, preview: Preview) -> bool:
        """Takes the picture if an output node has sent it. Returns at once."""
        if preview.place.node_id not in self._node_ids:
            return False
        with self._lock:
            size_bytes = len(preview.picture)
            if self._waiting_bytes + size_bytes > MOST_WAITING_BYTES:
                self.has_dropped = True
                return False
            self._waiting.append(preview)
            self._waiting_bytes += size_bytes
        return True

    def write(self) -> None:
        """Writes the collected pictures to disk. Raises: StoreError; then they stay collected."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                preview = self._waiting[0]
            self._write(preview)
            with self._lock:
                self._waiting.pop(0)
                self._waiting_bytes -= len(preview.picture)

    def _write(self, preview: Preview) -> None:
        node_id = preview.place.node_id
        number = self._counts[node_id] + 1
        if number > MOST_PICTURES:
            self.has_dropped = True
            return
        _write_file(sent_file(self._run, node_id, number), preview.picture)
        self._counts[node_id] = number


def sent_file(run: Run, node_id: str, number: int) -> Path:
    """The hidden file of a picture. `number` is from 1."""
    tag = hashlib.sha256(node_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Path(run.request.output_dir) / f".{run.run_id}.{tag}.{number}.sent.part"


def sent_outputs(run: Run, node_ids: Collection[str]) -> Iterator[OutputFile]:
    """Yields the outputs of the pictures on disk, in the order in which each node sent them."""
    for node_id in node_ids:
        for number in range(1, _count(run, node_id) + 1):
            ending = _ending(sent_file(run, node_id, number))
            yield OutputFile(
                filename=f"websocket_{name_of_node(node_id)}_{number:05}.{ending}",
                folder=FOLDER,
                node_id=node_id,
                file_type=FileType.IMAGE,
            )


def file_of(run: Run, output: OutputFile) -> Path:
    """The hidden file of an output from `sent_outputs`."""
    number = output.filename.rpartition(".")[0].rpartition("_")[2]
    return sent_file(run, output.node_id, int(number))


def discard(run: Run) -> None:
    """Removes the hidden files of a run that has ended, or whose prompt is submitted again."""
    for node in run.nodes:
        for number in range(1, _count(run, node.node_id) + 1):
            sent_file(run, node.node_id, number).unlink(missing_ok=True)


def _count(run: Run, node_id: str) -> int:
    count = 0
    while count < MOST_PICTURES and sent_file(run, node_id, count + 1).is_file():
        count += 1
    return count


def _ending(file: Path) -> str:
    with file.open("rb") as opened:
        head = opened.read(4)
    return next((ending for magic, ending in _ENDINGS.items() if head.startswith(magic)), "png")


def _write_file(file: Path, content: bytes) -> None:
    """Writes the file under another name first: a killed server must not leave half of a picture."""
    begun = file.with_name(f"{file.name.removesuffix('.part')}.new.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        begun.write_bytes(content)
        begun.replace(file)
    except OSError as error:
        begun.unlink(missing_ok=True)
        raise StoreError(f"It cannot be written to {file.parent}: {error.strerror}") from error
