"""Searches the port of an instance on which ComfyUI answers.

find_port(connection, wanted) -> FoundPort     raises ComfyUINotFound, ComfyUIUnavailable, ConnectionFailed

How it works. Providers print the same `-L` for every machine, whatever runs there: the port of the ssh string
is only a hint. So the wanted port, the usual ports of ComfyUI, and the ports that the machine itself listens
on are asked at once. The wanted port has precedence, then the usual ones. Of other ports only the single one
with a ComfyUI is taken: of several, the user must choose. A port that is closed on localhost is asked on the
address of the machine on which it is open: a ComfyUI may listen on ::1 only, or on the address of its
container.

Nobody waits for what cannot change by waiting: another program or a login on the wanted port, or a forbidden
tunnel. While nothing listens on the wanted port, the machine may still be starting: that error is transient.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from enum import Enum

from comfyui_workflow.comfyui.probe import Finding, Kind, probe
from comfyui_workflow.errors import ComfyUIError, ComfyUINotFound, ComfyUIUnavailable
from comfyui_workflow.ssh.connection import Connection, PortRefused, Refusal
from comfyui_workflow.ssh.defaults import USUAL_PORTS, advice_if_forbidden, forwards_nothing
from comfyui_workflow.ssh.listening import LOCALHOST, listening_ports

LIMIT_S = 4.0
"""Time for the answer of one port. A ComfyUI that loads a model may need seconds."""
ALONE_S = 0.3
"""The wanted port is asked alone for this time: mostly it is the right one, and nothing else is touched."""
ROUND_TRIPS = 4
"""Round trips of an answer, generously: the channel and the request take one each."""
LIST_LIMIT_S = 3.0
SCAN_LIMIT_S = 5.0
"""Time for all other ports that the instance listens on. Those that have not answered then do not count."""
REASON_LIMIT_S = 2.0
MOST_AT_ONCE = 16
MOST_LISTENING = 500
_NEVER_COMFYUI = frozenset({3306, 5432, 6379, 11211, 27017})
"""Databases: they log a request in HTTP as an attack."""
_LOWEST_PORT = 1024
_LOOPBACK = ("127.0.0.1", "::1")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
NAME_IT = "with -L in the ssh string, or in comfyui_port"


@dataclass(frozen=True, kw_only=True)
class WantedPort:
    """`is_exact`: no other port will do. `scans`: the ports that the instance listens on are asked too.
    `taken`: ports of other named instances on the same machine. `login`: headers that pass a login; sent only
    to the wanted port and the usual ones, and only if they ask for it."""

    port: int
    is_exact: bool = False
    scans: bool = True
    taken: frozenset[int] = frozenset()
    login: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class FoundPort:
    port: int
    host: str | None = None
    """Address of the instance on which it is open; None for the host of the ssh string."""
    needs_login: bool = False
    is_certain: bool = True
    """False: the wanted port gave no clear answer, and no other port is ComfyUI. The client must ask it."""
    notice: str | None = None
    """Tells that another port than the wanted one is used."""


class Closed(Enum):
    """Ports that accept no connection; the value completes a sentence with the ports."""

    NOTHING = "nothing listens on {}"
    FORBIDDEN = "the SSH server does not allow a tunnel to {}"
    SILENT = "there is no answer from {}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The finding on one port."""

    port: int
    found: Finding | Closed
    host: str | None = None
    used_login: bool = False

    @property
    def is_comfyui(self) -> bool:
        return isinstance(self.found, Finding) and self.found.kind is Kind.COMFYUI


def find_port(connection: Connection, wanted: WantedPort) -> FoundPort:
    """Asks all candidates. Takes at most about LIMIT_S, twice that if a port asks for the login."""
    answers = _Search(connection, wanted).run()
    try:
        return choose(answers, wanted, connection.address.host)
    except ComfyUINotFound as error:
        reason = _printed_reason(connection, answers)
        if not reason:
            raise
        raise ComfyUINotFound(f'{error}. It says: "{reason}"') from error


def _printed_reason(connection: Connection, answers: Sequence[Answer]) -> str:
    """A machine that forwards nothing often prints why: another user must log in, the account has expired."""
    if not any(each.found is Closed.FORBIDDEN for each in answers):
        return ""
    return connection.files.refusal(REASON_LIMIT_S)


