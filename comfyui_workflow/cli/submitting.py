"""What `run`, `validate` and `convert` ask for, handed to a server that can or cannot read our files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from comfyui_workflow.cli.client import RequestRefused, ServerClient, ServerUnreachable
from comfyui_workflow.runs.model import SeedMode

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Order:
    """`images` are files that come along, `inputs` values by `<node id or title>.<input>`."""

    workflow: Path
    ssh_connection: str
    images: tuple[Path, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seed_mode: SeedMode = SeedMode.SAVED
    output_dir: Path | None = None
    name: str | None = None
    comfyui_port: int | None = None
    include_previews: bool = False


def submit(client: ServerClient, order: Order) -> str:
    """The id of the run. Raises: RequestRefused, ServerUnreachable, InvalidRequest."""
    return _hand_over(client, order, lambda body: _execute(client, body))


def inspect(client: ServerClient, order: Order) -> dict[str, Any]:
    """What the instance would say of it. Raises: RequestRefused, ServerUnreachable, InvalidRequest."""
    return _hand_over(client, order, client.validate)


def _hand_over(client: ServerClient, order: Order, ask: Callable[[Mapping[str, object]], Answer]) -> Answer:
    """Files are sent where the server does not read them itself: on another machine, or outside the
    directories it may read."""
    if client.is_on_this_machine:
        try:
            return ask(_body(order, str(order.workflow), [str(path) for path in order.images]))
        except RequestRefused as refusal:
            if refusal.code != "file_refused":
                raise
    sent = client.upload(order.workflow)
    return ask(_body(order, sent, [client.upload(path) for path in order.images]))


def _body(order: Order, workflow_file: str, images: list[str]) -> dict[str, object]:
    wanted = {
        "ssh_connection": order.ssh_connection,
        "workflow_file": workflow_file,
        "workflow_name": order.name or order.workflow.name,
        "input_images": images,
        "inputs": order.inputs or None,
        "seed_mode": order.seed_mode.value,
        "output_dir": order.output_dir and str(order.output_dir),
        "comfyui_port": order.comfyui_port,
        "include_previews": order.include_previews,
    }
    return {field: value for field, value in wanted.items() if value is not None}


def _execute(client: ServerClient, body: Mapping[str, object]) -> str:
    try:
        return client.execute(body)
    except ServerUnreachable as error:
        unsure = "Whether it has started the run is not known; comfyui-workflow list tells"
        raise ServerUnreachable(f"{error}. {unsure}") from error
