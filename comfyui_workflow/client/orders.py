"""What runs are asked for, and how their files get to a server that can or cannot read ours."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Required, TypedDict, TypeVar

from comfyui_workflow.client.errors import RequestRefused

Answer = TypeVar("Answer")
Place = Callable[[Path], str]
"""Where the server finds a file of ours."""
_FILES = ("workflow", "input_images")


class OrderDetails(TypedDict, total=False):
    """docs/api/workflow.md has the defaults, as has None."""

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
    priority: int | None
    """Of runs that wait for the same instance the higher one goes first."""


class Order(OrderDetails, total=False):
    """The keywords of `execute` and `validate`."""

    workflow: Required[Path | str | Mapping[str, Any]]
    """A path of a file here (either of ComfyUI's formats, or a picture with one inside), or the workflow
    itself, in either format."""
    ssh_connection: Required[str]
    """The ssh command as the renter shows it, the name of an instance, `any`, or `any:<tag>`."""


class BatchOrder(OrderDetails, total=False):
    """The keywords of `batches.order`: either `runs`, or one order and the `rows` or the `matrix` by which
    its runs differ."""

    runs: Sequence[Order]
    workflow: Path | str | Mapping[str, Any]
    ssh_connection: str
    rows: Sequence[Mapping[str, Any]]
    """The runs: values to set, by `<node id or title>.<input>`."""
    matrix: Mapping[str, Sequence[Any]]
    """A run of every combination; the last input changes fastest."""
    batch_name: str | None
    stagger_s: float
    on_error: str | None
    """`continue` or `stop`."""


def check_order(order: Mapping[str, object], kind: Any = Order) -> None:
    """As Python does it for keywords that are spelled out. Raises: TypeError."""
    unknown = order.keys() - kind.__annotations__.keys()
    missing = kind.__required_keys__ - order.keys()
    if unknown or missing:
        what, names = ("unknown", unknown) if unknown else ("missing", missing)
        known = ", ".join(kind.__annotations__)
        raise TypeError(f"{what}: {', '.join(sorted(names))}; the keywords of an order are {known}")


def hand_over(
    order: Order | BatchOrder,
    ask: Callable[[dict[str, Any]], Answer],
    upload: Place,
    *,
    reads_our_files: bool,
) -> Answer:
    """Files are named where the server may read them itself, and sent, each once, where it is on another
    machine or may not. Raises: what `ask` and `upload` raise."""
    if reads_our_files:
        try:
            return ask(_body(order, lambda path: str(path.absolute())))
        except RequestRefused as refusal:
            if refusal.code != "file_refused" or not _has_files(order):
                raise
    return ask(_body(order, cache(upload)))


def _body(order: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The JSON of the request."""
    plain = {name: value for name, value in order.items() if name not in _FILES and value is not None}
    body = {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
    workflow = order.get("workflow")
    if isinstance(workflow, Mapping):
        body["workflow"] = workflow
    elif workflow is not None:
        body["workflow_file"] = place(Path(workflow))
        body.setdefault("workflow_name", Path(workflow).name)
    if "runs" in order:
        body["runs"] = [_body(each, place) for each in order["runs"]]
    else:
        body["input_images"] = [place(Path(image)) for image in order.get("input_images", ())]
    return body


def _has_files(order: Mapping[str, Any]) -> bool:
    workflow = order.get("workflow", {})
    has_own = not isinstance(workflow, Mapping) or bool(order.get("input_images"))
    return has_own or any(map(_has_files, order.get("runs", ())))
