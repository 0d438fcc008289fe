"""The tools of the image, each by something that it does."""

from __future__ import annotations

import json

import pytest

from sifline.imagetests import Container, Ran, run_file
from sifline.imagetests.python import python


def shell(container: Container, script: str, **env: str) -> Ran:
    """Run a script in a folder of its own, which is home as well."""
    wrapped = (
        'export HOME="$(mktemp -d)" && cd "$HOME" || exit 125\n'
        f'(set -e\n{script}\n)\nstatus=$?; cd / && rm -rf "$HOME"; exit $status'
    )
    return container.run(["bash", "-c", wrapped], env=env)


def test_cmake_and_ninja_build_a_program(container: Container) -> None:
    ran = shell(
        container,
        """
        printf 'cmake_minimum_required(VERSION 3.16)\\nproject(p C)\\nadd_executable(p p.c)\\n' \\
            > CMakeLists.txt
        printf '#include <stdio.h>\\nint main(void) { puts("built"); return 0; }\\n' > p.c
        cmake -G Ninja -S . -B out > log && cmake --build out > log && out/p
        """,
    )
    assert (ran.returncode, ran.stdout) == (0, "built\n"), ran.stderr


def test_the_compilers_are_found_and_build_with_what_pkg_config_says(container: Container) -> None:
    ran = shell(
        container,
        """
        printf 'p: p.c\n\tcc -o p p.c $(shell pkg-config --cflags --libs python3)\n' > Makefile
        printf '#include <Python.h>\nint main(void) { return 0; }\n' > p.c
        echo 'int main() { return 0; }' > q.cc
        make -s && ./p && g++ -o q q.cc && ./q && echo built
        """,
    )
    assert (ran.returncode, ran.stdout) == (0, "built\n"), ran.stderr


def test_files_are_fetched_and_edited(container: Container) -> None:
    """The old image's list: each does its work without a network."""
    ran = shell(
        container,
        """
        echo one > file
        curl --silent --show-error "file://$PWD/file"
        : > log  # sed may be first
        python3 -u -m http.server --bind 127.0.0.1 0 >> log 2>&1 & server=$!
        for _ in $(seq 600); do port=$(sed -n 's/.* port \\([0-9]*\\) .*/\\1/p' log); \
            [ -n "$port" ] && break; sleep 0.1; done
        wget --quiet --output-document - "http://127.0.0.1:$port/file"; kill "$server"
        vim -es -u NONE -c '%s/one/two/' -c wq file < /dev/null
        cat file
        """,
    )
    assert (ran.returncode, ran.stdout) == (0, "one\none\ntwo\n"), ran.stderr


def test_tensorboard_reads_what_pytorch_writes(container: Container) -> None:
    source = """
import json, tempfile
from torch.utils.tensorboard import SummaryWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
with tempfile.TemporaryDirectory() as folder:
    with SummaryWriter(folder) as writer:
        for step in range(3):
            writer.add_scalar("loss", 1 / (step + 1), step)
    events = EventAccumulator(folder).Reload()
    print(json.dumps([round(event.value, 3) for event in events.Scalars("loss")]))
"""
    ran = python(container, source)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [1.0, 0.5, 0.333]


def test_wandb_keeps_a_run_offline(container: Container) -> None:
    source = """
import wandb
with wandb.init(mode="offline", project="p", settings=wandb.Settings(silent=True)) as run:
    run.log({"loss": 0.5})
    run.summary["best"] = 7
    print("best", run.summary["best"])
"""
    ran = shell(container, f"python3 -c '{source}'; ls wandb/offline-run-*/*.wandb | wc -l")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["best 7", "1"]


def test_nvitop_looks_at_the_driver(container: Container) -> None:
    """Without a driver it says so, and does not end as if it had looked."""
    ran = container.run(["nvitop", "--once"])
    if not container.gpus:
        assert ran.returncode != 0
        assert "NVML" in ran.stderr + ran.stdout
    else:
        assert ran.returncode == 0, ran.stderr


def test_py_spy_samples_a_program(container: Container) -> None:
    """A container may forbid it to trace (ptrace); it has to say that, then."""
    script = (
        "import time\ndef busy():\n    end = time.time() + 2\n"
        "    while time.time() < end: pass\nbusy()"
    )
    ran = shell(
        container,
        f"printf '%s' '{script}' > busy.py\n"
        "py-spy record --duration 1 --format raw --output out -- python3 busy.py > log 2>&1"
        " || { cat log; exit 9; }\ngrep -c busy out",
    )
    if ran.returncode == 9 and "ermission" in ran.stdout:
        pytest.skip("this container may not trace its processes (ptrace)")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout) > 0


def test_memory_profiler_sees_a_large_array(container: Container) -> None:
    source = """
import json, numpy
from memory_profiler import memory_usage
def use():
    block = numpy.ones(100 * 1024 * 1024 // 8)
    return block.sum()
usage, total = memory_usage((use,), interval=0.01, retval=True)
print(json.dumps([max(usage) - min(usage) > 80, float(total)]))
"""
    ran = run_file(container, source, ["python3"], name="memory.py")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [True, 13107200.0]


def test_psutil_counts_what_the_kernel_says(container: Container) -> None:
    source = (
        "import json, psutil\n"
        "kib = int(open('/proc/meminfo').readline().split()[1])\n"
        "print(json.dumps([psutil.virtual_memory().total == kib * 1024, psutil.Process().name()]))"
    )
    ran = python(container, source)
    assert json.loads(ran.stdout)[0] is True, ran.stderr


