"""The build engine on the command line: plans that are followed, reasons, failures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any
from uuid import uuid4

import pytest

from sifline.stages.imagetest import read_junit
from tests.support.engine import Project, docker, litter
from tests.support.waiting import until

BASE = "docker.io/sifline/debian-trixie"
SMALL = "FROM scratch\nCOPY file /file\n"

# Each makes small images of its own; those that share one SIF stay together.
pytestmark = pytest.mark.spread
sharing = pytest.mark.xdist_group("a project with a SIF")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose one image is built, tested and converted."""
    project = Project(tmp_path_factory.mktemp("made"))
    name = project.image("a", SMALL, file="x")
    done = project.invoke(f"make.{name}")
    assert done.returncode == 0, done.stderr
    yield project
    project.remove_images()


@pytest.fixture
def converted(made: Project, tmp_path: Path) -> tuple[Project, str]:
    """A copy of that project, to be changed, and the name of its image."""
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, prefix=made.prefix), f"{made.prefix}-a"


def actions(plan: str) -> list[tuple[str, str]]:
    """The (image, action) rows of a printed plan that are more than `keep`."""
    rows = [re.split(r"  +", line) for line in plan.splitlines()[1:-1]]
    return [(row[0], row[1]) for row in rows if row[1] != "keep"]


def steps(progress: str) -> list[tuple[str, str]]:
    """The (image, action) pairs of the steps that a run carried out, in the order they ended."""
    found = re.findall(r"^\[(build|test|convert|test the SIF) (\S+)\] done in", progress, re.M)
    return [(name, action) for action, name in found]


def explained(project: Project, name: str, *flags: str) -> list[str]:
    (found,) = json.loads(project.invoke(f"explain.{name}", "--json", *flags).stdout)["images"]
    assert isinstance(found["changes"], list)
    return found["changes"]


# The plan


def test_a_run_does_what_the_dry_plan_says_in_its_order(project: Project) -> None:
    one = project.image("one", SMALL, file="x")
    two = project.image("two", f"FROM sifline/{one}\nCOPY own /own\n", own="y")
    project.image("three", SMALL, file="z")
    project.build(one)

    for change in ["first", "second"]:
        (project.root / "images" / two / "own").write_text(change)
        plan = actions(project.invoke("--dry", "convert", "--all").stdout)
        done = project.invoke("convert", "--all", "--jobs", "1")

        assert done.returncode == 0, done.stderr
        assert [step for step in steps(done.stderr) if "toolbox" not in step[0]] == plan
    assert (two, "build") in plan
    assert (one, "build") not in plan
    plan = actions(project.invoke("--dry", "convert", "--all").stdout)
    assert plan == []


def test_dry_changes_nothing(project: Project) -> None:
    name = project.image("a", SMALL, file="x")

    done = project.invoke("--dry", f"make.{name}")

    assert actions(done.stdout) == [
        (name, action) for action in ("build", "test", "convert", "test the SIF")
    ]
    assert project.inspect(name) is None
    assert [*project.root.joinpath("build").rglob("*.sif")] == []


# Reasons


def test_explain_names_files_modes_links_and_arguments(project: Project) -> None:
    name = project.image(
        "a", "FROM scratch\nARG V=1\nCOPY . /\n", same="s", content="old", mode="m", gone="g"
    )
    folder = project.root / "images" / name
    (folder / "link").symlink_to("same")
    project.build(name)

    (folder / "content").write_text("new")
    (folder / "mode").chmod(0o755)
    (folder / "gone").unlink()
    (folder / "fresh").write_text("")
    (folder / "link").unlink()
    (folder / "link").symlink_to("mode")
    (folder / "same").touch()

    assert explained(project, name, "--build-arg", "V=2") == [
        "file content content changed",
        "file fresh is new in the build context",
        "file gone is gone",
        "file link points elsewhere: same → mode",
        "file mode mode 0644 → 0755",
        "argument V is new: 2",
    ]


def test_explain_follows_a_change_down_from_a_parent(project: Project) -> None:
    parent = project.image("parent", SMALL, file="x")
    declared = 'own-references = ["registry.example.org/acme/{name}"]'
    (project.root / "pyproject.toml").write_text(f"[tool.sifline]\n{declared}\n")
    child = project.image("child", f"FROM registry.example.org/acme/{parent}\n")
    project.build(child)
    (project.root / "images" / parent / "file").write_text("y")

    assert explained(project, child) == [f"parent {parent}: file file content changed"]


