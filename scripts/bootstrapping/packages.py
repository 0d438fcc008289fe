"""The distribution's packages that this machine lacks, and installing them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bootstrapping.commands import Stop, as_root, ask_password, can_be_root, do, say, which
from bootstrapping.machine import Machine, look

# This release has no package of buildx; the one of the next release runs on it unchanged.
BORROWS_BUILDX = {"bookworm": "trixie"}
# Later releases of Debian, and Ubuntu's, have no package of Packer.
PACKER = frozenset({"bookworm"})
# Only pictures need it: it is installed where that can be, and nothing stops without it.
WITHOUT = frozenset({"graphviz"})


class Need(NamedTuple):
    """A package to install, and what for."""

    package: str
    why: str


def needs(machine: Machine) -> list[Need]:
    """Return the packages this machine lacks, in the order in which they are explained."""
    split_client = machine.distribution != "ubuntu" and machine.codename != "bookworm"
    client = "docker-cli" if split_client else "docker.io"
    no_engine = machine.engine == "silent" and not machine.dockerd
    confined = machine.apparmor and "apparmor_parser" not in machine.tools
    wanted = [
        (no_engine, "docker.io", "the engine that builds and runs the images"),
        (no_engine and "iptables" not in machine.tools, "iptables", "networks of the engine"),
        (no_engine and confined, "apparmor", "the engine needs it on this kernel"),
        (not machine.docker, client, "the client of the engine"),
        (not machine.buildx, "docker-buildx", "builds with BuildKit"),
        ("mmdebstrap" not in machine.tools, "mmdebstrap", "makes base images without a hub"),
        (
            machine.distribution == "ubuntu" and "debian-archive-keyring" not in machine.tools,
            "debian-archive-keyring",
            "checks the signatures of Debian's archive",
        ),
        (
            not machine.root and "newuidmap" not in machine.tools,
            "uidmap",
            "lets mmdebstrap work for an ordinary user",
        ),
        ("rsync" not in machine.tools, "rsync", "copies images to the nodes"),
        ("ssh" not in machine.tools, "openssh-client", "reaches the nodes"),
        ("dot" not in machine.tools, "graphviz", "draws the graph of images"),
        (machine.tests and "zsh" not in machine.tools, "zsh", "its completion is tested"),
        (machine.tests and "fish" not in machine.tools, "fish", "its completion is tested"),
        (
            machine.tests and machine.codename in PACKER and "packer" not in machine.tools,
            "packer",
            "its template of the node image is tested",
        ),
        (not machine.venv, "python3-venv", "makes the project's environment"),
        (not machine.ca_bundle, "ca-certificates", "trusted connections in build steps"),
    ]
    found = [Need(package, why) for missing, package, why in wanted if missing]
    return list({need.package: need for need in reversed(found)}.values())[::-1]


def obtain(missing: Sequence[Need], machine: Machine, may_install: bool) -> None:
    """Install what is missing, or say what that would take."""
    if not any(need.package not in WITHOUT for need in missing) and not (
        may_install and which("apt-get") and can_be_root()
    ):
        return
    names = [need.package for need in missing]
    if not may_install:
        raise Stop(f"missing: {', '.join(names)}; without --no-install they are installed", 3)
    if not which("apt-get"):
        listed = "; ".join(f"{need.package} ({need.why})" for need in missing)
        raise Stop(
            f"only Debian and Ubuntu are installed on; install by your own means: {listed}", 3
        )
    say(f"installing from the packages of {machine.distribution} {machine.codename}:")
    for need in missing:
        say(f"  {need.package}: {need.why}")
    install(missing, machine.codename)
    left = [need for need in needs(look(machine.tests)) if need.package not in WITHOUT]
    if left:
        raise Stop(f"still missing after installing: {', '.join(n.package for n in left)}", 3)


def install(missing: Sequence[Need], codename: str) -> None:
    """Install the packages, and nothing that is only recommended."""
    ask_password()
    # An interrupted installation leaves packages half configured, and apt-get refuses then.
    do(as_root(["dpkg", "--configure", "-a"]), "packages.log")
    apt_get("update")
    borrowed = [
        n.package for n in missing if (n.package, codename) == ("docker-buildx", "bookworm")
    ]
    packages = [need.package for need in missing if need.package not in borrowed]
    if packages:
        apt_get("install", "--yes", "--no-install-recommends", *packages)
    for package in borrowed:
        install_from(package, codename, BORROWS_BUILDX[codename])


def apt_get(*arguments: str) -> None:
    """Run apt-get as root; another apt at work is waited for."""
    do(as_root(["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]), "packages.log")


def install_from(package: str, codename: str, suite: str) -> None:
    """Install one package of a later release, through a view of the archive that is then gone.

    Neither a source nor a pin is left behind that could pull in more of that release later.
    """
    say(f"{package} comes from {suite}, because {codename} has none")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt downloads as a user of its own
        for path in ("lists/partial", "cache/archives/partial", "sources.list.d"):
            (folder / path).mkdir(parents=True)
        if not write_sources(folder / "sources.list.d", codename, suite):
            raise Stop(
                f"no apt source of {codename} to take {package} of {suite} from; add one", 3
            )
        view = ["apt-get", "-o", "Dir::Etc::sourcelist=/dev/null"]
        view += ["-o", f"Dir::Etc::sourceparts={folder}/sources.list.d"]
        view += ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        # An archive's mirror may be frozen at a date: its index is then past its end.
        view += ["-o", "Acquire::Check-Valid-Until=false", "-o", "Acquire::Languages=none"]
        # Another archive among the sources may not have that suite; the download will tell.
        do([*view, "update"], "packages.log", may_fail=True)
        do([*view, "download", package], "packages.log", cwd=folder)
        files = [str(file) for file in folder.glob("*.deb")]
        apt_get("install", "--yes", "--no-install-recommends", *files)


def write_sources(folder: Path, codename: str, suite: str) -> bool:
    """Write the machine's own sources, pointed at ``suite``; return whether there are any."""
    own = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for number, file in enumerate(own):
        if file.suffix in {".list", ".sources"} and file.exists():
            text = next_suite(
                file.read_text(encoding="utf-8"), file.suffix == ".sources", codename, suite
            )
            if text:
                (folder / f"{number}{file.suffix}").write_text(text, encoding="utf-8")
    return any(folder.iterdir())


def next_suite(text: str, deb822: bool, codename: str, suite: str) -> str:
    """Return an apt sources file's entries for ``codename``, pointed at ``suite`` instead.

    Entries of other suites (updates, security, other archives) are left out.
    """
    here = {codename, "stable", "oldstable"}
    if not deb822:
        line = re.compile(r"^(deb\s+(?:\[[^]]*\]\s+)?\S+\s+)(\S+)(\s.*)$", re.MULTILINE)
        return "".join(
            f"{found[1]}{suite}{found[3]}\n" for found in line.finditer(text) if found[2] in here
        )
    kept = []
    for paragraph in re.split(r"\n[ \t]*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = dict(re.findall(r"(?m)^([\w-]+):[ \t]*((?:.*)(?:\n[ \t].*)*)", paragraph))
        fields = {name.title(): value for name, value in fields.items()}
        is_on = fields.get("Enabled", "yes").strip().lower() not in {"no", "false", "0"}
        if is_on and here & set(fields.get("Suites", "").split()):
            fields.update(Suites=suite, Types="deb")
            kept.append("".join(f"{name}: {value}\n" for name, value in fields.items()))
    return "\n".join(kept)
