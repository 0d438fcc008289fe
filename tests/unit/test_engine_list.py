"""The engine's list of images: through its socket, and where that is not to be had."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sifline.engines.docker import api
from sifline.engines.docker.engine import ANSWER_SECONDS, labelled, remove_left_over
from sifline.engines.docker.images import Docker, EngineImage
from sifline.errors import MissingError
from sifline.machine.process import Result
from tests.support.recording import RecordingRunner, answer

Answers = Mapping[tuple[str, ...], Result | Exception | list[Result | Exception]]

LISTED = {
    "Id": "sha256:1",
    "RepoTags": ["sifline/a:latest", "<none>:<none>"],
    "RepoDigests": None,
    "Size": 7,
    "Created": 1700000000,
    "Labels": {"sifline.image": "a"},
}
INSPECTED = {
    **{key: LISTED[key] for key in ("Id", "RepoTags", "RepoDigests", "Size")},
    "Created": "2023-11-14T22:13:20.123456789Z",
    "Config": {"Labels": {"sifline.image": "a"}},
}
IMAGE = EngineImage(
    image_id="sha256:1",
    tags=("sifline/a:latest",),
    digests=(),
    size=7,
    created=1700000000,
    labels={"sifline.image": "a"},
)
BY_COMMAND: Answers = {
    ("docker", "image", "ls"): answer("sha256:1\nsha256:1\n"),
    ("docker", "image", "inspect"): answer(json.dumps([INSPECTED])),
}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """An engine that answers the requests it is put in charge of, one connection each."""
    answers: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "engine.sock"))
    server.listen()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answers[0])

    threading.Thread(target=serve, daemon=True).start()
    yield answers
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_a_local_engine_is_asked_without_any_command(engine: list[bytes]) -> None:
    engine.append(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + json.dumps([LISTED]).encode())

    assert Docker(RecordingRunner()).all() == (IMAGE,)


def test_an_answer_of_known_length_may_come_in_pieces(tmp_path: Path) -> None:
    head, parts = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (b"[1", b",2]")
    path = tmp_path / "engine.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(1 << 16)
            for part in (head, *parts):
                connection.sendall(part)
                time.sleep(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    assert api.ask(path, "/x", 10) == [1, 2]
    thread.join()


@pytest.mark.parametrize("reply", [b"HTTP/1.0 500 No\r\n\r\n{}", b"", b"HTTP/1.0 200 OK\r\n\r\n["])
def test_an_answer_that_is_none_leaves_it_to_the_command(
    engine: list[bytes], reply: bytes
) -> None:
    engine.append(reply)

    assert Docker(RecordingRunner(BY_COMMAND)).all() == (IMAGE,)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DOCKER_HOST", "ssh://elsewhere"), ("DOCKER_CONTEXT", "elsewhere")],
)
def test_an_engine_elsewhere_is_asked_by_the_command(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv(variable, value)

    assert Docker(RecordingRunner(BY_COMMAND)).all() == (IMAGE,)


def test_a_context_of_the_settings_is_asked_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "elsewhere"}')

    assert Docker(RecordingRunner(BY_COMMAND)).all() == (IMAGE,)


def test_no_engine_is_told_with_what_starts_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    said = "Cannot connect to the Docker daemon at x. Is the docker daemon running?"
    runner = RecordingRunner({("docker",): answer(stderr=said, returncode=1)})

    with pytest.raises(MissingError, match="scripts/bootstrap"):
        Docker(runner).all()


def test_containers_without_labels_are_passed_over(engine: list[bytes]) -> None:
    listed = [{"Id": "1", "Labels": {"a": "b"}}, {"Id": "2", "Labels": None}]
    listed += [{"Id": "3"}, {"Id": "4", "Labels": {"c": "d"}}]
    engine.append(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(listed).encode())

    assert labelled(RecordingRunner(), "a") == {"1": "b"}


def test_nobody_waits_for_ever_for_an_engine_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:1")
    runner = RecordingRunner({("docker", "ps"): answer()})

    labelled(runner, "a")
    remove_left_over(runner, "b")

    assert [call.timeout for call in runner.calls] == [ANSWER_SECONDS] * 2
