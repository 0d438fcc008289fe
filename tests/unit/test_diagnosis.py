"""Diagnosis of failed jobs: the labelled jobs, noise that changes nothing, and any bytes."""

from __future__ import annotations

import ast
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sifline.nodeside import diagnose_training_failure as program
from sifline.report.diagnosis import page
from tests.diagnosis.corpus import Case, Job, cases, compose, jobs
from tests.diagnosis.score import GOALS, answer, reached, score

SOURCE = Path(program.__file__)
ROOT = Path(__file__).parents[2]
MESSAGES = (ROOT / "tests/diagnosis/messages.txt").read_text("utf-8").splitlines()
FRESH = ROOT / "tests/diagnosis/fresh"
OPEN = {case.name: case for case in cases() if not case.sealed}
BYTES = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# One case for each way in which a root is found.
VARIED = (
    "ecc-xid48-explains-illegal-access",
    "host-oom-step-and-kernel",
    "hang-monitored-barrier",
    "code-exception-rank",
    "unknown-only-victims",
    "healthy-warnings",
    "node-failure",
)


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # Alone, as it is sent to nodes: nothing of this project can be imported.
    command = [sys.executable, "-I", str(SOURCE), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def root(job: Job, folder: Path) -> tuple[str, int | None, str | None]:
    found = answer(job, folder)["root"]
    return found["class"], found["rank"], found["node"]


@pytest.fixture(scope="module")
def sheet() -> Any:
    return score(jobs(sealed=False))


@pytest.mark.parametrize("measure", GOALS)
def test_the_labelled_jobs_reach_the_goal(sheet: Any, measure: str) -> None:
    assert reached(measure, sheet.hits[measure], sheet.cases[measure]), "\n".join(sheet.misses)


def test_jobs_that_were_written_after_the_rules_reach_the_goals() -> None:
    sheet = score(jobs(FRESH, seeds=1))
    missed = [m for m in GOALS if not reached(m, sheet.hits[m], sheet.cases[m])]
    assert not missed, "\n".join(sheet.misses)


def test_every_class_has_a_labelled_job() -> None:
    wanted = {case.want["class"] for case in cases()}
    assert sorted(set(program.CLASSES) - wanted) == ["peer-lost"]


@pytest.mark.parametrize("rule", program.RULES, ids=lambda rule: f"{rule.name}:{rule.words}")
def test_a_rule_has_a_known_class_a_source_and_a_pattern(rule: program.Rule) -> None:
    assert rule.name in {"", *program.CLASSES}
    assert rule.source in program.SOURCES
    assert rule.words == rule.words.lower()
    re.compile(rule.pattern, re.IGNORECASE)


@settings(deadline=None, max_examples=400)
@given(data=st.data(), rule=st.sampled_from(program.RULES))
def test_what_a_pattern_matches_has_one_of_its_words(
    data: st.DataObject, rule: program.Rule
) -> None:
    # Without its words in a log a rule is not tried.
    text = data.draw(st.from_regex(re.compile(rule.pattern, re.ASCII)))
    assert any(word in text.lower() for word in rule.words.split("|"))


@pytest.mark.parametrize("line", MESSAGES)
def test_a_message_alone_has_its_class(tmp_path: Path, line: str) -> None:
    want, text = line.split("\t")
    (tmp_path / "out").write_text(f"step 1\n{text}\n")
    job = {
        "job_id": 4711,
        "state": "FAILED",
        "nodes": ["n1", "n2"],
        "ntasks": 2,
        "gpus_per_node": 1,
    }
    assert program.diagnose(job, [str(tmp_path / "out")])["root"]["class"] == want


def test_the_page_of_classes_is_current() -> None:
    path = ROOT / "docs/reference/diagnosis.md"
    assert path.read_text("utf-8") == page(), f"python -m sifline.report.diagnosis {path}"


def test_the_program_is_of_python_3_9() -> None:
    ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 9))