def test_a_parent_rebuilt_by_force_is_noticed_by_its_child(project: Project) -> None:
    parent = project.image("parent", f"FROM {BASE}\nRUN cat /proc/uptime > /made\n")
    child = project.image("child", f"FROM sifline/{parent}\n")
    project.build(child)

    assert project.build(parent, "--force") == {parent: "built"}
    (change,) = explained(project, child)

    assert change.startswith(f"parent {parent}: ")
    assert litter(project) == []
    assert project.build(child) == {parent: "up to date", child: "built"}
    assert project.read(child, "made") == project.read(parent, "made")


def test_without_its_record_the_change_is_told_and_that_the_file_is_not_known(
    project: Project,
) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    for record in (project.root / "build" / "records" / name).iterdir():
        record.unlink()
    (project.root / "images" / name / "file").write_text("y")

    (change,) = explained(project, name)

    assert "this checkout has no record of that build" in change


def test_taking_a_change_back_finds_the_image_of_before(project: Project) -> None:
    name = project.image("a", SMALL, file="first")
    file = project.root / "images" / name / "file"
    project.build(name)
    file.write_text("second")
    project.build(name)
    file.write_text("first")

    assert project.build(name) == {name: "up to date"}
    assert project.read(name, "file") == "first"


def test_a_fresh_clone_is_no_change(project: Project, tmp_path: Path) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    (tmp_path / "clone").mkdir()
    clone = Project(tmp_path / "clone", prefix=project.prefix)
    clone.image("a", SMALL, file="x")

    assert clone.build(name) == {name: "up to date"}


@sharing
def test_an_altered_or_removed_sif_is_noticed_and_a_touched_one_is_not(
    converted: tuple[Project, str],
) -> None:
    project, name = converted
    sif = project.root / "build" / "sif" / f"{name}.sif"

    def planned() -> list[tuple[str, str]]:
        return actions(project.invoke("--dry", f"convert.{name}").stdout)

    sif.touch()
    assert planned() == []
    with sif.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert planned() == [(name, "convert")]
    sif.unlink()
    assert planned() == [(name, "convert")]


def test_force_redoes_what_is_asked_for_and_no_more(project: Project) -> None:
    # A build without cache makes another file.
    name = project.image(
        "a", f"FROM {BASE}\nRUN cat /proc/sys/kernel/random/uuid > /made # {uuid4()}\n"
    )
    sif = project.root / "build" / "sif" / f"{name}.sif"
    assert project.invoke(f"make.{name}").returncode == 0

    def state() -> tuple[str, int]:
        return project.read(name, "made"), sif.stat().st_ino

    def forced(verb: str) -> list[str]:
        plan = project.invoke("--dry", f"{verb}.{name}", "--force").stdout
        done = project.invoke(f"{verb}.{name}", "--force", "--jobs", "1")
        assert done.returncode == 0, done.stderr
        assert actions(plan) == steps(done.stderr)
        return [action for _, action in actions(plan)]

    first = state()
    assert forced("convert") == ["convert"]
    second = state()
    assert (second[0], second[1] != first[1]) == (first[0], True)
    assert forced("build") == ["build"]
    third = state()
    assert (third[0] != second[0], third[1]) == (True, second[1])
    assert forced("make") == ["build", "test", "convert", "test the SIF"]
    assert not {*state()} & {*third}
    assert actions(project.invoke("--dry", f"make.{name}").stdout) == []


@sharing
def test_a_changed_conversion_option_is_a_reason_to_convert_alone(
    converted: tuple[Project, str],
) -> None:
    project, name = converted
    (project.root / "images" / name / "image.toml").write_text("[convert]\ncompression='gzip'\n")

    plan = project.invoke("--dry", f"convert.{name}").stdout

    assert actions(plan) == [(name, "convert")]
    assert "its compression: -comp zstd -Xcompression-level 3 → -comp gzip" in plan


