"""Virtual clusters: containers with systemd, OpenSSH and Slurm that act as hosts.

The result is an ordinary cluster: its file, its SSH key and its known host keys are in
``build/clusters/NAME/``. Labels of the containers, not these files, decide what exists.
"""

from sifline.virtual.faults import FAULTS, change, status
from sifline.virtual.found import shell_argv, standing, unknown
from sifline.virtual.removing import down
from sifline.virtual.restarting import restart
from sifline.virtual.scaling import scale, would_scale
from sifline.virtual.starting import refuse_foreign, up, would
from sifline.virtual.wanted import DEFAULT_IMAGE, Description, describe, image_of_engine

__all__ = [
    "DEFAULT_IMAGE",
    "FAULTS",
    "Description",
    "change",
    "describe",
    "down",
    "image_of_engine",
    "refuse_foreign",
    "restart",
    "scale",
    "shell_argv",
    "standing",
    "status",
    "unknown",
    "up",
    "would",
    "would_scale",
]
