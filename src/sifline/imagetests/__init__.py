"""What tests of images import: containers of Docker images and of SIFs behind one interface."""

from sifline.imagetests.plugin import (
    Container,
    Ran,
    by_each_user,
    certificates,
    run_as_root,
    run_file,
)

__all__ = [
    "Container",
    "Ran",
    "by_each_user",
    "certificates",
    "run_as_root",
    "run_file",
]
