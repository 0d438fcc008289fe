"""The work of a deployment on one node: asking, sending, staging, switching."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from sifline.engines.registry import Registries, token_of
from sifline.engines.ssh.nodes import Ssh
from sifline.machine.caller import caller
from sifline.machine.context import Context
from sifline.machine.streams import OnLine
from sifline.model import Cluster, Node, Placement, Run, TestedSif
from sifline.model.units import size_text
from sifline.stages.deploy.surveys import Action, Survey, decide, path_of


class Nodes:
    """Deploys one SIF to one node at a time.

    ``token`` tells uploads and leases of one checkout from those of others.
    """

    def __init__(
        self,
        tested: TestedSif,
        cluster: Cluster,
        context: Context,
        ssh: Ssh,
        *,
        keep: int,
        foreign: bool = False,
        override: str = "",
    ) -> None:
        self._sif = sif = tested.sif
        self._path = path_of(sif, cluster)
        self.registries = Registries(ssh)
        self._progress = context.progress
        self._keep, self._foreign = keep, "yes" if foreign else "no"
        self.token, self.who = token_of(context.workspace.root), caller()
        # What may be new of a file that is in place already.
        self._told = {
            "tests": tested.tests,
            "module": sif.module,
            "run": run_text(sif.run),
            "override": override,
        }
        self._meta = {
            "who": self.who,
            "image_digest": sif.image_digest,
            "fingerprint": sif.fingerprint,
            "commit": sif.commit,
            **self._told,
        }

    def look(self, node: Node) -> Survey:
        """Return the node's answer, without making room on the node for an upload."""
        return self.survey(node, look="yes")

    def survey(self, node: Node, *, look: str = "no") -> Survey:
        """Return the node's answer about the image."""
        answer = self._ask(node, "status", sha256=self._sif.sha256, look=look)
        return Survey(
            node=node.name,
            current=answer["current"],
            settled=answer["settled"],
            held=answer["held"],
            upload=PurePosixPath(answer["upload"]),
            uploaded=answer["uploaded"],
            free=answer["free"],
            foreign=answer["foreign"],
            told=answer["told"],
            offered=answer["offered"],
            when=answer["when"],
            fence=answer["fence"],
        )

    def is_done(self, survey: Survey) -> bool:
        """Return whether the node has all of it already."""
        kept = decide(self._sif.sha256, survey) is Action.KEEP and not survey.foreign
        return kept and survey.told == self._told and survey.offered

    def stage(self, node: Node, survey: Survey, number: int) -> str:
        """Send the file if the node lacks it; have it verified; return what ``switch`` needs."""
        if decide(self._sif.sha256, survey) is Action.SEND:
            self._progress(f"{node.name}: sending {size_text(self._sif.size)}")
            told = percents(node.name, self._progress)
            self.registries.send(node, self._sif.path, survey.upload, on_line=told)
        answer = self._ask(
            node, "stage", sha256=self._sif.sha256, number=number, foreign=self._foreign
        )
        self._progress(f"{node.name}: {self._sif.name} verified")
        return str(answer["staged"])

    def switch(
        self, node: Node, survey: Survey, *, staged: str, number: int, when: str
    ) -> Placement:
        """Make the staged file the one that jobs use."""
        answer = self._ask(
            node,
            "switch",
            sha256=self._sif.sha256,
            staged=staged,
            number=number,
            foreign=self._foreign,
            keep=self._keep,
            meta=json.dumps({**self._meta, "when": when}),
        )
        self._progress(f"{node.name}: {self._sif.name} in place")
        sent = decide(self._sif.sha256, survey) is Action.SEND
        return self.placement(node, sent=sent, note=answer["module"], surplus=answer["surplus"])

    def placement(
        self, node: Node, *, sent: bool, note: str = "", surplus: bool = False
    ) -> Placement:
        """Return that the node has the file."""
        return Placement(
            node=node.name,
            path=self._path,
            sha256=self._sif.sha256,
            sent=sent,
            note=note,
            surplus=surplus,
        )

    def _ask(self, node: Node, verb: str, **options: str | int) -> Mapping[str, Any]:
        return self.registries.ask(
            node,
            verb,
            category=self._sif.category,
            name=self._sif.name,
            token=self.token,
            **options,
        )


def run_text(run: Run) -> str:
    """Return default options of a container as JSON, for the catalog; "" if there are none."""
    given = {key: value for key, value in asdict(run).items() if value}
    return json.dumps(given, sort_keys=True) if given else ""


def percents(node: str, progress: OnLine) -> OnLine:
    """Return a reader of rsync's progress lines that reports every tenth percent."""
    told = 0

    def read(line: str) -> None:
        nonlocal told
        found = re.search(r"(\d+)%", line)
        if found and told + 10 <= int(found[1]) < 100:  # noqa: PLR2004
            told = int(found[1])
            progress(f"{node}: {told} % sent")

    return read