def test_a_lost_tag_is_given_back_and_nothing_else_is_done(project: Project) -> None:
    parent = project.image("parent", SMALL, file="x")
    child = project.image("child", f"FROM sifline/{parent}\n")
    project.build(child)
    docker("image", "rm", f"sifline/{parent}:latest")

    assert explained(project, child) == []
    plan = project.invoke("--dry", f"build.{child}").stdout
    done = project.invoke(f"build.{child}")

    assert actions(plan) == steps(done.stderr) == [(parent, "build")]
    assert project.inspect(parent) is not None
    assert project.build(child) == {parent: "up to date", child: "up to date"}


def test_settings_are_not_part_of_what_the_engine_sees(project: Project) -> None:
    name = project.image("a", "FROM scratch\nCOPY . /\n", file="x")
    settings = project.root / "images" / name / "image.toml"
    settings.write_text('description = "one"\n')
    project.build(name)
    settings.write_text('description = "two"\n')

    assert project.build(name) == {name: "up to date"}
    with pytest.raises(CalledProcessError):
        project.read(name, "image.toml")
    assert project.read(name, "file") == "x"


# Arguments, targets, labels, secrets


def test_arguments_targets_and_labels_of_image_toml_and_flags_reach_the_image(
    project: Project,
) -> None:
    name = project.image(
        "a",
        f"FROM {BASE} AS first\nARG V=none\nRUN echo $V > /v\nFROM first AS last\nRUN rm /v\n",
    )
    (project.root / "images" / name / "image.toml").write_text(
        'target = "first"\n[build-args]\nV = "toml"\n[labels]\n"org.example.a" = "b c"\n'
    )

    project.build(name)
    assert project.read(name, "v") == "toml\n"
    held = project.inspect(name) or {}
    assert held["Config"]["Labels"]["org.example.a"] == "b c"  # type: ignore[index]
    assert project.build(name, "--build-arg", "V=flag") == {name: "built"}
    assert project.read(name, "v") == "flag\n"


def test_an_argument_can_change_the_graph(project: Project) -> None:
    one, two = (project.image(word, SMALL, file=word) for word in ("one", "two"))
    name = project.image("a", f"ARG PARENT={one}\nFROM sifline/${{PARENT}}\n")

    assert project.build(name).keys() == {one, name}
    assert project.build(name, "--build-arg", f"PARENT={two}").keys() == {two, name}
    assert project.read(name, "file") == "two"


def test_a_secret_reaches_its_step_and_stays_nowhere(project: Project) -> None:
    word = f"secret-{uuid4().hex}"
    name = project.image(
        "a",
        f"FROM {BASE}\n"
        # A step that is in the engine's cache prints nothing.
        f"RUN --mount=type=secret,id=token,required=true true {uuid4().hex};"
        " cat /run/secrets/token; sha256sum /run/secrets/token > /digest\n",
    )
    missing = project.invoke("--dry", f"build.{name}")
    assert project.invoke(f"build.{name}").stderr.splitlines()[-1] == missing.stderr.strip()
    project.site("lab", '[secrets]\ntoken = {file = "token"}\n')
    (project.root / "sites" / "token").write_text(word)

    project.build(name, "--site", "lab")

    assert (missing.returncode, "needs the secret token" in missing.stderr) == (3, True)
    history = docker("history", "--no-trunc", f"sifline/{name}").stdout
    files = [path for path in (project.root / "build").rglob("*") if path.is_file()]
    assert word not in history + "".join(path.read_text() for path in files)
    log = project.root / "build" / "logs" / f"{name}.build.log"
    assert "***" in log.read_text()
    assert len(project.read(name, "digest").split()[0]) == 64


