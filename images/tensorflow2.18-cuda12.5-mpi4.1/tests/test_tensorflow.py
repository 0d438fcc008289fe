"""What the TensorFlow image promises: the releases in its name, and numbers that are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sifline.imagetests import Container, run_file
from sifline.imagetests.python import installed, locked, printed, python

FOLDER = Path(__file__).parents[1]
LOCKS = [FOLDER / "tensorflow.lock", FOLDER.parent / "python-mpi4.1" / "mpi4py.lock"]
# What no image holds: it is the driver's, and comes from the host.
DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}
# Not all of a GPU's memory at once: other tests run beside these.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
# Of each architecture, how many of the code's modules are for it. The header of such a module and
# of the entries in it are those of fatbinary.h in the CUDA toolkit: 1 is PTX, 2 is ELF.
FATBINS = """
import collections, glob, json, mmap, re, struct, sysconfig
path = f"{sysconfig.get_path('purelib')}/tensorflow/libtensorflow_cc.so.2"
found = collections.Counter()
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    for match in re.finditer(struct.pack("<IH", 0xBA55ED50, 1), data):
        _, _, header, size = struct.unpack_from("<IHHQ", data, match.start())
        place = match.start() + header
        end = place + size
        while place < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, place)
            (arch,) = struct.unpack_from("<I", data, place + 28)
            found[{1: "compute", 2: "sm"}[kind] + f"_{arch}"] += 1
            place += header + size
print(json.dumps(found))
"""


def told(container: Container, source: str) -> Any:
    program = f"import json\nimport tensorflow as tf\n{source}"
    return printed(python(container, program, env=QUIET, loaded=["tensorflow"]))


def test_the_releases_are_those_of_the_name(container: Container) -> None:
    source = """
built = tf.sysconfig.get_build_info()
print(json.dumps([tf.__version__, built["cuda_version"], built["is_cuda_build"]]))
"""
    version, cuda, is_cuda = told(container, source)
    name = f"tensorflow{version.rpartition('.')[0]}-cuda{cuda.rpartition('.')[0]}-mpi4.1"
    assert (name, is_cuda) == (FOLDER.name, True)


def test_it_holds_what_the_lock_files_say_and_nothing_else(container: Container) -> None:
    if container.name != FOLDER.name:
        pytest.skip("an image built on this one holds what it likes besides")
    found, wanted = installed(container), locked(container, LOCKS)
    assert {name: found.get(name) for name in wanted} == wanted
    # It comes with every environment.
    assert found.keys() - wanted.keys() == {"pip"}


def test_it_carries_code_for_the_gpus_of_clusters(container: Container) -> None:
    """Read from the library itself, and TensorFlow says the same of it.

    Of an H100 (9.0) it has most kernels as PTX alone, which the driver compiles when it first
    meets them: that takes a driver of CUDA 12.3 (545) or later.
    """
    found = printed(run_file(container, FATBINS, ["python3"], name="fatbins.py"))
    said = told(container, "print(json.dumps(dict(tf.sysconfig.get_build_info())))")
    assert set(found) == {"sm_60", "sm_70", "sm_80", "sm_89", "sm_90", "compute_90"}
    assert set(said["cuda_compute_capabilities"]) <= set(found)
    assert found["compute_90"] > found["sm_80"] > 1000 > found["sm_90"]


def test_the_cuda_libraries_are_those_that_it_was_built_with(container: Container) -> None:
    found = installed(container)
    assert found["nvidia-cuda-runtime-cu12"].startswith("12.5.")
    assert found["nvidia-cudnn-cu12"].startswith("9.3.")
    assert found["nvidia-nccl-cu12"].startswith("2.21.")


def test_its_libraries_resolve(container: Container) -> None:
    ran = container.run(
        [
            "bash",
            "-c",
            "cd /opt/venv/lib/python3*/site-packages"
            " && find tensorflow nvidia -name '*.so*' -type f -exec ldd {} + 2>&1",
        ]
    )
    assert "libtensorflow_framework.so.2 => " in ran.stdout
    assert set(re.findall(r"(\S+) => not found", ran.stdout)) <= DRIVER


def test_the_cuda_libraries_can_be_loaded(container: Container) -> None:
    """TensorFlow looks for them itself; one that is missing costs it the GPU."""
    source = """
import ctypes, glob, site
found = {}
for name in ("cuda_runtime/lib/libcudart", "cublas/lib/libcublas", "cudnn/lib/libcudnn",
             "cufft/lib/libcufft", "cusolver/lib/libcusolver", "cusparse/lib/libcusparse",
             "nccl/lib/libnccl"):
    (path,) = glob.glob(f"{site.getsitepackages()[0]}/nvidia/{name}.so.*")
    found[name] = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
