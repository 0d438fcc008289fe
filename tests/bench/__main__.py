"""Measure, print, write docs/reference/benchmarks.md; `python -m tests.bench NAME…` selects."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from sifline.errors import did_you_mean
from tests.bench.figures import FIGURES
from tests.bench.measure import Comparison, Measured, Unit, measure
from tests.bench.projects import succeed

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "reference" / "benchmarks.md"
USAGE = 2
INTRODUCTION = """# Benchmarks

Written by `nox -s bench`. Each line compares two commands in one run on one machine: both are
measured in turn, several times where a round is short, and the medians are compared. Seconds
differ from machine to machine; the ratios are what is promised.
"""


def main(words: Sequence[str]) -> int:
    """Measure the named figures, or all; 1 where one of them misses its limit."""
    for word in words:
        if word not in FIGURES:
            known = ", ".join(FIGURES)
            say(f"error: no figure {word!r}.{did_you_mean(word, FIGURES)} There are {known}.")
            return USAGE
    measured = [found for name in words or FIGURES for found in figure(name)]
    text = report(measured, machine())
    sys.stdout.write(f"\n{text}")
    if words:
        say(f"Not written to {REPORT.relative_to(ROOT)}: that takes all figures of one run.")
    else:
        REPORT.write_text(text, encoding="utf-8")
    return int(not all(item.reached for item in measured))


def figure(name: str) -> list[Measured]:
    """Set up one figure, measure its comparisons one after another, take it away again."""
    say(f"{name}: {FIGURES[name].__doc__}")
    done = []
    with FIGURES[name]() as comparisons:
        for comparison in comparisons:
            found = measure(comparison)
            ours, peer = (shown(value, comparison.unit) for value in (found.ours, found.peer))
            say(f"{name}: {comparison.what}: {ours} against {peer}, {found.ratio:.2f} times")
            done.append(found)
    return done


def say(text: str) -> None:
    """Tell how far it is; the result alone goes to standard output."""
    sys.stderr.write(f"{text}\n")


def shown(value: float, unit: Unit) -> str:
    """A duration with three digits that count, or a size."""
    if unit is Unit.SIZE:
        return f"{value / 1e6:,.1f} MB"
    return f"{value:.1f} s" if value >= 10 else f"{value * 1000:,.0f} ms"


def report(measured: Sequence[Measured], facts: Mapping[str, str]) -> str:
    """Return the page: what was found, and on what."""
    lines = [
        INTRODUCTION,
        "| what | ours | peer | ratio | at most | |",
        "|---|---|---|---|---|---|",
    ]
    for item in measured:
        told = item.comparison
        cells = [
            f"{told.what} ({told.rounds} round{'s' if told.rounds > 1 else ''})",
            f"{told.ours.what} {shown(item.ours, told.unit)}",
            f"{told.peer.what} {shown(item.peer, told.unit)}",
            f"{item.ratio:.2f}",
            limits(told),
            "told" if limits(told) == "-" else "reached" if item.reached else "**missed**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for item in measured:
        if item.comparison.note:
            lines += ["", f"{item.comparison.what}: {item.comparison.note}"]
    told_facts = "; ".join(f"{key} {value}" for key, value in facts.items())
    return "\n".join([*lines, "", f"{told_facts}.", ""])


def limits(comparison: Comparison) -> str:
    """What is allowed: how many times the peer, or how many seconds for each side."""
    if comparison.most:
        return " and ".join(f"{seconds:g} s" for seconds in comparison.most)
    return "-" if comparison.limit is None else f"{comparison.limit:g}"


def machine() -> dict[str, str]:
    """What the figures depend on; nothing that names the machine."""
    day = datetime.now(timezone.utc).date().isoformat()
    engine = json.loads(succeed(["docker", "version", "--format", "{{json .Server}}"], ROOT))
    builder = succeed(["docker", "buildx", "version"], ROOT)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "Measured on": day,
        "commit": commit(),
        "processor": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GB",
        "Python": platform.python_version(),
        "Docker": str(engine["Version"]),
        "buildx": match(r"v?(\d[\d.]+)", builder),
        "git": match(r"(\d[\d.]+)", succeed(["git", "--version"], ROOT)),
    }


def commit() -> str:
    """The commit that was measured, and whether there was more."""
    changed = succeed(["git", "status", "--porcelain"], ROOT)
    more = [line for line in changed.splitlines() if not line.endswith(REPORT.name)]
    name = succeed(["git", "rev-parse", "--short", "HEAD"], ROOT).strip()
    return f"{name} with changes" if more else name


def processor() -> str:
    """The processor's model, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    return match(r"model name\s*:\s*(.+)", text) or platform.machine()


def match(pattern: str, text: str) -> str:
    """The first group of the first match, or nothing."""
    found = re.search(pattern, text)
    return found[1].strip() if found else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
