"""Arguments, options and help texts that several commands share."""

from pathlib import Path

import click

from comfyui_workflow.parsing.ssh_address import with_absolute_keys

existing_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)

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


workflow_argument = click.argument("workflow", type=existing_file)
ssh_option = click.option(
    "--ssh",
    "ssh_connection",
    metavar=SSH_METAVAR,
    required=True,
    callback=absolute_key_files,
    help=SSH_HELP,
)
input_option = click.option(
    "--input", "images", type=existing_file, multiple=True, help="Input image to upload. Can be repeated."
)
comfyui_port_option = click.option(
    "--comfyui-port", type=click.IntRange(1, 65535), help="Port of ComfyUI on the instance."
)
output_dir_option = click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the outputs, on the server's machine.",
)
previews_option = click.option("--previews", is_flag=True, help="Also fetch preview pictures.")
priority_option = click.option(
    "--priority",
    type=click.IntRange(-HIGHEST_PRIORITY, HIGHEST_PRIORITY),
    help="Priority, default 0. Runs with a higher priority start first on the same instance.",
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
