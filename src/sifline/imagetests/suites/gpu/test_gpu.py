"""A GPU that was demanded is in the container."""

from __future__ import annotations


def test_a_gpu_is_there(gpus: int) -> None:
    assert gpus > 0
