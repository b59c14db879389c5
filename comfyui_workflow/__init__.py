"""Runs ComfyUI workflows on rented GPUs over SSH, and brings every picture home."""
