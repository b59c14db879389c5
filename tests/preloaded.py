"""What servers and sandboxes are forked from has imported this: what they are made of, and no program."""

import app
import comfyui_workflow.sandbox.instance  # and what a sandbox imports when it is asked for something

__all__ = ["app", "comfyui_workflow"]
