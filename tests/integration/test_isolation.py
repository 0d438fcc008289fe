"""Jobs that try to break out of what they were given, and what stays open to every job.

Each attempt is also made where it is allowed, so that a refusal is Slurm's and not the attempt's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import Cluster, GpuDevices, Node
from sifline.stages.provision import provision
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

LITTLE, MUCH = "--mem=100M", "--mem=800M"

# Ways to use 300 MiB.
HEAP = "b = bytearray(b'x') * (300 << 20); print('kept', len(b))"
CHILDREN = """
import os, time
read, write = os.pipe()
for _ in range(6):
    if os.fork() == 0:
        b = bytearray(b"x") * (50 << 20)
        os.write(write, b".")
        time.sleep(5)  # all at once
        os._exit(0)
os.close(write)
got = 0
# The end of the pipe: each child has written, or is gone.
while block := os.read(read, 6):
    got += len(block)
print("kept" if got == 6 else "only", got)
"""
SHARED = """
import os
path = f"/dev/shm/isolation-{os.getpid()}"
try:
    with open(path, "wb") as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    print("kept", os.path.getsize(path))
finally:
    os.unlink(path)
"""
# The kernel takes these pages back, so that a job may read as much as it likes.
CACHE = """
import os
path = f"/var/tmp/isolation-{os.getpid()}"
try:
    with open(path, "wb") as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
            file.flush()
            os.fdatasync(file.fileno())
    with open(path, "rb") as file:
        print("kept", sum(len(block) for block in iter(lambda: file.read(1 << 20), b"")))
finally:
    os.unlink(path)
"""

# How each device answers: 0, or the name of the error.
OPEN = """
import errno, json, os, sys
def opened(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
        return "opened"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps({path: opened(path) for path in sys.argv[1:]}))
"""
# Without a driver an allowed device has no other end.
ALLOWED, REFUSED = "ENXIO", "EPERM"

THREADS = """
import json, os, threading
seen = []
def move():
    try:
        os.sched_setaffinity(0, range(os.cpu_count()))
    except OSError:
        pass
    seen.append(sorted(os.sched_getaffinity(0)))
