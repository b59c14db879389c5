"""`hosts`: manages the known host keys."""

import click

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.ssh_destination import read_destination
from comfyui_workflow.settings import load_settings
from comfyui_workflow.ssh.known_hosts import KnownHosts


@click.group()
def hosts() -> None:
    """Manage known host keys."""


@hosts.command()
@click.argument("host", metavar="HOST[:PORT]")
def forget(host: str) -> None:
    """Forget the host key of an address, because another machine now has this address.

    The key of the next machine that answers there is trusted and saved.
    """
    destination = read_destination(host)
    port = destination.port or 22
    known_hosts = KnownHosts(load_settings().data_dir / "known_hosts")
    if not known_hosts.forget(destination.host, port):
        raise InvalidRequest(f"No host key of {destination.host} port {port} is known ({known_hosts.path})")
    click.echo(f"Forgot the host key of {destination.host} port {port}.")
