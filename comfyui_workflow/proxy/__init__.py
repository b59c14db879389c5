"""The ComfyUI of an instance at a loopback port of this machine, as if it ran here."""
