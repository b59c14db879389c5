"""Orders of runs and batches, and the transfer of their files to the server.

How it works: a server on this machine gets the paths of the files. If it may not read them, or runs on
another machine, each file is uploaded once and the order names the path on the server.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Required, TypedDict, TypeVar

from comfyui_workflow.client.errors import RequestRefused
from comfyui_workflow.parsing.storage_urls import is_storage_url

Answer = TypeVar("Answer")
FileReference = Callable[[Path], str]
"""Makes a local file available to the server; returns its path on the server."""
_FILES = ("workflow", "input_images")
_VALUES = frozenset({"inputs", "rows", "matrix", "input"})
"""Fields of an order with values of inputs."""
_MOST_PARTS = 3


class OrderDetails(TypedDict, total=False):
    """Optional fields of an order. None means the default; the defaults are in docs/api/workflow.md."""

    input_images: Sequence[Path | str]
    """Local files, and directories of files; each is uploaded under its own name. Also URLs, which the server
    downloads."""
    inputs: Mapping[str, Any]
    """Values to set, keyed by `<node id or title>.<input>`. A `Path` is a local file or directory, which is
    uploaded too."""
    seed_mode: str | None
    """`saved`, `control` or `randomize`: how seeds are chosen."""
    workflow_name: str | None
    output_dir: Path | str | None
    """A directory on the server's machine."""
    upload: str | Mapping[str, Any] | None
    """Where the outputs are uploaded to: a URL (`s3://bucket/prefix`), or an object with one of `s3`,
    `hf_upload`, `azure_blob_upload` and `http_upload`."""
    credentials: Sequence[Mapping[str, Any]] | None
    """For URLs of the order: `{"url_pattern": ..., "auth": {"type": "bearer", "token": ...}}`."""
    comfyui_port: int | None
    comfyui_input_dir: str | None
    comfyui_output_dir: str | None
    include_previews: bool
    convert: Mapping[str, Any] | None
    """Format that output images are converted to: `{"format": "webp", "options": {"quality": 90}}`."""
    provision: bool
    """Install what the instance lacks there, from where the workflow says."""
    priority: int | None
    """Runs with a higher priority start first on the same instance."""
    spread: int | None
    """Number of parts: each runs the workflow on another instance, with seeds one higher than the part
    before."""
    spread_over: Sequence[str]
    """Names of the instances that may take a part."""
    partial: str | None
    """`move`, `keep` or `fail`: what follows if a part fails."""
    comfy_org_api_key: str | None
    """For nodes that call a service of Comfy.org."""
    webhook: str | Mapping[str, Any] | None
    """URL that is notified of the end, or `{"url": …, "events": […]}` (docs/api/webhooks.md)."""


class Order(OrderDetails, total=False):
    """Keyword arguments of `execute` and `validate`."""

    workflow: Required[Path | str | Mapping[str, Any]]
    """Path of a local file (a workflow in editor or API format, or a picture that contains one), the URL of
    one, or the workflow itself, in either format."""
    ssh_connection: Required[str]
    """The ssh command as the provider shows it, the name of an instance, `any`, or `any:<tag>`."""


class CustomOrder(OrderDetails, total=False):
    """Keyword arguments of `run_custom`."""

    input: Mapping[str, Any]
    """Values of the parameters. A `Path` is a local file, which is uploaded."""
    ssh_connection: str
    """As for `execute`. Default: `any`."""


class BatchOrder(OrderDetails, total=False):
    """Keyword arguments of `batches.order`: either `runs`, or one order with `rows` or `matrix`, which say
    how the runs differ."""

    runs: Sequence[Order]
    workflow: Path | str | Mapping[str, Any]
    ssh_connection: str
    rows: Sequence[Mapping[str, Any]]
    """One run for each row: values to set, keyed by `<node id or title>.<input>`."""
    matrix: Mapping[str, Sequence[Any]]
    """One run for each combination of values; the last input changes fastest."""
    batch_name: str | None
    stagger_s: float
    on_error: str | None
    """`continue` or `stop`."""