version = ctypes.c_int()
found["cuda_runtime/lib/libcudart"].cudaRuntimeGetVersion(ctypes.byref(version))
print(version.value)
"""
    ran = python(container, source)
    assert (ran.returncode, ran.stdout.strip()) == (0, "12050"), ran.stderr


def test_a_small_network_learns(container: Container) -> None:
    source = """
tf.keras.utils.set_random_seed(1)
x = tf.linspace(-1.0, 1.0, 64)[:, None]
y = x ** 2
model = tf.keras.Sequential([tf.keras.layers.Dense(16, "tanh"), tf.keras.layers.Dense(1)])
model.compile(optimizer=tf.keras.optimizers.Adam(0.05), loss="mse")
losses = model.fit(x, y, epochs=200, batch_size=64, verbose=0).history["loss"]
print(json.dumps([losses[0], losses[-1]]))
"""
    first, last = told(container, source)
    assert last < first / 100


def test_a_matrix_product_is_that_of_numpy(container: Container) -> None:
    source = """
import numpy
numbers = numpy.random.default_rng(7)
a, b = (numbers.standard_normal((300, 300)) for _ in range(2))
theirs, ours = a @ b, tf.linalg.matmul(a, b).numpy()
print(json.dumps([float(abs(ours - theirs).max()), float(abs(theirs).max())]))
"""
    difference, largest = told(container, source)
    assert difference < 1e-10 < largest


def test_a_function_is_compiled_to_a_graph(container: Container) -> None:
    source = """
f = tf.function(lambda x: tf.reduce_sum(tf.sin(x) ** 2 + tf.cos(x) ** 2), jit_compile=True)
print(json.dumps(float(f(tf.range(1000.0)))))
"""
    assert told(container, source) == pytest.approx(1000, rel=1e-5)


def test_gradients_are_averaged_over_four_ranks(container: Container) -> None:
    """Data parallel training by MPI: each rank sees other points, all end with one model."""
    program = """
import json, sys
import numpy
import tensorflow as tf
from mpi4py import MPI
world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
tf.random.set_seed(rank)
x = tf.random.normal((64, 3))
y = tf.linalg.matvec(x, [2.0, -3.0, 0.5])
w = tf.Variable(world.bcast(numpy.random.default_rng(0).standard_normal(3)), dtype=tf.float32)
losses = []
for _ in range(100):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((tf.linalg.matvec(x, w) - y) ** 2)
    mine = tape.gradient(loss, w).numpy()
    total = numpy.empty_like(mine)
    world.Allreduce(mine, total, op=MPI.SUM)
    w.assign_sub(0.1 * total / size)
    losses.append(float(loss))
every = world.gather([w.numpy().tolist(), losses[0], losses[-1], float(x[0, 0])])
if rank == 0:
    sys.stdout.write(json.dumps(every) + "\\n")
"""
    ran = run_file(
        container,
        program,
        ["mpirun", "-n", "4", "--oversubscribe", "python3"],
        name="train.py",
        env={
            **QUIET,
            # Four ranks are about MPI; one GPU may not take four.
            "CUDA_VISIBLE_DEVICES": "-1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        },
    )
    every = printed(ran)
    assert len({point for *_, point in every}) == 4
    assert len({tuple(weights) for weights, *_ in every}) == 1
    assert every[0][0] == pytest.approx([2, -3, 0.5], abs=1e-3)
    assert all(last < first / 100 for _, first, last, _ in every)


def test_it_sees_every_gpu_of_the_host(container: Container, gpus: int) -> None:
    found = told(container, "print(json.dumps(len(tf.config.list_physical_devices('GPU'))))")
    assert found == gpus


@pytest.mark.usefixtures("gpus")
def test_a_matrix_product_on_a_gpu_is_that_of_the_processor(container: Container) -> None:
    source = """
tf.config.experimental.enable_tensor_float_32_execution(False)
a, b = tf.random.normal((512, 512)), tf.random.normal((512, 512))
with tf.device("/GPU:0"):
    ours = tf.linalg.matmul(a, b)
with tf.device("/CPU:0"):
    theirs = tf.linalg.matmul(a, b)
print(json.dumps([float(tf.reduce_max(abs(ours - theirs))), ours.device[-5:]]))
"""
    difference, device = told(container, source)
    assert (difference < 1e-3, device) == (True, "GPU:0")
