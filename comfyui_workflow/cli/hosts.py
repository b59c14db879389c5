"""`hosts`: the machines whose host keys we know."""

import click

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.ssh_destination import read_destination
from comfyui_workflow.settings import load_settings
from comfyui_workflow.ssh.known_hosts import KnownHosts


@click.group()
def hosts() -> None:
    """Machines that are known by their host keys."""


@hosts.command()
@click.argument("host", metavar="HOST[:PORT]")
def forget(host: str) -> None:
    """Forget the host key of a machine, for an address that was rented anew.

    The next machine that answers there is trusted, and known from then on.
    """
    destination = read_destination(host)
    port = destination.port or 22
    known_hosts = KnownHosts(load_settings().data_dir / "known_hosts")
    if not known_hosts.forget(destination.host, port):
        raise InvalidRequest(f"No host key of {destination.host} port {port} is known ({known_hosts.path})")
    click.echo(f"Forgot the host key of {destination.host} port {port}.")
