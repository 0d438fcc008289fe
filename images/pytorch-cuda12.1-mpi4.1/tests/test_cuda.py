"""CUDA: what can be known of the build without a GPU, and the numbers where there is one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sifline.imagetests import Container, run_file
from sifline.imagetests.python import printed, python

# The compiler's own tool for it comes with Triton.
CUOBJDUMP = "triton/backends/nvidia/bin/cuobjdump"
# What takes seconds to import; the same as in test_pytorch.py, so that it is imported once.
TORCH = ["torch", "torchvision", "torchaudio"]
# What no image holds: it is the driver's, and comes from the host.
DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}


def told(container: Container, source: str) -> Any:
    return printed(python(container, f"import json, torch\n{source}", loaded=TORCH))


def test_it_is_a_build_for_cuda_12_1(container: Container) -> None:
    found = told(container, "print(json.dumps([torch.version.cuda, torch._C._has_cuda]))")
    assert found == ["12.1", True]


def test_it_carries_code_for_the_gpus_of_clusters(container: Container) -> None:
    """Read from the library itself: without its code a GPU is of no use, or waits for minutes."""
    listed = container.run(
        [
            "bash",
            "-c",
            f"cd /opt/venv/lib/python3*/site-packages && {CUOBJDUMP} --list-elf"
            " torch/lib/libtorch_cuda.so"
            " | grep --only-matching 'sm_[0-9]*' | sort --unique",
        ]
    )
    assert listed.returncode == 0, listed.stderr
    # V100, A100, RTX 30 and 40, H100.
    assert {"sm_70", "sm_80", "sm_86", "sm_90"} <= set(listed.stdout.split())
    assert set(listed.stdout.split()) <= set(
        told(container, "print(json.dumps(torch._C._cuda_getArchFlags()))").split()
    )


def test_cudnn_and_nccl_are_those_of_the_release(container: Container) -> None:
    found = told(
        container, "print(json.dumps([torch.backends.cudnn.version(), torch.cuda.nccl.version()]))"
    )
    assert found == [90100, [2, 20, 5]]


def test_every_cuda_library_is_of_cuda_12_1(container: Container) -> None:
    found = told(
        container,
        "import importlib.metadata as m\n"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()"
        " if d.metadata['Name'].startswith('nvidia-cuda-')}))",
    )
    assert found
    assert set(found.values()) == {"12.1.105"}


def test_the_libraries_of_pytorch_and_cuda_resolve(container: Container) -> None:
    """A library that is missing shows up when a GPU is first used: on the cluster, at night."""
    ran = container.run(
        [
            "bash",
            "-c",
            "cd /opt/venv/lib/python3*/site-packages"
            " && find torch/lib nvidia -name '*.so*' -type f -exec ldd {} + 2>&1",
        ]
    )
    assert "libcudart.so.12 => /opt/venv/" in ran.stdout
    assert set(re.findall(r"(\S+) => not found", ran.stdout)) <= DRIVER


def test_the_libraries_of_the_packages_on_it_load(container: Container) -> None:
    """Theirs are found through PyTorch's, which has to be loaded first."""
    source = """
import glob, ctypes, os, torchaudio, torchvision
loaded = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
wanted = {"torchaudio/lib/libtorchaudio.so", "torchvision/_C.so", "torch/lib/libtorch_cuda.so"}
print(json.dumps(sorted(w for w in wanted if not any(path.endswith(w) for path in loaded))))
"""
    assert told(container, source) == []


def test_the_cuda_libraries_can_be_loaded(container: Container) -> None:
    """They are found by whoever imports PyTorch, as extensions of it are."""
    names = [
        "libcudart.so.12",
        "libcublas.so.12",
        "libcudnn.so.9",
        "libnccl.so.2",
    ]
    source = (
        "import ctypes\n"
        f"for name in {names!r}:\n    ctypes.CDLL(name)\n"
        "version = ctypes.c_int()\n"
        "ctypes.CDLL('libcudart.so.12').cudaRuntimeGetVersion(ctypes.byref(version))\n"
        "print(json.dumps(version.value))"
    )
    assert told(container, source) == 12010


