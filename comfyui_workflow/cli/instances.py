"""`instances`: the named instances of a server, what is known of them, and asking one of them something."""

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from comfyui_workflow.cli.instance_text import (
    costs_table,
    instance_lines,
    instance_table,
    troubles,
)
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.options import json_option
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.screen import print_table
from comfyui_workflow.cli.servers import running_server, server_option
from comfyui_workflow.client.instance_documents import InstanceDocument
from comfyui_workflow.client.instances import InstanceFields
from comfyui_workflow.errors import InvalidRequest

Command = TypeVar("Command", bound=Callable[..., None])
_UNSET = ("comfyui-port", "input-dir", "output-dir", "tag", "price", "host-key", "local-port")
_FIELDS = {
    "ssh": "ssh_connection",
    "input-dir": "comfyui_input_dir",
    "output-dir": "comfyui_output_dir",
    "tag": "tags",
    "price": "price_per_hour",
}
"""Where an option is not called as its field."""

_instance_argument = click.argument("instance")


def _entry_options(command: Command) -> Command:
    """Those that `add` and `edit` share; `None`, and no tags, is what was not said."""
    for option in reversed(
        (
            click.option("--comfyui-port", type=click.IntRange(1, 65535), help="ComfyUI's port there."),
            click.option("--input-dir", metavar="PATH", help="ComfyUI's input directory there."),
            click.option("--output-dir", metavar="PATH", help="ComfyUI's output directory there."),
            click.option("--tag", metavar="WORD", multiple=True, help="For any:WORD. May be repeated."),
            click.option("--price", type=float, help="What an hour of it costs."),
            click.option("--host-key", metavar="SHA256:…", help="The key that it must show."),
            click.option(
                "--local-port", type=click.IntRange(1024, 65535), help="Where its ComfyUI is on this machine."
            ),
            click.option("--enabled/--disabled", default=None, help="Whether runs for any may go there."),
        )
    ):
        command = option(command)
    return command


@click.group()
def instances() -> None:
    """Instances that have a name: which there are, and what is going on there.

    INSTANCE is a name or an id.
    """


@instances.command("list")
@server_option
@json_option
def list_instances(*, server: str | None, as_json: bool) -> None:
    """List the instances, and what was last seen of each."""
    with running_server(server) as client:
        answer = client.instances.all()
    if answer.trouble:
        say(plain(answer.trouble))
    if as_json:
        click.echo(json.dumps([instance.raw for instance in answer.instances], indent=2))
    elif not answer.instances:
        say('There are none yet: comfyui-workflow instances add NAME --ssh "…"')
    else:
        print_table(instance_table(answer.instances))
        for sentence in troubles(answer.instances):
            say(f"! {sentence}")


@instances.command()
@server_option
@json_option
def costs(*, server: str | None, as_json: bool) -> None:
    """Tell what each instance has cost, for runs and for standing idle."""
    with running_server(server) as client:
        found = client.instances.costs()
    if as_json:
        click.echo(
            json.dumps({name: found.raw.get(name) for name in ("instances", "removed", "total")}, indent=2)
        )
        return
    print_table(costs_table(found))
    if any(each.price_per_hour is None for each in found.instances):
        say("Where no price is known: comfyui-workflow instances edit NAME --price PRICE_PER_HOUR")


@instances.command()
@click.argument("name")
@click.option("--ssh", required=True, help="Its ssh command, as pasted.")
@_entry_options
@server_option
@json_option
def add(*, name: str, server: str | None, as_json: bool, **options: Any) -> None:
    """Give an instance a name."""
    with running_server(server) as client:
        added = client.instances.add(**_fields(name=name, **options))
    _tell(added, f"Added {added.name}", as_json=as_json)


