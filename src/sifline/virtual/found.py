"""Existing virtual clusters and their checkouts, read from the labels of containers."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sifline.engines.docker.containers import Container, Containers
from sifline.errors import StepFailed, UsageError, did_you_mean
from sifline.formats import node_lists
from sifline.formats.node_lists import NodeListError
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Role, StandingCluster, Workspace

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
LONGEST_NAME = 40
WORKSPACE = "sifline.workspace"
CLUSTER = "sifline.cluster"
# As login(1) of Debian sets it.
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"


def check_name(name: str) -> None:
    """Raise an error for a cluster name that cannot be part of paths and of the engine's names."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise UsageError(
            f"cluster name {name[: LONGEST_NAME + 1]!r}: use lower-case letters, digits and"
            f" inner dashes, at most {LONGEST_NAME}"
        )


def cluster_label(name: str) -> str:
    """Return the label, ``key=value``, of everything that belongs to the cluster ``name``."""
    return f"{CLUSTER}={name}"


def checkout_name(workspace: Workspace) -> str:
    """Return the value of the label that names the checkout of a cluster."""
    return str(workspace.root.absolute())


def state_folder(name: str, workspace: Workspace) -> Path:
    """Return the folder of the cluster's file, its SSH key and its known host keys."""
    return workspace.clusters.absolute() / name


def cluster_lock(name: str, context: Context) -> AbstractContextManager[None]:
    """Return the lock for changing the cluster ``name``."""
    return records.locked(context.workspace.build / "locks" / f"cluster.{name}.lock", context)


def containers_of(name: str, context: Context) -> list[Container]:
    """Return the nodes of the cluster ``name``, running or not, the controller first."""
    check_name(name)
    found = Containers(context.runner).find(cluster_label(name))
    return sorted(
        found,
        key=lambda item: (
            item.labels["sifline.role"] != Role.CONTROLLER.value,
            item.labels["sifline.node"],
        ),
    )


def refuse_other_checkout(
    name: str, found: Sequence[Container], context: Context, advice: str
) -> None:
    """Raise an error for a cluster that another checkout brought up.

    The other folder need not exist here: the engine may serve other machines and containers.
    """
    owners = {item.labels.get(WORKSPACE, "") for item in found}
    if not found:
        # A run that was killed, or has just begun, may have created only the network.
        owners = Containers(context.runner).network_labels(cluster_label(name), WORKSPACE)
    for other in sorted(owners - {checkout_name(context.workspace), ""}):
        raise UsageError(f"the cluster {name} belongs to the checkout {other}; {advice}")


def own_containers(name: str, context: Context) -> list[Container]:
    """Return the nodes of a cluster that this checkout brought up, the controller first.

    :raises UsageError: if there is none of that name, or another checkout brought it up.
    """
    found = containers_of(name, context)
    advice = "change it there, or bring up your own: invoke cluster.up --cluster NAME"
    refuse_other_checkout(name, found, context, advice)
    if not found:
        raise unknown(name, context)
    return found


def chosen(name: str, listed: str, found: Sequence[Container]) -> list[Container]:
    """Return the nodes of a list such as ``compute-[01-02]``, sorted.

    :raises UsageError: for a list that cannot be read, and for a node that is not there.
    """
    try:
        names = node_lists.expand(listed)
    except NodeListError as error:
        raise UsageError(f"--node {listed!r}: {error}") from None
    if not names:
        raise UsageError(f"--node {listed!r}: names no node; say such as compute-[01-02]")
    nodes = {item.labels["sifline.node"]: item for item in found}
    for node in names:
        if node not in nodes:
            hint = did_you_mean(node, nodes) or f" Its nodes are {', '.join(nodes)}."
            raise UsageError(f"cluster {name} has no node {node!r}.{hint}")
    return [nodes[node] for node in names]


def standing(context: Context) -> tuple[StandingCluster, ...]:
    """Return all virtual clusters of the engine, of all checkouts, sorted."""
    by_name = dict[str, list[Container]]()
    for item in Containers(context.runner).find(CLUSTER):
        by_name.setdefault(item.labels[CLUSTER], []).append(item)
    return tuple(
        StandingCluster(
            name=name,
            nodes=len(items),
            running=sum(item.running for item in items),
            checkout=items[0].labels.get(WORKSPACE, ""),
        )
        for name, items in sorted(by_name.items())
    )