@pytest.mark.parametrize("capability", [70, 80, 90])
def test_triton_compiles_for_gpus_that_are_not_here(container: Container, capability: int) -> None:
    """Its library was stripped when the image was made, and no code for a processor needs it."""
    program = f"""
import json
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)
source = triton.compiler.ASTSource(
    add, signature={{0: "*fp32", 1: "*fp32", 2: "*fp32", 3: "i32"}}, constants={{4: 128}}
)
made = triton.compile(source, target=GPUTarget("cuda", {capability}, 32)).asm
print(json.dumps([made["cubin"][:4].decode("latin-1"), "add.f32" in made["ptx"],
                  [line for line in made["ptx"].splitlines() if line.startswith(".target")]]))
"""
    ran = run_file(
        container, program, ["python3"], name="add.py", env={"TRITON_CACHE_DIR": "/tmp/triton"}
    )
    elf, adds, (target,) = printed(ran)
    assert (elf, adds) == ("\x7fELF", True)
    assert f"sm_{capability}" in target


def test_without_a_gpu_it_says_so(container: Container) -> None:
    if container.gpus:
        pytest.skip("the container has a GPU")
    found = told(
        container, "print(json.dumps([torch.cuda.is_available(), torch.cuda.device_count()]))"
    )
    assert found == [False, 0]


def test_it_sees_every_gpu_of_the_host(container: Container, gpus: int) -> None:
    assert told(container, "print(json.dumps(torch.cuda.device_count()))") == gpus


@pytest.mark.usefixtures("gpus")
def test_memory_of_a_gpu_is_taken_and_given_back(container: Container) -> None:
    source = """
before = torch.cuda.memory_allocated()
block = torch.zeros(1 << 20, dtype=torch.float32, device="cuda")
taken = torch.cuda.memory_allocated() - before
del block
print(json.dumps([taken, torch.cuda.memory_allocated() - before]))
"""
    assert told(container, source) == [4 << 20, 0]


@pytest.mark.usefixtures("gpus")
def test_a_matrix_product_is_that_of_the_processor(container: Container) -> None:
    source = """
torch.manual_seed(3)
a, b = torch.randn(512, 512), torch.randn(512, 512)
torch.backends.cuda.matmul.allow_tf32 = False
difference = ((a.cuda() @ b.cuda()).cpu() - a @ b).abs().max()
print(json.dumps([float(difference), float((a @ b).abs().max())]))
"""
    difference, largest = told(container, source)
    assert difference < 1e-3 < largest


@pytest.mark.usefixtures("gpus")
def test_a_network_learns_on_a_gpu(container: Container) -> None:
    source = """
torch.manual_seed(1)
x = torch.linspace(-1, 1, 64, device="cuda")[:, None]
net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).cuda()
opt = torch.optim.Adam(net.parameters(), lr=0.05)
losses = []
for _ in range(100):
    opt.zero_grad()
    loss = torch.nn.functional.mse_loss(net(x), x ** 2)
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(json.dumps([losses[0], losses[-1]]))
"""
    first, last = told(container, source)
    assert last < first / 100


@pytest.mark.usefixtures("gpus")
def test_the_compiler_of_pytorch_works_for_a_gpu(container: Container) -> None:
    source = """
def f(x):
    return (torch.sin(x) ** 2 + torch.cos(x) ** 2).sum()
print(json.dumps(float(torch.compile(f)(torch.randn(1000, device="cuda")))))
"""
    assert told(container, source) == pytest.approx(1000, rel=1e-5)


@pytest.mark.usefixtures("gpus")
def test_mpi_sums_what_lies_on_a_gpu(container: Container) -> None:
    """By the components that can, see docs/reference/images.md; of two ranks on one GPU."""
    program = """
import json, sys
import torch
from mpi4py import MPI
world = MPI.COMM_WORLD
mine = torch.full((100_000,), world.Get_rank() + 1.0, device="cuda")
total = torch.zeros_like(mine)
torch.cuda.synchronize()
world.Allreduce(mine, total, op=MPI.SUM)
if world.Get_rank() == 0:
    sys.stdout.write(json.dumps([total.device.type, total.unique().tolist()]) + "\\n")
"""
    ran = run_file(
        container,
        program,
        ["mpirun", "-n", "2", "--oversubscribe", "--mca", "pml", "ob1", "python3"],
        name="sum.py",
        env={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )
    assert printed(ran) == ["cuda", [3.0]]