def find_exactly(connection: Connection, wanted: WantedPort) -> FoundPort:
    """Asks only the wanted port, which a run used before: its prompt may be in that ComfyUI, so the run waits
    for it, whatever answers there meanwhile. Raises: ComfyUIUnavailable; ConnectionFailed."""
    answers = _Search(connection, replace(wanted, is_exact=True)).run()
    try:
        return choose(answers, wanted, connection.address.host)
    except ComfyUIError as error:
        raise ComfyUIUnavailable(
            f"ComfyUI does not answer on port {wanted.port} of the instance, where this run has used it: "
            f"{_reasons(answers)}"
        ) from error


def candidates(wanted: WantedPort, listening: Sequence[int], comfyui_host: str) -> tuple[int, ...]:
    """All ports to ask, the best first. Only the wanted one if it is exact, or on another host than the
    instance: what the instance listens on says nothing about that host."""
    if wanted.is_exact or comfyui_host not in _LOCAL_HOSTS:
        return (wanted.port,)
    others = [port for port in listening if port >= _LOWEST_PORT and port not in _NEVER_COMFYUI]
    all_ports = dict.fromkeys((wanted.port, *USUAL_PORTS, *others[:MOST_LISTENING]))
    return tuple(port for port in all_ports if port == wanted.port or port not in wanted.taken)


def choose(answers: Sequence[Answer], wanted: WantedPort, ssh_host: str) -> FoundPort:
    """Chooses the port, from the answers of all candidates. Pure. Raises: ComfyUINotFound if waiting does not
    help; ComfyUIUnavailable."""
    by_port = {each.port: each for each in answers}
    own = by_port[wanted.port]
    running = [port for port, each in by_port.items() if each.is_comfyui]
    named = [port for port in (wanted.port, *USUAL_PORTS) if port in running]
    if named or len(running) == 1:
        chosen = by_port[(named or running)[0]]
        notice = _notice(chosen, own)
        return FoundPort(port=chosen.port, host=chosen.host, needs_login=chosen.used_login, notice=notice)
    if isinstance(own.found, Finding) and own.found.kind is Kind.UNCLEAR and not running:
        return FoundPort(port=own.port, host=own.host, needs_login=own.used_login, is_certain=False)
    raise _error(by_port, own, running, ssh_host)


def _notice(chosen: Answer, own: Answer) -> str | None:
    if chosen.port == own.port:
        return None
    return f"ComfyUI was found on port {chosen.port} of the instance: {_reasons([own])}"


def _error(answers: Mapping[int, Answer], own: Answer, running: Sequence[int], ssh_host: str) -> ComfyUIError:
    if running:
        sentence = (
            f"ComfyUI answers on {_ports(running)} of the instance, and {_reasons([own])}: "
            f"name one of them {NAME_IT}"
        )
        return _as_error(own, sentence)
    asked = [answers[port] for port in dict.fromkeys((own.port, *USUAL_PORTS)) if port in answers]
    if own.found is Closed.FORBIDDEN or (isinstance(own.found, Closed) and forwards_nothing(ssh_host)):
        return ComfyUINotFound(_forbidden(asked, ssh_host))
    logins = [each for each in asked if isinstance(each.found, Finding) and each.found.kind is Kind.LOGIN]
    if logins:
        return _as_error(own, _login(logins[0], asked))
    if all(each.found is Closed.NOTHING for each in asked):
        return ComfyUIUnavailable(
            f"Nothing listens on {_ports([each.port for each in asked])} of the instance: ComfyUI is still "
            f"starting, or not started there. If it has another port, name it {NAME_IT}"
        )
    reasons = _reasons(asked)
    return _as_error(
        own,
        f"No ComfyUI was found on the instance: {reasons}. Start ComfyUI there, or name its port {NAME_IT}",
    )


def _as_error(own: Answer, sentence: str) -> ComfyUIError:
    may_start = own.found in (Closed.NOTHING, Closed.SILENT)
    return ComfyUIUnavailable(sentence) if may_start else ComfyUINotFound(sentence)


def _forbidden(asked: Sequence[Answer], ssh_host: str) -> str:
    """The reasons of the other ports may be lost (see `ssh.connection`)."""
    refused = [each.port for each in asked if isinstance(each.found, Closed)]
    beginning = f"The SSH server of the instance does not allow a tunnel to {_ports(refused)}"
    return f"{beginning}: {advice_if_forbidden(ssh_host)}"


def _login(port: Answer, asked: Sequence[Answer]) -> str:
    others = [each for each in asked if each is not port]
    rest = f". On the other ports: {_reasons(others)}" if others else ""
    if port.used_login:
        return f"Port {port.port} of the instance does not accept its token, or its user and password{rest}"
    what = port.found.what if isinstance(port.found, Finding) else ""
    return (
        f"Port {port.port} of the instance {what}: give the instance comfyui_token, or comfyui_user and "
        f"comfyui_password{rest}"
    )


