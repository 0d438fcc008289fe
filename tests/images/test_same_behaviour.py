"""The same container when it runs: arguments, environment, working directory, failures."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import Item, folder, item
from tests.support.roads import both, together
from tests.support.samples import VALUES, Sample
from tests.support.toolbox import toolbox

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="the reference is built by root, and its folders belong to it"
)

# A shell and a few programs, with their library and loader: where they go, by where they are.
PROGRAMS = {
    "usr/bin/dash": "bin/sh",
    "usr/bin/env": "usr/bin/env",
    "usr/bin/pwd": "usr/bin/pwd",
    "usr/lib/x86_64-linux-gnu/libc.so.6": "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib64/ld-linux-x86-64.so.2": "lib64/ld-linux-x86-64.so.2",
}
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
    "values": {
        "Env": [f"{key}={value}" for key, value in VALUES.items() if key != "BACKTICKS"],
        "Cmd": ["show"],
    },
    "neither": {},
    "entrypoint": {"Entrypoint": ["/usr/bin/show", "a b", "$HOME", '"q"', "`x`", "\\", ""]},
    "cmd": {"Cmd": ["/usr/bin/show", "a b", "it's", "*"]},
    "both": {"Entrypoint": ["show", "first"], "Cmd": ["second", "$PATH", ""]},
    "shell-entrypoint": {"Entrypoint": ["/bin/sh", "-c", "exec show \"$HOME\" '$x' one"]},
    "shell-cmd": {"Cmd": ["/bin/sh", "-c", 'show `echo "two  words"` && exit 3']},
    "shell-both": {"Entrypoint": ["/bin/sh", "-c", "show"], "Cmd": ["/bin/sh", "-c", "show 2"]},
    "no-such-program": {"Entrypoint": ["/no/such"], "Cmd": ["x"]},
    # With Apptainer it costs the image its whole environment.
    "backticks": {"Env": ["A=b", f"BACKTICKS={VALUES['BACKTICKS']}"], "Cmd": ["show"]},
    "workdir": {"WorkingDir": "/srv/work", "Cmd": ["show"]},
    "missing-workdir": {"WorkingDir": "/srv/none", "Cmd": ["show"]},
    "user": {"User": "1000:1000", "Cmd": ["show"]},
}

# Numbers of processes are another each time.
VARYING = re.compile(r"(?<=PPID=)'?[0-9]+'?")

# The same words to either SIF, which has the same place: whatever is printed has to be the same.
SCRIPT = """
exec 2>&1
run() { apptainer "$@"; echo "status $?"; }
o="--userns --cleanenv --contain"
run run $o "$0"
run run $o "$0" show 'two words' '$HOME' "it's" '' '*'
APPTAINERENV_EMPTY=given run exec $o "$0" env -0
run exec $o --pwd /srv/work "$0" pwd
run test $o "$0"
run run-help "$0"
run inspect --runscript --environment --startscript "$0"
"""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What the two SIFs of one image printed, and the method that ours was made by."""

    expected: str
    actual: str
    method: str


@pytest.fixture(scope="session")
def programs() -> list[Item]:
    """The programs of the toolbox, as entries of a layer."""
    packed = toolbox().output("tar", "--create", "--dereference", "--directory", "/", *PROGRAMS)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        content = {name: file.read() for name, file in found.items() if file}
    return [item(to, mode=0o755, content=content[name]) for name, to in PROGRAMS.items()]


def behaviours(*sifs: Path) -> Iterator[str]:
    """Yield all that each SIF prints, run by root in the toolbox."""
    with toolbox().place() as folder:
        for sif in sifs:
            place = folder / "image.sif"
            place.unlink(missing_ok=True)
            shutil.copyfile(sif, place)
            said = toolbox().output("sh", "-c", SCRIPT, str(place))
            text = said.decode("utf-8", "backslashreplace").replace("\0", "\n")
            yield VARYING.sub("", text)


@pytest.fixture(scope="module", params=together("setting", SETTINGS))
def behaviour(
    request: pytest.FixtureRequest,
    programs: list[Item],
    tmp_path_factory: pytest.TempPathFactory,
) -> Behaviour:
    name = request.param
    sample = Sample(layers=[programs, FILES], config=SETTINGS[name])
    with both(name, sample, tmp_path_factory.mktemp(name)) as roads:
        expected, actual = behaviours(roads.reference, roads.ours.path)
    return Behaviour(expected=expected, actual=actual, method=roads.ours.method)


def test_it_behaves_the_same(behaviour: Behaviour) -> None:
    assert behaviour.method == "stream"
    assert behaviour.actual == behaviour.expected


@pytest.mark.parametrize("behaviour", together("setting", ["values"]), indirect=True)
def test_the_programs_of_these_images_run(behaviour: Behaviour) -> None:
    said = behaviour.actual.splitlines()
    assert {"[]", "[two words]", "[it's]", "status 7"} <= {*said}
    assert {"SPACES=  two  words ", "EMPTY=given", "/srv/work"} <= {*said}
