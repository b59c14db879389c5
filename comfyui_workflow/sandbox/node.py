"""Base class of all sandbox nodes, and the context in which they run.

Values of links between nodes, as in ComfyUI but with numpy instead of torch:

IMAGE   float32 array [batch, height, width, 3 or 4] in 0..1
MASK    float32 array [batch, height, width] in 0..1
LATENT  dict {"samples": float32 array [batch, 4, height / 8, width / 8]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image


class Interrupted(Exception):
    """The running prompt was interrupted. Raised by `NodeContext.step`; a node must not catch it."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The three directories of a ComfyUI. They exist before `input_types` of any node is called."""

    input_dir: Path
    output_dir: Path
    temp_dir: Path

    def of_type(self, name: str) -> Path | None:
        """Returns the directory for files of type "input", "output" or "temp"; None for another type."""
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}.get(name)


class NodeContext(Protocol):
    """Context of a running node: data of its prompt, and the method that reports progress."""

    @property
    def input_dir(self) -> Path: ...
    @property
    def output_dir(self) -> Path: ...
    @property
    def temp_dir(self) -> Path: ...
    @property
    def prompt(self) -> dict[str, Any]:
        """The whole graph, with values as converted by validation. SaveImage writes it into PNG files."""

    @property
    def extra_pnginfo(self) -> dict[str, Any] | None:
        """`extra_data.extra_pnginfo` of the request. Each key becomes a PNG text chunk."""

    @property
    def node_id(self) -> str: ...

    def send_picture(self, value: int, maximum: int, picture: Image.Image) -> None:
        """Reports a step like `step`, and sends a picture as PNG in its full size, whatever the preview
        method."""

    def queue_again(self) -> None:
        """Queues the running prompt once more, before all others and under a new id."""

    def step(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        """Reports that `value` of `maximum` steps are done, with a small preview picture.

        Raises: Interrupted, if the prompt was interrupted.
        """


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """Result of a node: one value for each entry of RETURN_TYPES, and the `ui` of an output node
    ({"images": [{...}]})."""

    result: tuple[object, ...] = ()
    ui: Mapping[str, Any] | None = None


InputTypes = dict[str, dict[str, Any]]


class SandboxNode:
    """Base class of a node class. The attributes have ComfyUI's values, because /object_info shows them."""

    CATEGORY: ClassVar[str] = "sandbox"
    MODULE: ClassVar[str] = "nodes"
    """`nodes` for a class of ComfyUI itself; `custom_nodes.<name>` for a class of a pack, whose own checks a
    client does not know."""
    DISPLAY_NAME: ClassVar[str] = ""
    DESCRIPTION: ClassVar[str] = ""
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE: ClassVar[bool] = False
    INPUT_IS_LIST: ClassVar[bool] = False
    IS_V3: ClassVar[bool] = False
    """True for a class of the newer interface for nodes: /object_info shows more of it."""
    DEPRECATED: ClassVar[bool] = False
    EXPERIMENTAL: ClassVar[bool] = False
    API_NODE: ClassVar[bool] = False
    """True for a partner node: one that costs credits at each execution."""
    OUTPUT_TEMPLATES: ClassVar[tuple[str, ...]] = ()
    """For outputs of the type of an input (COMFY_MATCHTYPE_V3): the template id of that input."""
    SINCE: ClassVar[str] = ""
    """The first version that has the class; empty for all versions."""

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        """Returns {"required": {name: (type, options)}, "optional": ..., "hidden": ...}; a list as type is a
        combo.

        `hidden` can name PROMPT, EXTRA_PNGINFO and UNIQUE_ID as in ComfyUI. A node reads them from its
        context; they are never passed to `execute`.
        """
        return {"required": {}}

    @classmethod
    def is_changed(cls, folders: Folders, **widgets: Any) -> object:
        """Returns a part of the cache key: the node runs again if it differs from last time (NaN: always)."""
        return None

    @classmethod
    def validate_inputs(cls, folders: Folders, **widgets: Any) -> bool | str:
        """Returns True, or a sentence about the invalid widget value. Linked inputs are not passed.

        If a class overrides this method, the inputs that it names as parameters get no other check of range
        or choices.
        """
        return True

    @classmethod
    def on_prompt(cls, graph: Any) -> None:
        """Is called for every POST /prompt before the validation, as hooks of packs are. An exception becomes
        a 500."""

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        """Executes the node. Any exception except Interrupted ends the prompt with an execution_error."""
        raise NotImplementedError


NodeClasses = Mapping[str, type[SandboxNode]]
