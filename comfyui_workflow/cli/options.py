"""Arguments, options and help texts that several commands share."""

import re
from pathlib import Path
from typing import Any

import click

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.files.spellings import existing_spelling
from comfyui_workflow.parsing.ssh_address import with_absolute_keys
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.runs.image_conversion import read_conversion
from comfyui_workflow.runs.parts import MOST_PARTS, Partial
from comfyui_workflow.server_address import PREFIX

COMFY_API_KEY = f"{PREFIX}COMFY_API_KEY"


class LocalPath(click.Path):
    """An existing file, or a directory if `dir_okay`. `~` is expanded (a shell does not expand
    `--input=~/a`), and a spelling of another system is understood: backslashes, the other Unicode form of
    letters. `may_be_url`: a URL is left as it is, for the server."""

    def __init__(self, *, may_be_url: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._may_be_url = may_be_url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self._may_be_url and isinstance(value, str) and is_storage_url(value):
            return value
        return super().convert(existing_spelling(value) if isinstance(value, str) else value, param, ctx)


existing_file = LocalPath(exists=True, dir_okay=False, readable=True, path_type=Path)
existing_workflow = LocalPath(may_be_url=True, exists=True, dir_okay=False, readable=True, path_type=Path)
existing_input = LocalPath(may_be_url=True, exists=True, readable=True, path_type=Path)

SSH_METAVAR = "STRING|NAME|any[:TAG]"
SSH_HELP = (
    "The instance: the ssh command as you copied it, or the name of a named instance. any: any free named "
    "instance; any:TAG: any free one with this tag."
)
HIGHEST_PRIORITY = 1000


def absolute_key_files(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Makes the key files of an ssh string absolute: the server has another working directory."""

    def absolute(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).is_file() else name

    return value and with_absolute_keys(value, absolute)


def _absolute(_ctx: click.Context, _option: click.Parameter, given: Path | None) -> Path | None:
    """Leaves ~ to the server: a shell expands it only at the beginning of a word, not in --output-dir=~/a."""
    return given if given is None or given.parts[:1] == ("~",) else given.absolute()


workflow_argument = click.argument("workflow", type=existing_workflow)
ssh_option = click.option(
    "--ssh",
    "ssh_connection",
    metavar=SSH_METAVAR,
    required=True,
    callback=absolute_key_files,
    help=SSH_HELP,
)
input_option = click.option(
    "--input",
    "images",
    type=existing_input,
    multiple=True,
    help="Input file to upload, a directory of frames, or the URL of a file (https, s3, hf). It goes below "
    "ComfyUI's input directory where the workflow names it, as in pasted/photo.png. Can be repeated.",
)
upload_option = click.option(
    "--upload",
    metavar="URL",
    help="Also upload the outputs: s3://bucket/prefix, hf://owner/repo/directory, a container of Azure, or a "
    "web URL that takes PUT.",
)
comfyui_port_option = click.option(
    "--comfyui-port", type=click.IntRange(1, 65535), help="Port of ComfyUI on the instance."
)
output_dir_option = click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_absolute,
    help="Directory for the outputs, on the server's machine.",
)


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


previews_option = click.option("--previews", is_flag=True, help="Also fetch preview pictures.")
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
comfy_api_key_option = click.option(
    "--comfy-api-key",
    metavar="KEY",
    envvar=COMFY_API_KEY,
    show_envvar=True,
    help="API key of Comfy.org, for nodes that call a paid service. Other users of this machine can see "
    "options of running commands: prefer the environment variable.",
)
webhook_option = click.option(
    "--webhook",
    metavar="URL",
    help="URL that gets a POST request when it has ended, also if this command ends before.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print only the response, as JSON.")

EXIT_CODES_HELP = """\b
Exit codes:
  0    the run completed and its outputs are saved
  1    the run failed
  2    the request was refused: a wrong option, file, workflow or id
  3    the run was cancelled
  4    no server answers
  130  interrupted by Ctrl-C; the run continues
"""
