"""Every check of sifline.validation turns red when what it checks is broken.

Each proof breaks one thing on the standing cluster over ssh, sees its check fail with the
expected words, mends the thing, and sees the check pass again.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sifline.engines.slurm import Slurm
from sifline.engines.ssh.nodes import Ssh
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed
from sifline.model import CheckResult, Cluster, Node, Status
from sifline.validation.run import validate
from sifline.validation.suites import known, training_job
from tests.support.groups import shares_cluster

pytestmark = [shares_cluster("cluster of the proofs and the training"), pytest.mark.long]

SETTLE_SECONDS = 60
IMAGE = "custom-images/hello-mpi.sif"
CGROUP_CONF = "/etc/slurm/cgroup.conf"
MPI_CONF = "/etc/slurm/mpi.conf"

# A srun that leaves out what was asked of it in GPUs.
SRUN_WITHOUT_GRES = """#!/bin/bash
words=()
for word; do [[ $word == --gres=* ]] || words+=("$word"); done
exec /usr/bin/srun "${words[@]}"
"""

# An apptainer that runs no container; the program it was given does not exist outside.
APPTAINER_OUTSIDE = """#!/bin/sh
. /etc/os-release
echo "rank=$SLURM_PROCID size=4 host=$(hostname) sum=6 expected=6 os=$ID-$VERSION_ID container="
"""

# One that knows its version, and starts nothing.
APPTAINER_BROKEN = """#!/bin/sh
[ "$1" = exec ] || exec /usr/bin/apptainer "$@"
echo "FATAL: mount failed" >&2
exit 255
"""

# Four processes that do not hear of each other.
APPTAINER_APART = """#!/bin/bash
export RANK=0 WORLD_SIZE=1 MASTER_ADDR="$(hostname)" MASTER_PORT=$((30000 + SLURM_PROCID))
exec /usr/bin/apptainer "$@"
"""

# A training that learns nothing.
APPTAINER_LAZY = """#!/bin/bash
exec /usr/bin/apptainer "${@/lr=0.1/lr=0.0}"
"""

# The right program in the right container, but one that was started without MPI.
APPTAINER_ALONE = """#!/bin/bash
unset ${!PMI*} ${!SLURM*}
exec /usr/bin/apptainer "$@"
"""


class Hands:
    """What breaks and mends things on the nodes, as root."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh = ssh
        self.cluster = ssh.cluster
        self.controller = ssh.cluster.controller
        self.first, self.second = ssh.cluster.compute[:2]
        self.root = ssh.cluster.registry_root

    def root_shell(self, node: Node, script: str) -> None:
        self._ssh.run(node, ["sh", "-euc", script], sudo=True, timeout=90)

    @contextmanager
    def done(self, node: Node, break_it: str, mend_it: str) -> Iterator[None]:
        """Run one script before and the other one after, come what may."""
        try:
            self.root_shell(node, break_it)
            yield
        finally:
            self.root_shell(node, mend_it)
            self.settle()

    def program(self, node: Node, path: str, text: str) -> AbstractContextManager[None]:
        """Put a program where it is found before the real one."""
        quoted = shlex.quote(text)
        make = f"printf %s {quoted} > {path}.new; chmod 755 {path}.new; mv {path}.new {path}"
        return self.done(node, make, f"rm -f {path}")

    @contextmanager
    def slurmd_with(self, old: str, new: str, path: str) -> Iterator[None]:
        """Change a line of a configuration file on all compute nodes and restart slurmd."""
        # grep, because a substitution that changes nothing would prove nothing.
        change = (
            f"grep -q {shlex.quote(old)} {path}; cp -p {path} {path}.kept; "
            f"sed -i {shlex.quote(f's|{old}|{new}|')} {path}; {restart('slurmd')}"
        )
        mend = f"test ! -e {path}.kept || mv {path}.kept {path}; {restart('slurmd')}"
        with ExitStack() as stack:
            for node in self.cluster.compute:
                stack.enter_context(self.done(node, change, mend))
            self.settle()
            yield

    def settle(self) -> None:
        """Wait until Slurm uses all nodes again."""
        until = time.monotonic() + SETTLE_SECONDS
        state = "slurmctld does not answer"
        while time.monotonic() < until:
            try:
                nodes = Slurm(self._ssh).nodes()
            except CommandFailed:
                time.sleep(0.5)
                continue
            state = ", ".join(f"{name} {node.state}" for name, node in nodes.items())
            if all(node.state in {"idle", "drained", "draining"} for node in nodes.values()):
                return
            time.sleep(0.3)
        raise AssertionError(f"after {SETTLE_SECONDS} s: {state}")


