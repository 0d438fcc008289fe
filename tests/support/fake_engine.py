"""A docker command that builds nothing: it keeps in files what it was asked to build and tag."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# A build prints its steps, waits until there is no file ``gate`` beside its Dockerfile, and fails
# where there is a file ``fault``, whose text is the reason.
SCRIPT = r"""#!{python}
import hashlib, json, os, pathlib, platform, sys, time

words, held = sys.argv[1:], pathlib.Path({held!r})

def option(name):
    return [words[at + 1] for at, word in enumerate(words) if word == name]

def images():
    return [json.loads(path.read_text()) for path in sorted(held.glob("*.json"))]

def keep(image):
    (held / (image["Id"].removeprefix("sha256:") + ".json")).write_text(json.dumps(image))

if words[:2] == ["buildx", "build"]:
    folder = pathlib.Path(words[-1])
    labels = dict(label.partition("=")[::2] for label in option("--label"))
    print("#1 [internal] load build definition from Dockerfile", file=sys.stderr)
    print("#2 [1/2] FROM docker.io/library/debian", file=sys.stderr)
    print("#3 [2/2] RUN make --jobs", file=sys.stderr, flush=True)
    last = time.monotonic() + 60
    while (folder / "gate").exists() and time.monotonic() < last:
        time.sleep(0.02)
    if (folder / "fault").exists():
        print("#3 0.1 make: *** No rule to make target 'all'.  Stop.", file=sys.stderr)
        print("#3 ERROR: process \"/bin/sh -c make --jobs\" did not complete successfully:"
              " exit code: 2", file=sys.stderr)
        print("------\n > [2/2] RUN make --jobs:\n------", file=sys.stderr)
        print("ERROR: failed to solve: process \"/bin/sh -c make --jobs\" did not complete"
              " successfully: exit code: 2", file=sys.stderr)
        sys.exit(1)
    name = "sha256:" + hashlib.sha256(labels["sifline.image"].encode()).hexdigest()
    keep({{
        "Id": name, "RepoTags": [], "RepoDigests": [], "Size": 247_000_000,
        "Created": "2026-01-31T12:00:00Z", "Config": {{"Labels": labels}},
    }})
    pathlib.Path(option("--iidfile")[0]).write_text(name)
elif words[:2] == ["image", "tag"]:
    for image in images():
        tags = [tag for tag in image["RepoTags"] if tag != words[3]]
        keep(image | {{"RepoTags": tags + [words[3]] * (image["Id"] == words[2])}})
elif words[:2] == ["image", "ls"]:
    print("\n".join(image["Id"] for image in images()))
elif words[:2] == ["image", "inspect"]:
    print(json.dumps([image for image in images() if image["Id"] in words]))
elif "{{{{.Server.Os}}}}" in " ".join(words):
    print("linux/" + {{"x86_64": "amd64", "aarch64": "arm64"}}.get(platform.machine(), "other"))
elif "version" in words:
    print("docker 28.2.2")
"""


def fake_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let invoke meet such an engine, and no Apptainer; what it holds is kept in ``folder``."""
    fake, held = folder / "bin" / "docker", folder / "held"
    fake.parent.mkdir()
    held.mkdir()
    fake.write_text(SCRIPT.format(python=sys.executable, held=str(held)))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}/bin")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