def test_ipython_runs_a_cell(container: Container) -> None:
    ran = shell(container, "ipython --no-banner -c 'print(6 * 7)'")
    assert (ran.returncode, ran.stdout.strip()) == (0, "42"), ran.stderr


def test_jupyter_executes_a_notebook(container: Container) -> None:
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": "a",
                "metadata": {},
                "outputs": [],
                "source": "6 * 7",
            }
        ],
        "metadata": {"kernelspec": {"display_name": "p", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    ran = shell(
        container,
        f"printf '%s' '{json.dumps(notebook)}' > n.ipynb\n"
        "jupyter nbconvert --to notebook --execute --stdout n.ipynb 2> log"
        " || { cat log; exit 9; }",
    )
    assert ran.returncode == 0, ran.stdout
    (cell,) = json.loads(ran.stdout)["cells"]
    assert "".join(cell["outputs"][0]["data"]["text/plain"]) == "42"


def test_jupyter_lab_starts(container: Container) -> None:
    ran = shell(container, "jupyter lab --version")
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split(".")[0]) >= 4


def test_matplotlib_draws_without_a_screen(container: Container) -> None:
    source = """
import sys
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
figure, axes = pyplot.subplots(figsize=(2, 1), dpi=100)
axes.plot([1, 2, 3])
figure.canvas.draw()
print(figure.canvas.get_width_height(), len(set(figure.canvas.buffer_rgba().tobytes())) > 2)
"""
    ran = run_file(container, source, ["python3"], name="draw.py", env={"MPLCONFIGDIR": "/tmp"})
    assert (ran.returncode, ran.stdout.strip()) == (0, "(200, 100) True"), ran.stderr


def test_pandas_and_scikit_learn_compute(container: Container) -> None:
    source = """
import json, pandas
from sklearn.linear_model import LinearRegression
frame = pandas.DataFrame({"kind": list("abab"), "x": [1, 2, 3, 4], "y": [5, 7, 9, 11]})
fitted = LinearRegression().fit(frame[["x"]], frame["y"])
print(json.dumps([frame.groupby("kind")["x"].sum().to_dict(),
                  round(float(fitted.coef_[0]), 6), round(float(fitted.intercept_), 6)]))
"""
    ran = python(container, source)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [{"a": 4, "b": 6}, 2.0, 3.0]


def test_pytest_and_its_coverage_judge_code(container: Container) -> None:
    ran = shell(
        container,
        """
        printf 'def f(x):\\n    if x:\\n        return 1\\n    return 2\\n' > m.py
        printf 'import m\\ndef test_f():\\n    assert m.f(1) == 1\\n' > test_m.py
        pytest -q -p no:cacheprovider --cov m --cov-report term 2>&1 | grep -E '^m.py|passed'
        """,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == ["m.py", "4", "1", "75%"]
    assert ran.stdout.splitlines()[1].startswith("1 passed")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("black --check bad.py", "would reformat"),
        ("flake8 bad.py", "F401"),
        ("mypy bad.py", "Incompatible return value type"),
    ],
    ids=["black", "flake8", "mypy"],
)
def test_checkers_find_what_is_wrong(container: Container, command: str, complaint: str) -> None:
    bad = "printf 'import os\\ndef f( x: int ) -> str:\\n    return x\\n' > bad.py\n"
    good = "printf 'def f(x: int) -> int:\\n    return x\\n' > bad.py\n"
    found = shell(container, f"{bad}{command} 2>&1")
    assert found.returncode == 1, found.stdout
    assert complaint in found.stdout
    assert shell(container, f"{good}{command}").returncode == 0


def test_git_keeps_a_commit(container: Container) -> None:
    ran = shell(
        container,
        """
        git init -q . && echo text > file && git add file
        git -c user.name=a -c user.email=a@b commit -q -m first && git log --format=%s
        """,
    )
    assert (ran.returncode, ran.stdout) == (0, "first\n"), ran.stderr


def test_an_ssh_client_logs_in_to_the_ssh_server(container: Container) -> None:
    ran = shell(
        container,
        """
        umask 077
        ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f own
        cp own.pub keys
        printf 'Port 22022\\nListenAddress 127.0.0.1\\nUsePAM no\\n' > conf
        printf 'HostKey %s/host\\n' "$HOME" >> conf
        printf 'AuthorizedKeysFile %s/keys\\nStrictModes no\\nPidFile none\\n' "$HOME" >> conf
        printf '[127.0.0.1]:22022 %s\\n' "$(cut -d' ' -f1,2 host.pub)" > known
        /usr/sbin/sshd -D -e -f conf 2> log &
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            sleep 0.3
            ssh -p 22022 -i own -o UserKnownHostsFile=known -o StrictHostKeyChecking=yes \\
                -o BatchMode=yes 127.0.0.1 'echo inside' 2> client && break
        done
        kill %1 2> /dev/null || true # it may have ended, and its log says why
        cat log client >&2
        """,
    )
    if "setgroups: Operation not permitted" in ran.stderr:
        pytest.skip("root's sshd gives up rights, which root of a user namespace may not")
    assert ran.stdout == "inside\n", ran.stderr
