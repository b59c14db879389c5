"""Default port and directories of ComfyUI on a rented machine."""

COMFYUI_PORT = 18188
USUAL_PORTS = (COMFYUI_PORT, 8188)
"""Ports of ComfyUI in the images of providers: 18188 at vast.ai, 8188 at RunPod and by default."""
INPUT_DIR = "/workspace/ComfyUI/input"
OUTPUT_DIR = "/workspace/ComfyUI/output"
