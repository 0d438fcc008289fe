"""What base-mpi4.1 promises, and every image built on it: one MPI, which talks and adds up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.imagetests import Container, Ran

# The unused arguments of a program's name and its rank; the checks say what went wrong and where.
PROGRAM = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(what, is, should) \
    if ((is) != (should)) { \
        fprintf(stderr, "rank %d: %s is %ld, not %ld\n", rank, what, (long)(is), (long)(should)); \
        MPI_Abort(MPI_COMM_WORLD, 1); \
    }

int main(int argc, char **argv) {
    int rank, size, ring, sum, product, least, most, here, block[2];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    EXPECT("size", size, 4)

    /* Point to point: each rank hands its square on to the next. */
    int mine = rank * rank, before = (rank + size - 1) % size;
    MPI_Sendrecv(&mine, 1, MPI_INT, (rank + 1) % size, 7, &ring, 1, MPI_INT, before, 7,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    EXPECT("what the rank before sent", ring, before * before)

    /* A message larger than any eager limit takes another way. */
    const int many = 1 << 20;
    int *large = malloc(many * sizeof *large), *got = malloc(many * sizeof *got);
    for (int i = 0; i < many; i++) large[i] = i ^ rank;
    MPI_Sendrecv(large, many, MPI_INT, (rank + 1) % size, 8, got, many, MPI_INT, before, 8,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 0; i < many; i++) EXPECT("a number of the large message", got[i], i ^ before)

    /* Who does not know how long a message is asks first, as mpi4py does. */
    MPI_Message message;
    MPI_Status status;
    MPI_Request request;
    int length, words[3] = {rank, rank + 1, rank + 2};
    MPI_Isend(words, 3, MPI_INT, (rank + 1) % size, 9, MPI_COMM_WORLD, &request);
    MPI_Mprobe(before, 9, MPI_COMM_WORLD, &message, &status);
    MPI_Get_count(&status, MPI_INT, &length);
    EXPECT("the length of the message", length, 3)
    MPI_Mrecv(words, 3, MPI_INT, &message, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    EXPECT("the message that was asked about", words[2], before + 2)

    int number = rank + 1;
    MPI_Allreduce(&number, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    EXPECT("sum", sum, 10)
    MPI_Allreduce(&number, &product, 1, MPI_INT, MPI_PROD, MPI_COMM_WORLD);
    EXPECT("product", product, 24)
    MPI_Allreduce(&number, &least, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    EXPECT("least", least, 1)
    MPI_Allreduce(&number, &most, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    EXPECT("most", most, 4)

    here = rank == 2 ? 4711 : 0;
    MPI_Bcast(&here, 1, MPI_INT, 2, MPI_COMM_WORLD);
    EXPECT("what rank 2 said to all", here, 4711)

    int all[8] = {10, 11, 20, 21, 30, 31, 40, 41}, back[8];
    if (rank != 1) memset(all, 0, sizeof all);
    MPI_Scatter(all, 2, MPI_INT, block, 2, MPI_INT, 1, MPI_COMM_WORLD);
    EXPECT("the first of the block", block[0], 10 * (rank + 1))
    EXPECT("the second of the block", block[1], 10 * (rank + 1) + 1)
    block[0] += 1, block[1] += 1;
    MPI_Gather(block, 2, MPI_INT, back, 2, MPI_INT, 3, MPI_COMM_WORLD);
    for (int i = 0; rank == 3 && i < 8; i++)
        EXPECT("what was gathered", back[i], 10 * (i / 2 + 1) + i % 2 + 1)

    int to[4], from[4];
    for (int i = 0; i < 4; i++) to[i] = 100 * rank + i;
    MPI_Alltoall(to, 1, MPI_INT, from, 1, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < 4; i++) EXPECT("what came from each", from[i], 100 * i + rank)

    MPI_Barrier(MPI_COMM_WORLD);
    printf("rank %d is right\n", rank);
    MPI_Finalize();
    return 0;
}
"""

FORTRAN = """
program answer
  use mpi_f08
  integer :: rank, total
  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Allreduce(rank, total, 1, MPI_INTEGER, MPI_SUM, MPI_COMM_WORLD)
  if (rank == 0) print '(A,I0)', 'sum ', total
  call MPI_Finalize()
end program
"""


def run_program(container: Container, compiler: str, source: str, ending: str, ranks: int) -> Ran:
    """Compile ``source`` in a folder of its own and run it; one container may live that long."""
    script = (
        'folder="$(mktemp -d)" && cd "$folder" && printf "%s" "$1" > "program.$2"'
        ' && "$3" -O1 -o program "program.$2"'
        ' && mpirun -n "$4" --oversubscribe ./program; status=$?; rm -r "$folder"; exit $status'
    )
    return container.run(
        ["bash", "-c", script, "bash", source, ending, compiler, str(ranks)],
        env={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )


def ompi_info(container: Container) -> dict[str, list[str]]:
    """Return what ``ompi_info --parsable`` prints, values by key."""
    ran = container.run(["ompi_info", "--all", "--parsable"])
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[str]] = {}
    for line in ran.stdout.splitlines():
        key, _, value = line.rpartition(":")
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def info(container: Container) -> dict[str, list[str]]:
    return ompi_info(container)


def test_open_mpi_is_4_1_4(info: dict[str, list[str]]) -> None:
    assert info["ompi:version:full"] == ["4.1.4"]


def test_it_was_built_with_cuda(info: dict[str, list[str]]) -> None:
    assert info["mca:mpi:base:param:mpi_built_with_cuda_support:value"] == ["true"]


