"""What `run` asks for, handed to a server that can or cannot read our files."""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.cli.client import RequestRefused, ServerClient, ServerUnreachable


@dataclass(frozen=True, kw_only=True)
class Order:
    workflow: Path
    ssh_connection: str
    inputs: tuple[Path, ...] = ()
    output_dir: Path | None = None
    name: str | None = None
    comfyui_port: int | None = None
    include_previews: bool = False


def submit(client: ServerClient, order: Order) -> str:
    """The id of the run. Files are sent where the server does not read them itself: on another machine, or
    outside the directories it may read. Raises: RequestRefused, ServerUnreachable, InvalidRequest."""
    if client.is_on_this_machine:
        try:
            return _execute(client, order, str(order.workflow), [str(path) for path in order.inputs])
        except RequestRefused as refusal:
            if refusal.code != "file_refused":
                raise
    return _execute(client, order, client.upload(order.workflow), [client.upload(p) for p in order.inputs])


def _execute(client: ServerClient, order: Order, workflow_file: str, images: list[str]) -> str:
    wanted = {
        "ssh_connection": order.ssh_connection,
        "workflow_file": workflow_file,
        "workflow_name": order.name or order.workflow.name,
        "input_images": images,
        "output_dir": order.output_dir and str(order.output_dir),
        "comfyui_port": order.comfyui_port,
        "include_previews": order.include_previews,
    }
    try:
        return client.execute({field: value for field, value in wanted.items() if value is not None})
    except ServerUnreachable as error:
        unsure = "Whether it has started the run is not known; comfyui-workflow list tells"
        raise ServerUnreachable(f"{error}. {unsure}") from error
