"""Labelled jobs, composed from short descriptions: ``cases/*.txt``.

A description has a line ``job``, a line ``want`` (the label), perhaps ``tags``, and files. In a
file, ``5| text`` is a line of rank 5, ``*| text`` one of each rank, ``*-5| text`` of all but 5,
``>`` marks acceptable evidence, ``+600`` moves the clock, and ``~name …`` is a block that many
jobs print. A seed decides names, numbers, the style of time stamps, prefixes and progress.

Every third case of a file is sealed: it is scored once, when the rules are done.
"""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"
SEEDS = 2
ISO = "%Y-%m-%dT%H:%M:%S"
LAYOUTS = ("labelled", "rankfiles", "torch", "labelled")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A description: name, settings of the job, label, and the lines of each file."""

    name: str
    group: str
    sealed: bool
    job: dict[str, str]
    want: dict[str, str]
    tags: frozenset[str]
    files: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the program is given, and the right answer."""

    case: Case
    seed: int
    job: dict[str, Any]
    files: dict[str, list[str]]
    evidence: frozenset[tuple[str, int]]
    want: dict[str, str]

    def write(self, folder: Path) -> list[Path]:
        """Write job.json and the files below ``folder``; return the paths, job.json first."""
        paths = [folder / "job.json"]
        paths[0].write_text(json.dumps(self.job), "utf-8")
        for name, lines in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("".join(f"{line}\n" for line in lines).encode())
            paths.append(path)
        return paths


def cases(folder: Path = CASES) -> Iterator[Case]:
    """Read all descriptions below ``folder``."""
    for path in sorted(folder.glob("*.txt")):
        for number, text in enumerate(re.split(r"(?m)^## ", path.read_text("utf-8"))[1:]):
            yield _case(path.stem, number, text)


def _case(group: str, number: int, text: str) -> Case:
    name, *lines = text.rstrip("\n").split("\n")
    head: dict[str, list[str]] = {}
    files: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("--- ") and not line.startswith("----"):
            files.append((line[4:], []))
        elif files:
            files[-1][1].append(line)
        elif line:
            key, *words = shlex.split(line)
            head[key] = words
    want = head["want"]
    return Case(
        name=name,
        group=group,
        sealed=number % 3 == 2,
        job=dict(word.split("=", 1) for word in head["job"]),
        want={"class": want[0], **dict(word.split("=", 1) for word in want[1:])},
        tags=frozenset(head.get("tags", ())),
        files=tuple((name, tuple(lines)) for name, lines in files),
    )


def jobs(folder: Path = CASES, *, sealed: bool | None = None, seeds: int = SEEDS) -> Iterator[Job]:
    """Compose the jobs of all cases; ``sealed`` chooses between the two parts."""
    for case in cases(folder):
        if sealed is None or case.sealed == sealed:
            for seed in range(seeds):
                yield compose(case, seed)


def compose(case: Case, seed: int, **other: Any) -> Job:
    """Make the job that a seed makes of a case; ``other`` changes names: hosts, user."""
    return _Writer(case, seed, other).job()


