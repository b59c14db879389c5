"""Arguments, options and help texts that several commands share."""

from pathlib import Path
from typing import Any

import click

from comfyui_workflow.files.spellings import existing_spelling
from comfyui_workflow.parsing.ssh_address import with_absolute_keys
from comfyui_workflow.parsing.storage_urls import is_storage_url
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
    "input_images",
    type=existing_input,
    multiple=True,
    help="Input file to upload, a directory of frames, or the URL of a file (https, s3, hf). It goes below "
    "ComfyUI's input directory where the workflow names it, as in pasted/photo.png. Can be repeated.",
)
comfyui_port_option = click.option(
    "--comfyui-port", type=click.IntRange(1, 65535), help="Port of ComfyUI on the instance."
)
comfy_api_key_option = click.option(
    "--comfy-api-key",
    "comfy_org_api_key",
    metavar="KEY",
    envvar=COMFY_API_KEY,
    show_envvar=True,
    help="API key of Comfy.org, for nodes that call a paid service. Other users of this machine can see "
    "options of running commands: prefer the environment variable.",
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
