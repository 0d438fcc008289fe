"""Measures time and memory of the diagnosis: ``python -m tests.diagnosis.measure``.

Not a test: it says what an idle machine needs, for 2,000 lines and for 100 MB.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from sifline.nodeside import diagnose_training_failure as program

LAST = "3: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
LIMITS = {"2,000 lines": (0.3, 200), "100 MB": (5.0, 200), "100 MB in 16 files": (5.0, 200)}


def lines(count: int, first: int = 0) -> str:
    """Return progress as eight ranks print it."""
    return "".join(
        f"{n % 8}: 2026-11-30 12:{n // 60 % 60:02d}:{n % 60:02d},123 - INFO - step {n} loss "
        f"{3 / (n + 1):.4f} lr 1.0e-04\n"
        for n in range(first, first + count)
    )


def write(folder: Path, size: int, files: int) -> list[str]:
    """Write ``size`` bytes of progress in files, the last of which ends with a failure."""
    names = []
    block = lines(20000)
    for number in range(files):
        path = folder / f"out-{number}.log"
        with path.open("w") as file:
            for _ in range(max(size // files // len(block), 1)):
                file.write(block)
            file.write(LAST if number == files - 1 else "")
        names.append(str(path))
    return names


def run(names: list[str]) -> tuple[float, float, float]:
    """Return seconds, seconds of CPU and MB of memory of one diagnosis in its own process."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.execv(sys.executable, [sys.executable, "-I", program.__file__, *names])  # noqa: S606
    _, status, used = os.wait4(child, 0)
    assert status == 0, "the diagnosis failed"
    cpu = used.ru_utime + used.ru_stime
    return time.monotonic() - started, cpu, used.ru_maxrss / 1024


def main() -> None:
    """Print what each size needs beside what it may need."""
    for name, (seconds, memory) in LIMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            if name == "2,000 lines":
                path = Path(folder) / "out.log"
                path.write_text(lines(1999) + LAST)
                names = [str(path)]
            else:
                names = write(Path(folder), 100_000_000, 16 if "16" in name else 1)
            took, cpu, used = run(names)
            print(
                f"{name:20} {took:6.2f} s ({cpu:.2f} s of CPU; at most {seconds} s), "
                f"{used:.0f} MB (at most {memory} MB)"
            )


if __name__ == "__main__":
    main()
