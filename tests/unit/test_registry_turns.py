"""The registry script: what is staged before all switch, and whose turn it is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from sifline.nodeside import registry
from tests.unit.test_registry_nodeside import CATEGORY, VISIBLE, deploy, entry, of, run, sha

LATER = registry.LEASE_SECONDS + 1
IMAGE = (f"--category={CATEGORY}", "--name=hello")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in registry.FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The node's time, which a test sets."""
    now = [1_000_000.0]
    monkeypatch.setattr("sifline.nodeside.registry.time.time", lambda: now[0])
    return now


def lease(root: Path, token: str, *words: str, who: str = "ada@ws") -> dict[str, Any]:
    return run(root, "lease", *IMAGE, f"--token={token}", f'--meta={{"who": "{who}"}}', *words)


def send(root: Path, content: bytes) -> None:
    Path(run(root, "status", *of(content))["upload"]).write_bytes(content)


def stage(root: Path, content: bytes, *words: str) -> dict[str, Any]:
    return run(root, "stage", *of(content), *words)


def switch(root: Path, content: bytes, staged: str, *words: str) -> dict[str, Any]:
    return run(root, "switch", *of(content), f"--staged={staged}", *words)


# Staging


def test_jobs_see_nothing_of_a_staged_version_until_the_switch(root: Path) -> None:
    deploy(root, b"one")
    send(root, b"two")

    staged = stage(root, b"two")["staged"]
    assert (root / VISIBLE).read_bytes() == b"one"
    assert entry(root)["sha256"] == sha(b"one")
    answer = switch(root, b"two", staged)

    assert answer["sha256"] == sha(b"two")
    assert (root / VISIBLE).read_bytes() == b"two"
    assert entry(root)["sha256"] == sha(b"two")
    assert not list((root / ".registry" / "uploads").iterdir())


def test_a_wrong_upload_is_removed_and_nothing_staged(root: Path) -> None:
    deploy(root, b"one")
    Path(run(root, "status", *of(b"two"))["upload"]).write_bytes(b"2wo")

    assert stage(root, b"two")["error"] == "digest-mismatch"
    assert (root / VISIBLE).read_bytes() == b"one"
    assert not list((root / ".registry" / "uploads").iterdir())


def test_a_file_that_was_written_to_after_it_was_verified_is_not_switched_to(root: Path) -> None:
    deploy(root, b"one")
    send(root, b"two")
    staged = stage(root, b"two")["staged"]
    version = root / ".registry" / "versions" / CATEGORY / "hello" / f"{sha(b'two')}.sif"
    version.write_bytes(b"2wo")

    assert switch(root, b"two", staged)["error"] == "changed"
    assert (root / VISIBLE).read_bytes() == b"one"
    # Sent again it is right again.
    assert run(root, "status", *of(b"two"))["held"] is False
    send(root, b"two")
    assert switch(root, b"two", stage(root, b"two")["staged"])["sha256"] == sha(b"two")


def test_a_damaged_version_stays_for_who_reads_it_and_is_not_staged(root: Path) -> None:
    deploy(root, b"one")
    version = (root / VISIBLE).resolve()
    version.write_bytes(b"0ne")

    assert stage(root, b"one")["error"] == "digest-mismatch"
    assert version.read_bytes() == b"0ne"


