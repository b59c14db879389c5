"""Whether an instance can run a graph, by ComfyUI's own rules."""
