"""Default port and directories of ComfyUI on a rented machine."""

COMFYUI_PORT = 18188
INPUT_DIR = "/workspace/ComfyUI/input"
OUTPUT_DIR = "/workspace/ComfyUI/output"