threads = [threading.Thread(target=move) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(seen))
"""

PRIVILEGES = """
import json
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([status[key].strip() for key in ("NoNewPrivs", "CapPrm", "CapEff")]))
"""


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.compute[0]


def srun(ssh: Ssh, node: Node, options: list[str], argv: list[str]) -> Result:
    """Run a job of alice on one node."""
    words = ["srun", "--immediate=60", "--time=2", f"--nodelist={node.name}", "--ntasks=1"]
    return ssh.run(
        ssh.cluster.controller, [*words, *options, *argv], user="alice", check=False, timeout=180
    )


def python(ssh: Ssh, node: Node, options: list[str], source: str, *words: str) -> Result:
    return srun(ssh, node, options, ["python3", "-c", source, *words])


def answer(ran: Result) -> Any:
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("source", [HEAP, CHILDREN], ids=["heap", "children"])
def test_memory_beyond_what_was_asked_for_ends_the_job(ssh: Ssh, node: Node, source: str) -> None:
    over = python(ssh, node, [LITTLE], source)
    assert "kept" not in over.stdout
    assert "oom" in over.stderr.lower() or "out of memory" in over.stderr.lower(), over.stderr
    assert "kept" in python(ssh, node, [MUCH], source).stdout


def test_files_in_shared_memory_count_too(ssh: Ssh, node: Node) -> None:
    """With cgroups of version 1 the kernel may kill slurmstepd as well: then the job hangs.

    What it wrote cannot be taken back, so that everything in its cgroup is killed.
    """
    size = ["sh", "-c", "cat /dev/shm/isolation-* | wc -c"]
    words = ["srun", "--time=2", f"--nodelist={node.name}", "--ntasks=1", LITTLE, "python3", "-c"]
    try:
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(
                ssh.run, ssh.cluster.controller, [*words, SHARED], user="alice", check=False
            )
            until(
                lambda: job.done() or int(ssh.run(node, size, sudo=True).stdout) > 90 << 20,
                "a full /dev/shm, or the end of the job",
            )
            ssh.run(ssh.cluster.controller, ["scancel", "--user=alice"], sudo=True)
        assert "kept" not in job.result().stdout
        assert int(ssh.run(node, size, sudo=True).stdout) <= 100 << 20
        ssh.run(node, ["sh", "-c", "rm -f /dev/shm/isolation-*"], sudo=True)
        assert "kept" in python(ssh, node, [MUCH], SHARED).stdout
    finally:
        ssh.run(node, ["sh", "-c", "rm -f /dev/shm/isolation-*"], sudo=True)


def test_reading_and_writing_large_files_does_not_end_a_small_job(ssh: Ssh, node: Node) -> None:
    ran = python(ssh, node, [LITTLE], CACHE)
    assert ran.stdout.strip() == f"kept {300 << 20}", ran.stderr


def test_swap_is_no_memory_on_top(ssh: Ssh, node: Node) -> None:
    if len(ssh.run(node, ["cat", "/proc/swaps"]).stdout.splitlines()) == 1:
        pytest.skip("this host has no swap")
    over = python(ssh, node, [LITTLE], HEAP)
    assert "kept" not in over.stdout


def test_threads_stay_on_the_cores_of_their_job(ssh: Ssh, node: Node) -> None:
    one = answer(python(ssh, node, ["--cpus-per-task=1"], THREADS))
    assert len({tuple(cores) for cores in one}) == 1
    assert len(one[0]) == 1
    two = answer(python(ssh, node, ["--cpus-per-task=2"], THREADS))
    assert {len(cores) for cores in two} == {2}


def test_a_job_cannot_leave_its_cgroup(ssh: Ssh, node: Node) -> None:
    leave = (
        "find /sys/fs/cgroup /cgroup -name cgroup.procs 2> /dev/null | while read -r file;"
        " do if echo $$ > $file; then echo left by $file; fi; done; cat /proc/self/cgroup"
    )
    ran = srun(ssh, node, [], ["sh", "-c", leave])
    assert "ermission denied" in ran.stderr
    assert "left" not in ran.stdout
    assert "job_" in ran.stdout, ran.stderr


# Devices: each compute node has two GPUs


def test_two_jobs_at_once_have_disjoint_gpus(ssh: Ssh, node: Node) -> None:
    wait = "touch /var/tmp/$SLURM_JOB_ID.here; until test $(ls /var/tmp/*.here | wc -l) = 2;"
    meet = f'{wait} do sleep 0.1; done; exec python3 -c "$0" "$@"'
    both = ["/dev/nvidia0", "/dev/nvidia1"]
    job = ["sh", "-c", meet, OPEN, *both]
    options = ["--gpus=1", "--cpus-per-task=1", LITTLE]
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(srun, ssh, node, options, job) for _ in range(2)]
        found = [answer(done.result()) for done in jobs]
    finally:
        ssh.run(node, ["sh", "-c", "rm -f /var/tmp/*.here"], sudo=True)
    assert sorted(found[0].values()) == sorted([ALLOWED, REFUSED])
    assert {path: ALLOWED if seen == REFUSED else REFUSED for path, seen in found[0].items()} == (
        found[1]
    )


def test_a_job_without_gpus_opens_none(ssh: Ssh, node: Node) -> None:
    both = ["/dev/nvidia0", "/dev/nvidia1"]
    assert set(answer(python(ssh, node, [], OPEN, *both)).values()) == {REFUSED}
    assert set(answer(python(ssh, node, ["--gpus=2"], OPEN, *both)).values()) == {ALLOWED}


def test_a_later_step_and_one_beside_it_have_the_devices_of_the_job(ssh: Ssh, node: Node) -> None:
    """Also after a step ended, for its cgroup goes with it, and over ``srun --overlap``."""
    program = "/dev/nvidia0 /dev/nvidia1"
    script = f"""#!/bin/sh
