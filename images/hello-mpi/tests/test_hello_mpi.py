"""What hello-mpi promises: ranks that talk, and the MPI and PMIx that its cluster must fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.imagetests import Container, Ran

FIELD = re.compile(r"(\w+)=(\S*)")


def mpirun(container: Container, ranks: int, *argv: str) -> Ran:
    """Start ranks in one container; as root, which Open MPI wants to be asked for."""
    return container.run(
        ["mpirun", "-n", str(ranks), "--oversubscribe", *argv],
        env={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )


def lines(ran: Ran) -> list[dict[str, str]]:
    found = [dict(FIELD.findall(line)) for line in ran.stdout.splitlines()]
    return sorted(found, key=lambda fields: int(fields["rank"]))


def test_four_ranks_add_up_their_numbers(container: Container) -> None:
    ran = mpirun(container, 4, "hello-mpi", "--ranks", "4")
    assert ran.returncode == 0, ran.stderr
    assert [
        (int(fields["rank"]), int(fields["size"]), int(fields["sum"]), int(fields["expected"]))
        for fields in lines(ran)
    ] == [(0, 4, 6, 6), (1, 4, 6, 6), (2, 4, 6, 6), (3, 4, 6, 6)]


def test_each_rank_says_which_system_it_sees(container: Container) -> None:
    (fields,) = lines(container.run(["hello-mpi"]))
    assert fields["os"] == "debian-12"


def test_it_says_whether_it_runs_in_apptainer(container: Container) -> None:
    (fields,) = lines(container.run(["hello-mpi"]))
    if container.runtime == "apptainer":
        assert fields["container"].endswith("/hello-mpi.sif")
    else:
        assert fields["container"] == "none"


def test_one_rank_fails_where_four_were_asked_for(container: Container) -> None:
    ran = container.run(["hello-mpi", "--ranks", "4"])
    assert ran.returncode == 1
    assert ran.stderr.strip() == "hello-mpi: rank 0 sees 1 ranks, not 4"


@pytest.mark.parametrize(
    "words", [["--ranks"], ["--ranks", "0"], ["--ranks", "4x"], ["--ranks", "-1"], ["four"]]
)
def test_wrong_usage_is_refused(container: Container, words: list[str]) -> None:
    ran = container.run(["hello-mpi", *words])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: hello-mpi")


def test_it_explains_itself(container: Container) -> None:
    ran = container.run(["hello-mpi", "--help"])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage: hello-mpi")


def test_it_runs_as_a_user_the_image_does_not_know(container: Container) -> None:
    ran = container.run(
        ["mpirun", "-n", "2", "--oversubscribe", "hello-mpi", "--ranks", "2"], user="12345:12345"
    )
    assert (ran.returncode, len(lines(ran))) == (0, 2), ran.stderr


def test_open_mpi_is_4_1_4(container: Container) -> None:
    found = container.run(["ompi_info", "--version"])
    assert found.stdout.splitlines()[0] == "Open MPI v4.1.4"


def test_open_mpi_uses_the_pmix_4_2_2_of_the_distribution(container: Container) -> None:
    version = container.run(["dpkg-query", "--show", "--showformat=${Version}", "libpmix2"])
    assert version.stdout.startswith("4.2.2-")
    component = container.run(["find", "/usr/lib", "-name", "mca_pmix_ext3x.so"]).stdout.strip()
    needed = container.run(["ldd", component]).stdout
    assert re.search(r"libpmix\.so\.2 => /\S*/libpmix\.so\.2 ", needed), needed


def test_no_library_of_the_program_or_of_open_mpi_is_missing(container: Container) -> None:
    found = container.run(
        [
            "sh",
            "-c",
            "find /usr/lib -path '*/openmpi3/*.so' -exec ldd /usr/local/bin/hello-mpi {} +",
        ]
    )
    assert "libmpi.so.40 =>" in found.stdout
    assert [line for line in found.stdout.splitlines() if "not found" in line] == []


def test_ranks_do_not_try_to_read_each_others_memory(container: Container) -> None:
    found = container.run(["printenv", "OMPI_MCA_btl_vader_single_copy_mechanism"])
    assert found.stdout.strip() == "none"


@pytest.mark.style
def test_nothing_to_compile_with_is_left(container: Container) -> None:
    script = 'for tool; do command -v "$tool"; done; true'
    found = container.run(["sh", "-c", script, "sh", "ls", "gcc", "ld", "make"])
    assert [Path(line).name for line in found.stdout.splitlines()] == ["ls"]
