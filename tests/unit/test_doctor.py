from __future__ import annotations

from pathlib import Path

import pytest

from sifline.errors import MissingError
from sifline.machine.process import Result
from sifline.model import CheckResult, Status, Workspace
from sifline.stages import doctor
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

HEALTHY: dict[tuple[str, ...], Result | Exception | list[Result | Exception]] = {
    ("docker", "version"): answer("20.10.24+dfsg1\n"),
    ("docker", "buildx", "version"): answer("github.com/docker/buildx 0.13.1 0.13.1-3\n"),
    ("docker", "info"): answer("/\n"),
    ("docker", "image", "inspect"): answer("sha256:1\n"),
    ("docker", "run"): answer(),
    ("docker", "network", "inspect"): answer("bridge\n"),
}
NO_BRIDGE = "docker: Error response from daemon: no docker0\n\nRun 'docker run --help' for more\n"
TOOLS = {"docker", "mmdebstrap", "rsync", "ssh", "ssh-keygen", "ansible-playbook"}


def examine(runner: RecordingRunner, root: Path) -> dict[str, CheckResult]:
    return {result.name: result for result in doctor.doctor(context_of(root, runner))}


def test_a_healthy_machine_names_what_it_found(tmp_path: Path) -> None:
    results = examine(RecordingRunner(HEALTHY, tools=TOOLS), tmp_path)

    assert {result.suite for result in results.values()} == {"doctor"}
    assert results["engine"].message == "Docker engine 20.10.24+dfsg1"
    assert results["buildkit"].message == "buildx 0.13.1"
    assert results["rsync"].message == "/usr/bin/rsync"
    assert results["apptainer"].status is Status.PASSED


def test_a_machine_without_any_tool_fails_each_check_and_does_not_raise(tmp_path: Path) -> None:
    results = examine(RecordingRunner(tools=set()), tmp_path)

    failed = {name for name, result in results.items() if result.status is Status.FAILED}
    assert failed >= {"engine", "buildkit", "mmdebstrap", "rsync", "ssh", "ssh-keygen"}
    assert "scripts/bootstrap" in results["engine"].message
    assert "openssh-client" in results["ssh-keygen"].message
    assert results["engine disk"].status is Status.SKIPPED


def test_a_check_that_raises_is_a_failed_check(tmp_path: Path) -> None:
    broken = {**HEALTHY, ("docker", "version"): MissingError("docker went away")}

    results = examine(RecordingRunner(broken, tools=TOOLS), tmp_path)

    assert results["engine"].status is Status.FAILED
    assert results["engine"].message == "docker went away"


@pytest.mark.parametrize(
    ("tools", "status", "word"),
    [
        (TOOLS, Status.SKIPPED, "draws no SVG; run scripts"),
        ({"dot"}, Status.PASSED, "/usr/bin/dot"),
    ],
)
def test_only_pictures_need_graphviz(
    tmp_path: Path, tools: set[str], status: Status, word: str
) -> None:
    found = examine(RecordingRunner(HEALTHY, tools=tools), tmp_path)["graphviz"]

    assert (found.status, word in found.message) == (status, True), found


@pytest.mark.parametrize(
    ("answers", "failing"),
    [
        ([answer(), answer()], ""),
        ([answer(returncode=125, stderr=NO_BRIDGE), answer()], "bridge"),
        ([answer(), answer(returncode=125, stderr=NO_BRIDGE)], "none"),
    ],
)
def test_containers_are_started_with_and_without_a_network(
    tmp_path: Path, answers: list[Result | Exception], failing: str
) -> None:
    runner = RecordingRunner({**HEALTHY, ("docker", "run"): answers}, tools=TOOLS)

    found = examine(runner, tmp_path)["containers"]

    words = (
        f"none starts with --network {failing}: Error response from daemon: no docker0; restart"
    )
    assert found.status is (Status.FAILED if failing else Status.PASSED)
    assert found.message.startswith(words if failing else "they start")


def test_an_engine_without_a_bridge_builds_nothing_though_it_starts_containers(
    tmp_path: Path,
) -> None:
    gone = answer(returncode=1, stderr="Error: No such network: bridge\n")
    runner = RecordingRunner({**HEALTHY, ("docker", "network", "inspect"): gone}, tools=TOOLS)

    found = examine(runner, tmp_path)["containers"]

    assert found.status is Status.FAILED
    words = "build steps get no network: Error: No such network: bridge; restart the engine"
    assert found.message.startswith(words)


