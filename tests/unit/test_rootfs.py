from __future__ import annotations

import io
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from sifline.contents import rootfs
from sifline.contents.rootfs import Complicated, Layout
from sifline.formats.layers import Declared, Tree

CREATED = 1000
FOLDERS = ("dev", "etc", "proc", "sys")


def item(name: str, content: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), 10
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    return item(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **changes})


def laid_out(
    tmp_path: Path,
    *members: tuple[tarfile.TarInfo, bytes],
    xattrs: str = "",
    root: str = "",
    declared: Tree | None = None,
) -> Layout:
    """Lay out an image that has ``members`` of what is looked up."""
    look, skeleton = tmp_path / "look", tmp_path / "skeleton"
    look.mkdir(exist_ok=True)
    with tarfile.open(look / "entries.tar", "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    (look / "xattrs").write_text(xattrs)
    (look / "linked").touch()
    (look / "root").write_text(root or "41ed 0 0\n")
    for name in (*FOLDERS, "tmp", ".singularity.d/env", "var/tmp"):
        (skeleton / name).mkdir(parents=True, exist_ok=True)
    (skeleton / "etc/hosts").touch()
    (skeleton / ".singularity.d/env/01.sh").write_text("script")
    if not (skeleton / ".run").is_symlink():
        (skeleton / ".run").symlink_to(".singularity.d/actions/run")
    return rootfs.layout(look, skeleton, created=CREATED, declared=declared)


def first(layout: Layout) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(layout.first + bytes(1024))) as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            found[info.name] = (info, file.read() if file else b"")
        return found


def test_what_is_missing_is_added_as_apptainer_would(tmp_path: Path) -> None:
    added = first(laid_out(tmp_path))
    assert added[".singularity.d/env/01.sh"][1] == b"script"
    assert added[".run"][0].linkname == ".singularity.d/actions/run"
    assert added["tmp"][0].isdir()
    assert {info.mtime for info, _ in added.values()} == {CREATED}
    assert {(info.uid, info.gid) for info, _ in added.values()} == {(0, 0)}


def test_what_the_image_has_is_kept(tmp_path: Path) -> None:
    image = (folder("tmp", mode=0o1777, uid=5), item(".run", b"own", mode=0o700))
    kept = first(laid_out(tmp_path, *image))
    assert (kept["tmp"][0].mode & 0o7777, kept["tmp"][0].uid) == (0o1777, 5)
    assert kept[".run"][1] == b"own"


def test_hosts_of_the_image_is_emptied_and_keeps_its_owner(tmp_path: Path) -> None:
    hosts = item("etc/hosts", b"127.0.0.1 x", mode=0o600, uid=7)
    info, content = first(laid_out(tmp_path, folder("etc"), hosts))["etc/hosts"]
    assert (content, info.mode, info.uid, info.mtime) == (b"", 0o644, 7, CREATED)


def test_a_link_at_hosts_is_left_alone(tmp_path: Path) -> None:
    link = item("etc/hosts", type=tarfile.SYMTYPE, linkname="real")
    info, _ = first(laid_out(tmp_path, folder("etc"), link))["etc/hosts"]
    assert (info.type, info.linkname) == (tarfile.SYMTYPE, "real")


def test_what_the_engine_hides_comes_from_the_image_or_not_at_all(tmp_path: Path) -> None:
    layout = laid_out(tmp_path, folder("etc"), item("etc/hostname", b"box"))
    assert first(layout)["etc/hostname"][1] == b"box"
    assert ".dockerenv" not in first(layout)
    assert layout.without >= {b".dockerenv", b"etc/hostname", b"etc/mtab", b"dev/console"}


@pytest.mark.parametrize(
    "members",
    [
        (folder(".singularity.d"),),
        (item("etc", type=tarfile.SYMTYPE, linkname="usr/etc"), item("etc/hosts")),
        (item("var", type=tarfile.SYMTYPE, linkname="usr/var"),),
    ],
    ids=["a SIF", "a link for etc", "a link above what is added"],
)
def test_what_only_apptainer_can_lay_out_is_left_to_it(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    with pytest.raises(Complicated):
        laid_out(tmp_path, *members)


def test_an_addition_of_another_apptainer_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "skeleton" / "new").mkdir(parents=True)
    with pytest.raises(Complicated, match="adds /new"):
        laid_out(tmp_path)


SEEN = "\n\n".join(
    [
        "# file: .\nsecurity.selinux=0x01\nuser.of_the_host=0x02",
        "# file: a b\\012c/x\\134y=\nuser.a=0x00ff\nsecurity.capability=0x01",
        "# file: built-here\nuser.of_the_build=0x03",
        "",
    ]
)


