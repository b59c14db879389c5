"""What servers and sandboxes are forked from has imported this: what they are made of, and no program."""

import comfyui_workflow.sandbox.instance  # and what a sandbox imports when it is asked for something
from comfyui_workflow import app

__all__ = ["app", "comfyui_workflow"]
