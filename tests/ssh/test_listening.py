"""The listening ports of an instance: parsed from tables of /proc, and read over a real sshd."""

import socket

import pytest

from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.ssh.listening import LOCALHOST, listening_ports, places_in

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
   3: 0000000000000000FFFF00000100007F:22BA 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 1 1
   4: B80D0120000000000000000001000000:22BB 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 1 1
"""
OWN = [(22, LOCALHOST), (18188, LOCALHOST)]
OTHER = (8188, "127.0.0.53")
ROOTS = (8189, "192.168.0.2")


@pytest.mark.parametrize(
    ("user", "places"), [(None, [*OWN, OTHER, ROOTS]), (0, [*OWN, OTHER, ROOTS]), (1000, [*OWN, ROOTS])]
)
def test_the_ports_and_where_they_are_open(user: int | None, places: list[tuple[int, str]]) -> None:
    assert list(places_in(TABLE, user)) == places
    loopback, mapped, other = (8888, "::1"), (8890, LOCALHOST), (8891, "2001:db8::1")
    assert list(places_in(TABLE_6, user)) == [(22, LOCALHOST), loopback, mapped, other]


@pytest.mark.parametrize(
    "table",
    [
        "",
        "head",
        "head\nx",
        "head\n0: 00000000 0 0A 0 0 0 0",
        "head\n0: 00000000:FFFFF 0 0A 0 0 0 0",
        "head\n0: 0000000:0016 0 0A 0 0 0 0",
        "head\n0: zz000000:0016 0 0A 0 0 0 0",
        "head\n0: 00000000:00zz 0 0A 0 0 0 0",
        "head\n0: 00000000:0016 0 0A 0 0 0 ٣",
        "head\n0: 00000000:0016 0 0A 0 0 0 " + "9" * 5000,
        "\x00\n" * 100,
    ],
)
def test_damaged_tables(table: str) -> None:
    assert list(places_in(table, 1000)) == []


def test_over_ssh(connection: Connection) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("0.0.0.0", 0)) as other,
        socket.create_server(("127.0.0.2", 0)) as elsewhere,
    ):
        found = listening_ports(connection.files)
        assert found[one.getsockname()[1]] == found[other.getsockname()[1]] == LOCALHOST
        assert found[elsewhere.getsockname()[1]] == "127.0.0.2"
        assert list(found) == sorted(found)
    assert len(connection.files.read("/proc/net/tcp", 100)) == 100
