"""What servers, sandboxes and commands are forked from has imported this: all that they are made of."""

import comfyui_workflow.cli
import comfyui_workflow.sandbox.instance  # and what a sandbox imports when it is asked for something
from comfyui_workflow import app

__all__ = ["app", "comfyui_workflow"]
