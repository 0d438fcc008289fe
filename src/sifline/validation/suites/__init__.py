"""The suites of checks, in the order in which they run."""

from __future__ import annotations

from sifline.validation.check import Check, Phase, registered
from sifline.validation.suites import (
    cgroup_isolation,
    compatibility,
    gpu_resources,
    infrastructure,
    mpi_job,
    registry,
    training_job,
)

MODULES = (
    *(infrastructure, gpu_resources, cgroup_isolation, registry, compatibility, mpi_job),
    training_job,
)


def known() -> tuple[Check, ...]:
    """Return all checks by phase; within a phase, basic ones first."""
    suites, phases = [module.SUITE for module in MODULES], list(Phase)
    return tuple(
        sorted(
            registered(),
            key=lambda item: (phases.index(item.phase), suites.index(item.suite)),
        )
    )
