"""Options that all orders have in common: `run`, `batch` and `workflows run`.

The names of the parameters are the fields of the API, so that one function makes the fields from them.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from comfyui_workflow.cli.input_values import seed_mode_option, text_of_file
from comfyui_workflow.cli.options import (
    HIGHEST_PRIORITY,
    comfy_api_key_option,
    comfyui_port_option,
    existing_file,
    input_option,
)
from comfyui_workflow.client.orders import OrderDetails
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.image_conversion import read_conversion
from comfyui_workflow.runs.parts import MOST_PARTS, Partial

Command = TypeVar("Command", bound=Callable[..., Any])
SomeOrder = TypeVar("SomeOrder", bound=OrderDetails)


def _absolute(_ctx: click.Context, _option: click.Parameter, given: Path | None) -> Path | None:
    """Leaves ~ to the server: a shell expands it only at the beginning of a word, not in --output-dir=~/a."""
    return given if given is None or given.parts[:1] == ("~",) else given.absolute()


def _conversion(_ctx: click.Context, _option: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """Parses `webp:quality=90,lossless`. Raises: click.BadParameter."""
    if text is None:
        return None
    format_, _, rest = text.partition(":")
    parts = [part.partition("=") for part in filter(None, rest.split(","))]
    options = {name.strip(): _option_value(value.strip()) if given else True for name, given, value in parts}
    try:
        return read_conversion({"format": format_.strip(), "options": options}).document()
    except InvalidRequest as error:
        raise click.BadParameter(str(error)) from error


def _option_value(text: str) -> bool | int | str:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


def _credentials(_ctx: click.Context, _option: click.Parameter, path: Path | None) -> list[Any] | None:
    """Reads the file: a list, or an object with the field `credentials`. The messages contain no secrets.
    Raises: click.BadParameter."""
    if path is None:
        return None
    from comfyui_workflow.runs.credentials import read_credentials  # noqa: PLC0415 - slow to import

    try:
        given = json.loads(text_of_file("--credentials", str(path)))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is not valid JSON") from error
    found = given.get("credentials") if isinstance(given, dict) else given
    try:
        read_credentials(found if found is not None else {})
    except InvalidRequest as error:
        raise click.BadParameter(f"{path}: {error}") from error
    return cast("list[Any]", found)


output_dir_option = click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_absolute,
    help="Directory for the outputs, on the server's machine.",
)
upload_option = click.option(
    "--upload",
    metavar="URL",
    help="Also upload the outputs: s3://bucket/prefix, hf://owner/repo/directory, a container of Azure, or a "
    "web URL that takes PUT.",
)
credentials_option = click.option(
    "--credentials",
    metavar="FILE",
    type=existing_file,
    callback=_credentials,
    help="JSON file with credentials for the URLs of this order (docs/how-to/storage.md).",
)
previews_option = click.option(
    "--previews", "include_previews", is_flag=True, help="Also fetch preview pictures."
)
convert_option = click.option(
    "--convert",
    metavar="FORMAT[:OPTION=VALUE,…]",
    callback=_conversion,
    help="Format of the output images: jpeg, jpg or webp, with options of sharp: webp:quality=90,effort=6 or "
    "webp:lossless.",
)
provision_option = click.option(
    "--provision",
    is_flag=True,
    help="Install models and node packs that the instance lacks, on the instance, from where the workflow "
    "says. A loader may then have a URL in place of a name.",
)
priority_option = click.option(
    "--priority",
    type=click.IntRange(-HIGHEST_PRIORITY, HIGHEST_PRIORITY),
    help="Priority, default 0. Runs with a higher priority start first on the same instance.",
)
spread_option = click.option(
    "--spread",
    metavar="N",
    type=click.IntRange(1, MOST_PARTS),
    help="Run the workflow on N instances at once, with seeds one higher on each: one run with all pictures. "
    "With --ssh any, or any:TAG.",
)
partial_option = click.option(
    "--partial",
    type=click.Choice([each.value for each in Partial]),
    help="With --spread, if a part fails: another instance takes it (move, the default), the run is "
    "completed without it (keep), or fails (fail).",
)
webhook_option = click.option(
    "--webhook",
    metavar="URL",
    help="URL that gets a POST request when it has ended, also if this command ends before.",
)

_OPTIONS = (
    input_option,
    seed_mode_option,
    output_dir_option,
    upload_option,
    credentials_option,
    comfyui_port_option,
    previews_option,
    convert_option,
    provision_option,
    spread_option,
    partial_option,
    priority_option,
    comfy_api_key_option,
    webhook_option,
)
_FIELDS = (
    "input_images",
    "seed_mode",
    "output_dir",
    "upload",
    "credentials",
    "comfyui_port",
    "include_previews",
    "convert",
    "provision",
    "spread",
    "partial",
    "priority",
    "comfy_org_api_key",
    "webhook",
)
"""Fields of an order that `_OPTIONS` set."""


def order_options(command: Command) -> Command:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_details(order: SomeOrder, options: Mapping[str, Any]) -> SomeOrder:
    """Returns the order with the fields that the options of a command set."""
    return cast("SomeOrder", {**order, **{name: options[name] for name in _FIELDS}})
