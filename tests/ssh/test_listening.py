"""The listening ports of an instance: parsed from tables of /proc, and read over a real sshd."""

import socket

import pytest

from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.ssh.listening import listening_ports, ports_in

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:470C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   2: 3500007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 100 0 0 10 0
   3: 0200A8C0:1FFD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   4: 0100007F:1FFE 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
"""
TABLE_6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr uid
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 1 1
   1: 00000000000000000000000001000000:22B8 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 1 1
   2: 000080FE00000000FF005450B6AD1DFE:22B9 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 1 1
"""


@pytest.mark.parametrize(
    ("user", "ports"), [(None, [22, 18188, 8188]), (0, [22, 18188, 8188]), (1000, [22, 18188])]
)
def test_what_accepts_connections_to_localhost(user: int | None, ports: list[int]) -> None:
    assert list(ports_in(TABLE, user)) == ports
    assert list(ports_in(TABLE_6, user)) == [22, 8888]


@pytest.mark.parametrize(
    "table",
    [
        "",
        "head",
        "head\nx",
        "head\n0: 00000000 0 0A 0 0 0 0",
        "head\n0: 00000000:FFFFF 0 0A 0 0 0 0",
        "head\n0: 00000000:00zz 0 0A 0 0 0 0",
        "head\n0: 00000000:0016 0 0A 0 0 0 ٣",
        "head\n0: 00000000:0016 0 0A 0 0 0 " + "9" * 5000,
        "\x00\n" * 100,
    ],
)
def test_damaged_tables(table: str) -> None:
    assert list(ports_in(table, 1000)) == []


def test_over_ssh(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("0.0.0.0", 0)) as other:
        found = listening_ports(connection.files)
        assert {one.getsockname()[1], other.getsockname()[1]} <= set(found)
        assert list(found) == sorted(set(found))
    assert len(connection.files.read("/proc/net/tcp", 100)) == 100
