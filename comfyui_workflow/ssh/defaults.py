"""Where ComfyUI is on a rented machine that nobody said more of."""

COMFYUI_PORT = 18188
INPUT_DIR = "/workspace/ComfyUI/input"
OUTPUT_DIR = "/workspace/ComfyUI/output"
