"""Arguments and options that several commands have."""

from pathlib import Path

import click

existing_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)

workflow_argument = click.argument("workflow", type=existing_file)
ssh_option = click.option(
    "--ssh", "ssh_connection", required=True, help="The instance: its ssh command, as pasted."
)
input_option = click.option(
    "--input", "images", type=existing_file, multiple=True, help="An input image. May be repeated."
)
comfyui_port_option = click.option(
    "--comfyui-port", type=click.IntRange(1, 65535), help="ComfyUI's port on the instance."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, nothing else.")
