"""Slurm's configuration files: which keys each release knows, and what is wrong with a file.

One table, ``keys.json``, for slurm.conf, gres.conf, cgroup.conf, mpi.conf, topology.conf,
slurmdbd.conf, job_container.conf, oci.conf and acct_gather.conf, from 22.05 to 26.05.
"""

from __future__ import annotations

from sifline.formats.slurm_conf.check import check
from sifline.formats.slurm_conf.finding import Effect, Finding
from sifline.formats.slurm_conf.lines import File, Line, Pair, read
from sifline.formats.slurm_conf.table import FILES, RELEASES, Key, key, keys, release

__all__ = [
    "FILES",
    "RELEASES",
    "Effect",
    "File",
    "Finding",
    "Key",
    "Line",
    "Pair",
    "check",
    "key",
    "keys",
    "read",
    "release",
]
