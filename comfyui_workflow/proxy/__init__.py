"""Local ports: loopback ports of this machine that forward to the ComfyUI of an instance, as if it ran
here."""