def test_it_answers_alone_as_json(tmp_path: Path) -> None:
    job = compose(OPEN["code-exception-rank"], 0)
    names = [str(path.relative_to(tmp_path)) for path in job.write(tmp_path)]
    done = run("--json", "--job", *names, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["root"]["class"] == "code-exception"


def test_it_answers_people_in_a_few_lines(tmp_path: Path) -> None:
    job = compose(OPEN["gpu-oom-torch-one-rank"], 0)
    names = [str(path.relative_to(tmp_path)) for path in job.write(tmp_path)]
    first, *rest = run("--job", *names, folder=tmp_path).stdout.splitlines()
    assert first == f"job {job.job['job_id']}: gpu-oom (rank 3, node {job.want['node']})"
    assert len(rest) <= 6


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"ModuleNotFoundError: No module named 'a\x9b2Jb\x07'\n")
    (tmp_path / "job.json").write_text('{"state": "FAILED"}')
    told = run("--job", "job.json", "out", folder=tmp_path).stdout
    assert not set("\x07\x1b\x9b") & set(told)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--job", "no.json", "out"], "cannot read no.json: No such file or directory"),
        (["no-such-file"], "cannot read no-such-file: No such file or directory"),
        (["--job", "list.json"], "cannot read list.json: not a JSON object"),
        (["--job", "cut.json"], "cannot read cut.json: "),
        (["."], "cannot read .: "),
        ([], "no files"),
        (["--wrong"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path: Path, words: list[str], text: str) -> None:
    (tmp_path / "out").write_text("")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text('{"job_id"')
    done = run(*words, folder=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_lines_count_at_line_feeds_only(tmp_path: Path) -> None:
    text = "a\rb\x0cc\u2028d\x85e\nx\nModuleNotFoundError: No module named 'y'\n"
    (tmp_path / "out").write_bytes(text.encode())
    found = program.diagnose({"state": "FAILED"}, [str(tmp_path / "out")])
    assert found["root"]["evidence"]["line"] == 3


def test_a_job_id_that_slurm_pads_with_zeros_is_the_jobs_own(tmp_path: Path) -> None:
    text = "/var/spool/slurmd/job00077/slurm_script: line 3: apptainer: command not found\n"
    (tmp_path / "out").write_text(text)
    found = program.diagnose({"job_id": 77, "state": "FAILED"}, [str(tmp_path / "out")])
    assert found["root"]["class"] == "container-runtime-unavailable"


# What must not change the answer.


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_files_changes_nothing(tmp_path: Path, name: str, seed: int) -> None:
    job = compose(OPEN[name], seed)
    names = list(job.files)
    random.Random(seed).shuffle(names)  # noqa: S311
    shuffled = Job(**{**job.__dict__, "files": {name: job.files[name] for name in names}})
    (tmp_path / "b").mkdir()
    assert root(shuffled, tmp_path / "b") == root(job, tmp_path)


@pytest.mark.parametrize("name", VARIED)
def test_other_names_change_only_names(tmp_path: Path, name: str) -> None:
    case = OPEN[name]
    count = int(case.job.get("nodes", "1"))
    nodes = [f"zeta-{index}x.example.org" for index in range(count)]
    first, second = compose(case, 0), compose(case, 0, nodes=nodes, user="root")
    (tmp_path / "b").mkdir()
    one, two = root(first, tmp_path), root(second, tmp_path / "b")
    where = dict(zip(first.job["nodes"], nodes, strict=True))
    assert two == (one[0], one[1], where.get(str(one[2])))


NOISE = st.lists(
    st.sampled_from(
        [
            "INFO:root:lr=0.001",
            "/opt/lib/x.py:12: FutureWarning: `torch.cuda.amp.autocast` is deprecated.",
            "",
            "nvidia-smi: 8 GPUs",
            "100%|##########| 12/12 [00:01<00:00, 9.12it/s]",
            "\x1b[1mloading\x1b[0m",
        ]
    ),
    max_size=8,
)


@BYTES
@given(noise=NOISE, name=st.sampled_from(VARIED))
def test_noise_before_the_failure_changes_nothing(
    tmp_path: Path, noise: list[str], name: str
) -> None:
    job = compose(OPEN[name], 0)
    files = {
        file: lines if "dmesg" in file else [*noise, *lines] for file, lines in job.files.items()
    }
    assert root(Job(**{**job.__dict__, "files": files}), tmp_path) == root(job, tmp_path)


@BYTES
@given(
    data=st.lists(st.binary(max_size=400), min_size=1, max_size=3),
    state=st.sampled_from(["FAILED", "COMPLETED", "TIMEOUT", "CANCELLED by 0", "", None, 7]),
)
def test_any_bytes_have_an_answer(tmp_path: Path, data: list[bytes], state: Any) -> None:
    paths = []
    for index, content in enumerate(data):
        path = tmp_path / f"rank_{index}.log"
        path.write_bytes(content)
        paths.append(str(path))
    found = program.diagnose({"state": state, "nodes": ["a"], "job_id": "x"}, paths)
    assert found["root"]["class"] in program.CLASSES
    program.told(json.loads(json.dumps(found)))


@BYTES
@given(
    case=st.sampled_from(sorted(OPEN)),
    cut=st.integers(0, 4000),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
)
def test_cut_and_damaged_logs_have_an_answer(
    tmp_path: Path, case: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    job = compose(OPEN[case], 0)
    paths = job.write(tmp_path)[1:]
    for path in paths:
        content = bytearray(path.read_bytes()[: cut or None])
        for place, value in flips:
            if place < len(content):
                content[place] = value
        path.write_bytes(content)
    assert program.diagnose(job.job, map(str, paths))["root"]["class"] in program.CLASSES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@BYTES
@given(
    job=st.dictionaries(
        st.sampled_from(
            [
                "job_id",
                "nodes",
                "ntasks",
                "gpus_per_node",
                "elapsed_s",
                "start",
                "end",
                "state",
                "reason",
                "exit_status",
                "exit_code",
                "restarts",
                "command",
            ]
        ),
        JSON,
    )
)
def test_any_facts_of_slurm_have_an_answer(tmp_path: Path, job: dict[str, Any]) -> None:
    path = tmp_path / "out"
    path.write_text("0: Traceback (most recent call last):\n0: ValueError: x\n")
    assert program.diagnose(job, [str(path)])["root"]["class"] in program.CLASSES


def test_a_case_can_be_told_from_its_description() -> None:
    assert all(isinstance(case, Case) and case.files for case in OPEN.values())
