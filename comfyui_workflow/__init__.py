"""Runs ComfyUI workflows on rented GPUs over SSH, and brings every picture home."""

__version__ = "0.1.0"
"""The one source of the version: the wheel takes it from here, and it is known without an installation."""
