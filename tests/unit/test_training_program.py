"""What the training program decides before PyTorch has anything to do."""

from __future__ import annotations

import fcntl
import os
import runpy
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from unittest.mock import MagicMock

import pytest

Function = Callable[..., str]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Function]:
    """The program's functions; there is no PyTorch here."""
    for name in ("torch", "torch.distributed", "torch.nn", "torch.nn.parallel"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    return runpy.run_path(str(resources.files("sifline") / "nodeside" / "training.py"))


def addresses() -> dict[str, str]:
    """The IPv4 address of each network interface here."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))
            except OSError:
                continue
            found[name] = socket.inet_ntoa(told[20:24])
    return found


def test_an_interface_is_the_one_with_the_address_that_leads_there(
    program: Mapping[str, Function],
) -> None:
    for name, address in addresses().items():
        if not address.startswith("127."):
            assert program["interface_to"](address) == name


def test_towards_oneself_it_is_never_the_loopback(program: Mapping[str, Function]) -> None:
    others = {name for name, address in addresses().items() if not address.startswith("127.")}
    for host in ("127.0.0.1", "127.0.1.1"):
        found = program["interface_to"](host)
        assert found in others or (found, others) == ("", set())


def test_a_host_that_nobody_knows_is_left_to_gloo(program: Mapping[str, Function]) -> None:
    assert program["interface_to"]("no-such-host.invalid") == ""


@pytest.mark.parametrize("said", ["", "ib0"])
def test_an_interface_that_is_named_is_kept(
    program: Mapping[str, Function], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "4",
        "SLURM_JOB_ID": "12001",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        **({"GLOO_SOCKET_IFNAME": said} if said else {}),
    }
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    program["find_others"]()
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("1", "4")
    assert os.environ["MASTER_PORT"] == "20001"
    found = os.environ.get("GLOO_SOCKET_IFNAME", "")
    assert found == (said or program["interface_to"]("127.0.0.1"))


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("compute-[01-02]", "compute-01"),
        ("n[01-03,7],login", "n01"),
        ("a,b", "a"),
        ("alone", "alone"),
        ("rack[1-2]-x", "rack1-x"),
    ],
)
def test_the_first_host_of_a_list_is_the_one_to_meet_at(
    program: Mapping[str, Function], nodes: str, first: str
) -> None:
    assert program["first_host"](nodes) == first
