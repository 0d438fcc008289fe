"""Images that are hard to convert, each with one kind of difficulty."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .archives import DAY, Item, folder, hard, item, soft

# Of linux/capability.h: VFS_CAP_REVISION_2, effective; permitted cap_chown and cap_net_raw.
CAPABILITY = bytes.fromhex("01 00 00 02  01 20 00 00  00 00 00 00  00 00 00 00  00 00 00 00")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image: its layers from bottom to top, and its configuration as engines write it.

    ``road`` is the method of a conversion that was told none.
    """

    layers: Sequence[Sequence[Item]]
    config: Mapping[str, Any] = field(default_factory=dict)
    road: str = "stream"


# What the images hold


def modes() -> Iterator[Item]:
    """Owners and modes of files and folders, the sticky, set-uid and set-gid bits among them."""
    yield folder("modes")
    for mode in (0o000, 0o400, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
        yield item(f"modes/file-{mode:o}", mode=mode, content=b"x")
        yield folder(f"modes/folder-{mode:o}", mode=mode)
    yield folder("owners", owner=(1000, 100))
    for owner in ((0, 0), (1, 2), (1000, 1000), (65534, 65534), (65535, 1), (2_000_000_000, 3)):
        name = f"owners/{owner[0]}-{owner[1]}"
        yield item(name, owner=owner, mode=0o640, content=name.encode())
        yield folder(f"{name}.d", owner=owner)
        yield soft(f"{name}.l", name, owner=owner)
    # An owner who is not root takes these bits away unless the mode is set last.
    yield item("owners/set", owner=(1000, 1000), mode=0o6755, content=b"x")


def links() -> Iterator[Item]:
    """Links of both kinds, to themselves and to nowhere, across folders and between devices."""
    yield folder("a")
    yield folder("z")
    for first, others in (
        (item("z/first", content=b"one content", xattrs={"user.of": b"1"}), ("a/second", "third")),
        (item("null", tarfile.CHRTYPE, device=(1, 3), mode=0o666), ("a/null",)),
        (item("fifo", tarfile.FIFOTYPE), ("z/fifo",)),
        (item("a/empty", owner=(7, 7)), ("z/empty", "b")),
        (soft("z/link", "first"), ("a/link",)),
    ):
        yield first
        for name in others:
            yield hard(name, first)
    yield item("a/alone", content=b"one content", xattrs={"user.of": b"1"})
    for name, target in (
        ("absolute", "/z/first"),
        ("nowhere", "none/such"),
        ("self", "self"),
        ("folder", "z"),
        ("long", "x/" * 1500 + "y"),
        ("odd", b"a b\n\t\xff\"'\\"),
        ("up", "../../../../etc/passwd"),
    ):
        yield soft(f"link-{name}", target)


def devices() -> Iterator[Item]:
    """Device nodes with small and large numbers, and fifos."""
    yield folder("nodes")
    for number, device in enumerate([(1, 3), (8, 17), (195, 255), (259, 70000), (4095, 1048575)]):
        yield item(f"nodes/char-{number}", tarfile.CHRTYPE, device=device, mode=0o640)
        yield item(f"nodes/block-{number}", tarfile.BLKTYPE, device=device, owner=(0, 6))
    yield item("nodes/fifo", tarfile.FIFOTYPE, mode=0o622, owner=(7, 8))


def xattrs() -> Iterator[Item]:
    """Extended attributes of files and folders, with names and values of all kinds."""
    yield folder("x", xattrs={"user.folder": b"value"})
    yield item("x/text", content=b"x", xattrs={"user.one": b"1", "user.two": b"2", "user.z": b""})
    yield item("x/bytes", xattrs={"user.all": bytes(range(256)), "user.line": b"a\n\n# file: b\n"})
    yield item("x/name", xattrs={"user.a b": b"v", "user.\u00e4": b"w", "user.back\\slash": b"x"})
    yield item("x/long", xattrs={"user.long": bytes(3000)})
    able = {"security.capability": CAPABILITY}
    yield item("x/ping", mode=0o755, content=b"x", xattrs=able)
    yield item("x/own", mode=0o755, content=b"y", owner=(9, 9), xattrs=able)
    first = item("x/both", mode=0o755, content=b"y", xattrs={**able, "user.note": b"both"})
    yield first
    yield hard("x/both.again", first)
    yield item("x/trusted", content=b"y", xattrs={"trusted.note": b"for root", "user.seen": b"1"})
    yield item("x/odd \n\xff name\\", content=b"y", xattrs={"user.a": b"b"})
    yield folder("etc")
    yield item("etc/hosts", content=b"y", xattrs={"user.a": b"b"})
    yield folder("proc", xattrs={"user.a": b"b"})
    yield item("x/labelled", content=b"y", xattrs={"security.selinux": b"label", "user.a": b"b"})


def names() -> Iterator[Item]:
    """Names that are not UTF-8, have spaces and newlines, or are as long as names can be."""
    yield folder("names")
    for name in (
        b"with space",
        b" before and after ",
        b"new\nline",
        b"\n",
        b"tab\tand\rreturn\x01\x7f",
        b"quotes \"'`",
        b"back\\slash\\n\\040",
        b"dollar $HOME $(id) *?[a]{b,c}",
        b"-rf",
        b"--help",
        b"...",
        b".hidden",
        b"#comment",
        b"~",
        b"latin-1 \xe9\xff\xfe",
        b"\x80",
        "\u00e4\u4e2d\U0001f600".encode(),
        "a\u0308".encode(),  # two ways to write one letter stay two names
        "\u00e4".encode(),
        b"n" * 255,
        b"\xff" * 255,
        b"=",
        b"a=b",
        b"Case",
        b"case",
    ):
        yield item(b"names/" + name, content=name)
        yield folder(b"names/folder of " + name[:200])
        yield item(b"names/folder of " + name[:200] + b"/inside", content=name)
        yield soft(b"names/link to " + name[:200], name)
    deep = "deep"
    yield folder(deep)
    for length in (100, 155, 255, 255, 255, 255, 255):  # past 1,024 bytes
        deep = f"{deep}/{'d' * length}"
        yield folder(deep)
        first = item(f"{deep}/file", content=deep.encode())
        yield first
        yield hard(f"{deep}/hard", first)
        yield soft(f"{deep}/soft", f"/{deep}/file")


def times() -> Iterator[Item]:
    """Times at the edges of what formats can hold."""
    yield folder("times", mtime=981_173_106)
    for time in (-(10**9), -1, 0, 1, 2**31 - 1, 2**31, 4 * 10**9, 2**32 - 1, 2**32 + 9, 9 * 10**9):
        yield item(f"times/{time}", mtime=time, content=b"x")
        yield folder(f"times/{time}.d", mtime=time)
        yield soft(f"times/{time}.l", "nowhere", mtime=time)


def empty() -> Iterator[Item]:
    """Folders and files without content."""
    for name in ("empty", "empty/a", "empty/a/b", "empty/.c"):
        yield folder(name)
    yield item("empty/file")


def implied() -> Iterator[Item]:
    """Folders that the layer names only as part of a path, as no engine writes it."""
    yield item("implied/folders/have/no/entry")
    yield item("etc/hosts", content=b"x")


def sparse() -> Iterator[Item]:
    """Contents that are zeros for the most part, and end in zeros."""
    hole = bytes(5 << 20)
    yield item("hole", content=hole)
    yield item("middle", content=hole + b"x" + hole)
    yield item("ends", content=b"x" + hole + b"x")
    yield item("tail", content=b"x" * 5000 + hole + b"\0")
    yield item("short", content=b"\0")


def lower() -> Iterator[Item]:
    """What layers above change."""
    yield folder("l")
    for name in ("keep", "gone", "replaced", "to-folder", "to-link", "to-device", "touched"):
        yield item(f"l/{name}", content=b"lower", owner=(5, 5), xattrs={"user.low": b"1"})
    for name in ("gone.d", "opaque.d", "to-file.d", "to-link.d", "merged.d", "again.d", "mode.d"):
        yield folder(f"l/{name}", owner=(5, 5), mode=0o700, xattrs={"user.low": b"1"})
        yield item(f"l/{name}/old", content=b"lower")
        yield folder(f"l/{name}/sub")
        yield item(f"l/{name}/sub/old", content=b"lower")
    for name in ("link-to-folder", "link-to-file", "link-gone", "link-moved"):
        yield soft(f"l/{name}", "keep")
    for name, others in (("hard-1", ("hard-2", "hard-3")), ("pair-1", ("pair-2",))):
        first = item(f"l/{name}", content=name.encode())
        yield first
        for other in others:
            yield hard(f"l/{other}", first)


def upper() -> Iterator[Item]:
    """Files, folders and links of the layer below, gone or become another thing."""
    yield folder("l")
    for name in ("gone", "gone.d", "to-folder", "to-link", "to-device", "to-file.d", "to-link.d"):
        yield item(f"l/.wh.{name}")
    for name in ("link-to-folder", "link-to-file", "link-gone"):
        yield item(f"l/.wh.{name}")
    yield item("l/replaced", content=b"upper", mode=0o600)
    yield folder("l/to-folder")
    yield item("l/to-folder/new", content=b"upper")
    yield soft("l/to-link", "keep")
    yield item("l/to-device", tarfile.CHRTYPE, device=(1, 5))
    yield item("l/to-file.d", content=b"upper")
    yield soft("l/to-link.d", "merged.d")
    yield folder("l/link-to-folder")
    yield item("l/link-to-file", content=b"upper")
    yield soft("l/link-moved", "replaced")
    yield folder("l/opaque.d")
    yield item("l/opaque.d/.wh..wh..opq")
    yield item("l/opaque.d/new", content=b"upper")
    yield folder("l/merged.d", owner=(5, 5), mode=0o700, xattrs={"user.low": b"1"})
    yield item("l/merged.d/new", content=b"upper")
    yield folder("l/merged.d/sub")
    yield item("l/merged.d/sub/.wh.old")
    yield folder("l/again.d", owner=(6, 6))  # removed and made anew
    yield item("l/again.d/.wh..wh..opq")
    yield folder("l/mode.d", mode=0o1777, mtime=DAY + 5)
    # One name of three is written anew, another goes: the rest stay one file.
    yield item("l/hard-2", content=b"shared no more")
    yield item("l/.wh.pair-1")


def top() -> Iterator[Item]:
    """Once more."""
    yield folder("l")
    yield item("l/.wh.to-folder")
    yield item("l/to-file.d", content=b"top")
    yield item("l/gone", content=b"back again")
    first = item("l/hard-3", content=b"hard-1")  # as when a build adds a name
    yield first
    yield hard("l/hard-4", first)
    yield item("l/touched", content=b"lower", owner=(5, 5), mtime=DAY + 9)


def rootless() -> Iterator[Item]:
    """What fuse-overlayfs writes: whiteouts in folders that the same layer empties or makes."""
    yield folder("l")
    yield folder("l/opaque.d")
    yield item("l/opaque.d/.wh..wh..opq")
    yield item("l/opaque.d/.wh.old")
    yield item("l/opaque.d/new", content=b"upper")
    yield folder("l/merged.d")
    yield item("l/merged.d/.wh.old")
    yield item("l/merged.d/.wh..wh..opq")
    yield folder("l/new.d")
    yield item("l/new.d/.wh.none")
    yield folder("l/new.d/deep")
    yield item("l/new.d/deep/.wh.none")
    yield item("l/new.d/file", content=b"upper")
    yield item("l/.wh.none")


def unlike_engines() -> Iterator[Item]:
    """Of what an engine with overlayfs makes something else than the specification says."""
    yield folder("l")
    yield item("l/.wh.gone.d")  # what is in it returns in the folder that comes after
    yield folder("l/gone.d")
    yield item("l/gone.d/new", content=b"upper")
    yield item("l/mode.d/new", content=b"upper")  # its folder would get another mode and owner
    yield soft("l/again", "merged.d")
    yield item("l/link-to-folder/.wh.old")  # the link would become a folder
    yield item("missing/.wh.old")  # and this one be made
    yield item("l/keep", tarfile.CHRTYPE, device=(0, 0))  # a whiteout of overlayfs
    yield folder("l/moved.d", xattrs={"trusted.overlay.redirect": b"/l/opaque.d"})


def shadowed() -> Iterator[Item]:
    """Files that engines put their own over, or Apptainer."""
    yield item(".dockerenv", content=b"the image's own", mode=0o600)
    yield folder("etc", mode=0o751, owner=(1, 2))
    yield item("etc/hosts", content=b"127.0.0.9 hosts\n", mode=0o600, owner=(3, 4))
    yield item("etc/hostname", content=b"name\n", mode=0o640)
    yield item("etc/resolv.conf", content=b"nameserver 127.0.0.9\n", mode=0o400)
    yield item("etc/mtab", content=b"a file\n", mode=0o600)
    yield folder("dev", mode=0o700, owner=(1, 1))
    yield item("dev/console", tarfile.CHRTYPE, device=(5, 1), mode=0o620, owner=(0, 5))
    yield folder("dev/pts", mode=0o711)
    yield item("dev/pts/0", content=b"x")
    yield folder("dev/shm", mode=0o1777)
    yield item("dev/shm/file", content=b"x", mode=0o600)
    yield item("dev/null", tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    yield folder("proc", mode=0o500, owner=(2, 2))
    yield item("proc/file", content=b"x")
    yield folder("sys", mode=0o711)
    yield item("sys/file", content=b"x")
    yield folder("root", mode=0o700)
    yield folder("tmp", mode=0o1777)
    yield folder("var")
    yield folder("var/tmp", mode=0o1777)
    yield folder("home", mode=0o711, owner=(7, 7))


def top_folder() -> Iterator[Item]:
    """An entry for the top folder itself."""
    long = b"unconfined_u:object_r:container_file_t:s0"  # sqfstar takes no 25 bytes in hexadecimal
    yield folder("./", mode=0o750, owner=(11, 12), xattrs={"user.top": long})
    yield item("file", content=b"x")


def shadowed_by_links() -> Iterator[Item]:
    """The same names as links and as other things."""
    yield folder("etc")
    yield soft("etc/hosts", "hosts.real")
    yield item("etc/hosts.real", content=b"127.0.0.9 hosts\n", mode=0o600)
    yield soft("etc/resolv.conf", "../run/resolv.conf")
    yield folder("run")
    yield item("run/resolv.conf", content=b"nameserver 127.0.0.9\n", mode=0o600)
    yield soft("etc/mtab", "/proc/self/mounts")
    yield folder("etc/hostname", mode=0o700)
    yield folder(".dockerenv")
    yield folder("dev")
    yield soft("dev/shm", "/run/shm")
    yield item("dev/console", content=b"a file")
    yield item("dev/pts", content=b"a file")


def links_to_nowhere() -> Iterator[Item]:
    """Links in the place of what Apptainer empties, that lead nowhere."""
    yield folder("etc")
    yield soft("etc/hosts", "no-such-file")
    yield soft("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")


def absolute_links() -> Iterator[Item]:
    """Links that lead to the machine's own files while the tree is only a folder of it."""
    yield folder("etc")
    yield folder("tmp", mode=0o1777)
    for name in ("hosts", "resolv.conf"):
        yield soft(f"etc/{name}", f"/tmp/{name}")
        yield item(f"tmp/{name}", content=b"the image's own\n", mode=0o600)


def merged() -> Iterator[Item]:
    """Links in the place of top folders."""
    yield folder("usr")
    yield folder("usr/bin")
    yield soft("bin", "usr/bin")
    yield soft("home", "usr/home")
    yield folder("usr/home", mode=0o700)
    yield soft("root", "usr/root")
    yield folder("usr/root", mode=0o710)
    yield soft("tmp", "usr/bin")


def linked_var() -> Iterator[Item]:
    """A link in the place of a folder in which Apptainer makes one."""
    yield folder("real")
    yield soft("var", "real")


def linked_folders() -> Iterator[Item]:
    """Links in the place of the folders that hold what Apptainer and engines write."""
    yield folder("usr")
    yield folder("usr/etc", mode=0o700)
    yield item("usr/etc/hosts", content=b"mine", mode=0o600)
    yield soft("etc", "usr/etc")
    yield folder("usr/dev")
    yield soft("dev", "usr/dev")


def apptainers() -> Iterator[Item]:
    """Names that Apptainer uses for its own, as files of the image."""
    yield item("environment", content=b"A=B\n", mode=0o600)
    yield item(".run", content=b"mine")
    yield folder("singularity", mode=0o700)
    yield item("singularity/file", content=b"mine")
    yield soft(".exec", "environment")
    yield item(".shell", mode=0o4755, content=b"mine")


def a_sif() -> Iterator[Item]:
    """What a SIF has that was made into an image again."""
    yield folder(".singularity.d", mode=0o700)
    yield folder(".singularity.d/env")
    for name in ("actions", "libs"):
        yield folder(f".singularity.d/{name}")
    for name in ("exec", "run", "shell", "start", "test"):
        yield item(f".singularity.d/actions/{name}", content=b"#!/bin/sh\n# before\n", mode=0o700)
        yield soft(f".{name}", f".singularity.d/actions/{name}")
    yield item(".singularity.d/libs/own.so", content=b"x")
    script = b'#!/bin/sh\nexport FROM_BEFORE="yes"\n'
    yield item(".singularity.d/env/90-environment.sh", content=script, mode=0o755)
    yield item(".singularity.d/env/91-mine.sh", content=script, mode=0o700, owner=(1, 1))
    yield item(".singularity.d/runscript", content=b"#!/bin/sh\necho before\n", mode=0o755)
    yield item(".singularity.d/labels.json", content=b'{"before": "1"}', mode=0o600)
    yield item(".singularity.d/Singularity", content=b"bootstrap: before\n")
    yield soft("environment", ".singularity.d/env/90-environment.sh")
    yield soft("singularity", ".singularity.d/runscript")


def volume() -> Iterator[Item]:
    """A folder that is declared a volume, with files in it."""
    yield folder("data", mode=0o1770, owner=(20, 30))
    yield item("data/file", content=b"in a volume", owner=(20, 31))
    yield folder("data/deep")
    yield soft("data/link", "file")
    yield folder("work", mode=0o700, owner=(40, 40))


def many_layers() -> Sequence[Sequence[Item]]:
    """Layers in each of which one file changes, one goes, and one comes."""
    found = []
    for number in range(40):
        layer = [item("m/changing", content=b"%d" % number), item(f"m/{number}", content=b"x")]
        layer += [item(f"m/.wh.{number - 2}")] if number > 1 else []
        found.append([folder("m"), *layer])
    return found


VALUES = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "EMPTY": "",
    "SPACES": "  two  words ",
    "QUOTES": "single ' double \" both '\"'",
    "DOLLARS": "$HOME ${PATH} $(id) $$ \\$x",
    "BACKTICKS": "`id` ``",
    "BACKSLASHES": "a\\b\\\\c\\n\\",
    "NEWLINES": "one\ntwo\n\nfour\n",
    "UNICODE": "\u00e4\u4e2d\U0001f600",
    "EQUALS": "a=b=c",
    "STARS": "* ? [a-z] {a,b} ~ #x ; & | < > !",
    "TAB": "a\tb",
    "with-dash": "an odd name",
    "with.dot": "another",
}
TEXTS = {
    "org.example.plain": "text",
    "org.example.empty": "",
    **{f"org.example.{key.lower()}": value for key, value in VALUES.items()},
}

# Those of some tests alone stand first and last: pytest 9.1 orders by position.
SAMPLES: Mapping[str, Sample] = {
    "values": Sample(
        layers=[[*empty()]],
        config={
            "Env": [f"{key}={value}" for key, value in VALUES.items()],
            "Labels": TEXTS,
            "Entrypoint": ["/bin/sh", "-c", "echo \"$1\" '`x`' \\ \n"],
            "Cmd": ["two words", "$HOME", ""],
        },
    ),
    "modes": Sample(layers=[[*modes()]]),
    "links": Sample(layers=[[*links()]]),
    "devices": Sample(layers=[[*devices()]]),
    "xattrs": Sample(layers=[[*xattrs()]]),
    "names": Sample(layers=[[*names()]]),
    "times": Sample(layers=[[*times()]]),
    "sparse": Sample(layers=[[*sparse()]]),
    "empty": Sample(layers=[[*empty()]]),
    "implied": Sample(layers=[[*implied()]]),
    "nothing": Sample(layers=[[]]),
    "layers": Sample(layers=[[*lower()], [*upper()], [*top()]]),
    "rootless": Sample(layers=[[*lower()], [*rootless()]]),
    "unlike-engines": Sample(layers=[[*lower()], [*unlike_engines()]], road="apptainer"),
    "many-layers": Sample(layers=many_layers()),
    "shadowed": Sample(layers=[[*shadowed()]]),
    "top-folder": Sample(layers=[[*top_folder()]]),
    "top-folder-below": Sample(layers=[[*top_folder()], [item("other", content=b"x")]]),
    "shadowed-by-links": Sample(layers=[[*shadowed_by_links()]]),
    "merged": Sample(layers=[[*merged()]]),
    "absolute-links": Sample(layers=[[*absolute_links()]]),
    "apptainers": Sample(layers=[[*apptainers()]]),
    "volume": Sample(
        layers=[[*volume()]],
        config={
            # The last two are what `VOLUME data` and a shell's words give.
            "Volumes": {
                name: {} for name in ("/data", "/data/", "/new/volume", "/", "data", "['/data']")
            },
            "WorkingDir": "/work",
        },
    ),
    "missing-workdir": Sample(layers=[[*empty()]], config={"WorkingDir": "/not/there"}),
    "user": Sample(layers=[[*empty()]], config={"User": "1000:1000"}),
    "linked-var": Sample(layers=[[*linked_var()]], road="apptainer"),
    "linked-folders": Sample(layers=[[*linked_folders()]], road="apptainer"),
    "a-sif": Sample(layers=[[*a_sif()]], road="apptainer"),
}
# What Apptainer refuses to build, with what it says.
REFUSED: Mapping[str, tuple[Sample, str]] = {
    "no-layer": (Sample(layers=[]), "empty export"),
    "links-to-nowhere": (
        Sample(layers=[[*links_to_nowhere()]]),
        "failed to make environment files",
    ),
}
