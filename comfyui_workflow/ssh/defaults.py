"""Default ports and directories of ComfyUI on a rented machine, and the gateways of providers."""

COMFYUI_PORT = 18188
USUAL_PORTS = (COMFYUI_PORT, 8188)
"""Ports of ComfyUI in the images of providers: 18188 at vast.ai, 8188 at RunPod and by default."""
INPUT_DIR = "/workspace/ComfyUI/input"
OUTPUT_DIR = "/workspace/ComfyUI/output"
_RUNPOD_GATEWAY = "ssh.runpod.io"


def forwards_nothing(ssh_host: str) -> bool:
    """True for a gateway that forwards no ports, whatever reason it gives."""
    return ssh_host == _RUNPOD_GATEWAY


def advice_if_forbidden(ssh_host: str) -> str:
    """Returns what to do if the SSH server at this address forwards no ports."""
    if forwards_nothing(ssh_host):
        return 'use the "SSH over exposed TCP" command of the pod'
    return "set AllowTcpForwarding yes in its sshd_config, or use another SSH address of it"
