"""One workflow over several instances: the nodes of ComfyUI-Distributed, without the plugin on an
instance."""
