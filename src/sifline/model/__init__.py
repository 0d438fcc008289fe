"""The frozen values that stages take and return.

Sizes are in bytes, memory of nodes in MiB, durations in seconds. Digests are lower-case
hexadecimal SHA-256 without a prefix, except an engine's image id, which keeps its
``sha256:`` as the engine prints it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sifline.model.check import (
    CheckResult,
    Status,
)
from sifline.model.image import (
    DOCKER_CLEAN,
    PREPARED,
    SETTINGS,
    Bind,
    Feature,
    Image,
    Module,
    Opening,
    Prepare,
    Run,
    SifCompression,
    SifOptions,
    Source,
    Tests,
)
from sifline.model.plan import (
    BuiltImage,
    DefinitionFile,
    Explanation,
    FetchedImage,
    HeldImage,
    Step,
    Verb,
)
from sifline.model.sif import (
    FoundSif,
    Sif,
    SifFile,
)
from sifline.model.tested import (
    NOT_TESTED,
    TestedImage,
    TestedSif,
    TestReport,
)
from sifline.model.workspace import (
    Progress,
    Workspace,
)

if TYPE_CHECKING:
    from sifline.model.accounting import Account, Accounting, Qos
    from sifline.model.cluster import (
        Cluster,
        Node,
        Role,
        SshAccess,
    )
    from sifline.model.deployment import (
        AffectedJob,
        Deployment,
        FaultChange,
        ListedCluster,
        NodeState,
        Placement,
        ProvisionedCluster,
        Scaled,
        StandingCluster,
        Unreached,
    )
    from sifline.model.gpus import GpuDevices
    from sifline.model.node_facts import ClusterFacts, NodeFacts
    from sifline.model.overview import (
        Cleaned,
        Deployed,
        GraphNode,
        ImageState,
        Inventory,
        Quickstart,
        WouldBringUp,
        WouldConvert,
        WouldDeploy,
    )
    from sifline.model.partition import Partition
    from sifline.model.registry import Registry

# Clusters and overviews: images are built without them, and making a dataclass takes time.
_LATER = (
    *("accounting", "cluster", "deployment", "gpus", "node_facts", "overview", "partition"),
    "registry",
)

__all__ = [
    "DOCKER_CLEAN",
    "NOT_TESTED",
    "PREPARED",
    "SETTINGS",
    "Account",
    "Accounting",
    "AffectedJob",
    "Bind",
    "BuiltImage",
    "CheckResult",
    "Cleaned",
    "Cluster",
    "ClusterFacts",
    "DefinitionFile",
    "Deployed",
    "Deployment",
    "Explanation",
    "FaultChange",
    "Feature",
    "FetchedImage",
    "FoundSif",
    "GpuDevices",
    "GraphNode",
    "HeldImage",
    "Image",
    "ImageState",
    "Inventory",
    "ListedCluster",
    "Module",
    "Node",
    "NodeFacts",
    "NodeState",
    "Opening",
    "Partition",
    "Placement",
    "Prepare",
    "Progress",
    "ProvisionedCluster",
    "Qos",
    "Quickstart",
    "Registry",
    "Role",
    "Run",
    "Scaled",
    "Sif",
    "SifCompression",
    "SifFile",
    "SifOptions",
    "Source",
    "SshAccess",
    "StandingCluster",
    "Status",
    "Step",
    "TestReport",
    "TestedImage",
    "TestedSif",
    "Tests",
    "Unreached",
    "Verb",
    "Workspace",
    "WouldBringUp",
    "WouldConvert",
    "WouldDeploy",
]


def __getattr__(name: str) -> Any:
    """Load the module of ``name`` at its first use."""
    for module in _LATER if name in __all__ else ():
        found = vars(import_module(f"{__name__}.{module}"))
        if name in found:
            globals()[name] = found[name]
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
