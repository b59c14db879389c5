"""`python -m comfyui_workflow.sandbox`: simulates a rented GPU. Prints the ssh string first."""

import asyncio
import signal
import sys
from pathlib import Path

import click
import platformdirs

from comfyui_workflow.sandbox.instance import PortTaken, SandboxInstance
from comfyui_workflow.sandbox.versions import DEFAULT_VERSION, Version

STOP_TIMEOUT_S = 1.5
"""The caller that stops a sandbox waits at most two seconds, also while a node is running."""


@click.command("sandbox")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=platformdirs.user_data_path("comfyui-workflow") / "sandbox",
    show_default=True,
    help="Directory of its files and keys.",
)
@click.option(
    "--ssh-port", type=click.IntRange(0, 65535), default=40738, show_default=True, help="0: a free one."
)
@click.option(
    "--comfyui-port", type=click.IntRange(0, 65535), default=18188, show_default=True, help="0: a free one."
)
@click.option(
    "--execution-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to which a JSON line is appended for each executed prompt.",
)
@click.option(
    "--step-delay",
    "step_delay_s",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Seconds to add to each step of a node.",
)
@click.option(
    "--preview-method",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto: send previews while a node runs.",
)
@click.option(
    "--comfyui-version",
    type=click.Choice([version.value for version in Version]),
    default=DEFAULT_VERSION.value,
    show_default=True,
    help="The version of ComfyUI to imitate.",
)
def main(
    *,
    root: Path,
    ssh_port: int,
    comfyui_port: int,
    execution_log: Path | None,
    step_delay_s: float,
    preview_method: str,
    comfyui_version: str,
) -> None:
    """Simulates a rented GPU: a real SSH server in front of a small ComfyUI that runs on the CPU.

    Prints its ssh string on the first line, and runs until Ctrl-C.
    """
    instance = SandboxInstance(
        root=root,
        ssh_port=ssh_port,
        comfyui_port=comfyui_port,
        execution_log=execution_log,
        step_delay_s=step_delay_s,
        preview_method=preview_method,
        comfyui_version=comfyui_version,
    )
    try:
        asyncio.run(_run(instance))
    except PortTaken as error:
        click.echo(
            f"{error} Choose another with --ssh-port and --comfyui-port; 0 takes a free one.", err=True
        )
        sys.exit(2)


async def _run(instance: SandboxInstance) -> None:
    stopped = _stop_event()
    await instance.start()
    try:
        _print_address(instance)
        await stopped.wait()
    finally:
        await asyncio.wait_for(instance.stop(), STOP_TIMEOUT_S)


def _stop_event() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _print_address(instance: SandboxInstance) -> None:
    click.echo(instance.ssh_string)
    sys.stdout.flush()
    click.echo(
        f"This simulates a rented GPU. Use the line above as the SSH address.\n"
        f"Its ComfyUI:  http://127.0.0.1:{instance.comfyui_port}\n"
        f"Its files:    {instance.layout.workspace}\n"
        f"Ctrl-C ends it.",
        err=True,
    )


if __name__ == "__main__":
    main(prog_name="python -m comfyui_workflow.sandbox")
