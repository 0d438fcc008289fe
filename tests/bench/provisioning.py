"""How long Ansible's playbooks take on virtual clusters of three and of eight nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from tests.bench.measure import Comparison, Side
from tests.bench.projects import INVOKE, succeed

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 3, 8
NOTE = (
    "nodes share the machine's processors with Ansible, whose workers take about a second of"
    " processor time for each node; so the limits are in seconds, for both sides."
)


class Virtual:
    """A virtual cluster of ``count`` nodes that no other run uses."""

    def __init__(self, count: int, folder: Path) -> None:
        self.name = f"bench-{uuid4().hex[:8]}"
        self.file = folder / f"{self.name}.yaml"
        nodes = ["controller", *(f"compute-{number:02}" for number in range(1, count))]
        rows = (
            f"  - {{name: {node}, role: {node.partition('-')[0]}, memory_mb: 512}}\n"
            for node in nodes
        )
        self.file.write_text(
            f"name: {self.name}\nnodes:\n{''.join(rows)}"
            "ssh: {user: admin}\njob_user: alice\nvirtual: {image: slurm-node}\n",
            encoding="utf-8",
        )

    def up(self) -> None:
        """Bring it up from nothing."""
        self.down()
        succeed((INVOKE, "cluster.up", "--cluster", str(self.file)), ROOT)

    def down(self) -> None:
        """Take it down, if it stands."""
        standing = succeed((INVOKE, "cluster.list", "--json"), ROOT)
        if f'"{self.name}"' in standing:
            succeed((INVOKE, "cluster.down", "--cluster", self.name, "--yes"), ROOT)

    def provision(self) -> str:
        """Run all playbooks."""
        return succeed((INVOKE, "provision", "--cluster", self.name), ROOT)


@contextmanager
def provision() -> Iterator[Iterable[Comparison]]:
    """All playbooks on eight prepared nodes, against three."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        many, few = Virtual(MANY, Path(folder)), Virtual(FEW, Path(folder))
        for cluster in (many, few):
            stack.callback(cluster.down)
        yield (
            Comparison(
                what="Prepared nodes provisioned the first time",
                ours=Side(
                    what=f"`invoke provision`, {MANY} nodes", run=many.provision, prepare=many.up
                ),
                peer=Side(
                    what=f"`invoke provision`, {FEW} nodes", run=few.provision, prepare=few.up
                ),
                limit=None,
                most=(135, 90),
                note=NOTE,
                rounds=2,
                warm=False,
            ),
            Comparison(
                what="Provisioned again, with nothing to do",
                ours=Side(what=f"`invoke provision`, {MANY} nodes", run=many.provision),
                peer=Side(what=f"`invoke provision`, {FEW} nodes", run=few.provision),
                limit=None,
                most=(22.5, 15),
                rounds=3,
                warm=False,
            ),
        )
