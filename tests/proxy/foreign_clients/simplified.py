"""comfy-api-simplified, used as its own examples do: URL -> the pictures, as JSON."""

import json
import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

url, workflow_file, picture = sys.argv[1:]
api = ComfyApiWrapper(url)
uploaded = api.upload_image(picture)
workflow = ComfyWorkflowWrapper(workflow_file)
workflow.set_node_param("Load Image", "image", f"{uploaded['subfolder']}/{uploaded['name']}")
found = api.queue_and_wait_images(workflow, "Save Image")
sizes = {name: len(content) for name, content in found.items()}
sys.stdout.write(json.dumps({"images": sizes, "queue": api.get_queue(), "file": Path(picture).name}))
