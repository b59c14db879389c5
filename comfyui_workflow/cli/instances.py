"""`instances`: manages the named instances of a server and sends requests to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import click

from comfyui_workflow.cli.instance_text import (
    costs_table,
    instance_lines,
    instance_table,
    troubles,
)
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.options import absolute_key_files, json_option
from comfyui_workflow.cli.provision import conclude_provision, follow_provision, read_manifest_file
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.screen import print_table
from comfyui_workflow.cli.servers import running_server, server_option
from comfyui_workflow.client.instance_documents import InstanceDocument
from comfyui_workflow.client.instances import InstanceFields
from comfyui_workflow.errors import InvalidRequest

Command = TypeVar("Command", bound=Callable[..., None])
_UNSET = (
    *("comfyui-port", "comfyui-token", "comfyui-user", "input-dir", "output-dir", "tag", "price"),
    *("host-key", "local-port"),
)
_FIELDS = {
    "ssh": "ssh_connection",
    "input-dir": "comfyui_input_dir",
    "output-dir": "comfyui_output_dir",
    "tag": "tags",
    "price": "price_per_hour",
}
"""Options whose name differs from their field."""

_instance_argument = click.argument("instance")


def _secret_option(name: str, text: str) -> Callable[[Command], Command]:
    """An option whose value is asked for, unseen, if it is given without one: a command line is seen by other
    users of this machine."""
    label = name.removeprefix("--comfyui-").capitalize()
    return click.option(
        name, metavar="[TEXT]", prompt=label, prompt_required=False, hide_input=True,
        help=f"{text} Without TEXT it is asked for.",
    )  # fmt: skip


def _entry_options(command: Command) -> Command:
    """Adds the options that `add` and `edit` share. An option that was not given is None, or an empty
    tuple."""
    for option in reversed(
        (
            click.option(
                "--comfyui-port", type=click.IntRange(1, 65535), help="Port of ComfyUI on the instance."
            ),
            _secret_option("--comfyui-token", "Token that passes a login before ComfyUI."),
            click.option("--comfyui-user", metavar="USER", help="User that passes a login before ComfyUI."),
            _secret_option("--comfyui-password", "Password of that user."),
            click.option("--input-dir", metavar="PATH", help="Input directory of ComfyUI on the instance."),
            click.option("--output-dir", metavar="PATH", help="Output directory of ComfyUI on the instance."),
            click.option(
                "--tag", metavar="WORD", multiple=True, help="Tag, for --ssh any:WORD. Can be repeated."
            ),
            click.option("--price", type=float, help="Price per hour."),
            click.option("--host-key", metavar="SHA256:…", help="Host key that the machine must show."),
            click.option(
                "--local-port",
                type=click.IntRange(1024, 65535),
                help="Local port that is forwarded to its ComfyUI.",
            ),
            click.option("--enabled/--disabled", default=None, help="Allow or forbid runs with --ssh any."),
        )
    ):
        command = option(command)
    return command


@click.group()
def instances() -> None:
    """Manage named instances.

    INSTANCE is the name or the id of an instance.
    """


@instances.command("list")
@server_option
@json_option
def list_instances(*, server: str | None, as_json: bool) -> None:
    """List the instances and their last known state."""
    with running_server(server) as client:
        answer = client.instances.all()
    if answer.trouble:
        say(plain(answer.trouble))
    if as_json:
        click.echo(json.dumps([instance.raw for instance in answer.instances], indent=2))
    elif not answer.instances:
        say('There are no instances yet. To add one: comfyui-workflow instances add NAME --ssh "…"')
    else:
        print_table(instance_table(answer.instances))
        for sentence in troubles(answer.instances):
            say(f"! {sentence}")


@instances.command()
@server_option
@json_option
def costs(*, server: str | None, as_json: bool) -> None:
    """Show the costs of each instance, for runs and for idle time."""
    with running_server(server) as client:
        found = client.instances.costs()
    if as_json:
        click.echo(
            json.dumps({name: found.raw.get(name) for name in ("instances", "removed", "total")}, indent=2)
        )
        return
    print_table(costs_table(found))
    if any(each.price_per_hour is None for each in found.instances):
        say("To set a missing price: comfyui-workflow instances edit NAME --price PRICE_PER_HOUR")


@instances.command()
@click.argument("name")
@click.option(
    "--ssh",
    required=True,
    callback=absolute_key_files,
    help="The ssh command of the instance, as you copied it.",
)
@_entry_options
@server_option
@json_option
def add(*, name: str, server: str | None, as_json: bool, **options: Any) -> None:
    """Add a named instance."""
    with running_server(server) as client:
        added = client.instances.add(**_fields(name=name, **options))
    _report(added, f"Added {added.name}", as_json=as_json)


@instances.command()
@_instance_argument
@click.option("--name", help="New name.")
@click.option("--ssh", callback=absolute_key_files, help="New ssh command, as you copied it.")
@_entry_options
@click.option(
    "--unset",
    type=click.Choice(_UNSET),
    multiple=True,
    help="Reset an option to its default. Can be repeated.",
)
@server_option
@json_option
def edit(*, instance: str, unset: tuple[str, ...], server: str | None, as_json: bool, **options: Any) -> None:
    """Change the settings of an instance. Options that are not given stay unchanged."""
    fields = {**_fields(**options), **{_field(option): None for option in unset}}
    if not fields:
        raise InvalidRequest("Give at least one option to change: comfyui-workflow instances edit --help")
    with running_server(server) as client:
        changed = client.instances.change(instance, **cast(InstanceFields, fields))
    _report(changed, f"Changed {changed.name}", as_json=as_json)


@instances.command()
@_instance_argument
@server_option
def remove(*, instance: str, server: str | None) -> None:
    """Remove an instance from the list. The machine itself is not changed."""
    with running_server(server) as client:
        removed = client.instances.remove(instance)
    say(f"{plain(removed.message)}.{_unfinished(removed.unfinished_runs)}")


@instances.command()
@_instance_argument
@server_option
@json_option
def show(*, instance: str, server: str | None, as_json: bool) -> None:
    """Show the settings and the last known state of an instance."""
    with running_server(server) as client:
        found = client.instances.get(instance)
    if as_json:
        click.echo(json.dumps(found.raw, indent=2))
        return
    for line in instance_lines(found):
        click.echo(line)


@instances.command()
@_instance_argument
@server_option
def connect(*, instance: str, server: str | None) -> None:
    """Connect to an instance and keep the connection open."""
    with running_server(server) as client:
        say(plain(client.instances.connect(instance)))


@instances.command()
@_instance_argument
@server_option
def disconnect(*, instance: str, server: str | None) -> None:
    """Close the connection to an instance as soon as no run needs it."""
    with running_server(server) as client:
        say(plain(client.instances.disconnect(instance)))


@instances.command()
@_instance_argument
@click.option(
    "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Number of lines."
)
@server_option
def logs(*, instance: str, lines: int, server: str | None) -> None:
    """Print the last lines of the ComfyUI log of an instance."""
    with running_server(server) as client:
        for line in client.instances.logs(instance, lines=lines):
            click.echo(plain(line))


@instances.command()
@_instance_argument
@click.option("--keep-models", is_flag=True, help="Keep the models loaded.")
@server_option
def free(*, instance: str, keep_models: bool, server: str | None) -> None:
    """Free the memory of ComfyUI as soon as no prompt is running."""
    with running_server(server) as client:
        say(plain(client.instances.free(instance, unload_models=not keep_models)))


@instances.command()
@_instance_argument
@click.option("--prompt", metavar="ID", help="Interrupt only this prompt.")
@click.option("--run", metavar="ID", help="Interrupt only the prompt of this run.")
@server_option
def interrupt(*, instance: str, prompt: str | None, run: str | None, server: str | None) -> None:
    """Interrupt the running prompt of an instance, even if another client submitted it."""
    with running_server(server) as client:
        say(plain(client.instances.interrupt(instance, prompt_id=prompt, workflow_id=run).message))


@instances.command()
@_instance_argument
@click.option(
    "--manifest",
    "manifest_file",
    required=True,
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="The manifest: YAML or JSON. `-` reads it from stdin.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option(
    "--lock",
    "lock_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save what is there at the end: versions, commits, sizes and SHA-256, as JSON.",
)
@server_option
@json_option
def provision(
    *,
    instance: str,
    manifest_file: IO[str],
    dry_run: bool,
    lock_file: Path | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Put on a machine what a manifest names: packages, node packs and models.

    What is there already is not touched, so it can be repeated. Ctrl-C ends the display only.
    """
    manifest = read_manifest_file(manifest_file)
    with running_server(server) as client:
        started = client.instances.provision(instance, manifest, dry_run=dry_run)
        ended = None if dry_run else follow_provision(client, instance)
    conclude_provision(started, ended, lock_file, as_json=as_json)


