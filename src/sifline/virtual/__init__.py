"""Virtual clusters: containers with systemd, OpenSSH and Slurm that stand in for hosts.

What comes out is a cluster like any other: its file, its SSH key and its known host keys are
in ``build/clusters/NAME/``. The engine's labels are the truth of what stands.
"""

from sifline.virtual.found import shell_argv, standing, status, unknown
from sifline.virtual.removing import down
from sifline.virtual.starting import refuse_foreign, stands_so, up
from sifline.virtual.wanted import DEFAULT_IMAGE, Description, describe, image_of_engine

__all__ = [
    "DEFAULT_IMAGE",
    "Description",
    "describe",
    "down",
    "image_of_engine",
    "refuse_foreign",
    "shell_argv",
    "standing",
    "stands_so",
    "status",
    "unknown",
    "up",
]