cat > job.py << 'END'
{OPEN}
END
srun --ntasks=1 true
srun --ntasks=1 --overlap python3 job.py {program}
sleep 60 &
srun --ntasks=1 --overlap sleep 5 &
srun --ntasks=1 --overlap python3 job.py {program}
srun --ntasks=1 --overlap --gpus=0 python3 job.py {program}
"""
    options = ["--parsable", "--wait", "--time=2", "--gpus=1", f"--nodelist={node.name}"]
    out = f"/var/tmp/steps-{node.name}"
    words = ["sbatch", *options, "--chdir=/var/tmp", f"--output={out}"]
    ssh.run(ssh.cluster.controller, words, user="alice", input=script, check=False, timeout=180)
    text = ssh.run(node, ["cat", out], sudo=True).stdout
    ssh.run(node, ["rm", "-f", out, "/var/tmp/job.py"], sudo=True)
    seen = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(seen) == 3, text
    assert sorted(seen[0].values()) == sorted([ALLOWED, REFUSED])
    assert seen[1] == seen[0]
    assert set(seen[2].values()) == {REFUSED}


def test_a_sif_with_nv_opens_what_its_job_was_given(
    cluster: Cluster, ssh: Ssh, node: Node
) -> None:
    find = ["find", str(cluster.registry_root), "-name", "hello-mpi.sif"]
    (image,) = ssh.run(node, find, sudo=True).stdout.split()
    show = "for gpu in 0 1; do if : 2>&1 < /dev/nvidia$gpu; then echo opened; fi; done 2>&1"
    ran = srun(ssh, node, ["--gpus=1"], ["apptainer", "exec", "--nv", image, "bash", "-c", show])
    assert ran.stdout.count("No such device or address") == 1, ran.stdout + ran.stderr
    assert ran.stdout.count("Operation not permitted") == 1, ran.stdout + ran.stderr


def test_a_job_makes_no_device(ssh: Ssh, node: Node) -> None:
    make = "mknod /var/tmp/made c 195 1 && echo made; mknod /var/tmp/disk b 8 0 && echo made"
    ran = srun(ssh, node, [], ["sh", "-c", f"{make}; exit 0"])
    assert "made" not in ran.stdout
    assert ran.stderr.count("Operation not permitted") == 2, ran.stderr
    inside = f"unshare --user --map-root-user sh -c '{make}'; exit 0"
    ran = srun(ssh, node, [], ["sh", "-c", inside])
    assert "made" not in ran.stdout
    assert ran.stderr.count("Operation not permitted") == 2, ran.stderr


@pytest.mark.parametrize("options", [[], ["--gpus=1"]], ids=["none", "one GPU"])
def test_what_every_job_needs_stays_open(ssh: Ssh, node: Node, options: list[str]) -> None:
    needed = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fuse"]
    seen = answer(python(ssh, node, options, OPEN, *(f"/dev/{name}" for name in needed)))
    # A job without a terminal has no /dev/tty, which is another error than a refusal.
    assert {name: seen[f"/dev/{name}"] for name in needed if name not in ("tty", "random")} == {
        name: "opened" for name in needed if name not in ("tty", "random")
    }
    assert seen["/dev/tty"] == "ENXIO"
    assert seen["/dev/random"] == "opened"
    write = "import pty, tempfile; pty.openpty(); tempfile.TemporaryFile(dir='/dev/shm')"
    assert python(ssh, node, options, write).returncode == 0


# Privileges


def test_a_program_of_root_in_a_sif_gives_no_privileges(
    cluster: Cluster, ssh: Ssh, node: Node
) -> None:
    find = ["find", str(cluster.registry_root), "-name", "hello-mpi.sif"]
    (image,) = ssh.run(node, find, sudo=True).stdout.split()
    ask = "grep -E 'NoNewPrivs|CapEff' /proc/self/status; find /usr/bin -perm -4000 | wc -l"
    inside = f"{ask}; su -c id; true"
    ran = srun(ssh, node, [], ["apptainer", "exec", image, "bash", "-c", inside])
    assert "NoNewPrivs:\t1" in ran.stdout, ran.stderr
    assert "CapEff:\t0000000000000000" in ran.stdout
    # There are such programs in it, so that there was something to refuse.
    assert int(ran.stdout.splitlines()[2]) > 0
    assert "uid=0" not in ran.stdout


def test_a_job_has_no_capabilities(ssh: Ssh, node: Node) -> None:
    _, permitted, effective = answer(python(ssh, node, [], PRIVILEGES))
    assert (int(permitted, 16), int(effective, 16)) == (0, 0)
    whole = ssh.run(node, ["python3", "-c", PRIVILEGES], sudo=True).stdout
    assert int(json.loads(whole)[1], 16) > 0


def test_nothing_of_a_job_outlives_it(ssh: Ssh, node: Node) -> None:
    leave = "setsid sh -c 'trap \"\" TERM HUP; sleep 4321' > /dev/null 2>&1 & echo left"
    assert "left" in srun(ssh, node, [], ["sh", "-c", leave]).stdout
    running = ["pgrep", "--uid", "alice", "--full", "sleep 4321"]
    until(lambda: not ssh.run(node, running, check=False).ok, "the end of all its processes")


# A /tmp of its own for each job

# The kernel numbers all kinds of namespaces alike; Linux 6.18 gives each CPU 4096 numbers at once.
USE_UP = """
import ctypes, os
for cpu in os.sched_getaffinity(0) if CPU is None else [CPU]:
    os.sched_setaffinity(0, {cpu})
    for _ in range(4200):
        ctypes.CDLL(None).unshare(0x04000000)
