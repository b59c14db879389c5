"""`demo`: a rented GPU without a GPU, a server, and one run through its API from start to end."""

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
"""Without it, the sandbox is done before one has seen anything."""
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DemoEnvironment:
    """What runs while the demo runs."""

    client: WorkflowServer
    sandbox: DemoSandbox
    output_dir: Path


@click.command()
@click.option("--once", is_flag=True, help="End when the picture is there.")
@click.pass_context
def demo(ctx: click.Context, *, once: bool) -> None:
    """See a whole run on this machine: a sandbox stands in for the rented GPU.

    Starts a sandbox and a server, and runs a bundled workflow with a bundled picture through the API. Then
    it serves on until Ctrl-C, for you to try more.
    """
    with sigterm_as_interrupt(), _stage(load_settings()) as stage:
        picture = _make_picture(stage)
        if picture is None:
            ctx.exit(ExitCode.FAILED)
        click.echo(f"The picture is here:\n  {picture}")
        if not once:
            _invite(stage)
            _serve_on(stage)


@contextmanager
def _stage(settings: Settings) -> Iterator[DemoEnvironment]:
    """Raises: ConfigurationError."""
    root = settings.data_dir / "demo"
    with ExitStack() as stack:
        stack.enter_context(_alone_in(root))
        shutil.rmtree(root / "server", ignore_errors=True)  # nothing of an earlier demo is taken up again
        say("Starting a sandbox: an SSH server, and a ComfyUI that runs on the CPU")
        sandbox = stack.enter_context(DemoSandbox(root / "sandbox", step_delay_s=STEP_DELAY_S))
        say(f"  {sandbox.ssh_string}")
        url = stack.enter_context(serve_in_this_process(_demo_settings(settings, root)))
        say(f"Serving on {url}")
        client = stack.enter_context(WorkflowServer(url))
        yield DemoEnvironment(client=client, sandbox=sandbox, output_dir=root / "outputs")


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(root / "demo.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigurationError(
            f"A demo is running in {root} already. End it first, or set COMFYUI_WORKFLOW_DATA_DIR"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"The demo cannot use {root}: {error.strerror}") from error


def _demo_settings(settings: Settings, root: Path) -> Settings:
    """Of the user's own only what does no harm here: a demo needs no token, keys or limits."""
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
        ssh_host_key=None,
        local_instances=True,
        contact_patience_s=_PATIENCE_S,
        lost_contact_patience_s=_PATIENCE_S,
    )


def _make_picture(stage: DemoEnvironment) -> Path | None:
    """The picture; None, and said why, when there is none."""
    say(f"Running {bundled.IMAGE_TO_IMAGE.name} with {bundled.EXAMPLE_PICTURE.name}\n")
    started = stage.client.execute(
        workflow=bundled.IMAGE_TO_IMAGE,
        ssh_connection=stage.sandbox.ssh_string,
        input_images=[bundled.EXAMPLE_PICTURE],
        workflow_name="A picture from a picture",
    )
    with display() as shown:
        progress = follow(stage.client, started.workflow_id, shown)
    paths = [Path(output.local_path) for output in progress.outputs if output.local_path]
    if progress.status is RunStatus.COMPLETED and paths and paths[0].is_file():
        return paths[0]
    say(f"There is no picture. {end_sentence(progress)}")
    return None


def _invite(stage: DemoEnvironment) -> None:
    url = stage.client.url
    order = {
        "ssh_connection": stage.sandbox.ssh_string,
        "workflow_file": str(bundled.TEXT_TO_IMAGE),
        "output_dir": str(stage.output_dir),
    }
    body = shlex.quote(json.dumps(order))
    say("\nFrom another terminal:")
    say(f"  comfyui-workflow list --server {url}")
    say(f"  curl {url}/comfyui/workflow/execute -H 'Content-Type: application/json' -d {body}")
    say(f"\nOpen this page to see the run, and to start more (Ctrl-C ends the demo):\n  {url}/")


def _serve_on(stage: DemoEnvironment) -> None:
    try:
        stage.sandbox.wait()
    except KeyboardInterrupt:
        say("\nEnding the server and the sandbox")
        return
    raise ConfigurationError(f"The sandbox has ended by itself; it says why in {stage.sandbox.log_file}")
