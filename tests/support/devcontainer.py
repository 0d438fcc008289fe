"""The development container, started as .devcontainer/devcontainer.json says, on a clone."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bootstrapping.indexes import pip_files, pip_settings
from sifline.machine import certificates

from .engine import docker
from .waiting import until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".devcontainer"
BASE = "sifline/debian-trixie:latest"
SOCKET = "/var/run/docker.sock"
# Where the container's own programs look for it.
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# Who works in it when root starts it here: a user that no machine knows.
ORDINARY = 12345
_COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{(localEnv:(?P<name>\w+)(:(?P<other>[^}]*))?|localWorkspaceFolder)\}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What devcontainer.json says, variables filled in.

    Another key than these is an error here: what the tests do not heed, they would not test.
    """

    name: str
    dockerfile: str
    args: Mapping[str, str]
    build_options: tuple[str, ...]
    workspace_mount: str
    workspace_folder: str
    mounts: tuple[str, ...]
    run_args: tuple[str, ...]
    init: bool
    override_command: bool
    remote_user: str
    update_uid: bool
    post_create: str

    def run_options(self) -> list[str]:
        """Return the options of ``docker run``."""
        binds = [f"--mount={bind}" for bind in (self.workspace_mount, *self.mounts)]
        return [*binds, *self.run_args, *(["--init"] if self.init else [])]


def read(text: str, workspace: Path, environment: Mapping[str, str]) -> Settings:
    """Return what a devcontainer.json says, whose comments are lines of their own."""

    def fill(found: re.Match[str]) -> str:
        if found["name"]:
            return environment.get(found["name"], found["other"] or "")
        return str(workspace)

    said: dict[str, Any] = json.loads(_VARIABLE.sub(fill, _COMMENT.sub("", text)))
    build: dict[str, Any] = said.pop("build")
    settings = Settings(
        name=said.pop("name"),
        dockerfile=build.pop("dockerfile"),
        args=build.pop("args"),
        build_options=tuple(build.pop("options")),
        workspace_mount=said.pop("workspaceMount"),
        workspace_folder=said.pop("workspaceFolder"),
        mounts=tuple(said.pop("mounts")),
        run_args=tuple(said.pop("runArgs")),
        init=said.pop("init"),
        override_command=said.pop("overrideCommand"),
        remote_user=said.pop("remoteUser"),
        update_uid=said.pop("updateRemoteUserUID"),
        post_create=said.pop("postCreateCommand"),
    )
    unheeded = [*said, *build]
    assert unheeded == [], f"the tests do not heed {unheeded}"
    return settings


def read_here(workspace: Path) -> Settings:
    """Return what this checkout's devcontainer.json says where ``workspace`` is opened."""
    bundle = certificates.bundle(os.environ)
    environment = {
        "SIFLINE_DEVCONTAINER_BASE": BASE,
        **({"SSL_CERT_FILE": str(bundle)} if bundle else {}),
    }
    return read((FOLDER / "devcontainer.json").read_text("utf-8"), workspace, environment)


@dataclass(frozen=True, kw_only=True)
class Development:
    """A development container that runs, and the clone that is open in it."""

    name: str
    image: str
    workspace: Path
    settings: Settings
    uid: int

    def run(
        self, script: str, *, user: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the clone, as the user of the file."""
        who, where = user or self.settings.remote_user, self.settings.workspace_folder
        words = ("bash", "-c", f"{{ {script}\n}} 2>&1")
        options = ("--user", who, "--workdir", where)
        return docker("exec", *options, self.name, *words, check=False, seconds=seconds)


@contextmanager
def development(place: Path) -> Iterator[Development]:
    """Start the container on a clone in ``place``; in the end remove whatever that made.

    SIGTERM ends the block as SIGINT does. What a run that was killed left in ``place``, in the
    engine as well, the next one there removes.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with place.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            remove(place)
            yield _start(place)
        finally:
            remove(place)
            signal.signal(signal.SIGTERM, before)


def image_of(place: Path) -> str:
    """Return the tag of the image that is built for ``place``."""
    return f"{place.name}:latest"


def label_of(place: Path) -> str:
    """Return the label of all containers that are started for ``place``."""
    return f"sifline.test={place}"


def build(place: Path, settings: Settings, ids: tuple[int, int]) -> str:
    """Build the image as the file says, for a user of these numbers; return its tag."""
    args = {**settings.args, "UID": str(ids[0]), "GID": str(ids[1])}
    words = [word for item in args.items() for word in ("--build-arg", "=".join(item))]
    file = ("--file", str(FOLDER / settings.dockerfile))
    tag = image_of(place)
    done = docker(
        "buildx", "build", *words, *settings.build_options, *file, "--tag", tag, str(FOLDER),
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return tag


def start(place: Path, image: str, options: Sequence[str]) -> str:
    """Start a container; return its name when its entrypoint has become its command."""
    words = ("--detach", "--pull=never", "--label", label_of(place), *options)
    name = docker("run", *words, image).stdout.strip()

    def has_begun() -> bool:
        shown = docker("top", name, "-o", "pid,args", check=False)
        assert shown.returncode == 0, shown.stderr + docker("logs", name).stderr
        commands = [line.split(maxsplit=1)[1] for line in shown.stdout.splitlines()]
        return "sleep infinity" in commands

    until(has_begun, "the entrypoint to become its command")
    return name


def _start(place: Path) -> Development:
    place.mkdir()
    workspace = place / "sifline"
    clone(workspace)
    ids = (os.getuid(), os.getgid())
    if not ids[0]:
        ids = (ORDINARY, ORDINARY)
        subprocess.run(["chown", "--recursive", f"{ids[0]}:{ids[1]}", workspace], check=True)
    settings = read_here(workspace)
    assert settings.update_uid
    assert not settings.override_command
    image = build(place, settings, ids)
    name = start(place, image, [*settings.run_options(), *site(place)])
    return Development(name=name, image=image, workspace=workspace, settings=settings, uid=ids[0])


def clone(workspace: Path) -> None:
    """Clone this checkout, with what is changed and not committed."""
    subprocess.run(["git", "clone", "--quiet", "--no-local", ROOT, workspace], check=True)
    words = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, workspace / name)
        else:
            (workspace / name).unlink(missing_ok=True)


def site(place: Path) -> list[str]:
    """Return the mounts by which a site hands in its package index and certificates.

    pip's settings are this machine's, without folders that only this machine has.
    """
    settings = pip_settings(pip_files(), os.environ)
    bundle, options = certificates.bundle(os.environ), []
    if bundle:
        options.append(f"--mount=type=bind,source={bundle},target={CA_BUNDLE},readonly")
        settings["cert"] = CA_BUNDLE
    lines = [f"{name} = {text}" for name, text in settings.items() if not _is_local(name, text)]
    file = place / "pip.conf"
    file.write_text("\n".join(["[global]", *lines, ""]), "utf-8")
    file.chmod(0o644)
    return [*options, f"--mount=type=bind,source={file},target=/etc/pip.conf,readonly"]


def _is_local(name: str, text: str) -> bool:
    return name != "cert" and any(word.startswith(("/", "file:")) for word in text.split())


def remove(place: Path) -> None:
    """Remove the containers, the image and the folder; the builder keeps its cache."""
    found = docker("ps", "--all", "--quiet", "--filter", f"label={label_of(place)}").stdout
    if found:
        docker("rm", "--force", "--volumes", *found.split())
    docker("image", "rm", "--force", image_of(place), check=False)
    if place.exists():
        shutil.rmtree(place)
