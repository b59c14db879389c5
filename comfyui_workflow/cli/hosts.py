"""`hosts`: manages the known host keys."""

import click

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.settings import load_settings
from comfyui_workflow.ssh.client_config import resolve
from comfyui_workflow.ssh.known_hosts import KnownHosts


@click.group()
def hosts() -> None:
    """Manage known host keys."""


@hosts.command()
@click.argument("host", metavar="HOST[:PORT]")
def forget(host: str) -> None:
    """Forget the host key of an address, because another machine now has this address.

    HOST can be an alias in your SSH configuration. The key of the next machine that answers there is trusted
    and saved.
    """
    settings = load_settings()
    address = resolve(parse_ssh_address(host), settings.ssh_config)
    known_hosts = KnownHosts(settings.data_dir / "known_hosts")
    if not known_hosts.forget(address.host, address.port):
        raise InvalidRequest(
            f"No host key of {address.host} port {address.port} is known ({known_hosts.path})"
        )
    click.echo(f"Forgot the host key of {address.host} port {address.port}.")
