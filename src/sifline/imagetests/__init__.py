"""What tests of images import: one container interface for Docker images and SIFs."""

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
