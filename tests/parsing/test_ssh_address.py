"""SSH strings: what users paste is accepted, dangerous parts are refused and named."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address, with_absolute_keys


def address(host: str, port: int = 22, user: str = "root", **more: object) -> SshAddress:
    return SshAddress(host=host, port=port, user=user, **more)  # type: ignore[arg-type]


VAST = address("198.53.64.194", 40738, comfyui_port=8080)
VAST_COMMAND = "ssh -p 40738 root@198.53.64.194 -L 8080:localhost:8080"
PLAIN = address("1.2.3.4", 40738)

ACCEPTED = {
    VAST_COMMAND: VAST,
    "ssh -p 12345 root@ssh5.vast.ai -L 8080:localhost:8080": address(
        "ssh5.vast.ai", 12345, comfyui_port=8080
    ),
    "ssh://root@ssh5.vast.ai:12345": address("ssh5.vast.ai", 12345),
    "ssh://ssh5.vast.ai/": address("ssh5.vast.ai"),
    "SSH ssh://root@[2001:db8::1]:2222": address("2001:db8::1", 2222),
    "ssh root@1.2.3.4 -p 17445 -i ~/.ssh/id_ed25519": address(
        "1.2.3.4", 17445, key_files=("~/.ssh/id_ed25519",)
    ),
    "ssh pod1-6441103b@ssh.runpod.io -i ~/.ssh/id_ed25519": address(
        "ssh.runpod.io", user="pod1-6441103b", key_files=("~/.ssh/id_ed25519",)
    ),
    "ssh ubuntu@1.2.3.4": address("1.2.3.4", user="ubuntu"),
    "ssh -i key.pem ubuntu@gpu.example.com": address(
        "gpu.example.com", user="ubuntu", key_files=("key.pem",)
    ),
    "ssh -i '/keys/my key.pem' 1.2.3.4": address("1.2.3.4", key_files=("/keys/my key.pem",)),
    r"ssh -i /keys/my\ key.pem 1.2.3.4": address("1.2.3.4", key_files=("/keys/my key.pem",)),
    "ssh -p40738 root@1.2.3.4": PLAIN,
    "ssh -Np 40738 root@1.2.3.4": PLAIN,
    "ssh -vvv -NfTp40738 root@1.2.3.4": PLAIN,
    "ssh -L8080:localhost:8080 1.2.3.4": address("1.2.3.4", comfyui_port=8080),
    "ssh -NL 1:localhost:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188),
    "ssh -L 127.0.0.1:8188:127.0.0.1:8188 1.2.3.4": address(
        "1.2.3.4", comfyui_port=8188, comfyui_host="127.0.0.1"
    ),
    "ssh -L [::1]:80:localhost:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188),
    "ssh -L :80:LOCALHOST:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188),
    "ssh -L 8080:[::1]:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188, comfyui_host="::1"),
    "ssh -L 8080:localhost:8080 -L 9:localhost:18188 1.2.3.4": address("1.2.3.4", comfyui_port=18188),
    "ssh -L 1:localhost:8080 -L 2:localhost:1111 1.2.3.4": address("1.2.3.4", comfyui_port=8080),
    "ssh -l root 1.2.3.4": address("1.2.3.4"),
    "ssh -lubuntu 1.2.3.4": address("1.2.3.4", user="ubuntu"),
    "ssh -oPort=40738 root@1.2.3.4": PLAIN,
    'ssh -o "Port 40738" root@1.2.3.4': PLAIN,
    "ssh -o port=40738 -p 40738 root@1.2.3.4": PLAIN,
    "ssh -o StrictHostKeyChecking=no -p 40738 root@1.2.3.4": PLAIN,
    "ssh -o User=ubuntu 1.2.3.4": address("1.2.3.4", user="ubuntu"),
    "ssh -o HostName=1.2.3.4 gpu": address("1.2.3.4"),
    "ssh -o IdentityFile=key.pem 1.2.3.4": address("1.2.3.4", key_files=("key.pem",)),
    "ssh -o 'IdentityFile = \"my key\"' 1.2.3.4": address("1.2.3.4", key_files=("my key",)),
    "ssh -i a -i b -i a -oIdentityFile=c 1.2.3.4": address("1.2.3.4", key_files=("a", "b", "c")),
    "ssh -o IdentitiesOnly=yes -i a 1.2.3.4": address("1.2.3.4", key_files=("a",), identities_only=True),
    "ssh -o IdentitiesOnly=no -i a 1.2.3.4": address("1.2.3.4", key_files=("a",)),
    "ssh -o 'LocalForward 8188 localhost:8188' 1.2.3.4": address("1.2.3.4", comfyui_port=8188),
    "ssh -o ProxyJump=me@bastion:2200 10.0.0.5": address("10.0.0.5", jump=address("bastion", 2200, "me")),
    "ssh -J none 1.2.3.4": address("1.2.3.4"),
    "ssh -o ProxyCommand=none -o PermitLocalCommand=no 1.2.3.4": address("1.2.3.4"),
    "ssh -o UserKnownHostsFile=/dev/null -p 40738 root@1.2.3.4": PLAIN,
    "ssh -o ServerAliveInterval=30 -o ServerAliveCountMax=3 -o LogLevel=ERROR root@1.2.3.4:40738": PLAIN,
    "ssh -o IdentityAgent=none 1.2.3.4": address("1.2.3.4"),
    "ssh -m hmac-sha2-256 -e none 1.2.3.4": address("1.2.3.4"),
    "ssh -L 8080:10.0.0.1:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188, comfyui_host="10.0.0.1"),
    "ssh -L 8080:ComfyUI:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188, comfyui_host="comfyui"),
    "ssh -L 8080:0.0.0.0:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188),
    "ssh -L 8080:[fd00::1]:8188 1.2.3.4": address("1.2.3.4", comfyui_port=8188, comfyui_host="fd00::1"),
    "ssh 4090": address("4090"),
    "ssh -J me@bastion:2200 root@10.0.0.5": address("10.0.0.5", jump=address("bastion", 2200, "me")),
    "ssh -J a@one,two:23 root@10.0.0.5": address(
        "10.0.0.5", jump=address("two", 23, jump=address("one", 22, "a"))
    ),
    "root@1.2.3.4 -p 22": address("1.2.3.4"),
    "root@1.2.3.4:40738": PLAIN,
    "1.2.3.4:40738": PLAIN,
    "1.2.3.4": address("1.2.3.4"),
    "gpu-box": address("gpu-box"),
    "GPU.Example.COM.": address("gpu.example.com"),
    "root@[2001:db8::1]:40738": address("2001:db8::1", 40738),
    "[2001:db8::1]": address("2001:db8::1"),
    "root@2001:0db8:0::1": address("2001:db8::1"),
    "::1": address("::1"),
    f"`{VAST_COMMAND}`": VAST,
    f"```bash\n{VAST_COMMAND}\n```": VAST,
    f"$ {VAST_COMMAND}": VAST,
    f"`$ {VAST_COMMAND}`": VAST,
    f'"{VAST_COMMAND}"': VAST,
    f"“{VAST_COMMAND}”": VAST,
    f"\n  {VAST_COMMAND}\r\n\n": VAST,
    VAST_COMMAND.replace(" ", "\u00a0"): VAST,
    VAST_COMMAND.replace(" ", "\t"): VAST,
    VAST_COMMAND.replace("-", "–"): VAST,
    VAST_COMMAND.replace("-", "—"): VAST,
    "\ufeff" + VAST_COMMAND.replace("root", "ro\u200bot"): VAST,
    "ssh -i ‘key.pem’ 1.2.3.4": address("1.2.3.4", key_files=("key.pem",)),
    "ssh -p 40738 root@198.53.64.194 \\\n  -L 8080:localhost:8080": VAST,
    "ssh -p 40738 root@198.53.64.194 \\ \r\n  -L 8080:localhost:8080": VAST,
    "ssh.exe -p 40738 root@1.2.3.4": PLAIN,
    "/usr/bin/ssh -p 40738 root@1.2.3.4": PLAIN,
    "ssh -p 40738 -- root@1.2.3.4": PLAIN,
    # a prompt of a shell before the command, the end of a line in other shells, what follows the command
    "me@laptop:~/x$ ssh -p 40738 root@1.2.3.4": PLAIN,
    "(base) me@mac ~ % ssh -p 40738 root@1.2.3.4": PLAIN,
    "[me@lab ~]# ssh -p 40738 root@1.2.3.4": PLAIN,
    "PS C:\\Users\\me> ssh -p 40738 root@1.2.3.4": PLAIN,
    "C:\\Users\\me>ssh.exe -p 40738 root@1.2.3.4": PLAIN,
    "➜  ~ ssh -p 40738 root@1.2.3.4": PLAIN,
    "❯ ssh -p 40738 root@1.2.3.4": PLAIN,
    "ssh -p 40738 ^\r\nroot@198.53.64.194 ^\r\n -L 8080:localhost:8080": VAST,
    "ssh -p 40738 root@198.53.64.194 `\n -L 8080:localhost:8080": VAST,
    "ssh -p 40738 root@198.53.64.194\n-L 8080:localhost:8080": VAST,
    "ssh -p 40738 root@198.53.64.194 \\   -L 8080:localhost:8080": VAST,
    "ssh -NL 8188:localhost:8188 -p 40738 root@1.2.3.4 &": address("1.2.3.4", 40738, comfyui_port=8188),
    "ssh -p 40738 root@1.2.3.4;": PLAIN,
    "ssh -p 40738 root@1.2.3.4, ": PLAIN,
    # file names as browsers and documents give them, users of a directory service, urls of a file transfer
    "ssh -i $HOME/.ssh/k 1.2.3.4": address("1.2.3.4", key_files=("~/.ssh/k",)),
    "ssh -i ${HOME}/.ssh/k 1.2.3.4": address("1.2.3.4", key_files=("~/.ssh/k",)),
    "ssh -i '/keys/key (1).pem' 1.2.3.4": address("1.2.3.4", key_files=("/keys/key (1).pem",)),
    r"ssh -i /keys/key\ \(1\).pem 1.2.3.4": address("1.2.3.4", key_files=("/keys/key (1).pem",)),
    "ssh me@uni.edu@lab": address("lab", user="me@uni.edu"),
    "sftp://root@1.2.3.4:40738": PLAIN,
    "scp://root@1.2.3.4:40738/": PLAIN,
    # a block of ~/.ssh/config, also without its line breaks, and facts as a page lists them
    "Host gpu\n    HostName 1.2.3.4\n    Port 40738\n    User root\n": PLAIN,
    "Host gpu    HostName 1.2.3.4    Port 40738    User root": PLAIN,
    "# my box\r\nhost gpu\r\n\thostname=1.2.3.4\r\n\tport = 40738\r\n\tServerAliveInterval 60": PLAIN,
    "Host: 1.2.3.4\nPort: 40738\nUsername: root": PLAIN,
    "HostName 1.2.3.4\nPort 40738": PLAIN,
    "Host user\nHostName 1.2.3.4\n# of the lab\nUser host\nIdentityFile 'my key'": address(
        "1.2.3.4", user="host", key_files=("my key",)
    ),
    "Host gpu\n  HostName 1.2.3.4\n  LocalForward 8080 localhost:8188\n  ProxyJump me@bastion": address(
        "1.2.3.4", comfyui_port=8188, jump=address("bastion", user="me")
    ),
    "host -p 40738": address("host", 40738),
}

REFUSED = {
    # options that run programs, read files or open more than the one way
    "ssh -o ProxyCommand=id root@1.2.3.4": "ProxyCommand",
    "ssh -oProxyCommand=id root@1.2.3.4": "ProxyCommand",
    "ssh -o 'proxycommand id' root@1.2.3.4": "proxycommand",
    "ssh -o LocalCommand=id root@1.2.3.4": "LocalCommand",
    "ssh -o KnownHostsCommand=id root@1.2.3.4": "KnownHostsCommand",
    "ssh -o PermitLocalCommand=yes root@1.2.3.4": "PermitLocalCommand",
    "ssh -o Include=/etc/passwd root@1.2.3.4": "Include",
    "ssh -o 'Match exec id' root@1.2.3.4": "Match",
    "ssh root@1.2.3.4 -o": "-o",
    "ssh -o RemoteCommand=id root@1.2.3.4": "RemoteCommand",
    "ssh -o XAuthLocation=/tmp/x root@1.2.3.4": "XAuthLocation",
    "ssh -o PKCS11Provider=/tmp/x.so root@1.2.3.4": "PKCS11Provider",
    "ssh -o SecurityKeyProvider=/tmp/x.so root@1.2.3.4": "SecurityKeyProvider",
    "ssh -o IdentityAgent=/run/docker.sock root@1.2.3.4": "IdentityAgent",
    "ssh -o DynamicForward=1080 root@1.2.3.4": "DynamicForward",
    "ssh -o 'RemoteForward 1 localhost:2' root@1.2.3.4": "RemoteForward",
    "ssh -o ServerAliveIntervall=30 root@1.2.3.4": "no option of this name",
    "ssh -o HostName=-oProxyCommand=id gpu": "-oProxyCommand=id",
    "ssh -o HostName=a -o HostName=b gpu": "two different hosts",
    "ssh -o ProxyJump=-oProxyCommand=id gpu": "-oProxyCommand=id",
    "ssh -o 'LocalForward 8188 /run/docker.sock' gpu": "-L must read",
    "ssh -F /tmp/config root@1.2.3.4": "-F /tmp/config",
    "ssh -F/tmp/config root@1.2.3.4": "-F /tmp/config",
    "ssh -E /tmp/log root@1.2.3.4": "-E",
    "ssh -S /tmp/socket root@1.2.3.4": "-S",
    "ssh -I /tmp/lib.so root@1.2.3.4": "-I",
    "ssh -R 8080:localhost:8080 root@1.2.3.4": "-R",
    "ssh -D 1080 root@1.2.3.4": "-D",
    "ssh -W host:22 root@1.2.3.4": "-W",
    "ssh -w 0:0 root@1.2.3.4": "-w",
    "ssh -G root@1.2.3.4": "-G",
    "ssh -M root@1.2.3.4": "-M",
    "ssh -NM root@1.2.3.4": "-M",
    "ssh -Z root@1.2.3.4": "-Z",
    "ssh --help root@1.2.3.4": "--",
    # a command
    "ssh root@1.2.3.4 nvidia-smi": "nvidia-smi",
    "ssh root@1.2.3.4 -p 22 -- rm -rf x": "rm",
    "ssh root@1.2.3.4 root@5.6.7.8": "root@5.6.7.8",
    # hosts and users
    "ssh -- -oProxyCommand=id": "-oProxyCommand=id",
    "ssh -l -oProxyCommand=id 1.2.3.4": "-oProxyCommand=id",
    "ssh://-oProxyCommand=id": "-oProxyCommand=id",
    "ssh -J -oProxyCommand=id root@1.2.3.4": "-oProxyCommand=id",
    "ssh -J bastion -J other 1.2.3.4": "-J",
    "ssh -oroot@host 1.2.3.4": "-o root@host",
    "root@-host": "root@-host",
    "-host": "-h",
    "@1.2.3.4": "user name",
    "root@": "host name",
    "root @1.2.3.4": "@1.2.3.4",
    "ro\u043et@1.2.3.4": "user name",
    "root@ex\u0430mple.com": "host name",
    "root@a..b": "host name",
    "root@under score": "score",
    "root@" + "a" * 64: "host name",
    "root@" + "a." * 130 + "com": "host name",
    "root@999.1.1.1": "IP address",
    "root@127.1": "IP address",
    "root@2130706433": "IP address",
    "root@0x7f.1": "IP address",
    "root@0177.0.0.1": "IP address",
    "root@[1.2.3.4]:22": "brackets",
    "root@[2001:db8::1]x": "IPv6",
    "root@[2001:db8::1": "IPv6",
    "root@fe80::1%eth0": "IPv6",
    "root@1.2.3.4:22:33": "IPv6",
    "ssh://root@host/path": "host name",
    "ssh://root@host:22/path": "22/path",
    "http://root@host": "http",
    "ssh -l ssh://root host": "passwords",
    # ports
    "ssh -p 0 1.2.3.4": '"0"',
    "ssh -p 65536 1.2.3.4": '"65536"',
    "ssh -p -1 1.2.3.4": '"-1"',
    "ssh -p 22x 1.2.3.4": '"22x"',
    "ssh -p ٢٢ 1.2.3.4": "from 1 to 65535",
    "ssh -p '' 1.2.3.4": "-p",
    "ssh 1.2.3.4 -p": "-p",
    "1.2.3.4:": "from 1 to 65535",
    "1.2.3.4:0": '"0"',
    "ssh -oPort=x 1.2.3.4": '"x"',
    "ssh -p 22 1.2.3.4:23": "two different ports",
    "ssh -p 22 -oPort=23 1.2.3.4": "two different ports",
    "ssh -l me root@1.2.3.4": "two different users",
    # forwards that lead elsewhere
    "ssh -L 8080:169.254.169.254:80 1.2.3.4": "-L 8080:169.254.169.254:80",
    "ssh -L 8080:224.0.0.1:80 1.2.3.4": "multicast",
    "ssh -L 8080:[::ffff:169.254.169.254]:80 1.2.3.4": "link-local",
    "ssh -L 8080:127.1:8188 1.2.3.4": "IP address",
    "ssh -L 8080:a;b:8188 1.2.3.4": ";",
    "ssh -L 8080:localhost:0 1.2.3.4": '"0"',
    "ssh -L 8080:localhost 1.2.3.4": "-L 8080:localhost",
    "ssh -L 8080 1.2.3.4": "-L 8080",
    "ssh -L /tmp/s:localhost:8188 1.2.3.4": "/tmp/s",
    "ssh -L 8080:/var/run/docker.sock 1.2.3.4": "docker.sock",
    # a shell's characters, more than a line, what cannot be seen
    "ssh root@1.2.3.4; id": ";",
    "ssh root@1.2.3.4 && id": "&",
    "ssh root@1.2.3.4 | id": "|",
    "ssh root@$(id)": "$",
    "ssh root@`id`": "`",
    "ssh root@1.2.3.4 > /tmp/x": ">",
    "ssh root@1.2.3.4 < /tmp/x": "<",
    "ssh root@{a,b}": "{",
    "ssh root@*": "*",
    "ssh -i 'a;b' 1.2.3.4": ";",
    "ssh root@host\\": "\\",
    "ssh -i C:\\Users\\me\\key 1.2.3.4": 'C:\\Users\\me\\key": this is a path of Windows',
    "ssh -i %USERPROFILE%\\key 1.2.3.4": "this is a path of Windows",
    # placeholders of a manual, other commands and addresses than those of ssh, ports in other forms
    "ssh -i '<SSH-KEY-FILE-PATH>' ubuntu@1.2.3.4": '"<SSH-KEY-FILE-PATH>": replace it by its value',
    "ssh root@[IP] -p 22": '"[IP]": replace',
    "ssh root@{pod_ip}": '"{pod_ip}": replace',
    "ssh root@$RUNPOD_IP": '"$RUNPOD_IP": replace',
    "scp -P 40738 x root@1.2.3.4:/x": '"scp": paste the ssh command of the machine',
    "sftp -P 40738 root@1.2.3.4": '"sftp": paste the ssh command',
    "autossh -M 0 -N root@1.2.3.4": '"autossh": paste',
    "putty.exe -ssh root@1.2.3.4": '"putty.exe": paste',
    "https://pod-8188.proxy.runpod.net": "this is a web page; paste the ssh command",
    "ssh -P 40738 root@1.2.3.4": "small letter: -p",
    "root@1.2.3.4 40738": "a port is written -p 40738",
    # blocks of an SSH configuration
    "Host gpu\n HostName 1.2.3.4\nHost other\n HostName 5.6.7.8": "more than one Host block",
    "Host gpu\n HostName 1.2.3.4\n ProxyCommand id": "ProxyCommand",
    "Host gpu\n HostName 1.2.3.4\n LocalCommand=id": "LocalCommand",
    "Host: 1.2.3.4\nUser: root\nPassword: hunter2": "passwords",
    "Host gpu\n HostName -oProxyCommand=id": "-oProxyCommand=id",
    "Host gpu\n Include /etc/passwd": "Include",
    "Host *\n Port 22": "*",
    "Host gpu": '"gpu"',
    "ssh root@1.2.3.4\nid": "more than one line",
    "ssh root@1.2.3.4\r-p 22": "more than one line",
    "ssh root@1.2.3.4\u2028id": "more than one line",
    "ssh root@1.2.3.4\x00": "U+0000",
    "ssh root@1.2.3.4\x1b[31m": "U+001B",
    "ssh root@1.2.3.4\x1f": "U+001F",
    "ssh \u202eroot@1.2.3.4": "U+202E",
    "ssh 'root@1.2.3.4": "quote",
    "": "no host",
    " \n ": "no host",
    "ssh": "no host",
    "ssh -p 22": "no host",
    "x" * 2001: "2000",
    "sshpass -p hunter2 ssh root@1.2.3.4": "sshpass",
    "root:hunter2@1.2.3.4": "passwords",
    "ssh ssh://root:hunter2@1.2.3.4": "passwords",
    "ssh ssh://root:hunter2@hu@1.2.3.4:bad": "from 1 to 65535",
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_people_paste_is_understood(text: str) -> None:
    assert parse_ssh_address(text) == ACCEPTED[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_do_harm_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidAddress) as refusal:
        parse_ssh_address(text)
    assert REFUSED[text] in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("thing", [None, 22, b"ssh root@1.2.3.4", ["ssh"], {"host": "1.2.3.4"}, True])
def test_only_text_is_an_address(thing: object) -> None:
    with pytest.raises(InvalidAddress, match=f"not {type(thing).__name__}"):
        parse_ssh_address(thing)


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("ssh -o StrictHostKeyChecking=no 1.2.3.4", "always checked"),
        ("ssh -A 1.2.3.4", "never forwarded"),
        ("ssh -C 1.2.3.4", "-C is ignored"),
        ("ssh -o ServerAliveInterval=30 1.2.3.4", "ServerAliveInterval is ignored: this server has its own"),
        ("ssh -o 'ConnectTimeout 5' 1.2.3.4", "ConnectTimeout is ignored"),
        ("ssh -ouserknownhostsfile=/dev/null 1.2.3.4", "UserKnownHostsFile is ignored: this server keeps"),
        ("ssh -o LogLevel=ERROR 1.2.3.4", "LogLevel is ignored"),
        ("ssh -o BatchMode=yes 1.2.3.4", "BatchMode is ignored: this server logs in with keys only"),
        ("ssh -o ForwardAgent=yes 1.2.3.4", "never forwarded"),
        ("ssh -c aes128-ctr 1.2.3.4", "-c is ignored"),
        ("ssh x@ssh.runpod.io", "SSH over exposed TCP"),
        ("ssh -L 1:localhost:8080 -L 2:localhost:8188 1.2.3.4", "port 8188"),
    ],
)
def test_what_is_ignored_is_said(text: str, notice: str) -> None:
    assert [notice in sentence for sentence in parse_ssh_address(text).notices] == [True]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("ssh -i key.pem ubuntu@host -p 22", "ssh -i /here/key.pem ubuntu@host -p 22"),
        ("ssh -ikey.pem host", "ssh -i/here/key.pem host"),
        ("ssh -Ni key.pem host", "ssh -Ni /here/key.pem host"),
        ("ssh -i key.pem -i key.pem host", "ssh -i /here/key.pem -i /here/key.pem host"),
        ("ssh -oIdentityFile=key.pem host", "ssh -oIdentityFile=/here/key.pem host"),
        ("ssh -o 'IdentityFile key.pem' host", "ssh -o 'IdentityFile /here/key.pem' host"),
        ("`ssh -i key.pem host`", "ssh -i /here/key.pem host"),
        ("Host gpu\n Port 22\n IdentityFile key.pem", "-o Port=22 -o IdentityFile=/here/key.pem -- gpu"),
        ("ssh -i other.pem host", None),
        ("ssh host -l key.pem", None),
        ("ssh -o LogLevel=key.pem host", None),
        ("ssh host -i", None),
        ("ssh -i 'key.pem host", None),
        ("any", None),
    ],
)
def test_key_files_become_absolute_and_nothing_else_changes(text: str, changed: str | None) -> None:
    result = with_absolute_keys(text, lambda name: f"/here/{name}" if name == "key.pem" else name)
    assert result == (changed or text)


def test_it_is_known_what_the_text_says_itself() -> None:
    assert parse_ssh_address("ssh gpu").given == frozenset()
    assert parse_ssh_address("ssh -p 22 root@gpu -J none").given == {"port", "user", "jump"}
    renamed = parse_ssh_address("ssh -o HostName=1.2.3.4 gpu")
    assert (renamed.given, renamed.alias) == ({"host"}, "gpu")


def test_notices_do_not_make_another_instance() -> None:
    assert parse_ssh_address("ssh -AA 1.2.3.4") == parse_ssh_address("1.2.3.4")
    assert len(parse_ssh_address("ssh -AA 1.2.3.4").notices) == 1


@pytest.mark.parametrize(
    ("text", "label"),
    [("1.2.3.4:5", "root@1.2.3.4:5"), ("me@[::1]:5", "me@[::1]:5"), ("me@::1", "me@[::1]:22")],
)
def test_the_label_reads_back(text: str, label: str) -> None:
    assert parse_ssh_address(text).label == label
    assert parse_ssh_address(label) == parse_ssh_address(text)


WORDS = (
    """ssh -p -L -o -i -J -- - 22 root@ @ : 1.2.3.4 [::1] ssh:// 8080: localhost ' " Port= – , = / ~ % $ \\"""
)
PIECES = st.sampled_from([*WORDS.split(), "\n", " ", " ", " ", "\u00a0", "\x00"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        parsed = parse_ssh_address(text)
    except InvalidAddress as refusal:
        assert str(refusal).isprintable()
        return
    assert 1 <= parsed.port <= 65535
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", parsed.user)
    assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", parsed.host) or ipaddress.IPv6Address(parsed.host)
    assert parse_ssh_address(parsed.label).label == parsed.label


HOSTS = st.one_of(
    st.ip_addresses().map(str).filter(lambda host: "%" not in host),
    st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,2}", fullmatch=True),
)


@given(HOSTS, st.integers(1, 65535), st.integers(1, 65535), st.booleans())
def test_every_spelling_is_the_same_address(host: str, port: int, comfyui_port: int, is_after: bool) -> None:
    options = f"-p {port} -L 1:localhost:{comfyui_port}"
    command = f"ssh me@{host} {options}" if is_after else f"ssh {options} me@{host}"
    parsed = parse_ssh_address(command)
    assert (parsed.port, parsed.user, parsed.comfyui_port) == (port, "me", comfyui_port)
    assert parse_ssh_address(f"ssh://{parsed.label}").label == parsed.label
