"""Scores the diagnosis on the labelled jobs: ``python -m tests.diagnosis.score [--sealed]``."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sifline.nodeside import diagnose_training_failure as program
from tests.diagnosis.corpus import CASES, Job, jobs

# What each measure must reach; of false alarms, what it must not pass.
GOALS = {
    "root class": 0.90,
    "adversarial": 0.85,
    "behind exit status 0": 0.80,
    "rank": 0.85,
    "node": 0.85,
    "evidence line": 0.85,
    "cascade precision": 0.85,
    "cascade recall": 0.85,
    "unknown": 0.90,
    "false alarms": 0.02,
}


def answer(job: Job, folder: Path) -> dict[str, Any]:
    """Run the diagnosis on a job whose files are written below ``folder``."""
    paths = job.write(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        names = [str(path.relative_to(folder)) for path in paths[1:]]
        return program.diagnose(json.loads(paths[0].read_text("utf-8")), names)
    finally:
        os.chdir(before)


class Sheet:
    """Right answers and cases for each measure."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.cases: Counter[str] = Counter()
        self.misses: list[str] = []

    def count(self, measure: str, right: bool) -> bool:
        """Count a case of a measure; return whether it is right."""
        self.cases[measure] += 1
        self.hits[measure] += right
        return right

    def enter(self, job: Job, found: dict[str, Any]) -> None:
        """Enter the diagnosis of a job."""
        wrong = [*self._root(job, found), *self._where(job, found), *self._cascade(job, found)]
        if wrong:
            self.misses.append(f"{job.case.name}/{job.seed}: {'; '.join(wrong)}")

    def _root(self, job: Job, found: dict[str, Any]) -> Iterator[str]:
        got, want = found["root"]["class"], job.want["class"]
        right = got == want
        if want == "healthy":
            self.count("false alarms", not right)
        else:
            self.count("root class", right)
        by_tag = {"adversarial": "adversarial", "exit0": "behind exit status 0"}
        for tag in sorted(job.case.tags):
            self.count(by_tag[tag], right)
        if want == "unknown":
            self.count("unknown", right)
        if not right:
            yield f"{got} instead of {want}"

    def _where(self, job: Job, found: dict[str, Any]) -> Iterator[str]:
        for key in ("rank", "node"):
            got = str(found["root"][key])
            if key in job.want and not self.count(key, got == job.want[key]):
                yield f"{key} {got} instead of {job.want[key]}"
        at = found["root"]["evidence"] or {"file": "", "line": 0}
        good = (at["file"], at["line"]) in job.evidence
        if job.evidence and not self.count("evidence line", good):
            yield f"evidence {at}"

    def _cascade(self, job: Job, found: dict[str, Any]) -> Iterator[str]:
        wanted = set(filter(None, job.want.get("cascade", "").split(",")))
        got = {one["class"] for one in found["cascade"]}
        for name in got:
            self.count("cascade precision", name in wanted)
        for name in wanted:
            self.count("cascade recall", name in got)
        if wanted != got:
            yield f"cascade {sorted(got)} instead of {sorted(wanted)}"


def score(corpus: Iterable[Job]) -> Sheet:
    """Diagnose all jobs and compare the answers with their labels."""
    sheet = Sheet()
    for job in corpus:
        with tempfile.TemporaryDirectory() as folder:
            sheet.enter(job, answer(job, Path(folder)))
    return sheet


def reached(measure: str, right: int, cases: int) -> bool:
    """Tell whether a measure reaches its goal; one without cases does."""
    if not cases:
        return True
    share = right / cases
    return share <= GOALS[measure] if measure == "false alarms" else share >= GOALS[measure]


def table(sheet: Sheet) -> str:
    """Return the measures with their goals, one a line."""
    lines = []
    for measure, goal in GOALS.items():
        right, cases = sheet.hits[measure], sheet.cases[measure]
        share = f"{100 * right / cases:5.1f} %" if cases else "      -"
        limit = "at most" if measure == "false alarms" else "at least"
        good = "" if reached(measure, right, cases) else "   MISSED"
        lines.append(
            f"{measure:22} {right:4} of {cases:4} {share}  {limit} {100 * goal:.0f} %{good}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and with ``--misses`` each job that was not answered right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sealed", action="store_true", help="the sealed third")
    parser.add_argument("--cases", type=Path, default=CASES, help="a folder of descriptions")
    parser.add_argument("--all", action="store_true", help="sealed or not")
    parser.add_argument("--misses", action="store_true")
    options = parser.parse_args()
    part = None if options.all else options.sealed
    sheet = score(jobs(options.cases, sealed=part))
    print(table(sheet))
    if options.misses:
        print("\n".join(sheet.misses))


if __name__ == "__main__":
    main()