def restart(unit: str) -> str:
    """The command line that restarts ``unit``, however often that was done just now."""
    return f"systemctl reset-failed {unit}; systemctl restart {unit}"


Sabotage = Callable[[Hands], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Broken like this, the check says that."""

    check: str
    sabotage: Sabotage
    says: str
    id: str


def stopped(unit: str, node: Callable[[Hands], Node]) -> Sabotage:
    return lambda hands: hands.done(node(hands), f"systemctl stop {unit}", restart(unit))


def second(hands: Hands) -> Node:
    return hands.second


def other_munge_key(hands: Hands) -> AbstractContextManager[None]:
    key = "/etc/munge/munge.key"
    return hands.done(
        hands.second,
        f"cp -p {key} {key}.kept; head -c 1024 /dev/urandom > {key}; {restart('munge')}",
        f"mv {key}.kept {key}; {restart('munge')}; {restart('slurmd')}",
    )


def drained(hands: Hands) -> AbstractContextManager[None]:
    update = f"scontrol update nodename={hands.second.name}"
    return hands.done(
        hands.controller, f"{update} state=drain reason=proof", f"{update} state=resume"
    )


def other_slurmd(hands: Hands) -> AbstractContextManager[None]:
    return hands.program(hands.second, "/usr/local/sbin/slurmd", "#!/bin/sh\necho slurm 99.1\n")


def late_clock(hands: Hands) -> AbstractContextManager[None]:
    text = "#!/bin/sh\nexec /usr/bin/date --date='10 seconds ago' \"$@\"\n"
    return hands.program(hands.second, "/usr/local/bin/date", text)


def folder_mode(mode: str) -> Sabotage:
    return lambda hands: hands.done(
        hands.second,
        f"chmod {mode} {hands.root}/custom-images",
        f"chmod 755 {hands.root}/custom-images",
    )


def folder_owner(hands: Hands) -> AbstractContextManager[None]:
    path = f"{hands.root}/base-images"
    return hands.done(hands.second, f"chown root:root {path}", f"chown root:slurm {path}")


def folder_gone(hands: Hands) -> AbstractContextManager[None]:
    path = f"{hands.root}/base-images"
    return hands.done(hands.second, f"mv {path} {path}.kept", f"mv {path}.kept {path}")


def unreadable_image(hands: Hands) -> AbstractContextManager[None]:
    path = f"{hands.root}/{IMAGE}"
    return hands.done(hands.second, f"chmod 600 {path}", f"chmod 644 {path}")


def stray_image(hands: Hands) -> AbstractContextManager[None]:
    path = f"{hands.root}/custom-images/stray.sif"
    return hands.done(hands.second, f"echo x > {path}", f"rm -f {path}")


def longer_image(hands: Hands) -> AbstractContextManager[None]:
    path = f"$(readlink -f {hands.root}/{IMAGE})"
    return hands.done(hands.second, f"printf x >> {path}", f"truncate --size=-1 {path}")


def removed_link(hands: Hands) -> AbstractContextManager[None]:
    path = f"{hands.root}/{IMAGE}"
    return hands.done(hands.second, f"mv {path} {path}.kept", f"mv {path}.kept {path}")


def apptainer(text: str) -> Sabotage:
    @contextmanager
    def replaced(hands: Hands) -> Iterator[None]:
        with ExitStack() as stack:
            for node in hands.cluster.compute:
                stack.enter_context(hands.program(node, "/usr/local/bin/apptainer", text))
            yield

    return replaced


def srun_without_gres(hands: Hands) -> AbstractContextManager[None]:
    return hands.program(hands.controller, "/usr/local/bin/srun", SRUN_WITHOUT_GRES)


def unconstrained(what: str) -> Sabotage:
    return lambda hands: hands.slurmd_with(rf"^\(Constrain{what}\)=yes", r"\1=no", CGROUP_CONF)


def fence_by_tree(hands: Hands) -> AbstractContextManager[None]:
    return hands.slurmd_with("^PMIxCollFence=ring", "PMIxCollFence=tree", MPI_CONF)


def closed_gpus(hands: Hands) -> AbstractContextManager[None]:
    return hands.done(hands.first, "chmod 000 /dev/nvidia?", "chmod 666 /dev/nvidia?")


def hidden_gpu(hands: Hands) -> AbstractContextManager[None]:
    return hands.done(hands.first, "mv /dev/nvidia1 /dev/kept", "mv /dev/kept /dev/nvidia1")


PROOFS = (
    Proof(
        check="infrastructure.nodes-answer",
        sabotage=stopped("ssh", second),
        says="does not answer",
        id="sshd stopped",
    ),
    Proof(
        check="infrastructure.clocks-agree",
        sabotage=late_clock,
        says="s ahead of compute-02's",
        id="clock ten seconds late",
    ),
    Proof(
        check="infrastructure.munge-credentials-cross-nodes",
        sabotage=stopped("munge", second),
        says="compute-02 makes no MUNGE credential",
        id="munge stopped",
    ),
    Proof(
        check="infrastructure.munge-credentials-cross-nodes",
        sabotage=other_munge_key,
        says="refuses the MUNGE credential",
        id="another key",
    ),
    Proof(
        check="infrastructure.controller-answers",
        sabotage=stopped("slurmctld", lambda hands: hands.controller),
        says="slurmctld on controller does not answer",
        id="slurmctld stopped",
    ),
    Proof(
        check="infrastructure.nodes-registered",
        sabotage=drained,
        says="compute-02 is drained",
        id="node drained",
    ),
    Proof(
        check="infrastructure.slurm-versions-equal",
        sabotage=other_slurmd,
        says="with 99.1 installed",
        id="another slurmd installed",
    ),
    Proof(
        check="infrastructure.pmix-fence-spans-nodes",
        sabotage=fence_by_tree,
        says="left the fence before rank 0 on compute-01 had come",
        id="PMIxCollFence=tree",
    ),
    Proof(
        check="cgroup-isolation.memory-is-limited",
        sabotage=unconstrained("[A-Za-z]*Space"),
        says="was not killed",
        id="ConstrainRAMSpace=no, ConstrainSwapSpace=no",
    ),
    Proof(
        check="cgroup-isolation.cores-are-limited",
        sabotage=unconstrained("Cores"),
        says="moved to",
        id="ConstrainCores=no",
    ),
    Proof(
        check="cgroup-isolation.allocated-gpu-opens",
        sabotage=closed_gpus,
        says="cannot open its own GPU: /dev/nvidia0: EACCES",
        id="device mode 000",
    ),
    Proof(
        check="cgroup-isolation.other-gpus-stay-closed",
        sabotage=unconstrained("Devices"),
        says="got at a GPU of others: /dev/nvidia1",
        id="ConstrainDevices=no",
    ),
    Proof(
        check="gpu-resources.counts-match",
        sabotage=hidden_gpu,
        says="compute-01 has 1 GPU devices instead of 2",
        id="device file gone",
    ),
    Proof(
        check="gpu-resources.one-gpu-is-one-device",
        sabotage=srun_without_gres,
        says="sees 0 devices",
        id="request ignored",
    ),
    Proof(
        check="gpu-resources.too-many-gpus-are-refused",
        sabotage=srun_without_gres,
        says="ran, but no node has so many",
        id="request ignored",
    ),
    Proof(
        check="registry.folders-as-provisioned",
        sabotage=folder_mode("775"),
        says="custom-images is 775 root:slurm",
        id="mode",
    ),
    Proof(
        check="registry.folders-as-provisioned",
        sabotage=folder_owner,
        says="base-images is 755 root:root",
        id="group",
    ),
    Proof(
        check="registry.folders-as-provisioned",
        sabotage=folder_gone,
        says="base-images is missing",
        id="folder gone",
    ),
    Proof(
        check="registry.users-read-images",
        sabotage=unreadable_image,
        says="cannot read compute-02: ",
        id="mode 600",
    ),
    Proof(
        check="registry.users-cannot-write",
        sabotage=folder_mode("777"),
        says="can write to compute-02: ",
        id="mode 777",
    ),
    Proof(
        check="registry.catalog-agrees",
        sabotage=stray_image,
        says="stray.sif is in no catalog",
        id="stray file",
    ),
    Proof(
        check="registry.catalog-agrees",
        sabotage=removed_link,
        says="hello-mpi.sif is missing",
        id="file gone",
    ),
    Proof(
        check="registry.copies-equal",
        sabotage=longer_image,
        says="custom-images/hello-mpi differs: ",
        id="one byte more",
    ),
    Proof(
        check="compatibility.images-start-as-predicted",
        sabotage=apptainer(APPTAINER_BROKEN),
        says="was predicted to work, and does not",
        id="a container that does not mount",
    ),
    Proof(
        check="compatibility.mpi-starts-as-predicted",
        sabotage=apptainer(APPTAINER_ALONE),
        says="was predicted to work, and does not: 2 ranks do not know each other",
        id="predicted ranks that do not meet",
    ),
    Proof(
        check="mpi-job.four-ranks-on-two-nodes",
        sabotage=apptainer(APPTAINER_OUTSIDE),
        says="runs in no container",
        id="outside the container",
    ),
    Proof(
        check="mpi-job.four-ranks-on-two-nodes",
        sabotage=apptainer(APPTAINER_ALONE),
        says="ranks [0, 0, 0, 0] instead of 0 to 3",
        id="without MPI",
    ),
    Proof(
        check="mpi-job.four-ranks-on-two-nodes",
        sabotage=drained,
        says="srun ended with status 1",
        id="one node short",
    ),
    Proof(
        check="training-job.one-model-on-two-nodes",
        sabotage=apptainer(APPTAINER_APART),
        says="processes [0, 0, 0, 0] instead of 0 to 3",
        id="each for itself",
    ),
    Proof(
        check="training-job.one-model-on-two-nodes",
        sabotage=apptainer(APPTAINER_LAZY),
        says="the loss went from",
        id="learning rate 0",
    ),
)
# Those whose image takes minutes and gigabytes.
BIG = {training_job.SUITE: "pytorch"}


@pytest.fixture(scope="module")
def hands(cluster: Cluster, context: Context) -> Iterator[Hands]:
    with Ssh(cluster, context.runner) as ssh:
        yield Hands(ssh)


def judge(cluster: Cluster, context: Context, names: Sequence[str] = ()) -> list[CheckResult]:
    return list(validate(cluster, context, checks=names))


def test_every_check_has_a_proof() -> None:
    assert {proof.check for proof in PROOFS} == {check.key for check in known()}


def test_a_healthy_cluster_passes_every_check(cluster: Cluster, context: Context) -> None:
    results = judge(cluster, context)

    # The suites of big images have tests of their own.
    others = [
        item for item in results if item.status is not Status.PASSED and item.suite not in BIG
    ]
    assert others == []
    assert len(results) == len(known())


def parameters() -> Iterator[Any]:
    for proof in PROOFS:
        marks = [pytest.mark.big] if proof.check.partition(".")[0] in BIG else []
        yield pytest.param(proof, id=f"{proof.check}: {proof.id}", marks=marks)


@pytest.mark.parametrize("proof", list(parameters()))
def test_a_broken_thing_turns_its_check_red(
    proof: Proof,
    cluster: Cluster,
    context: Context,
    hands: Hands,
    request: pytest.FixtureRequest,
) -> None:
    if needed := BIG.get(proof.check.partition(".")[0]):
        request.getfixturevalue(needed)
    with proof.sabotage(hands):
        (broken,) = judge(cluster, context, [proof.check])
    (mended,) = judge(cluster, context, [proof.check])

    assert (broken.status, proof.says in broken.message) == (Status.FAILED, True), broken.message
    assert mended.status is Status.PASSED, mended.message