"""
SPOOL = "/var/tmp/private"


@pytest.fixture
def private(cluster: Cluster, context: Context) -> Iterator[Cluster]:
    """The cluster as it is to be, with a /tmp for each job; it is as before in the end."""
    variables = (*cluster.variables, ("slurm_common_private_tmp", SPOOL))
    yield dataclasses.replace(cluster, variables=variables)
    provision(cluster, context)


def use_up(ssh: Ssh, node: Node, cpu: int | None) -> None:
    """Use up the numbers of namespaces that one CPU of a node has left, or that each has."""
    source = USE_UP.replace("CPU", str(cpu))
    ssh.run(node, ["python3", "-c", source], sudo=True)


def test_each_job_has_a_tmp_of_its_own_that_ends_with_it(
    private: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    for other in private.compute:
        use_up(ssh, other, None)
    provision(private, context)
    ask = "ls -A /tmp /dev/shm; touch /tmp/mine /dev/shm/mine; ls -A /tmp /dev/shm"
    for _ in range(4):
        ran = srun(ssh, node, [], ["sh", "-c", ask])
        assert ran.stdout.split() == ["/dev/shm:", "/tmp:", "/dev/shm:", "mine", "/tmp:", "mine"]
    assert ssh.run(node, ["ls", "/tmp/mine"], check=False).returncode
    assert ssh.run(node, ["ls", "/dev/shm/mine"], check=False).returncode


def test_a_kernel_that_cannot_give_each_job_a_tmp_is_named_before_anything_is_changed(
    private: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    """Where slurmd has a mount namespace with a number that those of other CPUs do not reach."""
    cpus = [int(word) for word in ssh.run(node, ["python3", "-c", CPUS]).stdout.split()]
    before = ssh.run(node, ["cat", "/etc/slurm/slurm.conf"]).stdout
    folder = "/run/systemd/system/slurmd.service.d"
    started = f"/usr/bin/taskset --cpu-list {cpus[0]} /usr/bin/unshare --mount --propagation slave"
    program = f"/usr/bin/taskset --cpu-list {','.join(map(str, cpus))} /usr/sbin/slurmd --systemd"
    unit = f"[Service]\nExecStart=\nExecStart={started} {program}\n"
    restart = "systemctl daemon-reload; systemctl restart slurmd"
    use_up(ssh, node, cpus[0])
    try:
        write = f"mkdir -p {folder}; cat > {folder}/apart.conf; {restart}"
        ssh.run(node, ["sh", "-c", write], sudo=True, input=unit)
        if not has_numbers_by_cpu(ssh, node) or len(cpus) == 1:
            provision(private, context, check=True)
            return
        said = rf"{node.name}: .*kernel 6\.18\S* refuses to mount the mount namespace of a job"
        for check in (True, False):
            with pytest.raises(StepFailed, match=said) as caught:
                provision(private, context, check=check)
            assert f"CPU {', '.join(map(str, cpus[1:]))} (Invalid argument)" in str(caught.value)
        assert ssh.run(node, ["cat", "/etc/slurm/slurm.conf"]).stdout == before
        assert "sifline-namespace" not in ssh.run(node, ["cat", "/proc/mounts"]).stdout
    finally:
        mend = f"rm -f {folder}/apart.conf; {restart}"
        ssh.run(node, ["sh", "-c", mend], sudo=True)


CPUS = "import os; print(*sorted(os.sched_getaffinity(0)))"


def has_numbers_by_cpu(ssh: Ssh, node: Node) -> bool:
    return ssh.run(node, ["uname", "-r"]).stdout.startswith("6.18.")


# Several types of GPUs on a node, and shares of one


def test_a_job_gets_the_type_of_gpu_that_it_asks_for(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    devices = (
        GpuDevices(type="small", file="/dev/nvidia1"),
        GpuDevices(type="large", file="/dev/nvidia0"),
    )
    changed = dataclasses.replace(node, gpu_devices=devices, gpu_shards=4)
    nodes = tuple(changed if item is node else item for item in cluster.nodes)
    both = ["/dev/nvidia0", "/dev/nvidia1"]
    try:
        provision(dataclasses.replace(cluster, nodes=nodes), context)
        for name, device in (("small", both[1]), ("large", both[0])):
            seen = answer(python(ssh, node, [f"--gpus={name}:1"], OPEN, *both))
            assert seen == {path: ALLOWED if path == device else REFUSED for path in both}
        refused = srun(ssh, node, ["--gpus=small:2"], ["true"])
        assert "Requested node configuration is not available" in refused.stderr
        shares = srun(ssh, node, ["--gres=shard:1"], ["printenv", "CUDA_VISIBLE_DEVICES"])
        assert shares.stdout.strip() in {"0", "1"}, shares.stderr
    finally:
        provision(cluster, context)


def test_a_gpu_that_is_not_there_is_named_before_anything_is_changed(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    before = ssh.run(node, ["cat", "/etc/slurm/gres.conf"]).stdout
    more = dataclasses.replace(node, gpus=4)
    nodes = tuple(more if item is node else item for item in cluster.nodes)
    said = rf"{node.name}: .*/dev/nvidia2, /dev/nvidia3: not there, so slurmd would not start"
    with pytest.raises(StepFailed, match=said):
        provision(dataclasses.replace(cluster, nodes=nodes), context)
    assert ssh.run(node, ["cat", "/etc/slurm/gres.conf"]).stdout == before


def test_what_the_detection_of_gpus_lacks_is_named_before_anything_is_changed(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    """The nodes have no driver of NVIDIA."""
    before = ssh.run(node, ["cat", "/etc/slurm/gres.conf"]).stdout
    lacking = {"nvml": r"libnvidia-ml\.so\.1", "nvidia": "/proc/driver/nvidia/gpus"}
    for detect, lacks in lacking.items():
        found = dataclasses.replace(node, gpu_detect=detect)
        nodes = tuple(found if item is node else item for item in cluster.nodes)
        with pytest.raises(StepFailed, match=rf"{node.name}: .*{lacks}: not there, so slurmd"):
            provision(dataclasses.replace(cluster, nodes=nodes), context)
    assert ssh.run(node, ["cat", "/etc/slurm/gres.conf"]).stdout == before
