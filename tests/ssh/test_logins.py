"""Logins as people have them set up: aliases of ~/.ssh/config, several keys, the agent, hardened servers."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import paramiko
import pytest
import requests

from comfyui_workflow.errors import AuthenticationFailed, ConnectionFailed, InvalidAddress
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.client_config import resolve
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.keys import load_key
from comfyui_workflow.ssh.pool import Pool
from tests.ssh.conftest import TinyWeb, wait_until
from tests.ssh.test_keys import make_pkcs8
from tests.sshd import Sshd


@contextmanager
def login(text: str, options: ConnectionOptions, port: int = 8188) -> Iterator[Connection]:
    with closing(open_connection(parse_ssh_address(text), port, options)) as connection:
        yield connection


def get(connection: Connection, size_bytes: int = 10) -> bytes:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{connection.base_url}/{size_bytes}", timeout=(5, 20)).content


def with_config(options: ConnectionOptions, text: str) -> ConnectionOptions:
    file = options.known_hosts.path.with_name("config")
    file.write_text(text)
    return replace(options, config_file=file)


def host_block(server: Sshd, *more: str, name: str = "gpu") -> str:
    lines = [f"HostName {server.host}", f"Port {server.port}", f"User {server.user}"]
    lines += more or [f"IdentityFile {server.key_file}"]
    return f"Host {name}\n" + "".join(f"    {line}\n" for line in lines)


# --- ~/.ssh/config --------------------------------------------------------------------------------


def test_an_alias_leads_to_its_machine(server: Sshd, web: TinyWeb, options: ConnectionOptions) -> None:
    with login("ssh gpu", with_config(options, host_block(server)), web.port) as connection:
        assert connection.address.label == f"{server.user}@{server.host}:{server.port}"
        assert len(get(connection)) == 10


@pytest.mark.parametrize("typed", ["gpu", "ssh GPU", "ssh -p 22 -o Port=22 gpu", "ssh root@gpu"])
def test_what_is_typed_has_precedence(options: ConnectionOptions, typed: str) -> None:
    config = with_config(options, "Host Gpu\n HostName 10.1.2.3\n Port 2222\n User me\n").config_file
    address = resolve(parse_ssh_address(typed), config)
    assert address.host == "10.1.2.3"
    assert address.port == (22 if "-p" in typed else 2222)
    assert address.user == ("root" if "root" in typed else "me")


CONFIG = """
# the first value is taken
User first   # for all
Include {directory}/more/*.conf
Host *.vast.ai !ssh9.vast.ai
    Port 1111
Host=4090
    HostName = "10.0.0.4"
Host box-?
    HostName %h.example.com
    IdentityFile ~/.ssh/%n
    IdentityFile "%d/my keys/%r"
    IdentitiesOnly yes
Host behind
    ProxyJump me@bastion:2200,second
Host bastion
    HostName 10.0.0.1
Match originalhost 4090 user first
    Port 3333
Match !host 10.0.0.* !localuser nobody
    Port 4444
Match final all
    Port 9999
"""
MORE = """
Host included
    HostName 10.0.0.9
    Include {directory}/inner.conf
    Port 5555
Host *
    User too-late
"""
INNER = """
Port 7777
Host other
    HostName 10.1.1.1
"""
COMMANDS = """
Match exec "touch {proof}"
    Port 1
Match !exec "touch {proof}" host *
    Port 2
Match EXEC "touch {proof}"
    Port 3
Match localnetwork 0.0.0.0/0
    Port 4
Host *
    LocalCommand touch {proof}
    PermitLocalCommand yes
    KnownHostsCommand touch {proof}
    Port 5
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "config").write_text(CONFIG.format(directory=tmp_path))
    (tmp_path / "more" / "a.conf").write_text(MORE.format(directory=tmp_path))
    (tmp_path / "inner.conf").write_text(INNER)
    return tmp_path / "config"


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("ssh somewhere", "first@somewhere:4444"),
        ("ssh ssh4.vast.ai", "first@ssh4.vast.ai:1111"),
        ("ssh ssh9.vast.ai", "first@ssh9.vast.ai:4444"),
        ("ssh 4090", "first@10.0.0.4:3333"),
        ("ssh box-1", "first@box-1.example.com:4444"),
        ("ssh box-11", "first@box-11:4444"),
        ("ssh 10.0.0.77", "first@10.0.0.77:9999"),
        ("ssh behind", "first@behind:4444"),
        ("ssh bastion", "first@10.0.0.1:9999"),
        ("ssh included", "first@10.0.0.9:7777"),
        ("ssh other", "first@other:4444"),
    ],
)
def test_the_configuration_is_read_as_ssh_does(config: Path, typed: str, label: str) -> None:
    address = resolve(parse_ssh_address(typed), config)
    assert address.label == label
    ours = [f"hostname {address.host}", f"port {address.port}", f"user {address.user}"]
    assert set(ours) <= set(told_by_ssh(config, typed.split()[1]))


def told_by_ssh(config: Path, host: str) -> list[str]:
    command = ["ssh", "-G", "-F", str(config), host]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()


def test_files_that_include_each_other_come_to_an_end(config: Path) -> None:
    for name in ("inner.conf", "more/b.conf", "more/c.conf"):
        (config.parent / name).write_text(f"Include {config.parent}/more/* {config}\n{INNER}")
    assert resolve(parse_ssh_address("ssh bastion"), config).host == "10.0.0.1"


def test_relative_includes_start_beside_the_configuration(config: Path) -> None:
    config.write_text("Include more/nothing more/[a-z].conf\n")
    assert resolve(parse_ssh_address("ssh included"), config).host == "10.0.0.9"


@pytest.mark.parametrize("typed", ["gpu", "ssh root@1.2.3.4 -p 22", "ssh -J gpu other"])
def test_no_line_of_the_configuration_runs_a_command(tmp_path: Path, typed: str) -> None:
    config, proof = tmp_path / "config", tmp_path / "proof"
    config.write_text(COMMANDS.format(proof=proof))
    address = resolve(parse_ssh_address(typed), config)
    assert address.port == (22 if "-p" in typed else 5)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Host gpu\n ProxyCommand touch {proof}", "ProxyCommand, and this server runs no commands"),
        ("Host gpu\n ProxyCommand ssh -W %h:%p -F {proof} door", "ProxyCommand, and this server runs no"),
        ("Host gpu\n ProxyCommand ssh -W %h:%p $(touch;{proof})", "not a host name"),
        ("Host gpu\n ProxyCommand sh -c 'touch {proof}", "ProxyCommand, and this server runs no commands"),
        ("Host gpu\n HostName $(touch {proof})", "not a host name"),
        ("Host gpu\n HostName -oProxyCommand=id", "not a host name"),
        ("Host gpu\n HostName 127.1", "not an IP address"),
        ("Host gpu\n Port 70000", "from 1 to 65535"),
        ("Host gpu\n User -x", "not a user name"),
        ("Host gpu\n ProxyJump -oProxyCommand=id", "not a host name|not a user name"),
        ("Host gpu\n ProxyJump one\nHost one\n ProxyJump two\nHost two\n ProxyJump one", "circle"),
        ("Host other\n HostName 4090", "SSH configuration"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    config, proof = tmp_path / "config", tmp_path / "proof"
    config.write_text(text.format(proof=proof))
    typed = "ssh 4090" if "4090" in text else "ssh gpu"
    with pytest.raises(InvalidAddress, match=reason):
        resolve(parse_ssh_address(typed), config)
    assert not proof.exists()


def test_a_jump_host_given_in_the_text_or_turned_off(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n ProxyJump bastion\nHost bastion\n HostName 10.0.0.1\n ProxyCommand none\n")
    address = resolve(parse_ssh_address("ssh gpu"), config)
    assert address.jump is not None
    assert (address.jump.host, address.jump.jump) == ("10.0.0.1", None)
    assert resolve(parse_ssh_address("ssh -J none gpu"), config).jump is None
    other = resolve(parse_ssh_address("ssh -J me@other gpu"), config).jump
    assert other is not None
    assert other.label == "me@other:22"


@pytest.mark.parametrize(
    "command",
    [
        "ssh -W %h:%p me@door",
        "/usr/bin/ssh -q -W %h:%p me@door",
        "ssh me@door -W %h:%p",
        "ssh me@door nc %h %p",
    ],
)
def test_a_command_that_only_jumps_is_a_jump(tmp_path: Path, command: str) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host gpu\n ProxyCommand {command}\nHost door\n Port 2222\n")
    jump = resolve(parse_ssh_address("ssh gpu"), config).jump
    assert jump is not None
    assert jump.label == "me@door:2222"


@pytest.mark.parametrize("content", [None, "", "\0\xff\n", "Host\n", "=\nHostName\n", "Host gpu\n  Port\n"])
def test_a_broken_or_missing_configuration_changes_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config").write_text(content, encoding="latin-1")
    written = parse_ssh_address("ssh gpu")
    for file in (tmp_path / "config", tmp_path, Path("/dev/null"), None):
        assert resolve(written, file) == written


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_configuration_as_windows_saves_it(tmp_path: Path, encoding: str) -> None:
    text = (
        "Host gpu\r\n  HostName 10.0.0.1\r\n  User me\r\nHost gpu-2 # für später\r\n  HostName 10.0.0.2\r\n"
    )
    (tmp_path / "config").write_bytes(text.encode(encoding))
    assert resolve(parse_ssh_address("gpu"), tmp_path / "config").label == "me@10.0.0.1:22"
    assert resolve(parse_ssh_address("gpu-2"), tmp_path / "config").host == "10.0.0.2"


def test_key_files_of_the_configuration(config: Path) -> None:
    address = resolve(parse_ssh_address("ssh -i mine box-2"), config)
    home = Path.home()
    assert address.key_files == ("mine",)
    assert address.configured_key_files == ("~/.ssh/box-2", f"{home}/my keys/first")
    assert address.identities_only


def test_comfyui_at_another_address_of_its_network(server: Sshd, options: ConnectionOptions) -> None:
    with socket.socket() as unused, ExitStack() as stack:
        unused.bind(("127.0.0.1", 0))  # keeps the same port of 127.0.0.1 free, without listening on it
        web = stack.enter_context(closing(TinyWeb("127.0.0.2", unused.getsockname()[1])))
        with login(f"{server.ssh_string()} -L 8188:127.0.0.2:{web.port}", options, web.port) as connection:
            connection.check_port()
            assert len(get(connection)) == 10
        with (
            login(server.ssh_string(comfyui_port=web.port), options, web.port) as elsewhere,
            pytest.raises(ConnectionFailed, match="Nothing listens on port"),
        ):
            elsewhere.check_port()


def test_an_alias_that_is_nowhere_is_told(server: Sshd, options: ConnectionOptions) -> None:
    with (
        pytest.raises(ConnectionFailed, match="box cannot be resolved, and the SSH configuration has no"),
        login(f"ssh -i {server.key_file} no-such-box", with_config(options, host_block(server))),
    ):
        pass


def test_the_records_keep_what_was_written(server: Sshd, options: ConnectionOptions) -> None:
    written = parse_ssh_address("ssh gpu")
    resolve(written, with_config(options, host_block(server)).config_file)
    assert written.label == "root@gpu:22"


def test_a_jump_host_of_the_configuration(server: Sshd, web: TinyWeb, options: ConnectionOptions) -> None:
    """The jump host has a key of its own, which the machine does not accept, and the other way around."""
    with Sshd(server.directory / "inner") as inner:
        text = host_block(inner, f"IdentityFile {inner.key_file}", "ProxyJump door")
        text += host_block(server, name="door")
        with login("ssh gpu", with_config(options, text), web.port) as connection:
            assert len(get(connection)) == 10
        assert server.log().count("Accepted publickey") == 1
        assert inner.log().count("Accepted publickey") == 1


def test_a_changed_configuration_leads_to_another_machine(tmp_path: Path) -> None:
    config, included = tmp_path / "config", tmp_path / "more" / "gpus"
    written = parse_ssh_address("ssh gpu")
    assert resolve(written, config).host == "gpu"
    config.write_text(f"Include {tmp_path}/more/*")
    assert resolve(written, config).host == "gpu"
    included.parent.mkdir()
    included.write_text("Host gpu\n HostName 10.0.0.1")
    assert resolve(written, config).host == "10.0.0.1"
    included.write_text("Host gpu\n HostName 10.0.0.22")
    assert resolve(written, config).host == "10.0.0.22"
    included.unlink()
    assert resolve(written, config).host == "gpu"


def test_connections_are_shared_by_machine_and_not_by_text(tmp_path: Path) -> None:
    class Opened:
        is_alive = True

        def close(self) -> None: ...

    config = tmp_path / "config"
    pool = Pool(lambda _: Opened(), canonical=lambda key: resolve(key, config))

    def opened(text: str) -> object:
        with pool.lease(parse_ssh_address(text)) as value:
            return value

    config.write_text("Host gpu box\n HostName 10.0.0.1\n User me\n")
    first = opened("ssh gpu")
    assert opened("me@10.0.0.1") is opened("ssh -p 22 me@box") is first
    assert opened("ssh root@gpu") is not first
    config.write_text("Host gpu\n HostName 10.0.0.222\n User me\n")
    assert opened("ssh gpu") is not first
    pool.close()


# --- keys -----------------------------------------------------------------------------------------


def wrong_keys(server: Sshd, count: int) -> list[Path]:
    return [server.make_key(f"wrong_{number}") for number in range(count)]


def test_every_named_key_is_tried(server: Sshd, options: ConnectionOptions) -> None:
    named = " ".join(f"-i {key}" for key in (*wrong_keys(server, 5), server.key_file))
    with login(f"{server.ssh_string().partition(' -i ')[0]} {named}", options):
        assert server.log().count("Accepted publickey") == 1


def test_keys_beyond_the_limit_of_the_server_are_told(server: Sshd, options: ConnectionOptions) -> None:
    named = " ".join(f"-i {key}" for key in (*wrong_keys(server, 6), server.key_file))
    with (
        pytest.raises(AuthenticationFailed, match="1 more were not tried: name the right one with -i"),
        login(f"{server.ssh_string().partition(' -i ')[0]} {named}", options),
    ):
        pass


def test_a_login_without_the_public_key_says_where_it_goes(server: Sshd, options: ConnectionOptions) -> None:
    (wrong,) = wrong_keys(server, 1)
    with (
        pytest.raises(AuthenticationFailed, match=r"vast\.ai: Keys; RunPod: Settings, SSH Public Keys"),
        login(server.ssh_string(key_file=wrong), options),
    ):
        pass


def test_a_refused_login_tells_what_the_machine_says_about_it(
    server: Sshd, options: ConnectionOptions
) -> None:
    (wrong,) = wrong_keys(server, 1)
    banner = server.directory / "banner"
    banner.write_text("Welcome to the gateway.\n  Register your key first!\x1b[0m\n")
    server.stop()
    server.add_config(f"Banner {banner}")
    server.start()
    with (
        pytest.raises(
            AuthenticationFailed, match=r'It says: "Welcome to the gateway\. Register your key first!"'
        ),
        login(server.ssh_string(key_file=wrong), options),
    ):
        pass
    with login(server.ssh_string(), options):
        pass


class WaitingServer(paramiko.ServerInterface):
    """Lets nobody in before a page was visited, as Tailscale SSH does."""

    def __init__(self, may_end: threading.Event) -> None:
        self._may_end = may_end

    def get_banner(self) -> tuple[str, str]:
        return "To authenticate, visit:\r\nhttps://login.example.com/a/1\r\n", "en"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._may_end.wait(15)
        return paramiko.AUTH_FAILED  # type: ignore[attr-defined,no-any-return]


def test_a_machine_that_waits_for_a_person_tells_for_what(options: ConnectionOptions, tmp_path: Path) -> None:
    may_end = threading.Event()
    key = paramiko.ECDSAKey.generate()
    key.write_private_key_file(str(tmp_path / "key"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.start_server(server=WaitingServer(may_end))
            may_end.wait(15)
            transport.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            pytest.raises(
                ConnectionFailed, match='It says: "To authenticate, visit: https://login'
            ) as failure,
            login(
                f"ssh -p {listener.getsockname()[1]} -i {tmp_path / 'key'} me@127.0.0.1",
                replace(options, connect_timeout_s=1),
            ),
        ):
            pass
        may_end.set()
        thread.join(15)
    assert failure.value.is_transient


@pytest.mark.parametrize("names_user", [True, False])
def test_a_login_without_a_user_says_that_root_was_tried(
    server: Sshd, options: ConnectionOptions, names_user: bool
) -> None:
    (wrong,) = wrong_keys(server, 1)
    user = "root@" if names_user else ""
    with (
        pytest.raises(AuthenticationFailed, match="none of the keys") as failure,
        login(f"ssh -p {server.port} -i {wrong} {user}{server.host}", options),
    ):
        pass
    assert ("names no user: write it if it is not root" in str(failure.value)) is not names_user


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_a_pkcs8_key_logs_in(
    server: Sshd, options: ConnectionOptions, tmp_path: Path, kind: str, passphrase: str
) -> None:
    file = make_pkcs8(tmp_path / "key.pem", kind, passphrase)
    key = load_key(file, passphrase)
    with (server.directory / "authorized_keys").open("a") as authorized:
        authorized.write(f"{key.get_name()} {key.get_base64()}\n")
    with login(server.ssh_string(key_file=file), replace(options, key_passphrase=passphrase)):
        assert server.log().count("Accepted publickey") == 1


def certify(server: Sshd, *options: str) -> Path:
    """Makes a certificate for a new key; sshd trusts its authority. Returns the key."""
    authority, key = server.make_key("authority"), server.make_key("certified")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", server.user, *options]
    subprocess.run([*command, f"{key}.pub"], check=True, timeout=30)
    server.stop()
    server.add_config(f"TrustedUserCAKeys {authority}.pub")
    server.start()
    return key


def test_a_certificate_logs_in(server: Sshd, options: ConnectionOptions) -> None:
    with login(server.ssh_string(key_file=certify(server)), options):
        assert "Accepted publickey" in server.log()


def test_a_key_whose_certificate_has_expired_logs_in(server: Sshd, options: ConnectionOptions) -> None:
    key = certify(server, "-V", "20200101:20200102")
    with (
        pytest.raises(AuthenticationFailed, match="it accepts none of the keys") as failure,
        login(server.ssh_string(key_file=key), options),
    ):
        pass
    assert str(failure.value).count("SHA256:") == 1
    server.authorize(key)
    with login(server.ssh_string(key_file=key), options):
        assert "Accepted publickey" in server.log()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    sock = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        wait_until(sock.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        yield sock
    finally:
        process.kill()
        process.wait()


def add_to_agent(*keys: Path) -> None:
    subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True, timeout=10)


def without_key(server: Sshd) -> str:
    return server.ssh_string().partition(" -i ")[0]


def test_keys_of_the_agent_are_found(server: Sshd, options: ConnectionOptions, agent: Path) -> None:
    (wrong,) = wrong_keys(server, 1)
    add_to_agent(server.key_file)
    with login(server.ssh_string(key_file=wrong), replace(options, use_agent=True)):
        pass
    with (
        pytest.raises(AuthenticationFailed, match=r"no key to show\. Make one .* with ssh-keygen"),
        login(without_key(server), options),
    ):
        pass


def test_a_file_chooses_the_key_of_the_agent(server: Sshd, options: ConnectionOptions, agent: Path) -> None:
    """The private half of a public or encrypted file is in the agent; the other keys there are not shown."""
    secret = server.make_key("secret", passphrase="sesame")
    opened = server.directory / "opened"
    opened.write_bytes(secret.read_bytes())
    opened.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "sesame", "-N", "", "-f", str(opened)], check=True)
    server.authorize(secret)
    add_to_agent(*wrong_keys(server, 6), opened, server.key_file)
    using_agent = replace(options, use_agent=True)
    for file in (f"{server.key_file}.pub", secret):
        with login(f"{without_key(server)} -o IdentitiesOnly=yes -i {file}", using_agent):
            pass
    config = with_config(using_agent, host_block(server, f"IdentityFile {server.key_file}.pub"))
    with login("ssh gpu", config):
        pass


def test_the_configuration_names_another_agent(
    server: Sshd, options: ConnectionOptions, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_to_agent(server.key_file)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    using_agent = replace(options, use_agent=True)
    with login("ssh gpu", with_config(using_agent, host_block(server, f"IdentityAgent {agent}"))):
        pass
    with (
        pytest.raises(AuthenticationFailed, match="The SSH agent does not answer"),
        login("ssh gpu", with_config(using_agent, host_block(server, "IdentityAgent /nowhere"))),
    ):
        pass
    with (
        pytest.raises(AuthenticationFailed, match="no key to show"),
        login("ssh gpu", with_config(using_agent, host_block(server, "IdentityAgent none"))),
    ):
        pass


def test_an_agent_that_does_not_sign_is_told(
    server: Sshd, options: ConnectionOptions, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_to_agent(server.key_file)

    def refuse(_key: object, _data: bytes, _algorithm: str | None = None) -> None:
        raise paramiko.SSHException("key cannot be used for signing")

    monkeypatch.setattr(paramiko.AgentKey, "sign_ssh_data", refuse)
    with (
        pytest.raises(AuthenticationFailed, match="the SSH agent does not sign with its key SHA256:"),
        login(without_key(server), replace(options, use_agent=True)),
    ):
        pass


def test_the_key_of_the_configuration_stays_in_the_allowed_directories(
    server: Sshd, options: ConnectionOptions, tmp_path: Path
) -> None:
    limited = replace(options, allowed_key_directories=(tmp_path / "keys",))
    with (
        pytest.raises(AuthenticationFailed, match="outside of the directories") as failure,
        login("ssh gpu", with_config(limited, host_block(server))),
    ):
        pass
    assert str(server.key_file) not in str(failure.value)


# --- hardened servers -----------------------------------------------------------------------------


def harden(server: Sshd, *lines: str) -> None:
    server.stop()
    server.add_config(*lines)
    server.start()


HARDENED = {
    "chacha20": ("Ciphers chacha20-poly1305@openssh.com",),
    "chacha20 and a MAC that is not used": (
        "Ciphers chacha20-poly1305@openssh.com",
        "MACs umac-128-etm@openssh.com",
    ),
    "gcm and a MAC that is not used": ("Ciphers aes256-gcm@openssh.com", "MACs umac-128-etm@openssh.com"),
    "aes192-ctr": ("Ciphers aes192-ctr", "MACs hmac-sha2-512-etm@openssh.com"),
    "curve25519": ("KexAlgorithms curve25519-sha256",),
    "curve25519 and chacha20": (
        "KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256",
        "Ciphers chacha20-poly1305@openssh.com",
        "RekeyLimit 1M",
    ),
}


@pytest.mark.parametrize("name", HARDENED)
def test_a_hardened_server_is_reached(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, name: str, tmp_path: Path
) -> None:
    harden(server, *HARDENED[name])
    content = bytes(range(256)) * 12_000
    (tmp_path / "file").write_bytes(content)
    with login(server.ssh_string(), options, web.port) as connection:
        assert len(get(connection, 3_000_000)) == 3_000_000
        for size_bytes in range(0, 40):
            assert len(get(connection, size_bytes)) == size_bytes
        with connection.files._channels.lease() as session:
            assert session.client.open(str(tmp_path / "file")).read() == content
            session.client.putfo((tmp_path / "file").open("rb"), str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == content
        assert connection._opened.transport.local_cipher in HARDENED[name][0] or "Kex" in HARDENED[name][0]


@pytest.mark.parametrize(
    ("lines", "offered", "directive"),
    [
        (
            "KexAlgorithms sntrup761x25519-sha512@openssh.com",
            "sntrup761x25519-sha512@openssh",
            "KexAlgorithms",
        ),
        ("Ciphers aes256-cbc", "aes256-cbc", "Ciphers"),
        ("Ciphers aes128-ctr\nMACs umac-64@openssh.com", "umac-64@openssh.com", "MACs"),
    ],
)
def test_a_server_without_common_algorithms_is_told(
    server: Sshd, options: ConnectionOptions, lines: str, offered: str, directive: str
) -> None:
    harden(server, *lines.split("\n"))
    with (
        pytest.raises(ConnectionFailed, match=f"It offers {offered}.* to {directive} in its") as failure,
        login(server.ssh_string(), options),
    ):
        pass
    assert not failure.value.is_transient
    assert str(failure.value).startswith("Failed to create SSH tunnel: the SSH server of")


def test_a_changed_packet_ends_the_connection(server: Sshd, web: TinyWeb, options: ConnectionOptions) -> None:
    harden(server, "Ciphers chacha20-poly1305@openssh.com")
    with login(server.ssh_string(), options, web.port) as connection:
        wire = connection._opened.transport.sock
        receive = wire.recv

        def damage(size_bytes: int) -> bytes:
            data = receive(size_bytes)
            return bytes([data[0] ^ 1]) + data[1:] if size_bytes > 4 else data

        wire.recv = damage
        with pytest.raises(requests.ConnectionError):
            get(connection, 1_000)
        wait_until(lambda: not connection.is_alive)


def test_mlkem768_is_spoken(options: ConnectionOptions, tmp_path: Path) -> None:
    """The sshd of a test may be older than this key exchange."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")

    async def serve(started: threading.Event, end: asyncio.Event, ports: list[int]) -> None:
        authorized = asyncssh.import_authorized_keys(key.export_public_key().decode())
        async with asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            authorized_client_keys=authorized,
            kex_algs=["mlkem768x25519-sha256"],
            encryption_algs=["chacha20-poly1305@openssh.com"],
            sftp_factory=True,
        ) as listener:
            ports.append(listener.get_port())
            started.set()
            await end.wait()

    loop, started, ports = asyncio.new_event_loop(), threading.Event(), list[int]()
    end = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(started, end, ports),))
    thread.start()
    try:
        assert started.wait(15)
        with login(f"ssh -p {ports[0]} -i {tmp_path / 'key'} me@127.0.0.1", options) as connection:
            assert connection.files.stat("/") is not None
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(15)
        loop.close()
