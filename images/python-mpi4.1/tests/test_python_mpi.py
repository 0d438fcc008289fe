"""What python-mpi4.1 promises: its distribution's Python, ranks that talk, any user."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.imagetests import Container, run_as_root, run_file
from sifline.imagetests.python import installed, locked, printed, python

FOLDER = Path(__file__).parents[1]

# Which Python the distributions have; the image takes theirs.
PYTHONS = {"bookworm": "3.11", "jammy": "3.10"}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def test_python_is_that_of_the_distribution(container: Container) -> None:
    release = container.run(["cat", "/etc/os-release"]).stdout
    found = re.search(r"^VERSION_CODENAME=(\S+)$", release, re.MULTILINE)
    assert found, release
    version = printed(python(container, "import sys; print(list(sys.version_info[:2]))"))
    assert ".".join(map(str, version)) == PYTHONS[found[1]]


def test_mpi4py_is_the_locked_release(container: Container) -> None:
    found, wanted = installed(container), locked(container, [FOLDER / "mpi4py.lock"])
    assert {name: found.get(name) for name in wanted} == wanted


def test_mpi4py_uses_the_images_open_mpi(container: Container) -> None:
    source = """
import json
from mpi4py import MPI
libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libmpi.so" in line}
print(json.dumps([MPI.Get_library_version().split(",")[0], sorted(libraries)]))
"""
    version, libraries = printed(python(container, source))
    assert version == "Open MPI v4.1.4"
    assert [Path(path).parent.as_posix() for path in libraries] == ["/usr/local/lib"]


def test_mpi4py_moves_arrays_and_objects(container: Container) -> None:
    program = """
import json, sys
from array import array
from mpi4py import MPI
world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
mine, total = array("d", [rank + 1.0] * 1000), array("d", [0.0] * 1000)
world.Allreduce(mine, total, op=MPI.SUM)
part = world.scatter([[n, n * n] for n in range(size)] if rank == 0 else None)
back = world.gather(sum(part), root=size - 1)
got = world.sendrecv({"from": rank}, dest=(rank + 1) % size, source=(rank - 1) % size)
if rank == size - 1:
    sys.stdout.write(json.dumps([sorted(set(total)), back, got]) + "\\n")
"""
    ran = run_file(
        container,
        program,
        ["mpirun", "-n", "4", "--oversubscribe", "python3"],
        name="ranks.py",
        env=AS_ROOT,
    )
    assert printed(ran) == [[10.0], [0, 2, 6, 12], {"from": 2}]


def test_its_user_is_an_ordinary_one(container: Container) -> None:
    if container.runtime == "apptainer":
        pytest.skip("Apptainer runs commands as the caller, not as the image's user")
    found = container.run(["sh", "-c", 'id --user --name; echo "$HOME"; pwd'])
    assert found.stdout.split() == ["user", "/home/user", "/workspace"]


def test_the_entrypoint_gives_an_unknown_user_a_home_and_a_name(container: Container) -> None:
    ran = container.run(
        [
            "entrypoint",
            "python3",
            "-c",
            "import getpass, os; print(getpass.getuser());"
            " open(os.path.expanduser('~/here'), 'w'); print(os.environ['HOME'])",
        ],
        user="12345:12345",
        env={"HOME": "/"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["uid12345", "/tmp/home-12345"]


@pytest.mark.style
def test_no_cache_of_pip_is_left(container: Container) -> None:
    # What is there in any case shows that the search was made.
    known, cache = ["-path", "/etc/os-release"], ["-path", "*/.cache/pip", "-not", "-empty"]
    found = run_as_root(container, ["find", "/", "-xdev", *known, "-o", *cache])
    assert found.stdout == "/etc/os-release\n", found.stderr
