"""`demo`: starts a sandbox instance and a server, and executes one run through the API."""

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from filelock import FileLock, Timeout

from comfyui_workflow import demo as bundled
from comfyui_workflow.cli.demo_sandbox import DemoSandbox, port_or_free
from comfyui_workflow.cli.exit_codes import ExitCode, sigterm_as_interrupt
from comfyui_workflow.cli.follow import follow
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.cli.run_text import end_sentence
from comfyui_workflow.cli.screen import display
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.runs.status import RunStatus
from comfyui_workflow.settings import Settings, load_settings

STEP_DELAY_S = 0.3
"""Delay per step of the sandbox, so that the progress can be seen."""
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DemoEnvironment:
    """The running parts of the demo."""

    client: WorkflowServer
    sandbox: DemoSandbox
    output_dir: Path


@click.command()
@click.option("--once", is_flag=True, help="Exit when the picture is finished.")
@click.pass_context
def demo(ctx: click.Context, *, once: bool) -> None:
    """Run a demo on this machine, without a GPU.

    Starts a simulated GPU instance (sandbox) and a server, and runs an example workflow with an example
    picture through the API. Both keep running until Ctrl-C, so that you can try more.
    """
    with sigterm_as_interrupt(), _demo_environment(load_settings()) as environment:
        picture = _make_picture(environment)
        if picture is None:
            ctx.exit(ExitCode.FAILED)
        click.echo(f"The picture is here:\n  {picture}")
        if not once:
            _print_next_steps(environment)
            _serve_until_interrupt(environment)


@contextmanager
def _demo_environment(settings: Settings) -> Iterator[DemoEnvironment]:
    """Starts the sandbox and the server for the block. Raises: ConfigurationError."""
    root = settings.data_dir / "demo"
    with ExitStack() as stack:
        stack.enter_context(_exclusive(root))
        shutil.rmtree(root / "server", ignore_errors=True)  # runs of an earlier demo must not continue
        say("Starting a sandbox: an SSH server, and a ComfyUI that runs on the CPU")
        sandbox = stack.enter_context(DemoSandbox(root / "sandbox", step_delay_s=STEP_DELAY_S))
        say(f"  {sandbox.ssh_string}")
        url = stack.enter_context(serve_in_this_process(_demo_settings(settings, root)))
        say(f"Serving on {url}")
        client = stack.enter_context(WorkflowServer(url))
        yield DemoEnvironment(client=client, sandbox=sandbox, output_dir=root / "outputs")


@contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(root / "demo.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigurationError(
            f"A demo is running in {root} already. Stop it first, or set COMFYUI_WORKFLOW_DATA_DIR"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"The demo cannot use {root}: {error.strerror}") from error


def _demo_settings(settings: Settings, root: Path) -> Settings:
    """Returns the settings of the user without tokens, keys and limits, which the demo does not need."""
    return load_settings(
        host="127.0.0.1",
        port=port_or_free(settings.port),
        api_token=None,
        data_dir=root / "server",
        state_file=root / "server" / "state.json",
        output_dir=root / "outputs",
        read_dirs=(),
        write_dirs=(),
        ssh_key_dirs=(),
        ssh_key=None,
        ssh_config=Path("/dev/null"),
        ssh_host_key=None,
        local_instances=True,
        contact_patience_s=_PATIENCE_S,
        lost_contact_patience_s=_PATIENCE_S,
    )


def _make_picture(environment: DemoEnvironment) -> Path | None:
    """Runs the example and returns its picture; prints the reason and returns None if there is none."""
    say(f"Running {bundled.IMAGE_TO_IMAGE.name} with {bundled.EXAMPLE_PICTURE.name}\n")
    started = environment.client.execute(
        workflow=bundled.IMAGE_TO_IMAGE,
        ssh_connection=environment.sandbox.ssh_string,
        input_images=[bundled.EXAMPLE_PICTURE],
        workflow_name="A picture from a picture",
    )
    with display() as shown:
        progress = follow(environment.client, started.workflow_id, shown)
    paths = [Path(output.local_path) for output in progress.outputs if output.local_path]
    if progress.status is RunStatus.COMPLETED and paths and paths[0].is_file():
        return paths[0]
    say(f"There is no picture. {end_sentence(progress)}")
    return None


def _print_next_steps(environment: DemoEnvironment) -> None:
    url = environment.client.url
    order = {
        "ssh_connection": environment.sandbox.ssh_string,
        "workflow_file": str(bundled.TEXT_TO_IMAGE),
        "output_dir": str(environment.output_dir),
    }
    body = shlex.quote(json.dumps(order))
    say("\nFrom another terminal:")
    say(f"  comfyui-workflow list --server {url}")
    say(f"  curl {url}/comfyui/workflow/execute -H 'Content-Type: application/json' -d {body}")
    say(f"\nOpen this page to see the run and to start more (Ctrl-C stops the demo):\n  {url}/")


def _serve_until_interrupt(environment: DemoEnvironment) -> None:
    try:
        environment.sandbox.wait()
    except KeyboardInterrupt:
        say("\nStopping the server and the sandbox")
        return
    raise ConfigurationError(f"The sandbox has stopped. The reason is in {environment.sandbox.log_file}")