def check_order(order: Mapping[str, object], kind: Any = Order) -> None:
    """Checks the names of the keyword arguments. Raises: TypeError, as Python does for a wrong keyword."""
    unknown = order.keys() - kind.__annotations__.keys()
    missing = kind.__required_keys__ - order.keys()
    if unknown or missing:
        what, names = ("unknown", unknown) if unknown else ("missing", missing)
        known = ", ".join(kind.__annotations__)
        raise TypeError(f"{what}: {', '.join(sorted(names))}; the keywords of an order are {known}")


def send_order(
    order: Order | BatchOrder | CustomOrder,
    ask: Callable[[dict[str, Any]], Answer],
    upload: FileReference,
    *,
    server_reads_our_files: bool,
) -> Answer:
    """Sends an order with its files: as local paths if the server may read them, else each file is uploaded
    once.
    Raises: what `ask` and `upload` raise."""
    if server_reads_our_files:
        try:
            return ask(_body(order, lambda path: str(path.expanduser().absolute())))
        except RequestRefused as refusal:
            if refusal.code != "file_refused" or not _has_files(order):
                raise
    return ask(_body(order, cache(upload)))


def _body(order: Mapping[str, Any], refer_to: FileReference) -> dict[str, Any]:
    """Returns the JSON body of the request."""
    plain = {name: value for name, value in order.items() if name not in _FILES and value is not None}
    body = {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
    workflow = order.get("workflow")
    if isinstance(workflow, Mapping):
        body["workflow"] = workflow
    elif isinstance(workflow, str) and is_storage_url(workflow):
        body["workflow_file"] = workflow
    elif workflow is not None:
        body["workflow_file"] = refer_to(Path(workflow))
        body.setdefault("workflow_name", Path(workflow).name)
    if "runs" in order:
        body["runs"] = [_body(each, refer_to) for each in order["runs"]]
    else:
        values = {name: order[name] for name in _VALUES & order.keys()}
        images = [each if _is_url(each) else Path(each) for each in order.get("input_images", ())]
        given = dict.fromkeys([*images, *_paths_in(values)])
        body["input_images"] = [each if isinstance(each, str) else refer_to(each) for each in given]
    for name in _VALUES & body.keys():
        body[name] = _with_references(body[name], refer_to)
    return body


def _is_url(given: object) -> bool:
    return isinstance(given, str) and is_storage_url(given)


def uploaded_name(path: Path) -> str:
    """Returns the name of a file for its upload. It keeps a part of the directories, because a workflow may
    name the file with them."""
    parts = [part for part in path.parts if part not in (path.anchor, "~")]
    start = 1 + max((at for at, part in enumerate(parts) if part == ".."), default=-1)
    return "/".join(parts[max(start, len(parts) - _MOST_PARTS) :]) or path.name


def _paths_in(value: object) -> Iterator[Path]:
    """Yields the local files among the values of inputs."""
    match value:
        case Path():
            yield value
        case Mapping():
            for each in value.values():
                yield from _paths_in(each)
        case list() | tuple():
            for each in value:
                yield from _paths_in(each)


def _with_references(value: object, refer_to: FileReference) -> object:
    """Replaces each local file among the values of inputs by its path on the server."""
    match value:
        case Path():
            return refer_to(value)
        case Mapping():
            return {name: _with_references(each, refer_to) for name, each in value.items()}
        case list() | tuple():
            return [_with_references(each, refer_to) for each in value]
    return value


def _has_files(order: Mapping[str, Any]) -> bool:
    workflow = order.get("workflow", {})
    values = {name: order[name] for name in _VALUES & order.keys()}
    has_own = not isinstance(workflow, Mapping) or bool(order.get("input_images")) or any(_paths_in(values))
    return has_own or any(map(_has_files, order.get("runs", ())))