def test_without_an_image_no_container_is_tried(tmp_path: Path) -> None:
    missing = {**HEALTHY, ("docker", "image", "inspect"): answer(returncode=1)}
    found = examine(RecordingRunner(missing, tools=TOOLS), tmp_path)["containers"]
    assert found.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("asked", "status", "word"),
    [
        (None, Status.FAILED, "not installed"),
        (
            answer(returncode=1, stderr="Cannot connect to the Docker daemon"),
            Status.FAILED,
            "no Do",
        ),
        (answer(returncode=1, stderr="permission denied while …"), Status.FAILED, "usermod"),
        (answer("19.03.8\n"), Status.FAILED, "too old"),
        (answer("dev\n"), Status.FAILED, "too old"),
        (answer("20.10.0\n"), Status.PASSED, "20.10.0"),
        (answer("28.2.2\n"), Status.PASSED, "28.2.2"),
    ],
)
def test_engine(asked: Result | None, status: Status, word: str) -> None:
    verdict = doctor.judge_engine(asked)

    assert (verdict.status, word in verdict.message) == (status, True)


@pytest.mark.parametrize(
    ("tool", "said", "status"),
    [
        ("apptainer", "apptainer version 1.4.5\n", Status.PASSED),
        ("singularity", "apptainer version 1.1.0\n", Status.PASSED),
        ("singularity", "singularity-ce version 4.1.2\n", Status.PASSED),
        ("singularity", "singularity version 3.8.7\n", Status.FAILED),
    ],
)
def test_native_apptainer(tool: str, said: str, status: Status) -> None:
    assert doctor.judge_apptainer(tool, said).status is status


@pytest.mark.parametrize(
    ("built", "source", "status"),
    [
        (True, True, Status.PASSED),
        (False, True, Status.SKIPPED),
        (False, False, Status.FAILED),
    ],
)
def test_toolbox(built: bool, source: bool, status: Status) -> None:
    assert doctor.judge_toolbox(built=built, source=source).status is status


def test_too_little_disk_gives_both_figures() -> None:
    verdict = doctor.judge_disk("the engine", Path("/var/lib/docker"), 1_500_000_000)

    assert verdict.status is Status.FAILED
    assert "1.5 GB free for the engine in /var/lib/docker, 8.0 GB are needed" in verdict.message
    assert doctor.judge_disk("the engine", Path("/"), 8_000_000_000).status is Status.PASSED


@pytest.mark.parametrize(
    ("available", "status"),
    [(None, Status.SKIPPED), (1_000_000_000, Status.FAILED), (2_000_000_000, Status.PASSED)],
)
def test_memory(available: int | None, status: Status) -> None:
    assert doctor.judge_memory(available).status is status


@pytest.mark.parametrize(
    ("controllers", "v1", "status", "word"),
    [
        ("cpuset cpu io memory pids", False, Status.PASSED, "version 2"),
        ("cpu io", False, Status.FAILED, "without cpuset, memory"),
        (None, True, Status.PASSED, "version 1"),
        (None, False, Status.FAILED, "mount"),
    ],
)
def test_cgroups(controllers: str | None, v1: bool, status: Status, word: str) -> None:
    verdict = doctor.judge_cgroups(controllers, v1=v1)

    assert (verdict.status, word in verdict.message) == (status, True)


@pytest.mark.parametrize(
    ("limit", "restricted", "status"),
    [
        (None, False, Status.FAILED),
        (0, False, Status.FAILED),
        (100, True, Status.PASSED),
        (100, False, Status.PASSED),
    ],
)
def test_user_namespaces(limit: int | None, restricted: bool, status: Status) -> None:
    assert doctor.judge_namespaces(limit, restricted=restricted).status is status


def test_python_fuse_and_certificates_can_fail() -> None:
    verdicts = [
        doctor.judge_python((3, 9, 18)),
        doctor.judge_fuse(there=False),
        doctor.judge_certificates(None),
        doctor.judge_ansible(None),
        doctor.judge_buildx(answer(returncode=1)),
    ]

    assert [verdict.status for verdict in verdicts] == [Status.FAILED] * 5


def test_files_say_what_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for name, text in {
        "proc/sys/user/max_user_namespaces": "63000\n",
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   2048 kB\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "etc/ssl/certs/ca-certificates.crt": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    machine = doctor.look(Workspace(root=tmp_path), tmp_path)

    assert machine.user_namespaces == 63000
    assert machine.userns_restricted
    assert machine.memory_available == 2048 * 1024
    assert machine.cgroup_controllers == "cpu memory"
    assert not machine.cgroup_v1
    assert not machine.fuse
    assert machine.ca_bundle == str(tmp_path / "etc/ssl/certs/ca-certificates.crt")


def test_an_empty_machine_is_looked_at_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    machine = doctor.look(Workspace(root=tmp_path), tmp_path)

    assert machine.memory_available is None
    assert machine.user_namespaces is None
    assert machine.ca_bundle is None
