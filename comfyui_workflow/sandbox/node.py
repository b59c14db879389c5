"""What a node of the sandbox is: the class every node derives from, and what it is given while it runs.

Values on the wires between nodes, as in ComfyUI but with numpy in place of torch:

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
    """Somebody asked to stop the running prompt: raised by `NodeContext.step`, to pass through the node."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The three directories of a ComfyUI. They exist before any node is asked for its inputs."""

    input_dir: Path
    output_dir: Path
    temp_dir: Path

    def of_type(self, name: str) -> Path | None:
        """The directory that files of type "input", "output" or "temp" live in."""
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}.get(name)


class NodeContext(Protocol):
    """What a node may know of the prompt it runs in, and its way to report progress."""

    @property
    def input_dir(self) -> Path: ...
    @property
    def output_dir(self) -> Path: ...
    @property
    def temp_dir(self) -> Path: ...
    @property
    def prompt(self) -> dict[str, Any]:
        """The whole graph, with values as validation coerced them: what SaveImage writes into a PNG."""

    @property
    def extra_pnginfo(self) -> dict[str, Any] | None:
        """`extra_data.extra_pnginfo` of the request: each key becomes a PNG text chunk."""

    @property
    def node_id(self) -> str: ...

    def step(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        """Report that `value` of `maximum` steps are done, with a small picture of what is there so far.

        Raises: Interrupted, when somebody asked to stop this prompt.
        """


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What came out: one value per RETURN_TYPES, and what an output node shows ({"images": [{...}]})."""

    result: tuple[object, ...] = ()
    ui: dict[str, list[object]] | None = None


InputTypes = dict[str, dict[str, Any]]


class SandboxNode:
    """A node class; the attributes are ComfyUI's, word for word, since /object_info shows them."""

    CATEGORY: ClassVar[str] = "sandbox"
    DISPLAY_NAME: ClassVar[str] = ""
    DESCRIPTION: ClassVar[str] = ""
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE: ClassVar[bool] = False
    INPUT_IS_LIST: ClassVar[bool] = False

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        """{"required": {name: (type, options)}, "optional": ..., "hidden": ...}; a list as type is a combo.

        `hidden` may name PROMPT, EXTRA_PNGINFO and UNIQUE_ID as in ComfyUI; a node reads them from its
        context, they are never passed to `execute`.
        """
        return {"required": {}}

    @classmethod
    def is_changed(cls, folders: Folders, **widgets: Any) -> object:
        """Part of the cache key: another value than last time makes the node run again (NaN: every time)."""
        return None

    @classmethod
    def validate_inputs(cls, folders: Folders, **widgets: Any) -> bool | str:
        """True, or a sentence that says what is wrong with the widget values (linked inputs are not passed).

        A class that overrides this takes over the checks of the combo inputs that it names as parameters.
        """
        return True

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        """Do the work. Anything raised but Interrupted ends the prompt with an execution_error."""
        raise NotImplementedError


NodeClasses = Mapping[str, type[SandboxNode]]
