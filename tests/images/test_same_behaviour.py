"""The same container when it runs: arguments, environment, working directory, failures."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sifline.adapters.apptainer import TOOLBOX_RIGHTS
from tests.support import archives
from tests.support.archives import folder, item
from tests.support.engine import docker, make
from tests.support.roads import both
from tests.support.samples import VALUES, Sample
from tests.support.squash import TOOLBOX

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="the reference is built by root, and its folders belong to it"
)

# A shell and a few programs, with their library and loader.
PROGRAMS = """
FROM sifline/debian-trixie AS base
FROM scratch
COPY --from=base /usr/bin/dash /bin/sh
COPY --from=base /usr/bin/env /usr/bin/pwd /usr/bin/
COPY --from=base /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/
COPY --from=base /usr/lib64/ld-linux-x86-64.so.2 /lib64/
"""
SHOW = b"""#!/bin/sh
printf '[%s]\\n' "$@"
pwd
env -0
exit 7
"""
FILES = (
    folder("srv", mode=0o1777),
    folder("srv/work", mode=0o755),
    folder("etc"),
    item("etc/passwd", content=b"root:x:0:0::/root:/bin/sh\n"),
    item("etc/group", content=b"root:x:0:\n"),
    item("usr/bin/show", mode=0o755, content=SHOW),
)

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "neither": {},
    "entrypoint": {"Entrypoint": ["/usr/bin/show", "a b", "$HOME", '"q"', "`x`", "\\", ""]},
    "cmd": {"Cmd": ["/usr/bin/show", "a b", "it's", "*"]},
    "both": {"Entrypoint": ["show", "first"], "Cmd": ["second", "$PATH", ""]},
    "shell-entrypoint": {"Entrypoint": ["/bin/sh", "-c", "exec show \"$HOME\" '$x' one"]},
    "shell-cmd": {"Cmd": ["/bin/sh", "-c", 'show `echo "two  words"` && exit 3']},
    "shell-both": {"Entrypoint": ["/bin/sh", "-c", "show"], "Cmd": ["/bin/sh", "-c", "show 2"]},
    "no-such-program": {"Entrypoint": ["/no/such"], "Cmd": ["x"]},
    "values": {"Env": [f"{key}={value}" for key, value in VALUES.items()], "Cmd": ["show"]},
    "workdir": {"WorkingDir": "/srv/work", "Cmd": ["show"]},
    "missing-workdir": {"WorkingDir": "/srv/none", "Cmd": ["show"]},
    "user": {"User": "1000:1000", "Cmd": ["show"]},
}

VARYING = re.compile(r"(?<=PPID=)'?[0-9]+'?|(?<=HOSTNAME=)'?[0-9a-f]{12}'?")

# The same words to either SIF, which has the same place: whatever is printed has to be the same.
SCRIPT = """
run() { apptainer "$@"; echo "status $?"; }
o="--userns --cleanenv --contain"
run run $o /image.sif
run run $o /image.sif show 'two words' '$HOME' "it's" '' '*'
APPTAINERENV_EMPTY=given run exec $o /image.sif env -0
run exec $o --pwd /srv/work /image.sif pwd
run test $o /image.sif
run run-help /image.sif
run inspect --runscript --environment --startscript /image.sif
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[bytes]]:
    """The layers that all the images here stand on."""
    tag = make(
        tmp_path_factory.mktemp("programs"), f"sifline-test-programs-{os.getpid()}", PROGRAMS
    )
    yield archives.layers_of(tag)
    docker("image", "rm", "--force", tag)


def behaviour(sif: Path) -> str:
    """Return all that a SIF prints."""
    argv = ["docker", "run", "--rm", "--network", "none", *TOOLBOX_RIGHTS]
    argv += ["--volume", f"{sif}:/image.sif:ro", TOOLBOX, "sh", "-c", SCRIPT]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    said = done.stdout.decode("utf-8", "backslashreplace").replace("\0", "\n")
    # Numbers of processes are another each time, and the container's name.
    return VARYING.sub("", said)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_behaves_the_same(name: str, programs: list[bytes], tmp_path: Path) -> None:
    sample = Sample(layers=[FILES], config=SETTINGS[name])
    with both(name, sample, tmp_path / "work", below=programs) as roads:
        expected, actual = behaviour(roads.reference), behaviour(roads.ours)

    assert roads.method == "stream"
    assert actual == expected


def test_the_programs_of_these_images_run(programs: list[bytes], tmp_path: Path) -> None:
    sample = Sample(layers=[FILES], config={"Cmd": ["show"], "Env": ["A=b  c"]})
    with both("run", sample, tmp_path / "work", below=programs) as roads:
        said = behaviour(roads.ours).splitlines()

    assert {"[]", "[two words]", "[it's]", "status 7"} <= {*said}
    assert {"A=b  c", "EMPTY=given", "/srv/work"} <= {*said}
