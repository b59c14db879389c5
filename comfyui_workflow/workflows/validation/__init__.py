"""Validation of a graph against the node definitions of an instance, by ComfyUI's own rules."""