def says(kind: str = "f", **xattrs: bytes) -> Declared:
    named = {key.replace("_", ".", 1).encode(): value for key, value in xattrs.items()}
    return Declared(kind=kind, mode=0o755, uid=0, gid=0, xattrs=named)


def test_attributes_are_those_of_the_layers_whatever_the_engine_s_store_has(
    tmp_path: Path,
) -> None:
    label = b"unconfined_u:object_r:container_file_t:s0"
    layout = laid_out(
        tmp_path,
        folder("etc"),
        xattrs=SEEN,
        declared={
            b"": says("d", user_top=b"t" * 30, security_selinux=label),
            b"a b\nc/x\\y=": says(user_a=b"\x00\xff", security_capability=b"\1"),
            b"built-here": says(),
            b"lost": says(user_none=b"", trusted_a=b"1", system_posix_acl_access=b"2"),
            b"labelled": says(security_selinux=label, security_ima=b"1", security_evm=b"2"),
            b"etc": says("d", user_of_etc=b"e"),
        },
    )
    # Capabilities come with the stream, the others are not for a squashfs.
    assert layout.xattrs == {
        b"a b\nc/x\\y=": {b"user.a": b"\x00\xff"},
        b"lost": {b"user.none": b""},
    }
    assert layout.root.xattrs == {b"user.top": b"t" * 30}
    assert first(layout)["etc"][0].pax_headers == {"SCHILY.xattr.user.of_etc": "e"}


def test_long_attributes_of_the_top_folder_are_not_written_in_hexadecimal(tmp_path: Path) -> None:
    value = bytes(range(60))
    layout = laid_out(tmp_path, declared={b"": says("d", user_top=value)})
    assert f"/ x user.top=0s{b64encode(value).decode()}" in rootfs.options(layout)


@pytest.mark.parametrize(
    "xattrs",
    [
        "# file: a\nsecurity.selinux=0x01\nsecurity.SMACK64EXEC=0x02\n\n",
        "# file: a\nsecurity.capability=0x01\n\n",
        "# file: a\ntrusted.overlay.opaque=0x79\nsystem.posix_acl_access=0x02\n\n",
    ],
)
def test_labels_of_a_host_are_left_out_where_the_layers_are_not_known(
    tmp_path: Path, xattrs: str
) -> None:
    assert laid_out(tmp_path, xattrs=xattrs).xattrs == {}


def test_attributes_of_nobody_knows_whom_are_left_to_apptainer(tmp_path: Path) -> None:
    with pytest.raises(Complicated, match="does not say which are the image's"):
        laid_out(tmp_path, xattrs="# file: a\nuser.a=0x01\n\n")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, (0o755, 0, 0)),
        ({b"": Declared(kind="d", mode=0o550, uid=3, gid=4)}, (0o750, 3, 4)),
        (None, (0o755, 11, 12)),
    ],
)
def test_the_top_folder_is_what_a_layer_says_if_that_is_known(
    tmp_path: Path, declared: Tree | None, expected: tuple[int, int, int]
) -> None:
    root = laid_out(tmp_path, root="416d 11 12\n", declared=declared).root
    assert (root.mode, root.uid, root.gid) == expected


def test_times_that_engines_do_not_know_are_1970_and_folders_never_newer_than_the_image(
    tmp_path: Path,
) -> None:
    members = (folder("etc", mtime=CREATED + 5), folder("tmp", mtime=-7), item(".run", mtime=-1))
    far = (folder("var", mtime=2**34), item(".exec", mtime=2**34))
    found = first(laid_out(tmp_path, *members, *far))
    assert [found[name][0].mtime for name in ("etc", "tmp", ".run")] == [CREATED, 0, 0]
    assert [found[name][0].mtime for name in ("var", ".exec")] == [0, 0]


def test_the_top_folder_is_the_image_s_and_its_owner_may_write(tmp_path: Path) -> None:
    words = list(rootfs.options(laid_out(tmp_path, root="416d 11 12\n")))
    assert words == [
        *("-root-mode", "755", "-root-uid", "11", "-root-gid", "12"),
        *("-root-time", str(CREATED)),
    ]


def test_the_same_image_is_laid_out_the_same(tmp_path: Path) -> None:
    assert laid_out(tmp_path, folder("etc")) == laid_out(tmp_path, folder("etc"))


def test_all_that_is_put_first_is_counted(tmp_path: Path) -> None:
    layout = laid_out(tmp_path, folder("etc"))
    assert layout.tally.inodes == len(first(layout)) + 1