@instances.command()
@_instance_argument
@click.option("--name", help="Its new name.")
@click.option("--ssh", help="Its new ssh command, as pasted.")
@_entry_options
@click.option("--unset", type=click.Choice(_UNSET), multiple=True, help="As usual again. May be repeated.")
@server_option
@json_option
def edit(*, instance: str, unset: tuple[str, ...], server: str | None, as_json: bool, **options: Any) -> None:
    """Change what is said of an instance. What is not named stays as it is."""
    fields = {**_fields(**options), **{_field(option): None for option in unset}}
    if not fields:
        raise InvalidRequest("Nothing to change was named: comfyui-workflow instances edit --help")
    with running_server(server) as client:
        changed = client.instances.change(instance, **cast(InstanceFields, fields))
    _tell(changed, f"Changed {changed.name}", as_json=as_json)


@instances.command()
@_instance_argument
@server_option
def remove(*, instance: str, server: str | None) -> None:
    """Take an instance from the list. Nothing happens on the machine."""
    with running_server(server) as client:
        removed = client.instances.remove(instance)
    say(f"{plain(removed.message)}.{_unfinished(removed.unfinished_runs)}")


@instances.command()
@_instance_argument
@server_option
@json_option
def show(*, instance: str, server: str | None, as_json: bool) -> None:
    """Show what is known of an instance."""
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
    """Connect to an instance, and stay connected."""
    with running_server(server) as client:
        say(plain(client.instances.connect(instance)))


@instances.command()
@_instance_argument
@server_option
def disconnect(*, instance: str, server: str | None) -> None:
    """Leave an instance alone as soon as no run needs it."""
    with running_server(server) as client:
        say(plain(client.instances.disconnect(instance)))


@instances.command()
@_instance_argument
@click.option("--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many.")
@server_option
def logs(*, instance: str, lines: int, server: str | None) -> None:
    """Print the last lines of ComfyUI's log."""
    with running_server(server) as client:
        for line in client.instances.logs(instance, lines=lines):
            click.echo(plain(line))


@instances.command()
@_instance_argument
@click.option("--keep-models", is_flag=True, help="Leave the models loaded.")
@server_option
def free(*, instance: str, keep_models: bool, server: str | None) -> None:
    """Have ComfyUI give memory back, as soon as no prompt runs."""
    with running_server(server) as client:
        say(plain(client.instances.free(instance, unload_models=not keep_models)))


@instances.command()
@_instance_argument
@click.option("--prompt", metavar="ID", help="This prompt, if it runs.")
@click.option("--run", metavar="ID", help="The prompt of this run, if it runs.")
@server_option
def interrupt(*, instance: str, prompt: str | None, run: str | None, server: str | None) -> None:
    """Stop what runs there, whoever it is of."""
    with running_server(server) as client:
        say(plain(client.instances.interrupt(instance, prompt_id=prompt, workflow_id=run).message))


@instances.command("forget-host-key")
@_instance_argument
@server_option
def forget_host_key(*, instance: str, server: str | None) -> None:
    """Accept that another machine is at the address of an instance now."""
    with running_server(server) as client:
        forgotten = client.instances.forget_host_key(instance)
    known = f"Forgot {forgotten}" if forgotten else "No host key was known"
    say(f"{known}. The next machine that answers there is trusted, unless the entry names its key.")


@instances.command("accept-host-key")
@_instance_argument
@click.argument("fingerprint")
@server_option
def accept_host_key(*, instance: str, fingerprint: str, server: str | None) -> None:
    """Trust the host key that an instance shows, of this FINGERPRINT and no other."""
    with running_server(server) as client:
        say(plain(client.instances.accept_host_key(instance, fingerprint)))


def _fields(**options: Any) -> InstanceFields:
    said = {_field(name): value for name, value in options.items() if value not in (None, ())}
    if "tags" in said:
        said["tags"] = list(said["tags"])
    return cast(InstanceFields, said)


def _field(option: str) -> str:
    named = option.replace("_", "-")
    return _FIELDS.get(named, named.replace("-", "_"))


def _tell(instance: InstanceDocument, sentence: str, *, as_json: bool) -> None:
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
