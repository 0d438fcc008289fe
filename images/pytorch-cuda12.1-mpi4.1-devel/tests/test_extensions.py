"""What the image is for: extensions of PyTorch in C++ and CUDA are compiled and loaded."""

from __future__ import annotations

import re

import pytest

from sifline.imagetests import Container
from sifline.imagetests.python import printed, python

# What takes seconds to import; the same as in the tests of the PyTorch image.
TORCH = ["torch", "torchvision", "torchaudio"]
# Both are found by PyTorch's dispatcher, which compiles much faster than a module of Python's.
OF_CPP = """
#include <ATen/ATen.h>
#include <torch/library.h>
at::Tensor twice(const at::Tensor& x) { return x + x; }
TORCH_LIBRARY(of_cpp, m) { m.def("twice", &twice); }
"""
OF_CUDA = """
#include <ATen/ATen.h>
#include <torch/library.h>
int add_one(float* data, int size);
int64_t add(at::Tensor x) { return add_one(x.data_ptr<float>(), x.numel()); }
TORCH_LIBRARY(of_cuda, m) { m.def("add", &add); }
"""
KERNEL = """
#include <cuda_runtime.h>
#include <cub/cub.cuh>
__global__ void add(float* data, int size) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) data[i] += 1;
}
int add_one(float* data, int size) {
    add<<<(size + 255) / 256, 256>>>(data, size);
    cudaError_t launched = cudaGetLastError();
    return launched != cudaSuccess ? launched : cudaDeviceSynchronize();
}
"""
# In a folder of its own, that goes afterwards.
COMPILE = """
import json, os, pathlib, subprocess, tempfile
import torch
from torch.utils import cpp_extension
def compiled(name, sources):
    folder = pathlib.Path(made, name)
    folder.mkdir()
    for file, text in sources.items():
        (folder / file).write_text(text)
    cpp_extension.load(name, [str(folder / file) for file in sources],
                       build_directory=str(folder), is_python_module=False)
    return folder / f"{name}.so"
# For one kind of GPU: each takes its time.
os.environ["TORCH_CUDA_ARCH_LIST"] = "8.0"
with tempfile.TemporaryDirectory() as made:
    os.environ["HOME"] = made
"""


def compiling(container: Container, name: str, sources: dict[str, str], then: str) -> object:
    """Compile an extension and load it; return what ``then`` prints, its file being ``built``."""
    source = f"{COMPILE}    built = compiled({name!r}, {sources!r})\n    {then}"
    return printed(python(container, source, loaded=TORCH))


def release(container: Container) -> str:
    ran = container.run(["nvcc", "--version"])
    match = re.search(r"release (\d+\.\d+),", ran.stdout)
    assert match, ran
    return match[1]


def test_the_toolkit_is_of_the_cuda_that_pytorch_asks_for(container: Container) -> None:
    """An extension may be compiled with another minor release, never with another major one."""
    wanted = printed(
        python(
            container, "import json, torch; print(json.dumps(torch.version.cuda))", loaded=TORCH
        )
    )
    assert release(container).partition(".")[0] == str(wanted).partition(".")[0]


def test_the_toolkit_is_the_one_that_the_image_names(container: Container) -> None:
    said = container.run(["printenv", "CUDA_TOOLKIT"]).stdout.strip()
    assert said.startswith(f"{release(container)}.")


def test_an_extension_in_cpp_is_compiled_and_loaded(container: Container) -> None:
    then = "print(json.dumps(torch.ops.of_cpp.twice(torch.arange(3.)).tolist()))"
    assert compiling(container, "of_cpp", {"of.cpp": OF_CPP}, then) == [0.0, 2.0, 4.0]


def test_an_extension_in_cuda_is_compiled_and_loaded(container: Container) -> None:
    """Without a driver its kernel cannot start: 35 is cudaErrorInsufficientDriver."""
    then = """
    x = torch.zeros(3, device="cuda" if torch.cuda.is_available() else "cpu")
    error = torch.ops.of_cuda.add(x)
    kinds = subprocess.check_output(["cuobjdump", "--list-elf", str(built)], text=True)
    print(json.dumps([error, x.tolist(), "sm_80" in kinds]))
    """.strip()
    sources = {"of.cpp": OF_CUDA, "kernel.cu": KERNEL}
    found = compiling(container, "of_cuda", sources, then)
    assert found == ([0, [1.0, 1.0, 1.0], True] if container.gpus else [35, [0.0, 0.0, 0.0], True])


@pytest.mark.parametrize("library", ["cublas", "cusparse", "cusolver", "cufft", "curand", "nvrtc"])
def test_the_libraries_of_cuda_can_be_linked_with(container: Container, library: str) -> None:
    script = f"echo 'int main() {{}}' | nvcc -x cu - -o /tmp/linked -l{library} && rm /tmp/linked"
    ran = container.run(["bash", "-c", script])
    assert ran.returncode == 0, ran.stderr
