"""The same container when it runs: arguments, environment, working directory, failures."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import Item, folder, item
from tests.support.roads import both, convert_by, loaded, together
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

# What Apptainer 1.4 lets arrive as it is.
PLAIN = ("PATH", "EMPTY", "SPACES", "UNICODE", "EQUALS", "STARS", "with-dash", "with.dot")
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "values": {
        "Env": [f"{key}={VALUES[key]}" for key in PLAIN],
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
    "workdir": {"WorkingDir": "/srv/work", "Cmd": ["show"]},
    "missing-workdir": {"WorkingDir": "/srv/none", "Cmd": ["show"]},
    "user": {"User": "1000:1000", "Cmd": ["show"]},
}

# Every character, alone and between others, and what a shell, Go or Docker might read otherwise.
CHARACTERS = [*map(chr, range(1, 128)), *"\u0085\u00a0\u00e4\u2028\ufeff\ufffd\U0001f600"]
SHELLS = "\\\"'$`{}()\r\n!#~ ab"
CHANCE = random.Random(3328)  # noqa: S311
ENV = [
    *(f"{key}={value}" for key, value in VALUES.items() if key != "PATH"),
    *(f"ALONE_{ord(one):x}={one}" for one in CHARACTERS),
    *(f"WITHIN_{ord(one):x}=a{one}b{one}" for one in CHARACTERS),
    *(f"MIXED_{number}={''.join(CHANCE.choices(SHELLS, k=40))}" for number in range(100)),
    *('JSON={"a": "b"}', "HOME_OF=$HOME/x", "RUN=$(touch /tmp/ran)", "TWICE=first", "TWICE=last"),
    *('PATH=/bin:/usr/bin:/opt/a"b$x', 'LD_LIBRARY_PATH=/opt/"lib"', "PS1=\\u$ ", "TERM=mine"),
    *("LANG=C.UTF-8", "http_proxy=http://user:pa$word@proxy", "UID=5", "nothing"),
]
# Apptainer sets these itself, see docs/explanation/docker-and-sif.md; Docker its host's name.
OWN = {b"HOME", b"PWD", b"UID", b"PROMPT_COMMAND", b"HOSTNAME"}
ADDED = {b"PATH": b":/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin"} | {
    b"LD_LIBRARY_PATH": b":/.singularity.d/libs"
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


def printed(said: bytes) -> dict[bytes, bytes]:
    """Return the variables that ``env -0`` printed, but for those of Apptainer itself."""
    pairs = (entry.partition(b"=") for entry in said.split(b"\0") if entry)
    own = (b"APPTAINER_", b"SINGULARITY_")
    return {key: value for key, _, value in pairs if key not in OWN and not key.startswith(own)}


@pytest.mark.spread
@pytest.mark.parametrize("method", ["stream", "apptainer"])
def test_env_arrives_as_docker_prints_it(
    programs: list[Item], tmp_path: Path, method: str
) -> None:
    sample = Sample(layers=[programs, FILES], config={"Env": ENV})
    with loaded("env", sample) as tag:
        made = convert_by(method, "env", tag, tmp_path)
        argv = ["docker", "run", "--rm", "--network", "none", tag, "env", "-0"]
        expected = printed(subprocess.run(argv, capture_output=True, check=True).stdout)
    with toolbox().place() as folder:
        shutil.copyfile(made.path, folder / "image.sif")
        words = ("exec", "--userns", "--cleanenv", "--contain", str(folder / "image.sif"))
        actual = printed(toolbox().output("apptainer", *words, "env", "-0"))

    for name in (b"with-dash", b"with.dot"):  # no shell takes them
        del expected[name]
    assert actual == {key: value + ADDED.get(key, b"") for key, value in expected.items()}
    assert (made.method, made.verified) == (method, "ran env")
    assert [note for note in made.notes if note.startswith("warning: ENV is not whole")]


@pytest.mark.parametrize("behaviour", together("setting", ["values"]), indirect=True)
def test_the_programs_of_these_images_run(behaviour: Behaviour) -> None:
    said = behaviour.actual.splitlines()
    assert {"[]", "[two words]", "[it's]", "status 7"} <= {*said}
    assert {"SPACES=  two  words ", "EMPTY=given", "/srv/work"} <= {*said}
