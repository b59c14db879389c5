"""Arguments, options and words of help that several commands have."""

from pathlib import Path

import click

existing_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)

SSH_METAVAR = "STRING|NAME|any[:TAG]"
SSH_HELP = (
    "The instance: its ssh command, as pasted; the name of one that `instances` lists; or any: whichever of "
    "those is free."
)
HIGHEST_PRIORITY = 1000

workflow_argument = click.argument("workflow", type=existing_file)
ssh_option = click.option(
    "--ssh",
    "ssh_connection",
    metavar=SSH_METAVAR,
    required=True,
    help=SSH_HELP,
)
input_option = click.option(
    "--input", "images", type=existing_file, multiple=True, help="An input image. May be repeated."
)
comfyui_port_option = click.option(
    "--comfyui-port", type=click.IntRange(1, 65535), help="ComfyUI's port on the instance."
)
output_dir_option = click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where outputs go; with a server elsewhere, there.",
)
previews_option = click.option("--previews", is_flag=True, help="Fetch preview pictures too.")
priority_option = click.option(
    "--priority",
    type=click.IntRange(-HIGHEST_PRIORITY, HIGHEST_PRIORITY),
    help="Of runs that wait for the same instance the higher one goes first; 0 is usual.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, nothing else.")

EXIT_CODES_HELP = """\b
Exit codes:
  0    the run completed, its outputs are here
  1    the run failed
  2    the request was refused: a wrong option, file, workflow or id
  3    the run was cancelled
  4    no server answers
  130  interrupted by Ctrl-C; the run itself goes on
"""
