"""The search of ComfyUI's port: the choice from given answers, and the whole search over a real sshd."""

import pytest

from comfyui_workflow.comfyui.probe import Finding, Kind
from comfyui_workflow.errors import ComfyUINotFound, ComfyUIUnavailable, WorkflowError
from comfyui_workflow.sessions.port_search import (
    Answer,
    Closed,
    FoundPort,
    WantedPort,
    candidates,
    choose,
)

COMFYUI = Finding(kind=Kind.COMFYUI, what="is ComfyUI")
JUPYTER = Finding(kind=Kind.OTHER, what="is Jupyter")
LOGIN = Finding(kind=Kind.LOGIN, what="asks for a login (Caddy)")
STARTING = Finding(kind=Kind.UNCLEAR, what="answers HTTP 502: what is behind it may be starting")
NOTHING, FORBIDDEN = Closed.NOTHING, Closed.FORBIDDEN


def chosen(wanted: int, found: dict[int, Finding | Closed], host: str = "1.2.3.4") -> FoundPort:
    answers = [Answer(port=port, found=each) for port, each in found.items()]
    return choose(answers, WantedPort(port=wanted), host)


@pytest.mark.parametrize(
    ("wanted", "found", "port", "notice"),
    [
        (8080, {8080: COMFYUI, 18188: COMFYUI}, 8080, None),
        (
            8080,
            {8080: JUPYTER, 18188: COMFYUI, 8188: COMFYUI, 5000: COMFYUI},
            18188,
            "ComfyUI was found on port 18188 of the instance: port 8080 is Jupyter",
        ),
        (
            18188,
            {18188: NOTHING, 8188: COMFYUI},
            8188,
            "ComfyUI was found on port 8188 of the instance: nothing listens on port 18188",
        ),
        (
            8080,
            {8080: JUPYTER, 18188: NOTHING, 8188: LOGIN, 8888: JUPYTER, 7860: COMFYUI},
            7860,
            "ComfyUI was found on port 7860 of the instance: port 8080 is Jupyter",
        ),
        (8080, {8080: FORBIDDEN, 18188: COMFYUI}, 18188, "ComfyUI was found on port 18188 of the instance: "
         "the SSH server does not allow a tunnel to port 8080"),
    ],
)  # fmt: skip
def test_the_best_port_is_taken_and_told(
    wanted: int, found: dict[int, Finding | Closed], port: int, notice: str | None
) -> None:
    assert chosen(wanted, found) == FoundPort(port=port, notice=notice)


def test_an_unclear_port_is_left_to_the_client() -> None:
    assert chosen(8188, {8188: STARTING, 18188: NOTHING}) == FoundPort(port=8188, is_certain=False)
    assert chosen(8188, {8188: STARTING, 18188: COMFYUI}).port == 18188


@pytest.mark.parametrize(
    ("wanted", "found", "host", "error", "sentence"),
    [
        (
            18188, {18188: NOTHING, 8188: NOTHING, 8888: JUPYTER}, "1.2.3.4", ComfyUIUnavailable,
            "Nothing listens on ports 18188 and 8188 of the instance: ComfyUI is still starting, or not "
            "started there. If it has another port, name it with -L in the ssh string, or in comfyui_port",
        ),
        (
            8080, {8080: JUPYTER, 18188: NOTHING, 8188: NOTHING}, "1.2.3.4", ComfyUINotFound,
            "No ComfyUI was found on the instance: port 8080 is Jupyter; nothing listens on ports 18188 and "
            "8188. Start ComfyUI there, or name its port with -L in the ssh string, or in comfyui_port",
        ),
        (
            8188, {8188: LOGIN, 18188: NOTHING}, "1.2.3.4", ComfyUINotFound,
            "Port 8188 of the instance asks for a login (Caddy): give the instance comfyui_token, or "
            "comfyui_user and comfyui_password. On the other ports: nothing listens on port 18188",
        ),
        (
            18188, {18188: NOTHING, 8188: LOGIN}, "1.2.3.4", ComfyUIUnavailable,
            "Port 8188 of the instance asks for a login (Caddy): give the instance comfyui_token, or "
            "comfyui_user and comfyui_password. On the other ports: nothing listens on port 18188",
        ),
        (
            8080, {8080: FORBIDDEN, 18188: FORBIDDEN, 8188: FORBIDDEN}, "1.2.3.4", ComfyUINotFound,
            "The SSH server of the instance does not allow a tunnel to ports 8080, 18188 and 8188: set "
            "AllowTcpForwarding yes in its sshd_config, or use another SSH address of it",
        ),
        (
            8188, {8188: FORBIDDEN}, "ssh.runpod.io", ComfyUINotFound,
            "The SSH server of the instance does not allow a tunnel to port 8188: use the \"SSH over exposed "
            "TCP\" command of the pod",
        ),
        (
            8188, {8188: NOTHING, 18188: NOTHING}, "ssh.runpod.io", ComfyUINotFound,
            "The SSH server of the instance does not allow a tunnel to ports 8188 and 18188: use the \"SSH "
            "over exposed TCP\" command of the pod",
        ),
        (
            8080, {8080: JUPYTER, 5001: COMFYUI, 5002: COMFYUI}, "1.2.3.4", ComfyUINotFound,
            "ComfyUI answers on ports 5001 and 5002 of the instance, and port 8080 is Jupyter: name one of "
            "them with -L in the ssh string, or in comfyui_port",
        ),
    ],
)  # fmt: skip
def test_each_reason_has_its_own_sentence(
    wanted: int,
    found: dict[int, Finding | Closed],
    host: str,
    error: type[WorkflowError],
    sentence: str,
) -> None:
    with pytest.raises(error) as failure:
        chosen(wanted, found, host)
    assert str(failure.value) == sentence
    assert failure.value.is_transient is (error is ComfyUIUnavailable)


def test_the_token_that_is_not_accepted_is_told() -> None:
    answers = [Answer(port=8188, found=LOGIN, used_login=True)]
    with pytest.raises(ComfyUINotFound, match="does not accept its token"):
        choose(answers, WantedPort(port=8188, login={"Authorization": "Bearer x"}), "1.2.3.4")


def test_the_candidates() -> None:
    wanted = WantedPort(port=8080)
    listening = (22, 80, 5432, 7860, 8080, 8188)
    assert candidates(wanted, listening, "localhost") == (8080, 18188, 8188, 7860)
    assert candidates(wanted, listening, "10.0.0.5") == (8080,)
    assert candidates(WantedPort(port=8080, is_exact=True), listening, "localhost") == (8080,)
    taken = frozenset({8080, 8188})
    assert candidates(WantedPort(port=8080, taken=taken), listening, "localhost") == (8080, 18188, 7860)
    assert len(candidates(wanted, range(20_000, 60_000), "localhost")) < 1000
