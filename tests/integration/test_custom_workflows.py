"""Custom workflows of each kind, run over a real SSH server, with the Python client."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.client.server import WorkflowServer
from tests.browser.workflows import DEMO
from tests.docs.pages import read_page
from tests.foreign_client import INSTALLED
from tests.instance import Instance
from tests.integration.graphs import loaded, painted
from tests.server_process import ServerProcess
from tests.services.custom_files import COMMON_JS, PYTHON, install_npm_packages, write

SAVED_JS = COMMON_JS.replace(
    "return {",
    'return { "2": { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "js" } },',
).replace("height: input.size", "height: input.size, batch_size: 1, color: 1")


def test_each_kind_makes_its_picture(
    make_server: Callable[..., ServerProcess], instance: Instance, tmp_path: Path
) -> None:
    directory = tmp_path / "workflows"
    size = {"size": {"input": ["1.width", "1.height"]}}
    write(directory, "declared.json", json.dumps({"workflow": painted(1), "parameters": size}))
    write(
        directory,
        "typed.py",
        PYTHON.replace('"height": request.size', '"height": request.size, "batch_size": 1, "color": 1'),
    )
    names = {"declared": {"size": 48}, "typed": {"text": "x", "size": 48}}
    if (INSTALLED / "workflow_javascript" / ".pinned").exists():
        install_npm_packages(directory)
        write(directory, "compiled.js", SAVED_JS)
        names["compiled"] = {"size": 48}
    server = make_server(workflow_dir=directory)
    with WorkflowServer(server.url.removesuffix("/comfyui/workflow")) as client:
        assert {each.name for each in client.custom_workflows()} == set(names)
        for name, values in names.items():
            started = client.run_custom(
                name, input=values, ssh_connection=instance.ssh_string, output_dir=tmp_path / name
            )
            (output,) = client.wait(started.workflow_id, timeout_s=60).outputs
            assert Image.open(str(output.local_path)).size == (48, 48)


def test_the_examples_of_the_documentation_run(
    make_server: Callable[..., ServerProcess], instance: Instance, tmp_path: Path
) -> None:
    """With the workflow of the demo."""
    directory = tmp_path / "workflows"
    blocks = read_page("docs/api/custom-workflows.md").blocks
    (parameters,) = (each.text for each in blocks if '"parameters"' in each.text)
    (program,) = (each.text for each in blocks if each.info == "python")
    write(directory, "portrait.json", DEMO.read_text())
    write(directory, "portrait.parameters.json", parameters)
    write(directory, "square.py", program)
    server = make_server(workflow_dir=directory)
    values: dict[str, dict[str, Any]] = {
        "portrait": {"prompt": "a lake at dawn", "steps": 1, "size": 512},
        "square": {"size": 48},
    }
    with WorkflowServer(server.url.removesuffix("/comfyui/workflow")) as client:
        for name, given in values.items():
            started = client.run_custom(
                name, input=given, ssh_connection=instance.ssh_string, output_dir=tmp_path / name
            )
            (output,) = client.wait(started.workflow_id, timeout_s=60).outputs
            assert Image.open(str(output.local_path)).size == (given["size"], given["size"])


def test_a_local_file_is_uploaded(
    make_server: Callable[..., ServerProcess], instance: Instance, tmp_path: Path
) -> None:
    directory = tmp_path / "workflows"
    photo = {"photo": {"input": "1.image", "type": "file", "required": True}}
    write(directory, "copy.json", json.dumps({"workflow": loaded("a.png"), "parameters": photo}))
    Image.new("RGB", (7, 5)).save(tmp_path / "mine.png")
    server = make_server(workflow_dir=directory)
    with WorkflowServer(server.url.removesuffix("/comfyui/workflow")) as client:
        started = client.run_custom(
            "copy",
            input={"photo": tmp_path / "mine.png"},
            ssh_connection=instance.ssh_string,
            output_dir=tmp_path / "here",
        )
        (output,) = client.wait(started.workflow_id, timeout_s=60).outputs
        assert Image.open(str(output.local_path)).size == (7, 5)