def test_programs_can_ask_whether_it_was_built_with_cuda(container: Container) -> None:
    source = (
        "#include <mpi.h>\n#include <mpi-ext.h>\n#include <stdio.h>\n"
        'int main(void) { printf("built %d\\n", MPIX_CUDA_AWARE_SUPPORT); return 0; }\n'
    )
    ran = run_program(container, "mpicc", source, "c", 1)
    assert (ran.returncode, ran.stdout) == (0, "built 1\n"), ran.stderr


def test_pmix_is_the_distributions(container: Container, info: dict[str, list[str]]) -> None:
    assert any(key.startswith("mca:pmix:ext3x:") for key in info)
    (component,) = container.run(
        ["find", "/usr/local/lib", "-name", "mca_pmix_ext3x.so"]
    ).stdout.split()
    needed = container.run(["ldd", component]).stdout
    assert re.search(r"libpmix\.so\.2 => /(usr/)?lib/\S*/libpmix\.so\.2 ", needed), needed


def test_pmix_is_of_a_generation_that_slurm_speaks(container: Container) -> None:
    version = container.run(
        ["dpkg-query", "--show", "--showformat=${source:Upstream-Version}", "libpmix2"]
    ).stdout
    major = int(version.partition(".")[0])
    assert major in {4, 5}, version


@pytest.mark.parametrize("component", ["mca:pml:ucx:", "mca:mtl:ofi:", "mca:btl:smcuda:"])
def test_fast_networks_and_gpus_have_their_components(
    info: dict[str, list[str]], component: str
) -> None:
    assert any(key.startswith(component) for key in info)


def test_no_library_of_open_mpi_is_missing(container: Container) -> None:
    """A component that cannot be loaded is left out by Open MPI without a word."""
    ran = container.run(
        ["bash", "-c", "find /usr/local/lib -name '*.so*' -type f -exec ldd {} + 2>&1"]
    )
    assert "libpmix.so.2 =>" in ran.stdout
    assert [line.strip() for line in ran.stdout.splitlines() if "not found" in line] == []


def test_infiniband_has_its_providers(container: Container) -> None:
    """Without them UCX and NCCL take TCP, and nobody notices but by the time it takes."""
    found = container.run(
        ["bash", "-c", "ldconfig -p; find / -xdev -name 'libmlx5-rdma*.so' 2> /dev/null"]
    ).stdout
    for library in ("libibverbs.so.1", "librdmacm.so.1", "libucp.so.0", "libfabric.so.1"):
        assert f"{library} " in found
    assert "libmlx5-rdma" in found


def test_ucx_can_use_infiniband(container: Container) -> None:
    modules = container.run(["bash", "-c", "ldd /usr/lib/*/ucx/libuct_ib.so.0"])
    assert modules.returncode == 0, modules.stderr
    assert "libibverbs.so.1 => /" in modules.stdout
    assert "not found" not in modules.stdout


def test_there_is_one_mpi(container: Container) -> None:
    found = container.run(
        ["bash", "-c", "find / -xdev -name 'libmpi*.so*' -type f 2> /dev/null; exit 0"]
    ).stdout.split()
    assert found
    assert {re.sub(r"/libmpi[^/]*$", "", path) for path in found} == {"/usr/local/lib"}
    others = container.run(
        ["bash", "-c", "find / -xdev \\( -name 'libmpich*' -o -name mpirun -o -name mpiexec \\)"]
    ).stdout.split()
    assert sorted(others) == ["/usr/local/bin/mpiexec", "/usr/local/bin/mpirun"]


def test_four_ranks_talk_and_each_number_is_right(container: Container) -> None:
    ran = run_program(container, "mpicc", PROGRAM, "c", 4)
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.splitlines()) == [f"rank {n} is right" for n in range(4)]


def test_a_wrong_number_is_noticed(container: Container) -> None:
    """The program above can fail: three ranks are not the four that it expects."""
    ran = run_program(container, "mpicc", PROGRAM, "c", 3)
    assert ran.returncode != 0
    assert "size is 3, not 4" in ran.stderr


def test_it_compiles_cxx(container: Container) -> None:
    ran = run_program(container, "mpicxx", PROGRAM.replace("malloc(", "(int *)malloc("), "cc", 4)
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 4), ran.stderr


def test_it_compiles_fortran(container: Container) -> None:
    ran = run_program(container, "mpifort", FORTRAN, "f90", 3)
    assert (ran.returncode, ran.stdout.split()) == (0, ["sum", "3"]), ran.stderr


def test_it_says_nothing_on_a_host_without_gpu_and_infiniband(container: Container) -> None:
    if container.gpus or any(Path("/sys/class/infiniband").glob("*")):
        pytest.skip("the host has what its libraries may speak about: a GPU, or InfiniBand")
    ran = run_program(container, "mpicc", PROGRAM, "c", 4)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_ranks_do_not_try_to_read_each_others_memory(info: dict[str, list[str]]) -> None:
    key = "mca:btl:vader:param:btl_vader_single_copy_mechanism:value"
    assert info[key] == ["none"]


def test_a_caller_may_say_otherwise(container: Container) -> None:
    ran = container.run(
        ["ompi_info", "--param", "btl", "vader", "--level", "9", "--parsable"],
        env={"OMPI_MCA_btl_vader_single_copy_mechanism": "cma"},
    )
    assert "btl_vader_single_copy_mechanism:value:cma" in ran.stdout
