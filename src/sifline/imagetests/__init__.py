"""Tests of images: what they are handed, for Docker images and for SIFs alike."""

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
