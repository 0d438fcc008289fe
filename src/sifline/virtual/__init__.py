"""Virtual clusters: containers with systemd, OpenSSH and Slurm that act as hosts.

The result is an ordinary cluster: its file, its SSH key and its known host keys are in
``build/clusters/NAME/``. Labels of the containers, not these files, decide what exists.
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
