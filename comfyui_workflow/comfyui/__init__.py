"""Access to one ComfyUI: its HTTP routes, its websocket, and the meaning of its responses."""
