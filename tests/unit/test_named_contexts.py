"""Folders beside the build context: what they hold counts, and the engine gets them by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.images import load_image_settings
from sifline.engines.docker import builds
from sifline.errors import UsageError
from sifline.model import Image, Workspace
from sifline.stages.build.contexts import context_digest, context_entries
from tests.support.recording import RecordingRunner, answer


@pytest.fixture
def image(tmp_path: Path) -> Image:
    folder, source = tmp_path / "images" / "x", tmp_path / "src"
    for path in (folder, source / "sub"):
        path.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY --from=src . /\n")
    for name in ("kept", "left-out"):
        (source / name).write_text(name)
    (source / ".dockerignore").write_text("left-out\nDockerfile.dockerignore\n")
    # The engine reads it beside a Dockerfile alone.
    (source / "Dockerfile.dockerignore").write_text("kept\n")
    return Image(name="x", folder=folder, tag="", contexts=(("src", source),))


def test_what_a_named_context_holds_counts(image: Image, tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    source = tmp_path / "src"
    before = context_digest(image, space)

    (source / "left-out").write_text("other")
    assert context_digest(image, space) == before

    names = {*context_entries(image, space)}
    assert names == {"Dockerfile", "src:kept", "src:sub", "src:.dockerignore"}

    (source / "kept").write_text("other")
    assert context_digest(image, space) != before


def test_the_name_of_a_context_counts_and_not_its_place(image: Image, tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    before = context_digest(image, space)
    moved = (tmp_path / "src").rename(tmp_path / "moved")

    def named(name: str) -> Image:
        return Image(name="x", folder=image.folder, tag="", contexts=((name, moved),))

    assert context_digest(named("src"), space) == before
    assert context_digest(named("other"), space) != before
    with pytest.raises(UsageError, match="src cannot be read"):
        context_digest(image, space)


def test_a_context_with_what_sifline_writes_is_refused_until_it_is_left_out(
    image: Image, tmp_path: Path
) -> None:
    space = Workspace(root=tmp_path / "src")
    space.build.mkdir()
    with pytest.raises(UsageError, match=r"holds build, .* add the line build to .*dockerignore"):
        context_digest(image, space)

    with (tmp_path / "src" / ".dockerignore").open("a") as rules:
        rules.write("build\n")
    before = context_digest(image, space)
    (space.build / "log").write_text("x")
    assert context_digest(image, space) == before


def test_the_engine_gets_the_folder_by_its_name(tmp_path: Path) -> None:
    class Buildx(RecordingRunner):
        def run(self, argv, **more):  # type: ignore[no-untyped-def]
            Path(argv[argv.index("--iidfile") + 1]).write_text("sha256:made")
            return super().run(argv, **more)

    runner = Buildx({("docker",): answer()})
    builds.build(
        runner,
        tmp_path,
        labels={},
        build_args={},
        secrets=(),
        contexts={"src": Path("/a b")},
        ssh=["default=/run/agent"],
        log=tmp_path / "log",
        on_step=lambda _: None,
    )

    (words,) = runner.argvs
    assert words[words.index("--build-context") + 1] == "src=/a b"
    assert words[words.index("--ssh") + 1] == "default=/run/agent"


@pytest.mark.parametrize("place", ["docker-image://alpine", "https://x/y.git", "git@x:y"])
def test_a_named_context_is_a_folder(tmp_path: Path, place: str) -> None:
    path = tmp_path / "image.toml"
    path.write_text(f'[contexts]\nsrc = "{place}"\n')
    with pytest.raises(UsageError, match=r"contexts\.src"):
        load_image_settings(path)