@dataclass
class _Writer:
    case: Case
    seed: int
    other: dict[str, Any]
    files: dict[str, list[str]] = field(default_factory=dict)
    evidence: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.case.name}/{self.seed}")  # noqa: S311
        job = self.case.job
        self.count = int(job.get("nodes", "1"))
        self.gpus = int(job.get("gpus", "0"))
        self.per_node = int(job.get("ppn", "0")) or max(self.gpus, 1)
        self.ranks = self.count * self.per_node
        style = self.random.choice(["n{}", "gpu-{:02d}", "node{:03d}", "c1-r{}"])
        first = self.random.choice([1, 1, 4])
        self.nodes = self.other.get("nodes") or [
            style.format(first + index) for index in range(self.count)
        ]
        self.number = self.random.randint(1000, 99999)
        self.user = self.other.get("user") or self.random.choice(["ada", "mkoch", "u1024"])
        self.start = datetime(2026, 11, 30, 12, 0, 0)
        self.now = self.start
        self.layout = self.random.choice(LAYOUTS)
        self.kernel = self.random.choice(["uptime", "ctime", "syslog", "journal"])
        self.progress = self.random.choice(["python", "tqdm", "megatron", "plain"])
        self.step = 0
        buses = ["1b", "43", "52", "9d", "c3", "d1", "df", "e4"]
        self.names = {
            "job": self.number,
            "user": self.user,
            "uid": 1000 + self.number % 997,
            **{f"n{index + 1}": node for index, node in enumerate(self.nodes)},
            **{f"pid{rank}": 21000 + 131 * rank for rank in range(self.ranks)},
            **{f"bus{rank}": f"0000:{buses[rank % self.per_node % 8]}:00" for rank in range(99)},
        }

    def job(self) -> Job:
        for name, lines in self.case.files:
            kind, *words = name.split()
            if kind == "dmesg":
                self._kernel(words[0], timedelta(seconds=int([*words, "0"][1])), lines)
            elif kind == "file":
                self._plain(self._fill(words[0]), lines)
            else:
                self._program(lines)
        want = {
            key: self._fill("{" + value + "}") if key == "node" else value
            for key, value in self.case.want.items()
        }
        return Job(
            case=self.case,
            seed=self.seed,
            job=self._facts(),
            files=self.files,
            evidence=frozenset(self.evidence),
            want=want,
        )

    def _facts(self) -> dict[str, Any]:
        job = self.case.job
        code, signal = int(job.get("exit", "0")), int(job.get("signal", "0"))
        elapsed = int(job.get("elapsed", "0")) or int((self.now - self.start).total_seconds()) + 20
        return {
            "job_id": self.number,
            "name": "train",
            "user": self.user,
            "partition": "gpu",
            "restarts": int(job.get("restarts", "0")),
            "nodes": self.nodes,
            "ntasks": self.ranks,
            "gpus_per_node": self.gpus,
            "mem_per_node_mb": int(job.get("mem", "0")) or None,
            "time_limit_s": int(job.get("limit", "86400")),
            "elapsed_s": elapsed,
            "start": self.start.strftime(ISO),
            "end": (self.start + timedelta(seconds=elapsed)).strftime(ISO),
            "state": job.get("state", "FAILED"),
            "reason": job.get("reason"),
            "exit_status": code * 256 + signal,
            "exit_code": code,
            "exit_signal": signal,
            "container": None,
            "command": job.get("command"),
        }

    def _fill(self, text: str, **more: Any) -> str:
        names = {**self.names, "isot": self.now.strftime(ISO), **more}
        return re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[0])), text)

    def _put(self, name: str, line: str, *, marked: bool) -> None:
        lines = self.files.setdefault(name, [])
        lines.append(line)
        if marked:
            self.evidence.add((name, len(lines)))

    def _node(self, rank: int) -> str:
        return str(self.nodes[rank // self.per_node])

    def _said(self, rank: int | None, text: str, *, marked: bool = False) -> None:
        """Write a line of a rank, or of none, as the layout has it."""
        if rank is None:
            self._put(f"slurm-{self.number}.out", text, marked=marked)
        elif self.layout == "rankfiles":
            self._put(f"logs/rank_{rank}.log", text, marked=marked)
        elif self.layout == "torch" and not text.startswith("[rank"):
            self._put(f"slurm-{self.number}.out", f"[rank{rank}]: {text}", marked=marked)
        else:
            width = len(str(self.ranks - 1))
            self._put(f"slurm-{self.number}.out", f"{rank:{width}}: {text}", marked=marked)

    def _program(self, lines: tuple[str, ...]) -> None:
        self.files.setdefault(f"slurm-{self.number}.out", [])
        for line in lines:
            marked = line.startswith(">") and not line.startswith(">>>")
            text = line[1:] if marked else line
            if re.fullmatch(r"\+\d+", line):
                self.now += timedelta(seconds=int(line[1:]))
            elif text.startswith("~"):
                name, *words = text[1:].split()
                getattr(self, f"_block_{name}")(*words)
            elif match := re.match(r"(\d+|\*(?:-\d+)?|\{n\d\})\| ?(.*)", text):
                for rank in self._who(match[1]):
                    told = self._fill(match[2], r=rank, node=self._node(rank))
                    self._said(rank, told, marked=marked)
            else:
                self._said(None, self._fill(text), marked=marked)
            self.now += timedelta(seconds=1)

    def _who(self, word: str) -> list[int]:
        if word.startswith("{"):
            return [self.nodes.index(self._fill(word)) * self.per_node]
        if word.startswith("*"):
            left = word[2:]
            return [rank for rank in range(self.ranks) if str(rank) != left]
        return [int(word)]

    def _plain(self, name: str, lines: tuple[str, ...]) -> None:
        for line in lines:
            marked = line.startswith(">")
            self._put(name, self._fill(line[1:] if marked else line), marked=marked)

    def _kernel(self, node: str, shift: timedelta, lines: tuple[str, ...]) -> None:
        """Write a kernel log, whose lines were logged when the program's last were."""
        name = self._fill("{" + node + "}")
        when = self.now + shift
        file = f"dmesg-{name}.txt"
        for number, line in enumerate(["pcieport 0000:00:1c.0: AER: enabled", *lines]):
            marked = line.startswith(">")
            text = self._fill(line[1:] if marked else line).strip()
            # A log begins with what the node did before the job.
            at = when if number else self.start - timedelta(seconds=86000)
            if not number and file in self.files:
                continue
            uptime = (at - datetime(2026, 11, 1)).total_seconds()
            prefix = {
                "uptime": f"[{uptime:12.6f}] ",
                "ctime": f"[{at:%a %b %e %H:%M:%S %Y}] ",
                "syslog": f"{at:%b %e %H:%M:%S} {name} kernel: ",
                "journal": f"{at:%Y-%m-%dT%H:%M:%S}+0000 {name} kernel: ",
            }[self.kernel]
            self._put(file, prefix + text, marked=marked)

    # Blocks that many jobs print.

    def _block_head(self) -> None:
        self._said(None, "WARNING: OMP_NUM_THREADS not set, using 1")
        for rank in range(self.ranks):
            pid = self.names[f"pid{rank}"]
            self._said(
                rank,
                f"{self._node(rank)}:{pid}:{pid} [{rank % self.per_node}] NCCL INFO "
                "NET/OFI No plugin found, error(s) are expected: using internal",
            )
        self._said(0, "NCCL version 2.20.5+cuda12.4")

    def _block_busids(self) -> None:
        for rank in range(self.ranks):
            pid, local = self.names[f"pid{rank}"], rank % self.per_node
            bus = str(self.names[f"bus{rank}"])[5:].replace(":", "").lstrip("0") + "0"
            self._said(
                rank,
                f"{self._node(rank)}:{pid}:{pid} [{local}] NCCL INFO comm 0x55d0 rank "
                f"{rank} nranks {self.ranks} cudaDev {local} nvmlDev {local} busId "
                f"{bus} commId 0x9c - Init COMPLETE",
            )

    def _block_steps(self, count: str, seconds: str = "15") -> None:
        bars: list[str] = []
        for _ in range(int(count)):
            self.step += 1
            self.now += timedelta(seconds=int(seconds))
            loss = 3.0 / (1 + self.step) + 0.01
            text = {
                "python": f"{self.now:%Y-%m-%d %H:%M:%S},123 - INFO - step {self.step} "
                f"loss {loss:.4f} lr 1.0e-04",
                "tqdm": f"\rEpoch 0:  {self.step}%|##   | {self.step}/100 "
                f"[00:{self.step:02d}<01:00,  1.01it/s, loss={loss:.3f}]",
                "megatron": f" [{self.now:%Y-%m-%d %H:%M:%S}] iteration {self.step:8d}/  500000 | "
                f"consumed samples: {self.step * 64} | lm loss: {loss:.6E} | number "
                "of skipped iterations:   0 | number of nan iterations:   0 |",
                "plain": f"\x1b[32m{self.now:%H:%M:%S}\x1b[0m step={self.step} loss={loss:.4f}",
            }[self.progress]
            bars.append(text)
        if self.progress == "tqdm":
            self._said(0, "".join(bars))
        else:
            for text in bars:
                self._said(0, text)

    def _block_elastic(self, rank: str, node: str, code: str) -> None:
        where, pid = self._fill("{" + node + "}"), self.names[f"pid{rank}"]
        local = int(rank) % self.per_node
        signal = f"Signal {-int(code)} (SIGSEGV) received by PID {pid}"
        why = (
            signal
            if int(code) < 0
            else ("To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html")
        )
        for text in (
            f"E1130 12:44:00.101000 1400 torch/distributed/elastic/multiprocessing/api.py:826] "
            f"failed (exitcode: {code}) local_rank: {local} (pid: {pid}) of binary: python3",
            "Traceback (most recent call last):",
            '  File "/opt/venv/bin/torchrun", line 8, in <module>',
            "    sys.exit(main())",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            "============================================================",
            "train.py FAILED",
            "------------------------------------------------------------",
            "Failures:",
            "  <NO_OTHER_FAILURES>",
            "------------------------------------------------------------",
            "Root Cause (first observed failure):",
            "[0]:",
            f"  time      : {self.now:%Y-%m-%d_%H:%M:%S}",
            f"  host      : {where}",
            f"  rank      : {rank} (local_rank: {local})",
            f"  exitcode  : {code} (pid: {pid})",
            "  error_file: <N/A>",
            f"  traceback : {why}",
            "============================================================",
        ):
            self._said(None, text)

    def _block_reset(self, rank: str) -> None:
        for text in (
            "Traceback (most recent call last):",
            '  File "/proj/train.py", line 190, in <module>',
            "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/"
            "NCCLUtils.hpp:219, remote process exited or there was a network error, NCCL version "
            "2.20.5",
            "ncclRemoteError: A call failed possibly due to a network error or a remote process "
            "exiting prematurely.",
            "Last error:",
            f"socketProgress: Connection closed by remote peer {self.nodes[-1]}<43211>",
        ):
            self._said(int(rank), text)

    def _block_watchdog(self, ranks: str) -> None:
        for rank in map(int, ranks.split(",")):
            stamp = f"{self.now:%m%d %H:%M:%S}.10{rank}"
            self._said(
                rank,
                f"[rank{rank}]:[E{stamp} ProcessGroupNCCL.cpp:607] [Rank {rank}] "
                "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1884, "
                "OpType=ALLREDUCE, NumelIn=25557032, NumelOut=25557032, "
                "Timeout(ms)=600000) ran for 600042 milliseconds before timing out.",
                marked=self.case.want["class"] == "hang",
            )

    def _block_stepkill(self) -> None:
        step = f"STEP {self.number}.0 ON {self.nodes[0]} CANCELLED AT {self.now.strftime(ISO)}"
        self._said(None, f"slurmstepd: error: *** {step} ***")
        self._said(
            None, "srun: Job step aborted: Waiting up to 32 seconds for job step to finish."
        )
        self._said(None, f"srun: error: {self.nodes[0]}: task 0: Terminated")

    def _block_stop(self) -> None:
        self._said(None, f"srun: launch/slurm: _step_signal: Terminating StepId={self.number}.0")