def test_a_version_that_is_here_is_not_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(root, b"one")

    def read(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(registry, "digest", read)
    monkeypatch.setattr(registry, "digest_of", read)
    assert "staged" in stage(root, b"one")


def test_the_same_version_keeps_its_time_for_jobs_that_began_since(root: Path) -> None:
    deploy(root, b"one", '--meta={"when": "2026-05-01T00:00:00+00:00", "who": "ada"}')
    staged = stage(root, b"one")["staged"]
    switch(root, b"one", staged, '--meta={"when": "2026-06-01T00:00:00+00:00", "who": "eve"}')

    found = entry(root)
    assert (found["when"], found["who"]) == ("2026-05-01T00:00:00+00:00", "ada")
    assert found["tests_by"] == "eve"


def test_nothing_is_staged_that_was_not_sent(root: Path) -> None:
    assert stage(root, b"one")["error"] == "no-upload"


# What others put there


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_not_ours_is_replaced_only_where_that_is_asked_for(root: Path, kind: str) -> None:
    place = root / VISIBLE
    if kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to("/etc/hostname")
    else:
        place.write_bytes(b"theirs")
    found = "folder" if kind == "folder" else "file"
    assert run(root, "status", *of(b"one"))["foreign"] == found
    send(root, b"one")

    assert stage(root, b"one")["error"] == "foreign"
    answer = stage(root, b"one", "--foreign=yes")
    if kind == "folder":
        assert answer["message"] == f"{place} is a folder; move it away"
        assert place.is_dir()
        return
    switch(root, b"one", answer["staged"], "--foreign=yes")
    assert place.read_bytes() == b"one"
    assert run(root, "status", *of(b"one"))["foreign"] == ""


# Leases


def test_one_holder_at_a_time_and_each_with_a_higher_number(
    root: Path, clock: list[float]
) -> None:
    assert lease(root, "aa")["number"] == 1
    refused = lease(root, "bb", who="bob@laptop")
    assert refused["error"] == "leased"
    assert refused["message"].startswith(f"ada@ws deploys {CATEGORY}/hello since 1970-01-12T13:46")
    assert refused["message"].endswith("its lease ends in 30 s if it was killed")

    clock[0] += LATER
    assert lease(root, "bb", who="bob@laptop")["number"] == 2
    assert lease(root, "aa", "--number=1") == {
        "error": "lease-lost",
        "message": f"bob@laptop deploys {CATEGORY}/hello meanwhile",
    }


def test_a_renewed_lease_lasts_on(root: Path, clock: list[float]) -> None:
    lease(root, "aa")
    for _ in range(5):
        clock[0] += registry.LEASE_SECONDS - 1
        assert lease(root, "aa", "--number=1")["number"] == 1
        assert lease(root, "bb")["error"] == "leased"


def test_a_lease_that_ran_out_is_renewed_if_nobody_took_another(
    root: Path, clock: list[float]
) -> None:
    lease(root, "aa")
    clock[0] += LATER

    assert lease(root, "aa", "--number=1")["number"] == 1


def test_the_next_run_of_a_checkout_takes_over_what_a_killed_one_had(
    root: Path, clock: list[float]
) -> None:
    assert (lease(root, "aa")["number"], lease(root, "aa")["number"]) == (1, 2)


def test_a_lease_that_is_given_back_is_free_at_once(root: Path, clock: list[float]) -> None:
    lease(root, "aa")
    run(root, "release", *IMAGE, "--token=aa", "--number=1")

    assert lease(root, "bb")["number"] == 2
    # Not by who has it no longer.
    run(root, "release", *IMAGE, "--token=aa", "--number=1")
    assert lease(root, "aa")["error"] == "leased"


def test_leases_of_two_images_have_nothing_to_do_with_each_other(root: Path) -> None:
    lease(root, "aa")
    other = (f"--category={CATEGORY}", "--name=other", "--token=bb")

    assert run(root, "lease", *other)["number"] == 1


def test_a_lease_is_above_what_the_nodes_have_seen(root: Path) -> None:
    assert lease(root, "aa", "--above=41")["number"] == 42


# Fences


def test_who_was_paused_while_its_lease_ran_out_switches_nothing(root: Path) -> None:
    deploy(root, b"zero")
    send(root, b"one")
    paused = stage(root, b"one", "--number=1")["staged"]
    # Another one has the next lease, and staged its version here.
    send(root, b"two")
    stage(root, b"two", "--number=2")

    answer = switch(root, b"one", paused, "--number=1")

    assert answer["error"] == "lease-lost"
    assert (root / VISIBLE).read_bytes() == b"zero"
    assert run(root, "status", *of(b"two"))["fence"] == 2


@pytest.mark.parametrize("text", ["", "{}", '{"leases": {"%s": {}}, "fences": {}}'])
def test_whose_lease_was_lost_with_the_file_is_told_so(root: Path, text: str) -> None:
    lease(root, "aa")
    (root / ".registry" / "turns.json").write_text(text.replace("%s", f"{CATEGORY}/hello"))

    assert lease(root, "aa", "--number=1")["error"] == "lease-lost"


def test_a_file_of_turns_that_makes_no_sense_is_begun_anew(root: Path) -> None:
    texts = ("", "[]", '{"leases": 3, "fences": {}}', '{"leases": {"a": 1}, "fences": {}}')
    for text in (*texts, '{"leases": {}, "fences": {"a": "x"}}'):
        (root / ".registry" / "turns.json").write_text(text)
        assert lease(root, "aa")["number"] == 1
    assert json.loads((root / ".registry" / "turns.json").read_text())["fences"] == {}


# Stage and switch of lease 1 (0, 1), and of lease 2 (2, 3), in each order of the two.
ORDERS = [
    order
    for order in itertools.permutations(range(4))
    if order.index(0) < order.index(1) and order.index(2) < order.index(3)
]


@pytest.mark.parametrize("order", ORDERS)
def test_in_whatever_order_two_deployments_come_the_node_ends_with_the_last_lease(
    root: Path, order: tuple[int, ...]
) -> None:
    staged: dict[int, str] = {}
    for step in order:
        number, content = (1, b"one") if step < 2 else (2, b"two")
        if step % 2 == 0:
            send(root, content)
            staged[number] = stage(root, content, f"--number={number}").get("staged", "0,0,0,0")
        else:
            switch(root, content, staged[number], f"--number={number}")

    assert (root / VISIBLE).read_bytes() == b"two"
