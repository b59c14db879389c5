"""One ComfyUI: its HTTP routes, its websocket, its words read as our events."""
