"""Tests whether a PMIx fence (barrier) holds its ranks; srun starts this once on each node.

A fence is a barrier: no rank may leave it before all have entered. In each round another rank is
late, and every rank prints when it enters and when it leaves: "fence ROUND RANK HOST comes". The
late rank prints this a while before it enters, so that the order of the lines depends neither on
their speed nor on the nodes' clocks.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time

LIBRARY = "libpmix.so.2"
# Seconds of delay, and seconds between the late rank's message and its entry.
LATE = AHEAD = 1.0


class Process(ctypes.Structure):
    """``pmix_proc_t``: a rank of a job."""

    _fields_ = (("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32))


def main() -> None:
    """Run a round for each rank; exit with a message if a PMIx call fails."""
    try:
        pmix = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise SystemExit(f"fence: no PMIx for programs: {error}") from None
    me = Process()
    done("PMIx_Init", pmix.PMIx_Init(ctypes.byref(me), None, 0))
    for late in range(int(os.environ["SLURM_NTASKS"])):
        time.sleep(LATE if me.rank == late else 0)
        say(me.rank, late, "comes")
        time.sleep(AHEAD if me.rank == late else 0)
        # Neither data nor a list of processes: a barrier of the whole job.
        done("PMIx_Fence", pmix.PMIx_Fence(None, 0, None, 0))
        say(me.rank, late, "leaves")
    done("PMIx_Finalize", pmix.PMIx_Finalize(None, 0))


def done(name: str, status: int) -> None:
    """Exit with an error if PMIx returned another status than 0."""
    if status:
        raise SystemExit(f"fence: {name} returned {status}")


def say(rank: int, late: int, what: str) -> None:
    """Print that this rank enters or leaves, in the round in which ``late`` is late."""
    print("fence", late, rank, socket.gethostname(), what, flush=True)


if __name__ == "__main__":
    main()
