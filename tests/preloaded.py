"""Imports everything that servers, sandboxes and commands need, for the process that they are forked from."""

import gc

import comfyui_workflow.cli
import comfyui_workflow.sandbox.instance  # and what a sandbox imports when it is asked for something
from comfyui_workflow import app

__all__ = ["app", "comfyui_workflow"]

# What is imported stays: no process that is forked looks at it for garbage, which would also copy its memory.
gc.collect()
gc.freeze()