def unknown(name: str, context: Context, *, wanted: bool = True) -> UsageError:
    """Return the error for a virtual cluster that does not exist, with those that do.

    :param wanted: whether the user may want to bring one of that name up.
    """
    found = standing(context)
    near = did_you_mean(name, [item.name for item in found])
    here = checkout_name(context.workspace)
    names = [
        item.name if item.checkout in ("", here) else f"{item.name} (another checkout)"
        for item in found
    ]
    what = f"no virtual cluster {name} is running"
    if wanted and not near:
        what += f"; for one: invoke cluster.up --cluster {name}"
    others = f"Running: {', '.join(names)}" if names else "None is running"
    return UsageError(f"{what}.{near} {others}. See invoke cluster.list.")


def shell_argv(
    name: str, node: str, context: Context, *, command: Sequence[str], user: str = ""
) -> list[str]:
    """Return the command line that opens ``node``, or runs ``command`` there; as root or ``user``.

    :raises UsageError: if the cluster or the node is not running, or the node has no such user,
        with the nearest names, or if another checkout brought the cluster up.
    """
    found = containers_of(name, context)
    refuse_other_checkout(
        name,
        found,
        context,
        "open it there, or bring up your own: invoke cluster.up --cluster NAME",
    )
    nodes = {item.labels["sifline.node"]: item for item in found}
    if not nodes:
        raise unknown(name, context)
    if node not in nodes:
        hint = did_you_mean(node, nodes) or f" Its nodes are {', '.join(nodes)}."
        raise UsageError(f"cluster {name} has no node {node!r}.{hint}")
    if not nodes[node].running:
        raise StepFailed(
            f"{node} of cluster {name} is {nodes[node].state}; run"
            f" invoke cluster.up --cluster {name}"
        )
    terminal = sys.stdin.isatty()
    home, own = _login(user, nodes[node], context)
    # Nothing of the container's: jobs would inherit it.
    clean = ["env", "--ignore-environment", *own, *_of_terminal(terminal=terminal)]
    return Containers(context.runner).shell_argv(
        nodes[node].name,
        [*clean, *(list(command) or ["bash", "-l"])],
        user=user,
        folder=home,
        terminal=terminal,
    )


def _of_terminal(*, terminal: bool) -> list[str]:
    """Return the variables of the user's terminal, as ssh passes them."""
    return [f"TERM={os.environ.get('TERM') or 'xterm'}"] if terminal else []


def _login(asked: str, node: Container, context: Context) -> tuple[str, list[str]]:
    """Return the folder in which a user's shell starts on a node, and the variables of a login.

    The folder is the home, or ``/`` for users who cannot log in.

    :param asked: the user, perhaps with a group behind a colon.
    :raises UsageError: if the node does not have them, with the nearest names.
    """
    if asked in ("", "root"):
        return "/root", _variables("root", "/root", "/bin/bash", ROOT_PATH)
    user, _, group = asked.partition(":")
    known = _entries("passwd", node, context)
    # The engine takes numbers that nobody has.
    if not user.isdecimal() and user not in known:
        people = [name for name, entry in known.items() if entry[-1].endswith("/bash")]
        raise _nobody("user", user, people, node)
    if group and not group.isdecimal():
        groups = _entries("group", node, context)
        if group not in groups:
            raise _nobody("group", group, [*groups], node)
    entry = known.get(user) or next((item for item in known.values() if item[2] == user), [])
    name, *_, home, shell = entry or [user, "/", "/bin/sh"]
    folder = home if user in known and shell.endswith("sh") else "/"
    return folder, _variables(name, home, shell, USER_PATH)


def _variables(user: str, home: str, shell: str, path: str) -> list[str]:
    return [f"HOME={home}", f"LOGNAME={user}", f"PATH={path}", f"SHELL={shell}", f"USER={user}"]


def _entries(database: str, node: Container, context: Context) -> dict[str, list[str]]:
    """Return the entries of passwd or group of a node, by name."""
    text = Containers(context.runner).execute(node.name, "getent", database).stdout
    return {fields[0]: fields for fields in (line.split(":") for line in text.splitlines())}


def _nobody(kind: str, word: str, known: Sequence[str], node: Container) -> UsageError:
    where, cluster = node.labels["sifline.node"], node.labels[CLUSTER]
    hint = did_you_mean(word, known)
    if not hint and kind == "user":
        hint = f" Its users are {', '.join(known)}."
    return UsageError(
        f"{where} has no {kind} {word!r}.{hint} Open it as root: invoke cluster.shell --cluster"
        f" {cluster} --node {where}"
    )