@instances.command("forget-host-key")
@_instance_argument
@server_option
def forget_host_key(*, instance: str, server: str | None) -> None:
    """Forget the host key of an instance, because another machine now has its address."""
    with running_server(server) as client:
        forgotten = client.instances.forget_host_key(instance)
    known = f"Forgot {forgotten}" if forgotten else "No host key was known"
    say(f"{known}. The next machine that answers there is trusted, unless a host key is set for it.")


@instances.command("accept-host-key")
@_instance_argument
@click.argument("fingerprint")
@server_option
def accept_host_key(*, instance: str, fingerprint: str, server: str | None) -> None:
    """Trust the new host key of an instance, if it has this FINGERPRINT."""
    with running_server(server) as client:
        say(plain(client.instances.accept_host_key(instance, fingerprint)))


def _fields(**options: Any) -> InstanceFields:
    fields = {_field(name): value for name, value in options.items() if value not in (None, ())}
    if "tags" in fields:
        fields["tags"] = list(fields["tags"])
    return cast(InstanceFields, fields)


def _field(option: str) -> str:
    named = option.replace("_", "-")
    return _FIELDS.get(named, named.replace("-", "_"))


def _report(instance: InstanceDocument, sentence: str, *, as_json: bool) -> None:
    for notice in instance.notices:
        say(f"! {plain(notice)}")
    if as_json:
        click.echo(json.dumps(instance.raw, indent=2))
        return
    say(f"{plain(sentence)} (id: {instance.id}).{_unfinished(instance.unfinished_runs)}")


def _unfinished(runs: int) -> str:
    if not runs:
        return ""
    return f" {runs} unfinished run{'s name' if runs > 1 else ' names'} it."
