"""What the engine's command line is told, and how its failures are told apart."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sifline.engines.docker import builds, image_files
from sifline.engines.docker.builds import id_files
from sifline.engines.docker.images import Docker
from sifline.engines.docker.shell import shell
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import Bind, Opening
from tests.support.recording import RecordingRunner, answer

FAILED_BUILD = """\
#5 [2/2] RUN cat /root/x
#5 0.1 cat: /root/x: Permission denied
#5 ERROR: process "/bin/sh -c cat /root/x" did not complete successfully: exit code: 1
------
 > [2/2] RUN cat /root/x:
------
"""


def build(runner: RecordingRunner, folder: Path) -> str:
    return builds.build(
        runner,
        folder,
        labels={"sifline.image": "a"},
        build_args={"V": "1 2"},
        secrets=["id=ca,src=/etc/ca"],
        log=folder / "log",
        on_step=lambda _: None,
    )


class Buildx(RecordingRunner):
    """Writes the id of what it built where it is told to."""

    def run(self, argv: Argv, **more: Any) -> Result:
        Path(argv[argv.index("--iidfile") + 1]).write_text("sha256:made\n")
        return super().run(argv, **more)


class Survivor(Buildx):
    """While it builds, a build whose caller was killed ends, and writes its id as well."""

    former: tuple[str, ...] = ()

    def run(self, argv: Argv, **more: Any) -> Result:
        done = super().run(argv, **more)
        for path in self.former:
            Path(path).write_text("sha256:former\n")
        self.former = (argv[argv.index("--iidfile") + 1],)
        return done


def test_a_build_whose_caller_was_killed_gives_no_id_to_the_next(tmp_path: Path) -> None:
    runner = Survivor({("docker", "buildx"): answer()})
    assert [build(runner, tmp_path) for _ in range(3)] == ["sha256:made"] * 3
    # Until the images are named, files hold their ids.
    assert sorted(id_files(tmp_path / "log").values()) == ["sha256:former"] * 2 + ["sha256:made"]


def test_a_build_is_handed_labels_arguments_and_secrets(tmp_path: Path) -> None:
    runner = Buildx({("docker", "buildx"): answer()})

    assert build(runner, tmp_path) == "sha256:made"

    (argv,) = runner.argvs
    for pair in [
        ("--label", "sifline.image=a"),
        ("--build-arg", "V=1 2"),
        ("--secret", "id=ca,src=/etc/ca"),
        ("--", str(tmp_path)),
    ]:
        assert pair in pairwise(argv)


def failure(stderr: str, folder: Path) -> SiflineError:
    runner = RecordingRunner({("docker", "buildx"): answer(stderr=stderr, returncode=1)})
    with pytest.raises(SiflineError) as error:
        build(runner, folder)
    return error.value


def test_a_step_that_was_denied_something_is_no_engine_that_refuses(tmp_path: Path) -> None:
    error = failure(FAILED_BUILD + "docker.io/library/x\n", tmp_path)

    assert isinstance(error, StepFailed)
    assert "failed at [2/2] RUN cat /root/x; cat: /root/x: Permission denied; " in error.message
    assert "cat: /root/x: Permission denied" in error.details


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        (("Reading package lists", "E: Unable to locate package x"), "Unable to locate package x"),
        (
            ("E: Failed to fetch http://x/y  404", "E: Unable to fetch some archives", "done"),
            "Failed to fetch http://x/y 404",
        ),
        (("ERROR: No matching distribution found for x", "[notice] new pip"), "No matching distr"),
        (("/bin/sh: 1: nocommand: not found", "hello"), "/bin/sh: 1: nocommand: not found"),
        (("bash: line 3: a: command not found", "bash: line 4: /b: No such file"), "bash: line 4"),
        (("cc x.c", "make: *** [Makefile:2: all] Error 1"), "make: *** [Makefile:2: all] Error 1"),
        ((), "the whole log is"),
    ],
)
def test_a_failed_step_is_told_with_the_words_of_its_command(
    tmp_path: Path, printed: tuple[str, ...], cause: str
) -> None:
    # Another step said something like an error, and succeeded.
    lines = ["#4 0.2 E: not this one", *(f"#5 1.{n} {line}" for n, line in enumerate(printed))]
    said = FAILED_BUILD.replace("#5 0.1 cat: /root/x: Permission denied", "\n".join(lines))

    assert f"RUN cat /root/x; {cause}" in failure(said, tmp_path).message


def test_what_a_failed_step_printed_is_told_once_and_no_other_step(tmp_path: Path) -> None:
    """BuildKit repeats its last lines."""
    said = (
        "#4 [1/3] FROM x\n#5 [2/3] RUN make\n#6 [a 1/1] RUN wget\n#5 0.1 cc x.c\n#6 0.2 50 %\n"
        "#5 0.3 x.c:1: error\n#5 0.4\n#5 0.5   make: Error 1\n"
        '#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2\n'
        "------\n > [2/3] RUN make:\n0.3 x.c:1: error\n0.5   make: Error 1\n------\n"
        'ERROR: failed to solve: process "/bin/sh -c make" did not complete: exit code: 2\n'
    )

    assert failure(said, tmp_path).details.splitlines() == [
        "[2/3] RUN make",
        "cc x.c",
        "x.c:1: error",
        "  make: Error 1",
        'ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2',
    ]


def test_what_failed_without_a_command_is_told_once(tmp_path: Path) -> None:
    said = (
        '#4 [1/1] COPY nofile /\n#4 ERROR: "/nofile": not found\n------\n > [1/1] COPY nofile /:\n'
        '------\nERROR: failed to solve: failed to compute cache key: "/nofile": not found\n'
    )

    assert failure(said, tmp_path).details.splitlines() == [
        "#4 [1/1] COPY nofile /",
        '#4 ERROR: "/nofile": not found',
    ]


@pytest.mark.parametrize("cause", ['"/nofile" not found: not found', '"/nofile": not found'])
def test_a_file_that_the_context_lacks_is_the_cause(tmp_path: Path, cause: str) -> None:
    said = (
        f"#4 [1/1] COPY nofile /\n#4 ERROR: {cause}\n------\n > [1/1] COPY nofile /:\n------\n"
        f"ERROR: failed to solve: failed to compute cache key: {cause}\n"
    )

    assert (
        f"failed at [1/1] COPY nofile /; {cause}; the whole log" in failure(said, tmp_path).message
    )


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", "no Docker engine"),
        ("permission denied while trying to connect to the Docker daemon socket at", "usermod"),
        ("Got permission denied while trying to connect to the Docker daemon socket", "usermod"),
        ("permission denied while trying to connect to the docker API at unix:///x", "usermod"),
    ],
)
def test_an_engine_that_does_not_answer_is_something_missing(
    tmp_path: Path, stderr: str, message: str
) -> None:
    error = failure(f"ERROR: {stderr}\n", tmp_path)

    assert isinstance(error, MissingError)
    assert message in error.message


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    error = failure(FAILED_BUILD + "write /x: no space left on device\n", tmp_path)

    assert "the disk is full" in error.message


REFUSED = """\
#0 building with "default" instance using docker driver
ERROR: failed to solve: rpc error: code = Unknown desc = failed to solve with frontend \
dockerfile.v0: failed to create LLB definition: {}
"""


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("dockerfile parse error line 3: unknown instruction: ECHO", "install a Docker engine"),
        ("dockerfile parse error line 2: Unknown flag: new-flag", "install a Docker engine"),
        ("failed to process \"${V#x}\": missing ':' in substitution", "install a Docker engine"),
        ("no build stage in current context", "failed before the first step"),
    ],
)
def test_a_dockerfile_that_the_engine_refuses_is_told_in_its_own_words(
    tmp_path: Path, words: str, advice: str
) -> None:
    message = failure(REFUSED.format(words), tmp_path).message

    assert words in message
    assert advice in message


def test_a_reader_of_dockerfiles_that_cannot_be_had_is_named_as_the_cause(tmp_path: Path) -> None:
    said = (
        "#3 resolve image config for docker.io/docker/dockerfile:1\nERROR: failed to solve: failed"
        " to solve with frontend dockerfile.v0: failed to solve with frontend gateway.v0: failed"
        " to do request: no such host\n"
    )
    message = failure(said, tmp_path).message

    assert "its line # syntax= names an image that does not read it" in message
    assert "no such host; fix the name or the network" in message


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Name: default\nBuildKit version: v0.8+unknown\n", 8),
        ("Name: default\nBuildkit:  v0.11.7+d3e6c1360f6e\n", 11),
        # Docker 26 of Debian 13.
        ("Name: default\nBuildKit version: v0.0.0+unknown\n", None),
        ("Name: default\nStatus: inactive\n", None),
    ],
)
def test_the_version_of_buildkit_is_what_buildx_says(said: str, version: int | None) -> None:
    runner = RecordingRunner({("docker", "buildx", "inspect"): answer(stdout=said)})

    assert Docker(runner).buildkit() == version


def opened(opening: Opening, *, terminal: bool = False) -> tuple[str, ...]:
    runner = RecordingRunner({("docker", "run"): answer(returncode=7), ("docker", "rm"): answer()})
    assert shell(runner, "sha256:x", ["a", "b"], opening, terminal=terminal) == 7
    assert runner.argvs[1:] == [("docker", "rm", "--force", "--volumes", runner.argvs[0][4])]
    return runner.argvs[0]


def test_a_shell_runs_the_command_alone() -> None:
    assert opened(Opening()) == (
        *("docker", "run", "--rm", "--name", f"sifline-shell-{os.getpid()}"),
        *("--init", "--interactive"),
        *("--entrypoint", "a", "sha256:x", "b"),
    )


def test_a_shell_gets_a_terminal_where_there_is_one() -> None:
    assert "--tty" in opened(Opening(), terminal=True)


def test_a_shell_is_given_what_was_asked_for() -> None:
    argv = opened(
        Opening(
            binds=(Bind(source=Path('/a,"b'), target="/c"),),
            env={"A": "1 2", "OWN": None},
            workdir="/w",
            gpus="2",
            shared_memory="8g",
        )
    )

    assert set(pairwise(argv)) >= {
        ("--mount", '"type=bind","source=/a,""b","target=/c","readonly"'),
        ("--env", "A=1 2"),
        ("--env", "OWN"),
        ("--workdir", "/w"),
        ("--gpus", "2"),
        ("--shm-size", "8g"),
    }
    assert "--user" not in argv


def test_a_shell_may_be_given_a_variable_that_docker_itself_is_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "1")
    runner = RecordingRunner({("docker", "run"): answer(), ("docker", "rm"): answer()})

    shell(runner, "x", ["a"], Opening(env={"DOCKER_BUILDKIT": None}), terminal=False)

    assert runner.calls[0].env == {"DOCKER_BUILDKIT": "1"}


def test_with_the_home_folder_a_shell_is_the_callers() -> None:
    home = Bind(source=Path("/data/ann"), target="/home/ann", writable=True)

    argv = opened(Opening(binds=(home,), home="/home/ann", user=(1000, 100)))

    assert set(pairwise(argv)) >= {
        ("--mount", '"type=bind","source=/data/ann","target=/home/ann"'),
        ("--user", "1000:100"),
        ("--env", "HOME=/home/ann"),
    }


def test_several_devices_are_one_value_of_a_list() -> None:
    assert ("--gpus", '"device=0,2"') in pairwise(opened(Opening(gpus="device=0,2")))


@pytest.mark.parametrize(
    ("volumes", "places"),
    [
        (None, []),
        (["/data", "/data/", "//data", "/x/../data"], ["/data"]),
        (["data", "['/data']", "", "/", "/."], []),
        (["/a,b", "/b/"], ["/a,b", "/b"]),
    ],
)
def test_volumes_of_an_image_are_not_filled_where_they_can_be_mounted(
    volumes: list[str] | None, places: list[str]
) -> None:
    config = {"Config": {"Volumes": dict.fromkeys(volumes) if volumes else None}}
    runner = RecordingRunner(
        {
            ("docker", "image", "inspect"): answer(json.dumps(config)),
            ("docker", "create"): answer("c1\n"),
            ("docker", "rm"): answer(),
        }
    )
    with image_files.kept(runner, "sha256:1", purpose="p") as container:
        assert container == "c1"
    (made,) = (argv for argv in runner.argvs if argv[1] == "create")
    mounts = [word for flag, word in pairwise(made) if flag == "--mount"]
    assert mounts == [f'"type=tmpfs","target={place}"' for place in places]
    assert runner.argvs[-1] == ("docker", "rm", "--force", "--volumes", "c1")


@pytest.mark.parametrize(
    ("driver", "folder"),
    [
        (
            {"Name": "overlay2", "Data": {"UpperDir": "/lib/docker/overlay2/a1/diff"}},
            Path("/lib/docker/image/overlay2/layerdb/sha256"),
        ),
        ({"Name": "overlay2", "Data": None}, None),
        ({"Name": "vfs", "Data": {"UpperDir": "/lib/docker/vfs/a1/diff"}}, None),
        (None, None),
    ],
)
def test_headers_of_layers_are_where_the_engine_keeps_them(
    driver: dict[str, Any] | None, folder: Path | None
) -> None:
    assert image_files.headers({"GraphDriver": driver}) == folder
