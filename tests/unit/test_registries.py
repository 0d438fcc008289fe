"""How a user reaches the registries of nodes: by the group's tool, or as root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest

from sifline.engines.registry import RECEIVER, TOOL, Registries, RegistryRefused
from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.machine.process import Result
from sifline.machine.remote import Sender
from sifline.model import Cluster, Node, Partition, Registry, Role, SshAccess
from tests.support.recording import answer

NODE = Node(name="controller", role=Role.CONTROLLER)


class Nodes:
    """Nodes whose sudo lets the user run the tool, or anything, or nothing."""

    def __init__(self, *, user: str = "alice", group: str = "deployers", may: str) -> None:
        self.cluster = Cluster(
            name="lab",
            nodes=(NODE,),
            ssh=SshAccess(user=user),
            partitions=(Partition(name="main"),),
            source=Path("lab.yaml"),
            registry=Registry(deployers=group),
        )
        self.may, self.tool, self.told = may, '{"free": 1}', list[str]()
        self.sent: list[tuple[str, Any]] = []

    def run(self, node: Node, argv: Sequence[str], *, sudo: bool = False, **_: Any) -> Result:
        self.told.append("root" if sudo else "tool")
        if not sudo:
            assert [*argv[:4]] == ["sudo", "-n", "--", TOOL]
            if self.may == "tool":
                return answer(self.tool)
            return answer("", stderr="sudo: a password is required", returncode=1)
        if self.may == "nothing":
            raise SshFailed("sudo refused alice", fault=Fault.SUDO_REFUSED, node=node.name)
        return answer('{"free": 2}')

    def send(self, _: Node, __: Path, to: PurePosixPath, **how: Any) -> None:
        self.sent.append((str(to), how.get("receiver")))


def registries(nodes: Nodes) -> Registries:
    return Registries(cast("Sender", nodes))


UPLOAD = PurePosixPath("/opt/containers/.registry/uploads/x.partial")


def test_a_deployer_uses_the_tool_and_its_receiver() -> None:
    nodes = Nodes(may="tool")
    found = registries(nodes)

    assert found.ask(NODE, "ready") == {"free": 1}
    found.send(NODE, Path("x.sif"), UPLOAD, on_line=lambda _: None)

    assert nodes.told == ["tool"]
    assert nodes.sent == [("x.partial", ["sudo", "-n", "--", RECEIVER])]


def test_who_is_no_deployer_becomes_root_and_is_not_asked_twice() -> None:
    nodes = Nodes(may="all")
    found = registries(nodes)

    assert [found.ask(NODE, "ready"), found.ask(NODE, "list")] == [{"free": 2}] * 2
    found.send(NODE, Path("x.sif"), UPLOAD, on_line=lambda _: None)

    assert nodes.told == ["tool", "root", "root"]
    assert nodes.sent == [(str(UPLOAD), None)]


@pytest.mark.parametrize(("user", "group"), [("root", "deployers"), ("admin", "")])
def test_without_a_group_and_as_root_there_is_no_tool(user: str, group: str) -> None:
    nodes = Nodes(user=user, group=group, may="all")

    registries(nodes).ask(NODE, "ready")

    assert nodes.told == ["root"]


def test_who_may_nothing_is_told_of_the_group() -> None:
    with pytest.raises(SshFailed, match="alice; or make alice a member of the group deployers"):
        registries(Nodes(may="nothing")).ask(NODE, "ready")


def test_a_tool_that_breaks_is_an_error_and_no_reason_to_become_root() -> None:
    nodes = Nodes(may="tool")
    nodes.tool = "Traceback"

    with pytest.raises(RegistryRefused, match="ended with status 0: Traceback"):
        registries(nodes).ask(NODE, "ready")
    assert nodes.told == ["tool"]


def test_what_the_tool_refuses_is_not_tried_as_root() -> None:
    nodes = Nodes(may="tool")
    nodes.tool = '{"error": "other-release", "message": "it is old"}'

    with pytest.raises(RegistryRefused, match="provision --cluster lab --stage registry"):
        registries(nodes).ask(NODE, "ready")
    assert nodes.told == ["tool"]
