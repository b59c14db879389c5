"""What a run is asked for, and how its files get to a server that can or cannot read ours."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Required, TypedDict, TypeVar

from comfyui_workflow.client.errors import RequestRefused

Answer = TypeVar("Answer")
_FILES = ("workflow", "input_images")


class Order(TypedDict, total=False):
    """The keywords of `execute` and `validate`; docs/api/workflow.md has the defaults, as has None."""

    workflow: Required[Path | str | Mapping[str, Any]]
    """A path of a file here (either of ComfyUI's formats, or a picture with one inside), or the workflow
    itself, in either format."""
    ssh_connection: Required[str]
    """The ssh command as the renter shows it, or what else the server knows an instance by."""
    input_images: Sequence[Path | str]
    """Files here; each goes up under its own name."""
    inputs: Mapping[str, Any]
    """Values to set, by `<node id or title>.<input>`."""
    seed_mode: str | None
    """`saved`, `control` or `randomize`: what becomes of seeds."""
    workflow_name: str | None
    output_dir: Path | str | None
    """A directory on the machine of the server."""
    comfyui_port: int | None
    comfyui_input_dir: str | None
    comfyui_output_dir: str | None
    include_previews: bool


def check_order(order: Mapping[str, object]) -> None:
    """As Python does it for keywords that are spelled out. Raises: TypeError."""
    unknown = order.keys() - Order.__annotations__.keys()
    missing = Order.__required_keys__ - order.keys()
    if unknown or missing:
        what, names = ("unknown", unknown) if unknown else ("missing", missing)
        known = ", ".join(Order.__annotations__)
        raise TypeError(f"{what}: {', '.join(sorted(names))}; the keywords of an order are {known}")


def hand_over(
    order: Order,
    ask: Callable[[dict[str, Any]], Answer],
    upload: Callable[[Path], str],
    *,
    reads_our_files: bool,
) -> Answer:
    """Files are named where the server may read them itself, and sent where it is on another machine or may
    not. Raises: what `ask` and `upload` raise."""
    if reads_our_files:
        try:
            return ask(_body(order, lambda path: str(path.absolute())))
        except RequestRefused as refusal:
            if refusal.code != "file_refused" or not _has_files(order):
                raise
    return ask(_body(order, upload))


def _body(order: Order, place: Callable[[Path], str]) -> dict[str, Any]:
    """The JSON of the request; `place` says where the server finds a file."""
    workflow = order["workflow"]
    plain = {name: value for name, value in order.items() if name not in _FILES and value is not None}
    body = {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
    if isinstance(workflow, Mapping):
        body["workflow"] = workflow
    else:
        body["workflow_file"] = place(Path(workflow))
        body.setdefault("workflow_name", Path(workflow).name)
    body["input_images"] = [place(Path(image)) for image in order.get("input_images", ())]
    return body


def _has_files(order: Order) -> bool:
    return not isinstance(order["workflow"], Mapping) or bool(order.get("input_images"))
