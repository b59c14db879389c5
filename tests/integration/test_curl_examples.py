"""The examples of worker-comfyui's documentation, in a shell: with our URL, and a graph where it has none."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from tests.integration.graphs import loaded, painted
from tests.integration.test_jobs import picture
from tests.integration.test_runpod_clients import name_instance
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

Json = dict[str, Any]
LIMIT_S = 60

TEXT_TO_IMAGE = r"""
curl -X POST \
  -H "Authorization: Bearer <your_api_key>" \
  -H "Content-Type: application/json" \
  -d '{
    "input": {
      "workflow": {
        "6": {
          "inputs": {
            "text": "a beautiful landscape",
            "clip": ["30", 1]
          },
          "class_type": "CLIPTextEncode",
          "_meta": {
            "title": "CLIP Text Encode (Positive Prompt)"
          }
        },
        "30": {
          "inputs": {
            "ckpt_name": "flux1-dev-fp8.safetensors"
          },
          "class_type": "CheckpointLoaderSimple",
          "_meta": {
            "title": "Load Checkpoint"
          }
        }
      }
    }
  }' \
  https://api.runpod.ai/v2/<endpoint_id>/runsync
"""
WITH_IMAGES = r"""
curl -X POST \
  -H "Authorization: Bearer <your_api_key>" \
  -H "Content-Type: application/json" \
  -d '{
    "input": {
      "workflow": {
        // Your workflow JSON here
      },
      "images": [
        {
          "name": "input.png",
          "image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg..."
        }
      ]
    }
  }' \
  https://api.runpod.ai/v2/<endpoint_id>/runsync
"""
SUBMIT = r"""
# Submit job
JOB_ID=$(curl -X POST \
  -H "Authorization: Bearer <your_api_key>" \
  -H "Content-Type: application/json" \
  -d '{"input":{"workflow":{...}}}' \
  https://api.runpod.ai/v2/<endpoint_id>/run | jq -r '.id')
"""
CHECK_STATUS = r"""
# Check status
curl -H "Authorization: Bearer <your_api_key>" \
  https://api.runpod.ai/v2/<endpoint_id>/status/$JOB_ID
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are not here"
)


@pytest.fixture
def shell(make_server: Callable[..., ServerProcess], sandbox: SandboxProcess) -> Callable[[str], Json]:
    """Returns the output of a script."""
    server = make_server()
    name_instance(server, sandbox)

    def run(script: str) -> Json:
        script = script.replace("https://api.runpod.ai", server.url.removesuffix("/comfyui/workflow"))
        script = script.replace("<endpoint_id>", "gpu1").replace("<your_api_key>", "any key")
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return run


def test_text_to_image(shell: Callable[[str], Json]) -> None:
    """A graph that saves nothing is none, and ComfyUI says so; with a node that does, it runs."""
    done = shell(TEXT_TO_IMAGE)
    assert (done["id"][:5], done["status"]) == ("sync-", "FAILED")
    assert done["error"].startswith("Workflow validation failed: ")
    head, mark, tail = TEXT_TO_IMAGE.partition('"6": {')
    more = json.dumps(painted(prefix="landscape"))[1:-1]
    done = shell(f"{head}{more}, {mark}{tail}")
    assert [(each["filename"], each["type"]) for each in done["output"]["images"]] == [
        ("landscape_00001_.png", "base64")
    ]
    assert all(isinstance(done[name], int) for name in ("delayTime", "executionTime"))


def test_with_input_images(shell: Callable[[str], Json]) -> None:
    script = WITH_IMAGES.replace(
        "{\n        // Your workflow JSON here\n      }", json.dumps(loaded("input.png"))
    )
    script = script.replace("iVBORw0KGgoAAAANSUhEUg...", base64.b64encode(picture(64, (1, 2, 3))).decode())
    done = shell(script)
    assert done["status"] == "COMPLETED", done
    (image,) = done["output"]["images"]
    made = Image.open(BytesIO(base64.b64decode(image["data"])))
    assert made.getpixel((5, 5)) == (254, 253, 252)


def test_submit_and_check(shell: Callable[[str], Json]) -> None:
    submit = SUBMIT.replace("{...}", json.dumps(painted()))
    said = shell(submit + CHECK_STATUS)
    assert said["status"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    in_time = f'until [ "$({CHECK_STATUS.strip()} | jq -r .status)" = COMPLETED ]; do sleep 0.1; done'
    done = shell(submit + in_time + CHECK_STATUS)
    assert len(done["output"]["images"]) == 1