def _reasons(answers: Sequence[Answer]) -> str:
    """Phrases with all ports: "port 8080 is Jupyter; nothing listens on ports 18188 and 8188"."""
    phrases = [f"port {each.port} {each.found.what}" for each in answers if isinstance(each.found, Finding)]
    for reason in Closed:
        if ports := [each.port for each in answers if each.found is reason]:
            phrases.append(reason.value.format(_ports(ports)))
    return "; ".join(phrases)


def _ports(ports: Sequence[int]) -> str:
    if len(ports) == 1:
        return f"port {ports[0]}"
    return f"ports {', '.join(map(str, ports[:-1]))} and {ports[-1]}"


class _Search:
    """Asks the candidates in parallel, until the wanted port has answered as ComfyUI or all have answered."""

    def __init__(self, connection: Connection, wanted: WantedPort) -> None:
        self._connection = connection
        self._wanted = wanted
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="search of the port")
        self._listing = threading.Lock()
        self._listed: Future[dict[int, str]] | None = None

    def run(self) -> list[Answer]:
        threads = self._threads
        try:
            own = threads.submit(self._ask, self._wanted.port)
            wait([own], max(ALONE_S, ROUND_TRIPS * self._connection.round_trip_s))
            if not (own.done() and own.result().is_comfyui):
                usual, scanned = self._ask_usual(threads), self._ask_scanned(threads)
            if own.result().is_comfyui:
                return [own.result()]
            wait([*usual, *scanned], SCAN_LIMIT_S)
            return [each.result() for each in (own, *usual, *(each for each in scanned if each.done()))]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _ask_usual(self, threads: ThreadPoolExecutor) -> list[Future[Answer]]:
        return [threads.submit(self._ask, port) for port in self._candidates(())[1:]]

    def _ask_scanned(self, threads: ThreadPoolExecutor) -> list[Future[Answer]]:
        usual = self._candidates(())
        if not self._wanted.scans or len(usual) == 1:
            return []
        places = self._places()
        found = (port for port in self._candidates(tuple(places)) if port not in usual)
        return [threads.submit(self._ask, port, _unless_local(places[port])) for port in found]

    def _places(self) -> dict[int, str]:
        """Returns the open ports of the instance, which are listed once for a search. Empty if the instance
        does not tell them in time."""
        with self._listing:
            if self._listed is None:
                self._listed = self._threads.submit(listening_ports, self._connection.files)
        wait([self._listed], LIST_LIMIT_S)
        return self._listed.result() if self._listed.done() else {}

    def _candidates(self, listening: Sequence[int]) -> tuple[int, ...]:
        return candidates(self._wanted, listening, self._connection.address.comfyui_host)

    def _ask(self, port: int, host: str | None = None) -> Answer:
        """Raises: ConnectionFailed if the connection is lost."""
        answer = self._ask_on(port, host)
        if answer.found is not Closed.NOTHING or host is not None:
            return answer
        others = (self._ask_on(port, other) for other in self._other_hosts(port))
        return next((each for each in others if not isinstance(each.found, Closed)), answer)

    def _other_hosts(self, port: int) -> tuple[str, ...]:
        """Addresses of the instance to ask for a port that is closed on localhost. "localhost" may be without
        an address there, or with that of another protocol than the port has."""
        if self._connection.address.comfyui_host not in _LOCAL_HOSTS:
            return ()
        places = self._places()
        if not places:
            return _LOOPBACK
        host = places.get(port)
        return () if host is None else (_unless_local(host) or _LOOPBACK[0],)

    def _ask_on(self, port: int, host: str | None) -> Answer:
        found = self._probe(port, host, {})
        may_log_in = port in (self._wanted.port, *USUAL_PORTS) and bool(self._wanted.login)
        if may_log_in and isinstance(found, Finding) and found.kind is Kind.LOGIN:
            found = self._probe(port, host, self._wanted.login)
            return Answer(port=port, found=found, host=host, used_login=True)
        return Answer(port=port, found=found, host=host)

    def _probe(self, port: int, host: str | None, headers: Mapping[str, str]) -> Finding | Closed:
        try:
            return probe(lambda: self._connection.open_port(port, LIMIT_S, host=host), headers, LIMIT_S)
        except PortRefused as error:
            return _CLOSED_BY[error.refusal]


def _unless_local(host: str) -> str | None:
    return None if host == LOCALHOST else host


_CLOSED_BY = {
    Refusal.CLOSED: Closed.NOTHING,
    Refusal.FORBIDDEN: Closed.FORBIDDEN,
    Refusal.SILENT: Closed.SILENT,
}
