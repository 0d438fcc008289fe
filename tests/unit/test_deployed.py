"""What a cluster's catalog is, which version a rollback means, and what is surplus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.model import Cluster, Node, Role, SshAccess
from sifline.model.catalog import Behind, Catalog, CatalogImage
from sifline.report import deployed as report
from sifline.stages.deployed import catalog, removal, versions

KEY = "custom-images/hello"
CLUSTER = Cluster(
    name="lab",
    nodes=tuple(
        Node(name=name, role=role, address="10.0.0.1")
        for name, role in (("c", Role.CONTROLLER), ("n1", Role.COMPUTE), ("n2", Role.COMPUTE))
    ),
    ssh=SshAccess(user="root"),
    partitions=(),
    source=Path("lab.yaml"),
)


def sha(letter: str) -> str:
    return letter * 64


def version(letter: str, day: int, **more: Any) -> dict[str, Any]:
    when = f"2026-01-{day:02d}T00:00:00+00:00"
    known = {"sha256": sha(letter), "size": 10, "when": when, "who": "ada", "commit": f"{letter}1"}
    return {**known, **more}


def entry(now: dict[str, Any], *before: dict[str, Any], found: str | None = "") -> dict[str, Any]:
    known = {"name": "hello", "category": "custom-images", "path": "/x", "previous": [*before]}
    return {**now, **known, "found": now["sha256"] if found == "" else found}


def answer(
    item: dict[str, Any] | None, history: Sequence[dict[str, Any]] | None = None
) -> dict[str, Any]:
    images = {KEY: item} if item else {}
    told = {} if history is None else {KEY: [*history]}
    return {"images": images, "history": told, "unknown": []}


def together(
    answers: Mapping[str, Mapping[str, Any]], silent: Mapping[str, str] | None = None
) -> Catalog:
    return catalog.together(CLUSTER, answers, silent or {})


def image_of(*contents: tuple[str, int], history: Sequence[dict[str, Any]]) -> CatalogImage:
    """An image whose current version is the first of ``contents``, on every node."""
    now, *before = [version(letter, day) for letter, day in contents]
    one = answer(entry(now, *before), history)
    return together(dict.fromkeys(("c", "n1", "n2"), one)).images[0]


def test_the_version_put_in_place_last_is_current_and_others_are_behind() -> None:
    found = together(
        {
            "c": answer(entry(version("b", 2), version("a", 1))),
            "n1": answer(entry(version("a", 1))),
            "n2": answer(None),
        }
    )

    (image,) = found.images
    assert image.current
    assert (image.current.sha256, image.current.nodes) == (sha("b"), ("c",))
    assert image.behind == (
        Behind(node="n1", why="other version", sha256=sha("a")),
        Behind(node="n2", why="missing"),
    )
    assert [(item.sha256, item.nodes) for item in image.previous] == [(sha("a"), ("c", "n1"))]


def test_a_later_deployment_to_some_nodes_makes_the_others_behind() -> None:
    old = answer(entry(version("a", 1)), [version("a", 1)])
    again = [version("a", 1), version("b", 2), version("a", 3)]
    new = answer(entry(version("a", 3), version("b", 2)), again)
    other = answer(entry(version("b", 2), version("a", 1)), [version("b", 2)])
    found = together({"c": other, "n1": new, "n2": old}).images[0]

    assert found.current
    assert (found.current.sha256, found.current.nodes) == (sha("a"), ("n1", "n2"))
    assert [item.node for item in found.behind] == ["c"]


def test_the_same_version_on_other_nodes_days_later_is_another_event() -> None:
    found = together(
        {
            "c": answer(entry(version("a", 1)), [version("a", 1)]),
            "n1": answer(entry(version("a", 5)), [version("a", 5)]),
        }
    )

    assert [item.version.nodes for item in found.images[0].history] == [("c",), ("n1",)]


def test_a_damaged_or_lost_file_is_behind_whatever_its_catalog_says() -> None:
    found = together(
        {
            "c": answer(entry(version("a", 1))),
            "n1": answer(entry(version("a", 1), found=sha("f"))),
            "n2": answer(entry(version("a", 1), found=None)),
        }
    )

    assert [(item.node, item.why) for item in found.images[0].behind] == [
        ("n1", "damaged"),
        ("n2", "missing"),
    ]


def test_nodes_that_do_not_answer_are_named_and_do_not_stop_it() -> None:
    found = together({"c": answer(entry(version("a", 1)))}, {"n1": "n1: is down", "n2": "n2: x"})

    assert found.silent == (("n1", "n1: is down"), ("n2", "n2: x"))
    assert [(item.node, item.why) for item in found.images[0].behind] == [
        ("n1", "no answer"),
        ("n2", "no answer"),
    ]
    text = report.catalog(found)
    assert "1 of 3" in text
    assert "no answer: n1: is down" in text


def test_what_several_nodes_recorded_is_one_event() -> None:
    # Of deployers without root each node records its own time and name.
    late = {**version("a", 1), "when": "2026-01-01T00:00:09+00:00", "who": "ada@n1"}
    found = together(
        {
            "c": answer(
                entry(version("b", 2), version("a", 1)), [version("a", 1), version("b", 2)]
            ),
            "n1": answer(entry(version("b", 2), late), [late, version("b", 2)]),
        }
    )

    assert [(item.version.sha256, item.version.nodes) for item in found.images[0].history] == [
        (sha("a"), ("c", "n1")),
        (sha("b"), ("c", "n1")),
    ]
    assert [(item.in_place, item.kept) for item in found.images[0].history] == [
        ((), ("c", "n1")),
        (("c", "n1"), ()),
    ]


def test_the_same_version_deployed_twice_is_two_events() -> None:
    twice = [version("a", 1), version("b", 2), version("a", 3)]
    found = together({"c": answer(entry(version("a", 3)), twice)})

    assert [item.version.sha256 for item in found.images[0].history] == [
        sha("a"),
        sha("b"),
        sha("a"),
    ]


def test_a_catalog_of_an_earlier_release_has_the_history_of_its_versions() -> None:
    found = together({"c": answer(entry(version("b", 2), version("a", 1)))})

    assert [item.version.sha256 for item in found.images[0].history] == [sha("a"), sha("b")]


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["event", "when", "size", "sha256", KEY]), inner)
    ),
    max_leaves=8,
)


@given(history=JSON | st.dictionaries(st.just(KEY), JSON))
def test_a_history_that_somebody_edited_is_read_as_far_as_it_makes_sense(history: Any) -> None:
    one = {**answer(entry(version("a", 1))), "history": history}

    found = together({"c": one})

    assert [image.key for image in found.images if image.current] == [KEY]


def test_an_image_that_was_undeployed_has_a_history_and_is_not_in_the_catalog() -> None:
    gone = {**version("a", 2), "event": "undeployed"}
    found = together({"c": answer(None, [version("a", 1), gone])})

    assert catalog.find(found, "hello").current is None
    assert [item.what for item in catalog.find(found, KEY).history] == ["deployed", "undeployed"]
    assert report.catalog_values(found)["images"] == []


def test_a_name_that_is_not_there_or_in_two_categories_is_an_error() -> None:
    one = answer(entry(version("a", 1)))
    two = {**one, "images": {**one["images"], "base-images/hello": entry(version("a", 1))}}
    found = together({"c": two})

    with pytest.raises(UsageError, match=r"base-images/hello, custom-images/hello"):
        catalog.find(found, "hello")
    with pytest.raises(UsageError, match=r"helo is not deployed to lab\. Did you mean hello"):
        catalog.find(found, "helo")
    assert catalog.find(found, "base-images/hello").category == "base-images"


def test_the_version_before_is_the_one_deployed_before() -> None:
    deployed = [version("a", 1), version("b", 2), version("c", 3)]
    image = image_of(("c", 3), ("b", 2), ("a", 1), history=deployed)

    assert versions.chosen(image, "", CLUSTER).sha256 == sha("b")


def test_a_second_rollback_goes_further_back_and_not_to_the_version_that_was_left() -> None:
    deployed = [version("a", 1), version("b", 2), version("c", 3)]
    back = {**version("b", 4), "event": "rolled back"}
    image = image_of(("b", 4), ("c", 3), ("a", 1), history=[*deployed, back])
    oldest = image_of(("a", 5), ("b", 4), ("c", 3), history=[*deployed, back])

    assert versions.chosen(image, "", CLUSTER).sha256 == sha("a")
    with pytest.raises(UsageError, match=r"later ones are bbbbbbbbbbbb, cccccccccccc, see --to"):
        versions.chosen(oldest, "", CLUSTER)


def test_an_undeployed_image_has_no_version_to_go_back_to() -> None:
    gone = {**version("a", 2), "event": "undeployed"}
    image = together({"c": answer(None, [version("a", 1), gone])}).images[0]

    with pytest.raises(UsageError, match=r"hello was undeployed from lab; deploy it again"):
        versions.chosen(image, "", CLUSTER)


def test_a_version_is_named_by_the_beginning_of_its_digest_fingerprint_or_commit() -> None:
    now = version("a", 2, fingerprint="f00dfeed", commit="c0ffee11")
    image = together({"c": answer(entry(now, version("b", 1, commit="c0ffee22")))}).images[0]

    for word, letter in (("aaaa", "a"), ("F00D", "a"), ("c0ffee1", "a"), ("c0ffee2", "b")):
        assert versions.chosen(image, word, CLUSTER).sha256 == sha(letter)
    with pytest.raises(UsageError, match=r"aaaaaaaaaaaa \(commit c0ffee11\), bbbbbbbbbbbb"):
        versions.chosen(image, "c0ffee", CLUSTER)
    with pytest.raises(UsageError, match=r"no version of hello begins so; see invoke history"):
        versions.chosen(image, "dddd", CLUSTER)
    with pytest.raises(UsageError, match="at least 4 digits"):
        versions.chosen(image, "c0f", CLUSTER)


def test_a_version_whose_file_is_gone_is_named_as_that() -> None:
    image = image_of(("b", 2), history=[version("a", 1), version("b", 2)])

    with pytest.raises(UsageError, match=r"no node has the file of aaaaaaaaaaaa any more"):
        versions.chosen(image, "aaaa", CLUSTER)


@given(to=st.text(min_size=1))
def test_a_version_that_is_found_begins_so(to: str) -> None:
    image = image_of(("b", 2), ("a", 1), history=[version("a", 1), version("b", 2)])
    try:
        found = versions.chosen(image, to, CLUSTER).sha256
    except UsageError:
        found = ""

    assert not found or found.startswith(to.lower())


def held(*letters: str, current: str = "", users: str = "", name: bool = True) -> dict[str, Any]:
    """What a node has of the image: versions, the latest first."""
    return {
        "current": sha(current) if current else "",
        "name": name,
        "recorded": name,
        "previous": [sha(letter) for letter in letters if letter != current],
        "versions": [
            {
                "sha256": sha(letter),
                "size": 10,
                "users": ["process 7 (cat)"] if letter in users else [],
            }
            for letter in letters
        ],
    }


def planned(
    looks: Mapping[str, dict[str, Any]],
    jobs: Sequence[dict[str, Any]] = (),
    *,
    keep: int = 1,
    **more: Any,
) -> dict[tuple[str, str], str]:
    """Return why each surplus version stays, by node and letter; "" for what is removed."""
    all_looks = {node: {"images": {KEY: item}, "uploads": []} for node, item in looks.items()}
    found = removal.plan(all_looks, jobs, keep=keep, **more)
    return {(item.node, item.what[0]): item.why for item in found}


def job(*names: str) -> dict[str, Any]:
    return {"job": "8", "user": "alice", "state": "PENDING", "names": [*names]}


def test_prune_keeps_the_version_in_place_and_as_many_before_it() -> None:
    there = held("d", "c", "b", "a", current="d")

    assert planned({"c": there}) == {("c", "b"): "", ("c", "a"): ""}
    assert planned({"c": there}, keep=0) == {("c", "c"): "", ("c", "b"): "", ("c", "a"): ""}
    assert planned({"c": there}, keep=3) == {}


def test_prune_keeps_on_all_nodes_what_a_process_of_one_has_open() -> None:
    found = planned(
        {"c": held("b", "a", current="b"), "n1": held("b", "a", current="b", users="a")}, keep=0
    )

    why = "process 7 (cat) on n1 has it open"
    assert found == {("c", "a"): why, ("n1", "a"): why}


def test_prune_keeps_a_version_that_a_job_names() -> None:
    there = {"c": held("b", "a", current="b")}
    path = f"/opt/containers/.registry/versions/{KEY}/{sha('a')}.sif"

    assert planned(there, [job(path)], keep=0) == {("c", "a"): "job 8 of alice (pending) names it"}
    # The name leads to the version in place, which stays anyway.
    assert planned(there, [job(f"/opt/containers/{KEY}.sif")], keep=0) == {("c", "a"): ""}


def test_of_an_undeployed_image_all_goes_but_what_jobs_name() -> None:
    there = {"c": held("b", "a", name=False)}

    assert planned(there, keep=2) == {("c", "b"): "", ("c", "a"): ""}
    named = planned(there, [job("hello.sif")], keep=2)
    assert set(named.values()) == {"job 8 of alice (pending) names it"}
    assert planned(there, [job("other.sif", "othello.sif")]) == {("c", "b"): "", ("c", "a"): ""}


def test_undeploying_makes_the_version_in_place_surplus() -> None:
    assert planned({"c": held("b", "a", current="b")}, images=[KEY]) == {
        ("c", "b"): "",
        ("c", "a"): "",
    }


def test_of_a_shared_folder_one_node_removes() -> None:
    there = held("b", "a", current="b")

    assert planned({"c": there, "n1": there}, keep=0, shared=True) == {("c", "a"): ""}


@given(
    letters=st.lists(st.sampled_from("abcdef"), unique=True, min_size=1),
    keep=st.integers(min_value=0, max_value=9),
    users=st.text(alphabet="abcdef"),
)
def test_prune_never_removes_what_is_in_place_or_in_use(
    letters: list[str], keep: int, users: str
) -> None:
    found = planned({"c": held(*letters, current=letters[0], users=users)}, keep=keep)

    removed = {letter for (_, letter), why in found.items() if not why}
    assert letters[0] not in {letter for _, letter in found}
    assert not removed & set(users)
    assert len(removed) <= max(0, len(letters) - 1 - keep)