def test_keys_of_ssh_reach_their_steps(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    step = f'RUN --mount=type=ssh,id={{}},required test -S "$SSH_AUTH_SOCK" && true {uuid4().hex}'
    steps = "\n".join(step.format(name) for name in ("default", "deploy"))
    name = project.image("a", f"FROM {BASE}\n{steps}\n")
    key, agent = project.root / "key", project.root / "agent"
    settings = project.root / "images" / name / "image.toml"
    settings.write_text(f'[ssh]\ndeploy = "{key}"\n')
    words = ["-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(["ssh-keygen", *words], check=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    missing = project.invoke(f"build.{name}")
    assert (missing.returncode, "start one (ssh-agent)" in missing.stderr) == (3, True)

    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as run:
        try:
            until(agent.is_socket, "the agent")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            assert project.build(name) == {name: "built"}
        finally:
            run.terminate()
    # Keys do not decide what is built.
    monkeypatch.delenv("SSH_AUTH_SOCK")
    settings.write_text("")
    assert project.build(name) == {name: "up to date"}


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_images_get_the_commit_as_a_label(project: Project) -> None:
    git(project.root, "init")
    first = project.image("a", SMALL, file=uuid4().hex)
    no_commit = project.invoke(f"build.{first}")
    git(project.root, "add", "images")
    git(project.root, "commit", "--message", "x")
    second = project.image("b", SMALL, file=uuid4().hex)
    dirty = project.invoke(f"build.{second}")

    assert [label(project, name) for name in (first, second)] == [
        "",
        git(project.root, "rev-parse", "HEAD"),
    ]
    assert "label" not in no_commit.stderr + dirty.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder to another user needs root")
def test_a_checkout_that_git_refuses_is_said_with_what_to_do(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    git(project.root, "init")
    git(project.root, "commit", "--message", "x", "--allow-empty")
    image = project.image("a", SMALL, file=uuid4().hex)
    shutil.chown(project.root, 12345)

    done = project.invoke(f"build.{image}")

    assert done.returncode == 0, done.stderr
    assert label(project, image) == ""
    advice = f"run git config --global --add safe.directory {project.root}"
    told = "images get no commit label: git says fatal: detected dubious ownership in"
    assert sum(told in line and advice in line for line in done.stderr.splitlines()) == 1


def label(project: Project, name: str) -> str:
    """The commit that an image was built from, as it says."""
    found: Any = project.inspect(name)
    return str(found["Config"]["Labels"].get("sifline.commit", ""))


def test_a_proxy_reaches_the_steps_and_is_no_change(project: Project) -> None:
    name = project.image("a", f"FROM {BASE}\nRUN env > /environment\n")
    project.site("lab", '[proxies]\nhttp = "http://user:word@proxy.example.org:1"\n')

    project.build(name, "--site", "lab")

    assert "http_proxy=http://user:word@proxy.example.org:1" in project.read(name, "environment")
    assert project.build(name) == {name: "up to date"}
    log = project.root / "build" / "logs" / f"{name}.build.log"
    assert "word" not in log.read_text()
    assert "word" not in docker("history", "--no-trunc", f"sifline/{name}").stdout


DECIDING = {
    "BUILDKIT_HOST": "tcp://127.0.0.1:1",
    "BUILDX_BUILDER": "there-is-none",
    "BUILDX_GIT_LABELS": "full",
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "nonsense",
    "BUILDX_NO_DEFAULT_LOAD": "1",
    "DOCKER_BUILDKIT": "nonsense",
    "SOURCE_DATE_EPOCH": "1",
}


def test_the_environment_does_not_decide_what_is_built(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = project.image("a", "FROM scratch\nCOPY file /file\n", file=uuid4().hex)
    git(project.root, "init")
    git(project.root, "commit", "--message", "x", "--allow-empty")

    with monkeypatch.context() as set_here:
        for variable, value in DECIDING.items():
            set_here.setenv(variable, value)
        assert project.build(name) == {name: "built"}
    found: Any = project.inspect(name)

    assert all(key.startswith("sifline.") for key in found["Config"]["Labels"])
    assert not found["Created"].startswith("1970")
    assert project.build(name) == {name: "up to date"}


def test_another_platform_in_the_environment_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = project.image("a", "FROM scratch\nCOPY file /file\n", file="x")
    project.build(name)
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/s390x")

    for words in (("status",), ("--dry", f"build.{name}"), (f"build.{name}",)):
        done = project.invoke(*words)
        assert done.returncode == 2
        assert "DOCKER_DEFAULT_PLATFORM=linux/s390x: images are built for" in done.stderr


def test_the_proxies_of_docker_reach_the_steps_and_neither_log_nor_history(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://user:hushhush@proxy.example.org:1"
    (project.root / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": url}}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(project.root))
    name = project.image("a", f"FROM {BASE}\nRUN env > /environment && env # {uuid4()}\n")
    told = project.image("told", "FROM scratch\nARG HTTP_PROXY\nCOPY file /\n", file="x")

    project.build(name)
    done = project.invoke(f"build.{told}")

    assert f"http_proxy={url}" in project.read(name, "environment")
    log = (project.root / "build" / "logs" / f"{name}.build.log").read_text()
    history = docker("history", "--no-trunc", f"sifline/{name}").stdout
    assert "http_proxy=http://***@proxy.example.org:1" in log
    assert "hushhush" not in log + history
    assert done.returncode == 2
    assert "declares ARG HTTP_PROXY, by which the proxy of docker's config.json" in done.stderr


def test_credentials_in_a_url_are_neither_shown_nor_written(project: Project) -> None:
    name = project.image("a", "FROM scratch\nARG B=0\nCOPY file /\n", file="x")
    project.build(name)

    flag = ("--build-arg", "B=https://user:hushhush@example.org/")
    status = project.invoke("status", *flag).stdout
    project.build(name, *flag)

    assert "https://example.org/" in status
    labels = json.dumps((project.inspect(name) or {})["Config"]["Labels"])  # type: ignore[index]
    records = (project.root / "build" / "records").rglob("*.json")
    assert "hushhush" not in status + labels + "".join(path.read_text() for path in records)
    other = ("--build-arg", "B=https://user:another@example.org/")
    assert project.build(name, *other) == {name: "built"}


# Failures


def test_a_failure_stops_what_needs_it_and_the_rest_goes_on(project: Project) -> None:
    bad = project.image("bad", f"FROM {BASE}\nRUN echo cause >&2; false\n")
    worse = project.image("worse", f"FROM {BASE}\nRUN exit 3\n")
    child = project.image("child", f"FROM sifline/{bad}\n")
    good = project.image("good", SMALL, file="x")

    done = project.invoke("build", "--all")

    assert done.returncode == 1
    assert project.inspect(good) is not None
    assert project.inspect(child) is None
    lines = done.stderr.splitlines()
    assert lines[-1].startswith(f"error: 2 of 4 steps failed: build {bad}, build {worse}")
    for name in (bad, worse):
        log = project.root / "build" / "logs" / f"{name}.build.log"
        assert any(f"build {name}: " in line and str(log) in line for line in lines)
    assert any(f"not done, since build {bad} failed: build {child}" in line for line in lines)
    assert re.search(rf"^{good} +built", done.stdout, re.M)


def test_without_keep_going_nothing_more_is_begun(project: Project) -> None:
    project.image("a-bad", f"FROM {BASE}\nRUN false\n")
    good = project.image("b-good", SMALL, file="x")

    done = project.invoke("build", "--all", "--no-keep-going", "--jobs", "1")

    assert done.returncode == 1
    assert project.inspect(good) is None
    assert f"not begun: build {good}" in done.stderr


def meeting(place: str, own: str, other: str = "") -> str:
    """A step that says ``own`` in a folder of the builder, and then waits for ``other`` there."""
    wait = f"timeout 120 sh -c 'until test -e /{place}/{other}; do sleep 0.1; done'"
    step = f"touch /{place}/{own}{f' && {wait}' if other else ''}"
    return f"RUN --mount=type=cache,id={place},target=/{place} {step}\n"


def test_independent_images_are_built_side_by_side(project: Project) -> None:
    for own, other in (("a", "b"), ("b", "a")):
        project.image(own, f"FROM {BASE}\n{meeting(project.prefix, own, other)}")

    done = project.invoke("build", "--all", "--jobs", "2")

    assert done.returncode == 0, done.stderr


def test_a_folder_that_changes_while_it_is_built_gives_no_image(
    project: Project, tmp_path: Path
) -> None:
    step = meeting(project.prefix, "begun", "changed")
    name = project.image("a", f"FROM {BASE}\nCOPY x /x\n{step}", x=uuid4().hex)

    def change(_: object) -> None:
        (project.root / "images" / name / "x").write_text("changed meanwhile")
        step = meeting(project.prefix, "changed")
        (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\n{step}")
        docker("buildx", "build", str(tmp_path))

    status, printed = project.disturb(f"build.{name}", when="3/3] RUN", act=change)

    assert status == 1
    assert "its folder changed while it was built" in printed
    assert project.inspect(name) is None
    assert litter(project) == []


def test_an_image_that_cannot_be_read_holds_up_what_is_built_on_it_alone(
    project: Project,
) -> None:
    bad = project.image("bad", "FROM\n")
    child = project.image("child", f"FROM sifline/{bad}\n")
    good = project.image("good", SMALL, file="x")

    done = project.invoke("build", "--all")
    status = project.invoke("status").stdout

    assert done.returncode == 1
    assert re.search(rf"^{good} +built", done.stdout, re.M)
    for broken in (bad, child):
        assert re.search(rf"^{broken}: broken: .* FROM takes an image", done.stdout, re.M)
    assert f"2 images are broken, see the errors above: {bad}, {child}" in done.stderr
    assert re.search(rf"^{good} .* built ", status, re.M)
    assert re.search(rf"^{bad}: broken: .* FROM takes an image", status, re.M)
    assert project.invoke("clean", "--yes", "--all").returncode == 0


def test_tests_that_fail_are_not_up_to_date_though_they_passed_before(project: Project) -> None:
    name = project.image("a", f"FROM {BASE}\n")
    switch = project.root / "switch"
    tests = project.root / "images" / name / "tests"
    tests.mkdir()
    (tests / "test_it.py").write_text(
        f"from pathlib import Path\ndef test_it(): assert not Path({str(switch)!r}).exists()\n"
    )
    assert project.invoke(f"test.{name}").returncode == 0
    switch.touch()

    assert project.invoke(f"test.{name}").returncode == 1
    assert (name, "test") in actions(project.invoke("--dry", f"make.{name}").stdout)


def test_dry_refuses_what_cannot_be_tried_without_doing_it(project: Project) -> None:
    name = project.image("a", SMALL, file="x")

    done = project.invoke("--dry", f"shell.{name}", "--", "true")

    assert (done.returncode, done.stdout) == (2, "")
    assert project.inspect(name) is None


@sharing
def test_make_tests_the_image_and_its_sif(converted: tuple[Project, str]) -> None:
    project, name = converted
    report = project.root / "build" / "reports" / f"{name}.test-apptainer.xml"

    assert read_junit(report.read_text()).passed > 0
    assert actions(project.invoke("--dry", f"make.{name}").stdout) == []


@sharing
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("test-docker", '{"version": 2}'),
        ("convert", '{"version": 2, "image_id": 1}'),
        ("build-*", '{"version": 2, "tools": 3}'),
        ("cache", '{"listing": 1}\n[1]\n'),
    ],
)
def test_a_record_of_another_shape_is_no_record(
    converted: tuple[Project, str], kind: str, content: str
) -> None:
    project, name = converted
    folder = project.root / "build" / "records" / name
    cache = project.root / "build" / "cache" / f"{name}.context"
    (path,) = [cache] if kind == "cache" else folder.glob(f"{kind}.json")
    path.write_text(content)
    (project.root / "images" / name / "file").write_text("y")

    for word in (f"explain.{name}", "status"):
        assert project.invoke(word).returncode == 0
    assert project.invoke("--dry", f"make.{name}").returncode == 0


def test_a_label_of_another_shape_is_no_recipe(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    mark = f"{uuid4().hex}{uuid4().hex}"
    labels = ["--label", f"sifline.fingerprint={mark}", "--label", 'sifline.recipe={"format":2}']
    tags = [f"--tag=sifline/{name}:{tag}" for tag in ("latest", mark[:12])]
    folder = str(project.root / "images" / name)
    docker("image", "rm", "--force", str((project.inspect(name) or {})["Id"]))
    docker("build", "--label", f"sifline.image={name}", *labels, *tags, folder)

    assert explained(project, name) == ["it was built by another version of sifline"]
    assert project.build(name) == {name: "built"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--build-arg", "NONE=1"), "no Dockerfile declares it with ARG"),
        (("--build-arg", "NONE"), "takes NAME=value"),
        (("--site", "nowhere"), "no site profile 'nowhere'"),
        (("--jobs", "-1"), "--jobs"),
        (("--jobs", "many"), "--jobs 'many': takes a whole number"),
        (("--build-arg",), "--build-arg: needs a value"),
        (("--build-arg", "HTTP_PROXY=http://p"), "name it under [proxies] of a site"),
        (("--nosuch",), "has no flag --nosuch"),
    ],
)
def test_a_wrong_flag_is_told_on_one_line(
    project: Project, words: tuple[str, ...], message: str
) -> None:
    name = project.image("a", SMALL, file="x")

    done = project.invoke(f"build.{name}", *words)

    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert project.inspect(name) is None
