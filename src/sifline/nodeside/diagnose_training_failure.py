"""Names the root cause of a failed training job from its logs: class, rank, node, evidence.

Runs alone with ``python3 -I`` on Python 3.9 or later, standard library only: no network, no
Slurm command. It reads files of any encoding and size, and never more than a bounded part of them
in detail. One file, because it is copied to controllers and handed around; it has these parts:

1. classes and rules (data), with the place where each message's format was read;
2. reading: lines, their prefixes (rank, node, time), what is kept of huge files;
3. events: which lines match rules, which exceptions were not caught;
4. what does not count: other jobs, earlier attempts, quoted or survived errors;
5. the verdict: which event explains the others, on which rank and node, and what followed.

Usage: diagnose_training_failure.py [--json] [--job job.json] FILE...
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from re import Pattern
from typing import Any, NamedTuple

SCHEMA = 1


class Class(NamedTuple):
    """A class of failures: what it means, what to do, whose fault it usually is."""

    group: str
    meaning: str
    next: str
    fault: str
    retry: bool
    # The lower, the more it explains: 0 hardware, 9 consequences.
    tier: int


# fmt: off
CLASSES: dict[str, Class] = {
    "host-oom": Class(
        "memory",
        "The job used more host memory than its limit, and a process was killed.",
        "request more memory (--mem), or use fewer workers; look at the peak use",
        "user", False, 1),
    "node-oom": Class(
        "memory",
        "The whole node ran out of memory; the job was within its own limit.",
        "find the other consumer on the node and enforce memory limits; retry on another node",
        "admin", True, 1),
    "gpu-oom": Class(
        "memory",
        "An allocation on the GPU failed because its memory was full.",
        "use a smaller batch or sequence, or activation checkpointing; end foreign processes",
        "user", False, 2),
    "shm-exhausted": Class(
        "memory",
        "/dev/shm was too small or full.",
        "clean or enlarge /dev/shm, or use fewer data loader workers",
        "user", False, 2),
    "os-limit": Class(
        "memory",
        "The system refused memory, locked memory, threads, processes or open files.",
        "raise the limit that is named (ulimit, pids), or ask for less",
        "user", False, 2),
    "gpu-ecc": Class(
        "gpu-hardware",
        "A GPU had an uncorrectable memory error.",
        "drain the node, reset the GPU, run diagnostics, replace it if the error returns",
        "hardware", True, 0),
    "gpu-lost": Class(
        "gpu-hardware",
        "The driver cannot reach a GPU any more: off the bus, or its firmware does not answer.",
        "drain the node and power-cycle it; replace the GPU if it happens again",
        "hardware", True, 0),
    "gpu-nvlink": Class(
        "gpu-hardware",
        "An NVLink or NVSwitch error between the GPUs of a node.",
        "drain the node, reset the NVLink fabric, run diagnostics",
        "hardware", True, 0),
    "node-hardware": Class(
        "gpu-hardware",
        "The host's CPU, memory, PCIe bus, power or cooling failed.",
        "drain the node and replace the part that the kernel names",
        "hardware", True, 0),
    "gpu-driver-too-old": Class(
        "gpu-software",
        "The image's CUDA needs a newer driver than the node has.",
        "use an image with an older CUDA, or install a newer driver on the node",
        "admin", False, 2),
    "gpu-driver-broken": Class(
        "gpu-software",
        "The driver of the node is unusable: versions differ, or a service is not running.",
        "repair the node: reload the driver, or start the fabric manager",
        "admin", True, 2),
    "gpu-arch-unsupported": Class(
        "gpu-software",
        "The image has no code for this generation of GPUs.",
        "rebuild the framework or extension for this GPU, or request other GPUs",
        "user", False, 2),
    "gpu-assert": Class(
        "gpu-software",
        "An assertion on the GPU failed, such as an index or label out of range.",
        "check indices and labels; run with CUDA_LAUNCH_BLOCKING=1",
        "user", False, 2),
    "gpu-illegal-access": Class(
        "gpu-software",
        "A kernel accessed illegal or misaligned GPU memory; no hardware event explains it.",
        "run with compute-sanitizer or CUDA_LAUNCH_BLOCKING=1",
        "user", False, 3),
    "gpu-library-error": Class(
        "gpu-software",
        "cuDNN, cuBLAS or another GPU library failed, and nothing more specific explains it.",
        "reproduce the call alone; try other shapes, types or versions",
        "user", False, 3),
    "hang": Class(
        "communication",
        "Nothing moved although all processes were alive: a collective or barrier timed out.",
        "dump the stack of the rank that is absent or late (py-spy dump)",
        "user", False, 6),
    "collective-mismatch": Class(
        "communication",
        "Ranks disagree about a collective operation, its shapes or the model's parameters.",
        "make the control flow and the shapes equal on all ranks",
        "user", False, 2),
    "rdma-error": Class(
        "communication",
        "InfiniBand or RoCE broke while in use: retries exceeded, a port or link down.",
        "check cable, port and fabric; avoid the node until then",
        "hardware", True, 2),
    "comm-setup-failed": Class(
        "communication",
        "NCCL, UCX or MPI could not set up its transport.",
        "set the network interface (NCCL_SOCKET_IFNAME, UCX_NET_DEVICES); one image on all nodes",
        "user", False, 3),
    "rendezvous-timeout": Class(
        "communication",
        "Not all participants joined in time, and nothing says why.",
        "look at the missing node: did its task start, and can it reach the first node?",
        "admin", True, 5),
    "mpi-startup-failed": Class(
        "communication",
        "The processes did not become one MPI job.",
        "start with srun and an --mpi type that fits the image's MPI (srun --mpi=list)",
        "user", False, 3),
    "peer-lost": Class(
        "communication",
        "A process ended because another one ended. Only ever a consequence.",
        "look for the cause on the other ranks",
        "none", True, 9),
    "image-not-found": Class(
        "container",
        "The path of the container image does not exist.",
        "fix the path, or deploy the image to all nodes",
        "user", False, 2),
    "image-unusable": Class(
        "container",
        "The image is truncated, corrupt, or of another format or architecture.",
        "verify the image's digest and copy or build it again",
        "admin", False, 2),
    "container-mount-failed": Class(
        "container",
        "A bind, overlay or scratch mount of the container failed.",
        "fix the bind path, or mount the file system on the node",
        "user", False, 2),
    "container-runtime-unavailable": Class(
        "container",
        "The container runtime is not installed or not permitted on the node.",
        "repair the node: install the runtime, allow user namespaces or FUSE",
        "admin", True, 2),
    "container-gpu-missing": Class(
        "container",
        "GPUs were allocated, but the container sees no driver or no devices.",
        "start the container with --nv; check the driver's libraries on the node",
        "user", False, 3),
    "time-limit": Class(
        "scheduler",
        "The time limit ended the job while it made progress.",
        "request more time (--time), or resume from a checkpoint",
        "user", False, 7),
    "node-failure": Class(
        "scheduler",
        "Slurm lost a node, and the reason is not in these files.",
        "ask the administrators about the node; submit the job again",
        "admin", True, 4),
    "preempted": Class(
        "scheduler",
        "Slurm preempted the job for other work.",
        "submit with --requeue and resume from a checkpoint",
        "none", True, 4),
    "cancelled": Class(
        "scheduler",
        "A person or a policy cancelled the job.",
        "nothing to repair; ask who cancelled it if that was not you",
        "none", False, 7),
    "launch-failed": Class(
        "scheduler",
        "Slurm could not start the job or a step on a node.",
        "look at slurmd's log on the node",
        "admin", True, 2),
    "step-rejected": Class(
        "scheduler",
        "A step requests what the job's allocation does not have.",
        "make the options of srun fit those of sbatch",
        "user", False, 2),
    "disk-full": Class(
        "storage",
        "No space is left on a file system.",
        "free space on the file system, or write elsewhere",
        "user", False, 2),
    "quota-exceeded": Class(
        "storage",
        "The quota of the user or project is used up.",
        "delete files or move caches out of the quota",
        "user", False, 2),
    "filesystem-error": Class(
        "storage",
        "A file system misbehaves: stale, not responding, I/O errors, or read-only after errors.",
        "repair the mount or the disk of the node; retry on other nodes",
        "admin", True, 2),
    "permission-denied": Class(
        "storage",
        "Access rights forbid it, or the path is read-only by design.",
        "fix the rights, or write to another path",
        "user", False, 3),
    "name-resolution": Class(
        "network",
        "The name of a host of the cluster does not resolve.",
        "fix the host name (MASTER_ADDR), or the resolver of the node",
        "user", False, 3),
    "endpoint-unreachable": Class(
        "network",
        "An address in the cluster refuses or does not answer, and its process did not fail.",
        "check firewall, routes and the order of start",
        "admin", True, 5),
    "address-in-use": Class(
        "network",
        "A network port is taken by another process.",
        "choose a port for each job, such as one computed from the job id",
        "user", True, 2),
    "external-service": Class(
        "network",
        "A service outside the cluster did not answer, refused or throttled.",
        "fetch what is needed before the job, or use the offline mode; retry later",
        "none", True, 2),
    "launch-env-invalid": Class(
        "environment",
        "Variables or task counts of a distributed start are missing or contradict each other.",
        "fix the launcher: MASTER_ADDR, RANK, WORLD_SIZE, tasks per node",
        "user", False, 2),
    "gpu-visibility": Class(
        "environment",
        "Ranks see too few GPUs, the wrong one, or share one; all GPUs work.",
        "make tasks per node and GPUs per task fit; check CUDA_VISIBLE_DEVICES",
        "user", False, 3),
    "software-missing": Class(
        "environment",
        "A Python module, shared library or program is not there.",
        "add it to the image, or fix the search path",
        "user", False, 2),
    "software-incompatible": Class(
        "environment",
        "Software is there in the wrong version or with another ABI.",
        "pin versions that fit each other; keep the home directory out of the container",
        "user", False, 2),
    "code-exception": Class(
        "user-code",
        "The program ended with an error of its own, and nothing more specific explains it.",
        "read the stack trace at the evidence",
        "user", False, 4),
    "usage-error": Class(
        "user-code",
        "The program refused its arguments or its configuration.",
        "fix the command line or the configuration",
        "user", False, 4),
    "native-crash": Class(
        "user-code",
        "The program crashed: segmentation fault, abort, bus error or illegal instruction.",
        "get a core dump and open it in a debugger",
        "user", False, 4),
    "non-finite-loss": Class(
        "user-code",
        "The program stopped because the loss became NaN or infinite, or its scale collapsed.",
        "check learning rate, data and precision; on one rank only, suspect its hardware",
        "user", False, 2),
    "data-missing": Class(
        "data",
        "An input file or directory is not there, or not bound into the container.",
        "check the path, the bind mounts and the staging of the data",
        "user", False, 3),
    "data-corrupt": Class(
        "data",
        "Input data cannot be read: truncated, or of a wrong format or encoding.",
        "replace the file that is named",
        "user", False, 3),
    "checkpoint-unusable": Class(
        "data",
        "A checkpoint or weight file is truncated or belongs to another model.",
        "resume from the previous checkpoint, or use the configuration that fits it",
        "user", False, 2),
    "healthy": Class(
        "verdicts",
        "The job did what it was started for.",
        "nothing to do",
        "none", False, 9),
    "unknown": Class(
        "verdicts",
        "The job failed, and these files do not show why.",
        "look at the output of the other ranks and at the kernel log of the nodes",
        "none", False, 9),
}
# fmt: on

# Where the format of each rule's messages was read.
SOURCES: dict[str, str] = {
    "apptainer": "Apptainer: cmd/internal/cli, internal/pkg/runtime, pkg/image",
    "c10d": "PyTorch: torch/csrc/distributed/c10d (ProcessGroupNCCL, TCPStore, socket, reducer)",
    "cuda": "NVIDIA: CUDA Runtime API, error codes (cudaGetErrorString)",
    "data": "Error types of Pillow, h5py, zlib, zipfile, pyarrow, webdataset, TensorFlow records",
    "dataloader": "PyTorch: torch/utils/data/_utils (signal_handling, worker)",
    "elastic": "PyTorch: torch/distributed/elastic, torch/distributed/run",
    "env": "PyTorch: torch/distributed/rendezvous.py; Lightning: SLURMEnvironment",
    "errno": "Linux: include/uapi/asm-generic/errno*.h; glibc: strerror",
    "flexnet": "FlexNet Publisher: License Administration Guide, error codes",
    "fs": "Linux: fs/ext4, fs/xfs, fs/nfs, fs/squashfs, block/blk-core.c; Lustre: ptlrpc/import.c",
    "gloo": "Gloo: gloo/transport/tcp (device, pair, unbound_buffer)",
    "horovod": "Horovod: horovod/common/stall_inspector.cc",
    "http": "requests, urllib3, huggingface_hub, wandb, botocore: exception messages",
    "jax": "JAX and XLA: coordination_service, pjrt client, bfc_allocator",
    "kernel-oom": "Linux: mm/oom_kill.c, mm/memcontrol.c",
    "kernel-hw": "Linux: arch/x86/kernel/cpu/mce, drivers/edac, drivers/pci/pcie/aer.c",
    "kernel-net": "Linux: drivers/net/ethernet/mellanox/mlx5/core, drivers/infiniband",
    "kernel-trap": "Linux: arch/x86/kernel/traps.c, arch/x86/mm/fault.c",
    "libc": "glibc: elf/dl-load.c, malloc/malloc.c, nptl; GNU bash: error messages",
    "lightning": "Lightning, DeepSpeed, Megatron-LM, fairseq, NeMo: messages on non-finite losses",
    "nccl": "NCCL: src/init.cc, src/transport, src/misc (socket, ibvwrap, shmutils)",
    "nvml": "NVIDIA: NVML API Reference (nvmlErrorString), nvidia-smi(1)",
    "nvswitch": "NVIDIA: Fabric Manager User Guide, SXid errors",
    "ompi": "Open MPI: help files of ompi, orte, prrte, opal; ompi/errhandler",
    "pmix": "Slurm: src/plugins/mpi/pmix; OpenPMIx: src/client, help files",
    "python": "CPython: Lib/traceback.py, Lib/argparse.py, Objects/exceptions.c",
    "ray": "Ray: python/ray/exceptions.py, memory monitor",
    "slurm": "Slurm: src/slurmd/slurmstepd, src/srun/libsrun, src/common/slurm_errno.c",
    "tf": "TensorFlow: core/framework/errors, xla/stream_executor/cuda",
    "torch": "PyTorch: c10/cuda, aten/src/ATen/cuda, torch/cuda/__init__.py, torch/serialization",
    "ucx": "UCX: src/ucp/core, src/uct/ib, src/ucs/debug",
    "xid": "NVIDIA: XID Errors, catalogue of XID numbers",
    "languages": "GNU Fortran, Julia, Go, Java, Rust, R, MATLAB: messages of run-time errors",
}


class Rule(NamedTuple):
    """A message: its class, words of which it has one, a pattern, the source, and flags.

    Flags: ``k`` kernel logs only; ``a`` any kind of file; ``w`` counts also as a warning or
    information; ``?`` only a hint, which counts if nothing else does; ``d`` a process or step
    surely ended; ``!`` beats all other rules on a line; ``-`` explains
    an exception and is no evidence by itself.
    """

    name: str
    words: str
    pattern: str
    source: str
    flags: str = ""


# fmt: off
# One rule in two lines, not in seven: the table is read and compared as a whole.
RULES: tuple[Rule, ...] = (
    # Memory of the host.
    Rule("host-oom", "kill event",
         r"Detected \d+ oom[-_]kill events? in (?:StepId|step)|"
         r"Detected \d+ oom[-_]kill event\(s\) in (?:StepId|step)", "slurm", "wd"),
    Rule("host-oom", "oom-kill:constraint=constraint_memcg",
         r"oom-kill:constraint=CONSTRAINT_MEMCG.*?(?:task_(?P<task>\d+))?,task=[^,]*,pid=(?P<pi"
         r"d>\d+)", "kernel-oom", "k"),
    Rule("host-oom", "memory cgroup out of memory: kill",
         r"Memory cgroup out of memory: Kill(?:ed)? process (?P<pid>\d+)", "kernel-oom", "k"),
    Rule("host-oom", ": out of memory",
         r"(?:task|tasks) (?P<rank>\d+)[-\d,]*: Out Of Memory", "slurm", "wd"),
    Rule("host-oom", "memory limit",
         r"(?:Step|Job|StepId=\S+|JobId=\S+).{0,20} exceeded (?:job |"
         r"step )?(?:virtual )?memory limit", "slurm", "wd"),
    Rule("host-oom", "some of your processes may have been killed by the cgroup out-of-memory",
         r"Some of your processes may have been killed by the cgroup out-of-memory",
         "slurm", "wd"),
    Rule("host-oom",
         "ray killed this worker |ray.exceptions.outofmemoryerror|"
         "task was killed due to the node running low on memory",
         r"ray\.exceptions\.OutOfMemoryError|Ray killed this worker .*memory pressure|"
         r"Task was killed due to the node running low on memory", "ray", "w"),
    Rule("host-oom", "killedworker|% memory budget| the memory usage threshold",
         r"exceed(?:s|ed|ing) the memory usage threshold|"
         r"Worker.{0,60}exceeded \d+% memory budget|\bKilledWorker\b", "ray", "w"),
    Rule("host-oom", "java heap space|java.lang.outofmemoryerror",
         r"java\.lang\.OutOfMemoryError|Java heap space", "languages"),
    Rule("node-oom", "oom-kill:constraint=constraint_",
         r"oom-kill:constraint=CONSTRAINT_(?:NONE|CPUSET|"
         r"MEMORY_POLICY).*?(?:task_(?P<task>\d+))?,task=[^,]*,pid=(?P<pid>\d+)",
         "kernel-oom", "k"),
    Rule("node-oom", "out of memory: kill",
         r"(?<!cgroup )Out of memory: Kill(?:ed)? process (?P<pid>\d+)", "kernel-oom", "k"),
    Rule("node-oom", "sending sig|systemd-oomd",
         r"systemd-oomd.*Killed|earlyoom.*sending SIG", "kernel-oom", "k"),
    # Memory of the GPU.
    Rule("gpu-oom", "hip out of memory|cuda out of memory",
         r"CUDA out of memory|HIP out of memory", "torch"),
    Rule("gpu-oom", "cuda_error_out_of_memory|cudaerrormemoryallocation|cuda error: out of memory",
         r"CUDA error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY", "cuda"),
    Rule("gpu-oom", "'out of memory'", r"Cuda failure (?:\d+ )?'out of memory'", "nccl", "w"),
    Rule("gpu-oom", "resource_exhausted: |xlaruntimeerror: resource_exhausted",
         r"RESOURCE_EXHAUSTED: .*(?:Out of memory|OOM|allocat)|"
         r"XlaRuntimeError: RESOURCE_EXHAUSTED", "jax"),
    Rule("gpu-oom", "resourceexhaustederror", r"ResourceExhaustedError", "tf"),
    Rule("gpu-oom", "oom when allocating tensor ", r"OOM when allocating tensor .*GPU:\d", "tf"),
    Rule("gpu-oom", "_failed",
         r"(?:CUBLAS|CUDNN|CUSOLVER|CUFFT|CUSPARSE)_(?:STATUS_)?ALLOC(?:ATION)?_FAILED", "torch"),
    Rule("gpu-oom",
         "cudamalloc|outofmemoryerror|cannot allocate memory on gpu|"
         "std::bad_alloc: out_of_memory: cuda",
         r"(?:cupy|cupy_backends)\S*OutOfMemoryError|std::bad_alloc: out_of_memory: CUDA|"
         r"Cannot allocate memory on GPU|cudaMalloc.* failed.*memory", "cuda"),
    Rule("gpu-oom", "free memory on device |no available memory for the cache blocks",
         r"No available memory for the cache blocks|Free memory on device .* is less than "
         r"desired GPU memory", "torch"),
    # Shared memory.
    Rule("shm-exhausted", "out of shared memory|insufficient shared memory",
         r"out of shared memory|insufficient shared memory", "dataloader", "w"),
    Rule("shm-exhausted", "no space left on device",
         r"/dev/shm\S*.{0,80}No space left on device|No space left on device.{0,40}/dev/shm",
         "nccl", "w"),
    Rule("shm-exhausted", "unable to ",
         r"unable to (?:write to|resize) file </?torch_\S+>.*(?:No space left|\(28\))|"
         r"unable to allocate shared memory\(shm\)", "torch"),
    Rule("shm-exhausted", "no space left|cannot allocate",
         r"unable to (?:write to|resize|mmap \d+ bytes from) file </?torch_\S+>: (?:No space "
         r"left|Cannot allocate)", "torch"),
    Rule("shm-exhausted", "error while creating shared memory segment /dev/shm",
         r"Error while creating shared memory segment /dev/shm", "nccl", "w"),
    Rule("shm-exhausted", "/dev/shm|not enough space",
         r"not enough space.{0,60}(?:/dev/shm|shared memory)|(?:plasma|"
         r"object) store .{0,40}/dev/shm.{0,40}(?:full|too small)", "ompi"),
    Rule("shm-exhausted", "backing file|not enough space",
         r"shmem.{0,80}(?:not enough space|backing file)|"
         r"mmap on.{0,80}backing file.{0,40}(?:fail|not enough)", "ompi"),
    Rule("shm-exhausted", "shm_open|/dev/shm",
         r"shm_open.{0,60}No space|/dev/shm.{0,40}is full", "errno"),
    # Limits.
    Rule("os-limit", "[errno 2|too many open files",
         r"\[Errno (?:24|23)\]|Too many open files", "errno"),
    Rule("os-limit", "can't start new thread", r"can't start new thread", "python"),
    Rule("os-limit", "pthread_create failed|thread creation failed",
         r"pthread_create failed|Thread creation failed", "libc", "w"),
    Rule("os-limit", "rlimit_nproc ", r"RLIMIT_NPROC \d+ current", "libc", "w"),
    Rule("os-limit", ": [errno 11]|resource temporarily",
         r"(?:BlockingIOError|OSError): \[Errno 11\]|fork: (?:retry: )?Resource temporarily "
         r"unavailable|[Tt]hread.{0,60}Resource temporarily unavailable|cannot (?:create|"
         r"fork).{0,60}Resource temporarily", "libc"),
    Rule("os-limit", "cgroup: fork rejected by pids controller in ",
         r"cgroup: fork rejected by pids controller in \S*", "kernel-oom", "k"),
    Rule("os-limit", "unable to allocate ",
         r"Unable to allocate [\d.]+ [KMGTPE]?iB for an array", "python"),
    Rule("os-limit", "memoryerror", r"^\s*(?:\w+\.)*_?(?:Array)?MemoryError\b", "python"),
    Rule("os-limit", "defaultcpuallocator: |cannot allocate memory for thread",
         r"DefaultCPUAllocator: (?:can't|not enough memory)|Cannot allocate memory for thread",
         "torch"),
    Rule("os-limit", "memlock|max locked memory",
         r"RLIMIT_MEMLOCK|max locked memory|memlock", "nccl", "w"),
    Rule("os-limit", "cannot allocate memory",
         r"ibv_(?:reg_mr|create_\w+|alloc_pd)\S* failed.*Cannot allocate memory", "nccl", "w"),
    Rule("os-limit", "[errno 12]|fork: cannot allocate|cannot allocate memory",
         r"\[Errno 12\]|(?:fork|mmap|std::bad_alloc|malloc).{0,60}Cannot allocate memory|"
         r"fork: Cannot allocate", "errno"),
    Rule("os-limit", "std::bad_alloc", r"std::bad_alloc", "libc"),
    Rule("os-limit", " memory",
         r"(?:limit|amount) .{0,40}(?:locked|registered) memory|registered memory.{0,40}limit",
         "ompi", "w"),
    Rule("os-limit", "rlimit_nofile|open file limit",
         r"RLIMIT_NOFILE|open file limit.{0,30}(?:reached|exceeded)", "libc", "w"),
    # Hardware of the GPU: the kernel's XID lines are read by _xid.
    Rule("gpu-ecc",
         "cuda error: uncorrect| ecc error encountered|cudaerroreccuncorrectable|"
         "cuda_error_ecc_uncorrectable",
         r"CUDA error: (?:uncorrect(?:able|ed)) ECC error|'?(?:uncorrect(?:able|"
         r"ed)) ECC error encountered|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE",
         "cuda", "w"),
    Rule("gpu-ecc", "<remapped_row_failure>|remapping failure occurred",
         r"Remapping Failure Occurred\s*:\s*Yes|<remapped_row_failure>\s*Yes", "nvml", "aw"),
    Rule("gpu-ecc", " uncorrectable|<dram_uncorrectable>",
         r"^\s*(?:DRAM|SRAM) Uncorrectable\s*:\s*[1-9]\d*|<dram_uncorrectable>\s*[1-9]\d*",
         "nvml", "aw?"),
    Rule("gpu-ecc", "pending",
         r"^\s*Pending\s*:\s*Yes|<remapped_row_pending>\s*Yes", "nvml", "aw?"),
    Rule("gpu-ecc", "dcgm",
         r"(?:DCGM|dcgm).{0,80}(?:double.?bit|DBE|row remap).{0,40}(?:fail|error)", "nvml", "aw"),
    Rule("gpu-lost", "gpu is lost", r"GPU is lost", "nvml", "aw"),
    Rule("gpu-lost", "gpu has fallen off the bus", r"GPU has fallen off the bus", "xid", "aw"),
    Rule("gpu-lost", "unable to determine the device handle for ",
         r"Unable to determine the device handle for (?:GPU|gpu)\s*(?P<bus>[\dA-Fa-f:.]*)",
         "nvml", "aw"),
    Rule("gpu-lost", "gpu requires reset", r"GPU requires reset", "nvml", "aw"),
    Rule("gpu-lost", "rminitadapter failed", r"RmInitAdapter failed", "xid", "k"),
    Rule("gpu-nvlink", "cuda error: uncorrect|cudaerrornvlinkuncorrect",
         r"CUDA error: (?:uncorrect(?:able|ed)) NVLink error|cudaErrorNvlinkUncorrect",
         "cuda", "w"),
    Rule("gpu-nvlink", "sxid (pci:",
         r"SXid \(PCI:\S+\): \d+, (?:Fatal|Severity [01])", "nvswitch", "k"),
    Rule("gpu-nvlink", ", non-fatal", r"SXid \(PCI:\S+\): \d+, Non-fatal", "nvswitch", "k?"),
    Rule("gpu-nvlink", "nvlink",
         r"NVLink.{0,60}(?:fatal error|is down|inactive|failed to train)", "nvml", "aw?"),
    # Hardware of the host.
    Rule("node-hardware", "machine check exception", r"Machine Check Exception", "kernel-hw", "k"),
    Rule("node-hardware", "machine check|fatal hardware error",
         r"Kernel panic.*machine check|Fatal (?:local )?machine check|Fatal hardware error",
         "kernel-hw", "k"),
    Rule("node-hardware", "edac ", r"EDAC \S+: \d+ UE\b|EDAC .*Uncorrected", "kernel-hw", "k"),
    Rule("node-hardware", "memory failure: 0x",
         r"Memory failure: 0x[0-9a-f]+: (?:Sending SIGBUS|Killing|"
         r"recovery action).*?(?::(?P<pid>\d+) )?", "kernel-hw", "k"),
    Rule("node-hardware", "error|severity",
         r"(?:Hardware error|severity|Error).{0,60}\b(?:Uncorrected|Uncorrectable \(Fatal\)|"
         r"fatal)|event severity: (?:fatal|recoverable)", "kernel-hw", "k"),
    Rule("node-hardware", "corrected: no|hardware error|event severity: fatal",
         r"event severity: fatal|Hardware Error.{0,60}(?:fatal|Uncorrected error)|Corrected: No",
         "kernel-hw", "k"),
    Rule("node-hardware", "uncorrect",
         r"(?:AER|PCIe Bus Error).{0,60}(?:Uncorrected|Uncorrectable) \(Fatal\)|"
         r"AER.{0,40}severity=Uncorrected \(Fatal\)", "kernel-hw", "k"),
    Rule("node-hardware", "critical thermal|critical temperature reached",
         r"critical temperature reached|[Cc]ritical thermal.{0,30}shut", "kernel-hw", "k"),
    Rule("node-hardware", "uncorrectable ecc",
         r"(?:SEL|IPMI|ipmi|sel).{0,80}Uncorrectable ECC|Memory.{0,30}Uncorrectable ECC",
         "kernel-hw", "aw"),
    Rule("node-hardware", "power unit|power supply",
         r"(?:Power Supply|power unit).{0,60}(?:failure|lost|AC lost)", "kernel-hw", "k"),
    # Software of the GPU.
    Rule("gpu-driver-too-old",
         "cuda_error_system_driver|cudaerrorinsufficientdriver|"
         "nvidia driver on your system is too old|"
         "driver version is insufficient for cuda runtime",
         r"NVIDIA driver on your system is too old|driver version is insufficient for CUDA "
         r"runtime|cudaErrorInsufficientDriver|CUDA_ERROR_SYSTEM_DRIVER", "torch", "w"),
    Rule("gpu-driver-too-old",
         "cuda_error_unsupported_ptx_version|"
         "provided ptx was compiled with an unsupported toolchain",
         r"provided PTX was compiled with an unsupported toolchain|"
         r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "cuda", "w"),
    Rule("gpu-driver-too-old", "unsatisfied condition: cuda",
         r"unsatisfied condition: cuda\s?>=?", "nvml", "w"),
    Rule("gpu-driver-too-old", "requires|forward compatibility was attempted on non supported hw",
         r"requires.{0,40}(?:NVIDIA )?driver.{0,30}(?:>=|or (?:newer|later|higher))|"
         r"forward compatibility was attempted on non supported HW", "cuda", "w"),
    Rule("gpu-driver-broken", "driver/library version mismatch",
         r"Driver/library version mismatch", "nvml", "aw"),
    Rule("gpu-driver-broken", "nvrm: api mismatch", r"NVRM: API mismatch", "xid", "aw"),
    Rule("gpu-driver-broken", "cudaerrorsystemnotready|system not yet initialized",
         r"(?:Error 802: )?system not yet initialized|cudaErrorSystemNotReady", "cuda", "w"),
    Rule("gpu-driver-broken", "nvidia-smi has failed because",
         r"NVIDIA-SMI has failed because", "nvml", "aw"),
    Rule("gpu-driver-broken", "driver not loaded",
         r"NVML: Driver Not Loaded|Driver Not Loaded", "nvml", "aw"),
    Rule("gpu-driver-broken", "manager|fabric state",
         r"(?:fabric.?manager|nv-fabricmanager).{0,80}(?:fail|not running|inactive|error|"
         r"exited)|Fabric State.{0,20}(?:Failure|In Progress)", "nvswitch", "aw"),
    Rule("gpu-driver-broken", "modprobe: |failed to ",
         r"modprobe: (?:FATAL|ERROR).{0,60}nvidia|failed to (?:load|insert).{0,30}nvidia",
         "nvml", "aw"),
    Rule("gpu-driver-broken",
         "cuda driver|system driver mismatch|system has unsupported display driver",
         r"system has unsupported display driver|cuda driver.{0,20}mismatch|"
         r"system driver mismatch", "cuda", "w"),
    Rule("gpu-driver-broken", "nvidia-uvm",
         r"nvidia-uvm.{0,40}(?:not|missing|fail)", "nvml", "aw"),
    Rule("gpu-driver-broken", "peermem",
         r"nvidia.peermem.{0,60}(?:not (?:loaded|found)|fail)", "nvml", "aw"),
    Rule("gpu-arch-unsupported",
         "no kernel image is available|cuda_error_no_binary_for_gpu|"
         "cudaerrornokernelimagefordevice",
         r"no kernel image is available|cudaErrorNoKernelImageForDevice|"
         r"CUDA_ERROR_NO_BINARY_FOR_GPU", "cuda", "w"),
    Rule("gpu-arch-unsupported", "with cuda capability sm_",
         r"with CUDA capability sm_\d+ is not compatible", "torch", "w?"),
    Rule("gpu-arch-unsupported", "only support",
         r"only supports? (?:Ampere|Hopper|Volta|Turing|Ada|Blackwell|NVIDIA|GPUs? with|"
         r"compute cap\w*|SM|sm_?\d)", "torch"),
    Rule("gpu-arch-unsupported", "compute capability",
         r"(?:requires?|not supported|unsupported|needs?).{0,60}compute capability|"
         r"compute capability.{0,60}(?:required|not supported|too low|unsupported)", "torch"),
    Rule("gpu-arch-unsupported", "invalid|unknown|unsupported|' is not defined",
         r"(?:Unsupported|unknown|invalid).{0,30}(?:gpu arch\w*|value|"
         r"target).{0,20}['\"]?(?:sm_|compute_)\d+|Value 'sm_\d+' is not defined", "cuda"),
    Rule("gpu-arch-unsupported",
         "cudaerrorinvalidkernelimage|device kernel image is invalid|"
         "cuda error: named symbol not found",
         r"CUDA error: named symbol not found|device kernel image is invalid|"
         r"cudaErrorInvalidKernelImage", "cuda"),
    Rule("gpu-assert", "], thread: [",
         r"block: \[\d+,\d+,\d+\], thread: \[\d+,\d+,\d+\].*Assertion", "torch", "w"),
    Rule("gpu-assert", "cudaerrorassert|cuda_error_assert|device-side assert triggered",
         r"device-side assert triggered|cudaErrorAssert|CUDA_ERROR_ASSERT", "cuda", "w"),
    Rule("gpu-illegal-access",
         "cudaerrorillegaladdress|cuda_error_illegal_address|"
         "illegal memory access was encountered",
         r"illegal memory access was encountered|CUDA_ERROR_ILLEGAL_ADDRESS|"
         r"cudaErrorIllegalAddress", "cuda", "w"),
    Rule("gpu-illegal-access", "misaligned address|cuda_error_misaligned_address",
         r"misaligned address|CUDA_ERROR_MISALIGNED_ADDRESS", "cuda", "w"),
    Rule("gpu-illegal-access",
         "invalid program counter|an exception occurred during|"
         "an illegal instruction was encountered",
         r"an illegal instruction was encountered|invalid program counter|"
         r"an exception occurred during.*kernel", "cuda", "w"),
    Rule("gpu-library-error", "_status_",
         r"(?:CUDNN|CUBLAS|CUSOLVER|CUSPARSE|CUFFT|CUTENSOR|NVJPEG)_STATUS_(?!SUCCESS|ALLOC)\w+",
         "torch"),
    Rule("gpu-library-error", "cufft_", r"CUFFT_(?!SUCCESS|ALLOC)[A-Z_]+", "torch"),
    Rule("gpu-illegal-access", "cuda_error_launch_failed|unspecified launch failure",
         r"unspecified launch failure|CUDA_ERROR_LAUNCH_FAILED", "cuda", "?"),
    Rule("gpu-library-error",
         "internal|cudnn error| cudnn handle|unimplemented|dnn library i|failed_precondition|"
         "find was unable to find an engine",
         r"(?:Could not create|Failed to (?:get|create)|Unable to find).{0,20} cudnn handle|"
         r"(?:FAILED_PRECONDITION|UNIMPLEMENTED|INTERNAL).{0,80}(?:DNN library|cuDNN|cudnn)|"
         r"DNN library (?:is not found|initialization failed)|cuDNN error|"
         r"FIND was unable to find an engine", "tf"),
    Rule("gpu-library-error",
         "invalid argument|invalid configuration argument|"
         "too many resources requested for launch",
         r"CUDA error: too many resources requested for launch|"
         r"CUDA error: invalid configuration argument|CUDA error: invalid argument", "cuda"),
    Rule("gpu-library-error",
         " launch failed|failed to create cublas handle|attempting to perform blas operation",
         r"(?:failed to create cublas handle|Blas (?:x?GEMM|SGEMM) launch failed|"
         r"Attempting to perform BLAS operation.*without BLAS)", "tf"),
    Rule("gpu-driver-too-old", "cuda driver|too old for|built for nvidia driver release",
         r"built for NVIDIA Driver Release|CUDA driver.{0,40}(?:is older|too old|insufficient)|"
         r"driver.{0,40}(?:is )?too old for", "nvml", "w"),
    Rule("gpu-driver-broken",
         "not_initialized|system_driver_mismatch|cuda_error_system_not_ready|"
         "system has unsupported display driver|"
         "cuda unknown error - this may be due to an incorrectly set up environment",
         r"system has unsupported display driver|CUDA unknown error - this may be due to an "
         r"incorrectly set up environment|CUDA_ERROR_SYSTEM_NOT_READY|"
         r"CUDA_ERROR_(?:SYSTEM_DRIVER_MISMATCH|NOT_INITIALIZED)", "cuda", "w?"),
    Rule("gpu-arch-unsupported",
         "ptxas | supported on |' is not defined|compute capability of at least",
         r"compute capability of at least|ptxas (?:fatal|error).{0,40}(?:sm_|gpu-name|"
         r"not defined)|Value 'sm_\d+a?' is not defined|not supported on (?:this|your|"
         r"the current) (?:GPU|device|architecture)|(?:only|are) supported on (?:Ampere|Hopper|"
         r"Volta|GPUs with)", "torch"),
    Rule("external-service", "rror|api key|timeout|xception",
         r"(?:wandb|huggingface_hub|mlflow|comet_ml|neptune|openai|clearml)\S*\.\w*(?:Auth\w*|"
         r"Comm\w*|Connection|Timeout|Rate\w*|Api|API)\w*(?:Error|Exception)|"
         r"API key.{0,60}(?:invalid|missing|not (?:set|configured|found))|"
         r"URLError: <urlopen error|(?:urllib3|httpx|httpcore|aiohttp)\.\S*(?:Error|Timeout)\b",
         "http"),
    Rule("checkpoint-unusable", "match|differ|checkpoint",
         r"[Cc]heckpoint.{0,60}(?:world size|DP world|different number|was (?:saved|trained|"
         r"created) (?:with|for)|layers|expects?|incompatible|version)|(?:shape|size|"
         r"dtype)s?\b.{0,40}(?:mismatch|does not match|differs).{0,60}(?:checkpoint|ckpt|"
         r"pretrained|saved)|(?:checkpoint|ckpt|pretrained|saved)\b.{0,60}(?:shape|size|"
         r"dtype)s?\b.{0,40}(?:mismatch|match|differ)", "torch"),
    Rule("rendezvous-timeout", "time|only|never|didn't|did not|failed to",
         r"(?:only|Only) \d+ (?:of|out of|/) ?(?:the )?\d+ (?:\w+ )?(?:workers|nodes|ranks|"
         r"processes|hosts|participants|agents|members)|[Tt]imed? ?out.{0,60}(?:workers|nodes|"
         r"ranks|processes|hosts|tasks|agents|members) to (?:join|connect|start|register|"
         r"arrive)|(?:workers|nodes|ranks|processes|hosts|tasks)\b.{0,40}(?:never|did not|"
         r"didn't|failed to) (?:join|connect|register|arrive|show up)", "elastic"),
    Rule("filesystem-error",
         "[errno |host is down|no such device or address|communication error on send",
         r"Communication error on send|\[Errno (?:70|71|103|112)\]|[Hh]ost is down|"
         r"No such device or address", "errno"),
    Rule("usage-error", "input|invalid|error: |unknown|unrecogni|parameter",
         r"^(?:\S+: )?ERROR: (?:Unknown|Illegal|Invalid|Unrecognized|"
         r"Unsupported) (?:\S+ ){0,2}(?:command|keyword|option|argument|style|parameter|input|"
         r"value)|Error in user input|[Ii]nvalid command.line option|(?:input|"
         r"parameter) (?:file|deck).{0,60}(?:invalid|unknown|unrecogni[sz]ed|syntax)|"
         r"(?:unknown|unrecogni[sz]ed|invalid) (?:keyword|namelist|input parameter)",
         "languages", "w"),
    Rule("container-mount-failed", "fatal:",
         r"FATAL:.{0,120}(?:failed to create \S+ directory|session/overlay|bind|mount point|"
         r"hook function)", "apptainer", "d"),
    Rule("software-missing", "executable file not found in",
         r"FATAL: .{0,60}executable file not found in", "apptainer", "d!"),
    Rule("os-limit", "[errno |rlimit_|ulimit -",
         r"\[Errno (?:11|12|23|24)\]|ulimit -[a-z]|RLIMIT_(?:NOFILE|NPROC|AS|STACK|"
         r"MEMLOCK)\b.{0,60}(?:exceed|reach|small|low|limit)", "errno", "w"),
    Rule("native-crash", "illegal instruction|trace/breakpoint trap",
         r"^\s*Illegal instruction|^\s*Trace/breakpoint trap", "libc", "wd"),
    Rule("container-gpu-missing",
         "gpu device|failed to |/dev/nvidia|nvidia device|nvidia-container-cli: ",
         r"\bno (?:/dev/nvidia|nvidia devices?|GPU devices?)\b|/dev/nvidia(?:ctl|\d|"
         r"-uvm)?\b.{0,60}(?:No such|not found|missing|does not exist)|"
         r"nvidia-container-cli: .{0,60}(?:error|fail)|[Ff]ailed to (?:get|"
         r"find).{0,30}GPU device", "apptainer", "w?"),
    Rule("filesystem-error",
         "no locks available|function not implemented|unable to lock file, errno",
         r"unable to lock file, errno|flock.{0,40}(?:Function not implemented|"
         r"No locks available)", "data", "!"),
    Rule("comm-setup-failed", "() failed|mpidi_ofi_",
         r"OFI \w+\(\) failed|MPIDI_OFI_\w+\(\d+\).{0,60}(?:fail|No data available)", "ompi", "w"),
    Rule("mpi-startup-failed", "fatal error in ", r"Fatal error in P?MPI_Init", "ompi", "w?"),
    Rule("launch-failed",
         "prolog | credential| task plugins|io setup failed|aborting prolog|could not launch |"
         "unable to chdir to|batch script setup failed|failed to look up username for uid",
         r"Failed to look up username for uid|Failed to \w+ task plugins|(?:Task|task-|"
         r"srun )[Pp]rolog (?:failed|'.{0,200}' not found)|IO setup failed|"
         r"batch script setup failed|Unable to chdir to|aborting prolog|"
         r"rejecting \S+ credential|Could not launch \S+ and not able to requeue", "slurm", "w"),
    Rule("peer-lost", " due to signal| due to task failure",
         r"CANCELLED AT \S+ DUE TO TASK FAILURE|CANCELLED AT \S+ DUE to SIGNAL", "slurm", "w"),
    Rule("launch-env-invalid", " ranks has already checked in|mismatch in info from procs, nranks",
         r"rank \d+ of \d+ ranks has already checked in|mismatch in info from procs, nranks",
         "nccl", "w!"),
    Rule("gpu-driver-too-old", "cuda driver version found is ",
         r"CUDA Driver version found is \d+\. Minimum requirement is", "nccl", "w!"),
    Rule("comm-setup-failed",
         "net/ib : |nccl library is |detected mixed local net device counts|"
         "nccl version mismatch with remote peer",
         r"NCCL version mismatch with remote peer|NET/IB : (?:No IP interface found|"
         r"Unable to (?:open|query) (?:device|port_num)|"
         r"Attempted to connect incompatible devices|Remote \S+ device is incompatible)|"
         r"NCCL library is (?:too old|not backwards compatible)|"
         r"Detected mixed local Net device counts", "nccl", "w!"),
    Rule("rdma-error",
         "async fatal event|got cqe with error|fatal error. detected |"
         "could not find a functional device",
         r"NET/IB ?: .{0,60}(?:async fatal event|Got CQE with error|"
         r"Fatal error\. Detected \d+ failed devices|could not find a functional device)",
         "nccl", "w!"),
    Rule("endpoint-unreachable", "connect to |exceeded error retry count",
         r"NCCL WARN .{0,80}(?:[Cc]onnect to \S+ (?:failed|returned)|"
         r"exceeded error retry count)", "nccl", "w"),
    Rule("gpu-driver-broken", "failed to bind nvlink sharp (nvls) multicast memory",
         r"Failed to bind NVLink SHARP \(NVLS\) Multicast memory", "nccl", "w?"),
    Rule("container-runtime-unavailable",
         "user namespace|--fakeroot requires|unprivileged installation found|"
         "requires either a suid installation|"
         "only sif and squashfs images can be extracted in unprivileged mode",
         r"(?:FATAL|ERROR)\s*:.{0,40}(?:[Uu]ser namespaces? (?:required|needed)|"
         r"--fakeroot requires|Unprivileged installation found|"
         r"requires either a suid installation)|Only SIF and squashfs images can be extracted "
         r"in unprivileged mode|No user namespaces available", "apptainer", "d!"),
    Rule("container-mount-failed", "while setting ",
         r"While setting (?:bind|FUSE) mount configuration", "apptainer", "d!"),
    Rule("container-gpu-missing", "while setting gpu configuration",
         r"While setting GPU configuration", "apptainer", "d!"),
    Rule("image-unusable",
         "failed to open image |sif descriptor not found| is an ext3 format container image",
         r"SIF descriptor not found|File \S+ is an ext3 format container image|"
         r"Failed to open image \S+: (?!.*no such file)", "apptainer", "d!"),
    Rule("non-finite-loss", "grad|loss|logits|weights|activation|returned nan values in its",
         r"returned nan values in its|loss returned in .{0,40}\bnan\b|(?:contains|has|produced|"
         r"returned) (?:NaN|nan|Inf|inf)s? .{0,40}(?:loss|grad|logits|weights|activation)",
         "lightning"),
    Rule("rendezvous-timeout", "wait timeout after ",
         r"wait timeout after \d+ms, keys", "c10d", "!"),
    Rule("data-corrupt",
         "not a |invalid |expected image|failed to decode|could not decode|"
         "unknown image file format",
         r"Invalid (?:JPEG|PNG|GIF|BMP|WAV|image|audio|video) data|[Cc]ould not decode|"
         r"[Ff]ailed to decode|(?:Expected image|Unknown image file format|Not a (?:JPEG|PNG))",
         "data"),
    Rule("os-limit", "loaderror: outofmemoryerror(",
         r"LoadError: OutOfMemoryError\(", "languages", "!"),
    Rule("gpu-oom", "out of memory on |failed to allocate ",
         r"[Ff]ailed to allocate .{0,60}(?:out of memory|on (?:GPU|device))|"
         r"out of memory on (?:GPU|device)", "tf"),
    Rule("os-limit", "omp: error #",
         r"OMP: Error #\d+: .{0,60}(?:allocate|create|resources)", "libc", "w"),
    Rule("gpu-arch-unsupported",
         "volta|hopper|ampere|blackwell|requires |not supported |cuda capability |"
         "too old to be supported|devices of cuda capability",
         r"too old to be supported|devices of CUDA [Cc]apability|not supported (?:in|"
         r"on) this (?:architecture|arch|GPU)|CUDA [Cc]apability .{0,20}(?:not supported|"
         r"required)|requires (?:SM|sm)_?\d\d|(?:Ampere|Hopper|Blackwell|"
         r"Volta)\S* (?:or (?:newer|later)|GPUs?) (?:is |are )?(?:required|needed|only)", "torch"),
    Rule("gpu-library-error",
         "error|failed|failure| was unable to find an engine|"
         "unable to find a valid cudnn algorithm",
         r"Unable to find a valid cuDNN algorithm|(?:GET|FIND) was unable to find an engine|"
         r"(?:cuBLAS|cuDNN|cuSPARSE|cuFFT|cuSOLVER|cuRAND|NVRTC|cutlass|"
         r"CUTLASS)\b.{0,40}(?:error|Error|failed|failure)", "torch"),
    Rule("mpi-startup-failed", "x_err|x server",
         r"PMIx server.{0,60}(?:fail|cannot|unable|not)|PMIX_(?:ERR|ERROR)\w*.{0,40}(?:init|"
         r"Init|server|connect)", "pmix", "w"),
    Rule("container-mount-failed",
         "to mount list|while loading overlay images|failed to open overlay image|"
         "destination must be an absolute path",
         r"to mount list|while loading overlay images|failed to open overlay image|"
         r"destination must be an absolute path", "apptainer", "d!"),
    Rule("container-runtime-unavailable", "could not |need setuid to mount",
         r"Could not write info to setgroups|need setuid to mount|Could not (?:setup|"
         r"write) .{0,20}(?:user|gid|uid).?(?:namespace|mapping|map)", "apptainer", "d!"),
    Rule("step-rejected", "srun: ",
         r"srun: (?:fatal|error): (?:SLURM_\w+.{0,80}mutually exclusive|"
         r".{0,80}(?:mutually exclusive|cannot be used with|invalid (?:number|value|"
         r"specification)|[Ii]nvalid --\S+ specification|--\S+ (?:must|value|option)))",
         "slurm", "wd"),
    Rule("external-service",
         "expired|invalid|exception http|unable to locate|api request to http|"
         "botocore.exceptions.|no matching distribution found for|"
         "could not find a version that satisfies",
         r"botocore\.exceptions\.\w+|exception HTTPS?Connection|API request to https?://|"
         r"Could not find a version that satisfies|No matching distribution found for|"
         r"(?:Unable to locate|expired|invalid) (?:credentials|token) ?(?:for|$)", "http", "!"),
    Rule("gpu-visibility", "visible|available|invalid device id|larger than the number of ",
         r"Invalid device id|larger than the number of (?:available |visible )?(?:GPU|"
         r"device)s?|(?:more|exceeds?) .{0,40}(?:available|visible) (?:GPU|device)s|"
         r"CUDA_VISIBLE_DEVICES.{0,60}(?:invalid|out of range|not (?:match|contain|"
         r"set correctly))", "lightning"),
    Rule("software-incompatible", "built|compiled",
         r"compiled with different (?:CUDA|C\+\+|compiler)\b.{0,20}version|(?:built|"
         r"compiled) (?:for|with|against) .{0,40}but (?:is running|running|found|loaded|this)",
         "torch"),
    Rule("usage-error",
         "unknown |unexpected |unrecognized |unrecognizedflagerror|"
         "specified arguments are not used",
         r"specified arguments are not used|[Uu]nrecognized (?:arguments|flag|option)|"
         r"UnrecognizedFlagError|unexpected (?:command.line )?argument|[Uu]nknown (?:flag|"
         r"argument|option)s?\b", "python"),
    Rule("data-missing", "not found|is missing|does not exist",
         r"(?:OSError|IOError|ValueError|RuntimeError): /?\S*/\S+ (?:not found|is missing|"
         r"does not exist)", "data"),
    Rule("checkpoint-unusable", "not |ckpt|state|checkpoint",
         r"not (?:found )?in (?:the )?(?:checkpoint|ckpt|state.?dict)|(?:checkpoint|ckpt|"
         r"state.?dict) (?:has no|lacks|does not contain|missing|is missing)", "torch"),
    Rule("host-oom", "out_of_me",
         r"^\s*\d+(?:\.\w+)?\b[ |].*\bOUT_OF_ME(?:MORY|\+)", "slurm", "w"),
    Rule("",
         "queue.empty|brokenprocesspool|died with <signals.sig|terminated with signal sig|"
         "a process in the process pool was terminated",
         r"BrokenProcessPool|terminated with signal SIG(?:KILL|TERM)|"
         r"died with <Signals\.SIG(?:KILL|TERM)|queue\.Empty|_queue\.Empty|"
         r"A process in the process pool was terminated", "python", "-"),
    # Communication.
    Rule("hang", "watchdog caught collective operation timeout",
         r"(?:\[Rank (?P<rank>\d+)\].{0,40})?Watchdog caught collective operation timeout",
         "c10d", "w"),
    Rule("hang", " failed to pass monitoredbarrier",
         r"Ranks? (?P<absent>[\d, ]+) failed to pass monitoredBarrier", "c10d"),
    Rule("hang", "watchdog |received a dump signal due to a collective timeout",
         r"watchdog (?:thread )?(?:got stuck|hang|detected.*(?:hang|stall))|"
         r"Received a dump signal due to a collective timeout", "c10d", "w"),
    Rule("hang", "barrier timed out", r"Barrier timed out", "jax", "w"),
    Rule("hang", "timed out waiting ",
         r"Timed out waiting \d+ms for (?:recv|send) operation", "gloo"),
    Rule("hang", "submitted to be reduced, gathered or broadcasted by subset of ranks",
         r"submitted to be reduced, gathered or broadcasted by subset of ranks", "horovod", "w"),
    Rule("hang", "stalled|missing", r"^\W*(?:Missing|Stalled) ranks?\W", "horovod", "w"),
    Rule("hang", "hung|stuck|stalled|straggler| detected|stopping the run due to ",
         r"(?:may be|is|appears to be|seems) (?:hung|stalled|stuck)|stall(?:ed)? detected|"
         r"straggler.{0,40}(?:timed? ?out|lag|behind)|[Ss]topping the run due to .{0,30}stall",
         "nccl", "w"),
    Rule("hang", "deadlock| detected|no progress ",
         r"[Nn]o progress (?:for|in|since)|(?:hang|deadlock) detected|[Dd]eadlock", "nccl", "w"),
    Rule("hang", "hung|hangs|detected|suspected|heartbeatmonitor",
         r"hang (?:detected|suspected)|(?:job|training|process|rank \d+) (?:hangs|is hung|"
         r"hung)\b|HeartbeatMonitor.{0,60}(?:stuck|hang)", "c10d", "w"),
    Rule("hang",
         "processgroupnccl's watchdog got stuck|"
         "heartbeat monitor timed out! process will be terminated",
         r"Heartbeat monitor timed out! Process will be terminated|"
         r"ProcessGroupNCCL's watchdog got stuck", "c10d", "w"),
    Rule("hang", "timed out|collective |ncclcommwatchdog",
         r"ncclCommWatchdog|collective (?:op\w* )?(?:timed out|timeout)|(?:allreduce|"
         r"all_reduce|broadcast|allgather|barrier)\b.{0,40}timed out", "nccl", "w"),
    Rule("hang", "rendezvous|initialize clique|this thread has been waiting for",
         r"(?:Rendezvous|Initialize clique).{0,120}(?:thread may be stuck|is stuck)|"
         r"This thread has been waiting for", "jax", "w?"),
    Rule("comm-setup-failed", "mismatched nccl version", r"Mismatched NCCL version", "nccl", "w!"),
    Rule("peer-lost", "collective ops is aborted by", r"Collective ops is aborted by", "tf", "w!"),
    Rule("peer-lost", "terminated normally, but",
         r"Primary job +terminated normally, but", "ompi", "w"),
    Rule("container-runtime-unavailable", " loop device",
         r"(?:failed to find|no|get|attach\S* .{0,30}) loop devices?\b", "apptainer", "wd!"),
    Rule("checkpoint-unusable", "requested shape: ",
         r"[Rr]equested shape: .{0,60}not compatible with the stored shape", "jax"),
    Rule("mpi-startup-failed", "pmix error: pmix_err_",
         r"PMIX ERROR: PMIX_ERR_(?:NOT_FOUND|UNREACH\w*|INIT|PROC_ENTRY_NOT_FOUND|"
         r"INVALID_CRED\w*)", "pmix", "w"),
    Rule("mpi-startup-failed", "opal error: ",
         r"OPAL ERROR: (?:Unreachable|Not found|Not initiali)", "pmix", "w"),
    Rule("mpi-startup-failed", "an error occurred in mpi_init",
         r"An error occurred in MPI_Init", "ompi", "w?"),
    Rule("collective-mismatch", "detected mismatch between collectives on ranks",
         r"Detected mismatch between collectives on ranks", "c10d"),
    Rule("collective-mismatch", "expected to have finished reduction in the prior iteration",
         r"Expected to have finished reduction in the prior iteration", "c10d"),
    Rule("collective-mismatch",
         "marked as ready twice|has been marked as unused|"
         "expected to mark a variable ready only once",
         r"Parameter .{0,60}(?:marked as ready twice|has been marked as unused)|"
         r"Expected to mark a variable ready only once", "c10d"),
    Rule("collective-mismatch", "ed as ready twice| a variable ready only once",
         r"marked as ready twice|mark a variable ready only once", "c10d"),
    Rule("collective-mismatch", "appears not to match s|ddp expects same model across all ranks",
         r"appears not to match (?:sizes|strides) of the same param|"
         r"DDP expects same model across all ranks", "c10d"),
    Rule("collective-mismatch", "expects same model",
         r"DDP expects same model across all ranks|expects same model", "c10d"),
    Rule("collective-mismatch", "mismatched ",
         r"Mismatched (?:ALLREDUCE|ALLGATHER|BROADCAST|allreduce|data|type|"
         r"collective)\w* ?(?:operations|CPU/GPU|tensor|types|shapes)?", "horovod"),
    Rule("collective-mismatch", "mpi_err_truncate|message truncated",
         r"MPI_ERR_TRUNCATE|message truncated", "ompi"),
    Rule("collective-mismatch", "truncated",
         r"Message truncated|truncated.{0,40}(?:recv|receive|buffer)", "ompi", "?"),
    Rule("collective-mismatch", "preamble.length",
         r"op\.preamble\.length <= op\.nbytes|preamble\.length", "gloo"),
    Rule("collective-mismatch", "different|mismatched|inconsistent",
         r"(?:ranks|processes) (?:have|with|passed|reported) (?:different|inconsistent|"
         r"mismatched)|inconsistent.{0,40}across (?:ranks|processes)", "c10d"),
    Rule("collective-mismatch", " ranks|differ",
         r"(?:called|issued|running|executing|launched) (?:a )?different (?:collectives?|"
         r"operations?)|different program on|HLO.{0,40}differ|(?:shape|size|dtype|"
         r"type)s? (?:mis|dis)match.{0,60}(?:across|between) ranks", "jax"),
    Rule("rdma-error", "got completion from peer",
         r"NET/IB ?/?\w* ?:.{0,4}Got completion from peer", "nccl", "w"),
    Rule("rdma-error", "retry_exc_err| retry count exceeded|transport retry counter exceeded",
         r"(?:Transport|RNR) retry count exceeded|transport retry counter exceeded|"
         r"IBV_WC_(?:RNR_)?RETRY_EXC_ERR", "ucx", "w"),
    Rule("rdma-error", "ibv_event_|got async event|async fatal event",
         r"NET/IB.{0,40}(?:Got async event|async fatal event).{0,20}(?:port error|QP|device|"
         r"local)|IBV_EVENT_(?:PORT_ERR|DEVICE_FATAL|QP_FATAL)", "nccl", "w"),
    Rule("rdma-error", "local |remote |completion with error",
         r"(?:ib_mlx5|uct|UCX).{0,120}(?:Remote (?:access|operation|invalid)|Local (?:QP|"
         r"protection|length)|completion with error)", "ucx", "w"),
    Rule("rdma-error", "mlx5_core",
         r"mlx5_core.{0,60}Cable (?:unplugged|error)", "kernel-net", "k"),
    Rule("rdma-error", "link ",
         r"(?:mlx5|mlx4|\bib\d|bnxt_en|irdma|hfi1|ibp|\broce).{0,60}[Ll]ink (?:is )?[Dd]own",
         "kernel-net", "k"),
    Rule("rdma-error", "mlx5_core",
         r"mlx5_core.{0,80}(?:health.{0,40}(?:fatal|compromised)|device's health compromised|"
         r"Fatal error|assert_exit)", "kernel-net", "k"),
    Rule("rdma-error", "down| port |physical state:",
         r"(?:State|Port state|state)\s*:\s*(?:1: )?DOWN|Physical state:\s*(?:Disabled|"
         r"Polling)|mlx\S+ port \d+.{0,20}\bDOWN", "kernel-net", "aw?"),
    Rule("rdma-error",
         "infiniband retry count|retry count between two mpi processes has been exceeded",
         r"InfiniBand retry count|retry count between two MPI processes has been exceeded",
         "ompi", "w"),
    Rule("rdma-error", "cq_readerr|unresponsive|completion error|completed with error",
         r"(?:EFA|efa|libfabric|NET/OFI).{0,120}(?:unresponsive|Unresponsive remote|"
         r"completion error|cq_readerr|Request.{0,30}completed with error)", "nccl", "w"),
    Rule("comm-setup-failed", "no socket interface found|no interface found in the same subnet",
         r"no socket interface found|No interface found in the same subnet", "nccl", "w"),
    Rule("comm-setup-failed", "unable to find",
         r"Unable to find (?:interface|address) for|unable to find.{0,30}interface", "gloo"),
    Rule("comm-setup-failed", "ifa != nullptr", r"ifa != nullptr", "gloo"),
    Rule("comm-setup-failed", "mismatch|nccl version|incompatible",
         r"Mismatched NCCL version|NCCL version.{0,30}(?:differ|mismatch)|(?:UCX|"
         r"UCP).{0,60}version.{0,20}(?:mismatch|incompatible)", "nccl", "w"),
    Rule("comm-setup-failed", "transport",
         r"no (?:active messages|remote registered memory|auxiliary) ?.{0,20}transport",
         "ucx", "w"),
    Rule("comm-setup-failed",
         "mpi process is unreachable|pair of mpi processes are unable to reach each other",
         r"pair of MPI processes are unable to reach each other|MPI process is unreachable",
         "ompi", "w"),
    Rule("comm-setup-failed", " not available|no usable transport",
         r"(?:network device|transport)s? '?[\w:.,-]+'? (?:is|are) not available|"
         r"no usable transports?/devices?", "ucx", "w"),
    Rule("comm-setup-failed", " failed",
         r"ucp_(?:ep_create|worker_create|init|context)\S* failed", "ucx", "w"),
    Rule("comm-setup-failed",
         "mismatch|does not match|pml add procs failed|"
         "no components were able to be opened in the pml",
         r"PML add procs failed|No components were able to be opened in the pml|"
         r"pml.{0,60}(?:mismatch|does not match)", "ompi", "w"),
    Rule("comm-setup-failed", "found|error: network |failed to initialize",
         r"NET/(?:IB|OFI|Socket)\s?:? ?(?:No (?:device|usable|eligible).{0,20}found|"
         r"Failed to initialize)|Failed to initialize (?:any NET plugin|NET plugin)|"
         r"Error: network \w+ not found", "nccl", "w?"),
    Rule("comm-setup-failed", "net/plugin|error: network ",
         r"Error: network \w+ not found|NCCL WARN.{0,40}NET/Plugin.{0,40}(?:fail|not)",
         "nccl", "w"),
    Rule("comm-setup-failed", "call to ibv_",
         r"Call to ibv_(?:modify_qp|open_device|create_qp|create_cq)\S* failed", "nccl", "w"),
    Rule("comm-setup-failed", " gid|index|table",
         r"(?:no|invalid) GID|GID (?:table|index).{0,40}(?:not|invalid|fail)", "ucx", "w?"),
    Rule("comm-setup-failed", "t find| provider|libfabric|fi_getinfo",
         r"(?:fi_getinfo|libfabric).{0,60}(?:fail|No data available)|OFI.{0,60}(?:no provider|"
         r"not find)", "ompi", "w"),
    Rule("comm-setup-failed", "requested|specified|invalid value for btl_tcp_if",
         r"(?:specified|requested) (?:interface|component).{0,60}(?:not found|not be found|"
         r"does not exist)|invalid value for btl_tcp_if", "ompi", "w"),
    Rule("comm-setup-failed", "none of the tcp networks specified",
         r"None of the TCP networks specified", "ompi", "w"),
    Rule("rendezvous-timeout", "waiting for clients. ",
         r"waiting for clients\. (?P<count>\d+/\d+) clients joined", "c10d"),
    Rule("rendezvous-timeout", "closederror|timeouterror",
         r"RendezvousTimeoutError|RendezvousClosedError", "elastic"),
    Rule("endpoint-unreachable", "rendezvousconnectionerror",
         r"RendezvousConnectionError", "elastic"),
    Rule("rendezvous-timeout", "rendezvous",
         r"[Rr]endezvous.{0,60}(?:timed out|timeout|did not complete|failed to (?:join|"
         r"complete))", "elastic"),
    Rule("rendezvous-timeout", "timed out initializing process group",
         r"Timed out initializing process group", "c10d"),
    Rule("rendezvous-timeout", "store|socket timeout|wait timeout after ",
         r"(?:Socket Timeout|wait timeout after \d+ms, keys)|Store.{0,30}(?:get|"
         r"wait).{0,30}timed? ?out", "c10d", "?"),
    Rule("rendezvous-timeout", "barrier timed out|deadline_exceeded",
         r"Barrier timed out.{0,20}PjRT_Client_Connect|(?:RegisterTask|"
         r"ConnectToCoordinat\w+).{0,80}DEADLINE_EXCEEDED", "jax"),
    Rule("rendezvous-timeout", "deadline_exceeded",
         r"DEADLINE_EXCEEDED.{0,200}(?:RegisterTask|Register|coordination service)", "jax"),
    Rule("rendezvous-timeout", "joined|arrived|connected|registered|timed out waiting for",
         r"(?:only|Only) \d+ (?:of|out of|/) ?\d+ (?:workers|nodes|ranks|processes|"
         r"hosts) (?:joined|connected|registered|arrived)|"
         r"Timed out waiting for.{0,40}(?:workers|nodes|ranks|processes|hosts|"
         r"tasks) to (?:join|connect|start|register|arrive)", "ray"),
    Rule("mpi-startup-failed", "built with",
         r"not built with SLURM's PMI support|built with.{0,30}PMI.{0,20}support", "ompi", "w"),
    Rule("mpi-startup-failed", "appears to have been direct launched",
         r"appears to have been direct launched", "ompi", "w"),
    Rule("mpi-startup-failed", "not enough slots available",
         r"not enough slots available", "ompi", "w"),
    Rule("mpi-startup-failed",
         "failed to start|unexpectedly failed|unable to reliably start one or more daemons",
         r"unable to reliably start one or more daemons|(?:ORTE|PRTE|"
         r"daemon).{0,60}(?:unexpectedly failed|failed to start)|An? (?:ORTE|"
         r"PRTE) daemon has unexpectedly failed", "ompi", "w"),
    Rule("mpi-startup-failed",
         "invalid mpi type|cannot find mpi plugin|mpi: cannot create context for|"
         "couldn't load specified plugin name for mpi/|"
         "couldn't find the specified plugin name for mpi/",
         r"Couldn't find the specified plugin name for mpi/|cannot find mpi plugin|"
         r"MPI: Cannot create context for|Invalid MPI type|"
         r"Couldn't load specified plugin name for mpi/", "slurm", "w"),
    Rule("mpi-startup-failed", "pmi",
         r"(?:PMIX?|pmix)\S*.{0,60}(?:ERROR: NOT-FOUND|UNREACHABLE|INIT.{0,20}fail|"
         r"version.{0,20}mismatch|OUT-OF-RESOURCE|UNPACK-)", "pmix", "w"),
    Rule("mpi-startup-failed", "proxy|_init|server|unable to contact",
         r"(?:PMI2?|PMIX)_Init.{0,30}(?:fail|return|error)|unable to contact.{0,30}PMI|"
         r"PMI server not found|pmi_?(?:server|proxy).{0,30}fail", "pmix", "w"),
    Rule("mpi-startup-failed", "_init|it looks like ",
         r"(?:orte|prte|ompi_rte)_init(?: failed|.{0,20}fail)|opal_init failed|"
         r"It looks like (?:orte|opal|MPI)_\w*init.{0,20}failed", "ompi", "w?"),
    Rule("mpi-startup-failed", "ompi_mpi_init: o|it looks like mpi_init failed",
         r"It looks like MPI_INIT failed|ompi_mpi_init: (?:ompi_rte_init|orte_init) failed",
         "ompi", "w?"),
    Rule("mpi-startup-failed",
         "slots|all nodes which are allocated for this job are already filled",
         r"All nodes which are allocated for this job are already filled|(?:more|"
         r"oversubscribe).{0,30}slots", "ompi", "w"),
    Rule("mpi-startup-failed", "cannot| unable|could not",
         r"mpi(?:run|exec)(?: was)?(?: unable|.{0,30}could not|"
         r".{0,30}cannot) (?:to )?(?:launch|start|find)", "ompi", "w"),
    Rule("peer-lost", "ncclremoteerror|remote process exited or there was a network error",
         r"remote process exited or there was a network error|ncclRemoteError", "c10d", "w"),
    Rule("peer-lost", "peer closed|connection closed by |closed by remote peer",
         r"[Cc]onnection closed by (?:remote )?peer|closed by remote peer|peer closed",
         "nccl", "w"),
    Rule("peer-lost", "connection reset by peer", r"Connection reset by peer", "errno", "w"),
    Rule("peer-lost", "broken pipe", r"Broken pipe", "errno", "w?"),
    Rule("peer-lost", "sigterm|received|got signal: 15|sending process ",
         r"Sending process \d+ closing signal|Received.{0,20}(?:SIGTERM|signal 15|"
         r"Signals\.SIGTERM)|SIGTERM.{0,30}(?:received|handler)|got signal: 15", "elastic", "w"),
    Rule("peer-lost", "signalexception", r"SignalException", "elastic", "w"),
    Rule("peer-lost", "nccl communicator |communicator was aborted",
         r"communicator was aborted|NCCL communicator (?:abort|encountered error)", "c10d", "w"),
    Rule("peer-lost", "job step aborted: waiting", r"Job step aborted: Waiting", "slurm", "w"),
    Rule("peer-lost", ": terminated", r"tasks? [\d,-]+: Terminated", "slurm", "w"),
    Rule("peer-lost", "terminating |first task exited ",
         r"Terminating (?:the )?(?:job )?step|first task exited \d+s ago|Terminating StepId",
         "slurm", "w"),
    Rule("peer-lost", "mpi_abort was invoked on rank ",
         r"MPI_ABORT was invoked on rank (?P<rank>\d+)", "ompi", "w"),
    Rule("peer-lost", " noticed that process rank ",
         r"(?:mpirun|prterun|orterun|mpiexec) noticed that process rank (?P<rank>\d+)",
         "ompi", "w"),
    Rule("peer-lost", "processes in this communicator will ",
         r"processes in this communicator will (?:now )?abort", "ompi", "w"),
    Rule("peer-lost", "the tasks have crashed|tasks are unhealthy (stopped sending heartbeats)",
         r"tasks are unhealthy \(stopped sending heartbeats\)|The tasks have crashed", "jax", "w"),
    Rule("peer-lost", "another task died", r"another task died", "jax", "w"),
    Rule("peer-lost", "horovod has been shut down", r"Horovod has been shut down", "horovod", "w"),
    Rule("peer-lost", "connection|disconnected|unexpectedly",
         r"(?:lost|Lost) connection|connection.{0,30}peer.{0,20}(?:lost|failed|dropped)|"
         r"peer.{0,30}(?:unexpectedly|disconnected)", "ompi", "w"),
    Rule("peer-lost", " has lost communication|lost communication with a remote daemon",
         r"(?:ORTE|PRTE|HNP) has lost communication|lost communication with a remote daemon",
         "ompi", "w"),
    Rule("peer-lost", " failed on socket|failed to recv, got 0 bytes",
         r"(?:recv|send)(?:Vector|Bytes|Value).{0,20} failed on Socket|"
         r"Failed to recv, got 0 bytes", "c10d", "w"),
    Rule("peer-lost", "broken pipe|store might be |sendbytes failed|recvbytes failed",
         r"\[c10d\].{0,60}(?:Broken pipe|recvBytes failed|sendBytes failed)|"
         r"store might be (?:down|closed)", "c10d", "w"),
    Rule("peer-lost", "error|died unexpectedly",
         r"(?:Actor|ActorDied|RayActor|WorkerCrashed)\w*Error|"
         r"The actor (?:is )?died unexpectedly|worker died unexpectedly", "ray", "w"),
    Rule("peer-lost", " signal from |signal from other rank",
         r"(?:dump|abort) signal from (?:another|other|remote) rank|"
         r"exception.{0,20}signal from other rank", "c10d", "w"),
    Rule("peer-lost", " rank",
         r"(?:another|other|remote|peer) rank.{0,40}(?:failed|exited|abort|died|crashed|error)",
         "c10d", "w"),
    # Exceptions that only report a failure which stands elsewhere.
    Rule("", "ncclsystemerror|ncclinternalerror|distbackenderror: |ncclunhandledcudaerror",
         r"DistBackendError: .*(?:unhandled|NCCL error|internal error|invalid usage)|"
         r"ncclUnhandledCudaError|ncclSystemError|ncclInternalError", "c10d", "-"),
    Rule("", "nccl error in", r"NCCL error in", "c10d", "-"),
    Rule("", "childfailederror", r"ChildFailedError", "elastic", "-"),
    Rule("", "remoteerror|calledprocesserror|processraisedexception|processexitedexception",
         r"CalledProcessError|ProcessRaisedException|ProcessExitedException|RemoteError",
         "python", "-"),
    Rule("", "systemexit|keyboardinterrupt", r"^\s*KeyboardInterrupt|SystemExit", "python", "-"),
    Rule("", "dataloader worker (pid",
         r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:exited unexpectedly|"
         r"is killed by signal: (?:Killed|Terminated))", "dataloader", "-"),
    Rule("", "terminated with exception", r"terminated with exception", "c10d", "-"),
    Rule("", "instance of 'c10::distbackenderror'",
         r"instance of 'c10::DistBackendError'", "c10d", "-"),
    Rule("", "graph execution error", r"Graph execution error", "tf", "-"),
    Rule("", "storeerror|networkerror", r"DistStoreError|DistNetworkError", "c10d", "-"),
    # Containers.
    Rule("image-not-found",
         "unable to open|could not open image|failed to retrieve path for|"
         "unable to check if image is accessible",
         r"(?:could not open image|Unable to check if image is accessible|"
         r"failed to retrieve path for|unable to open.{0,20}image).*no such file",
         "apptainer", "wd"),
    Rule("image-not-found", "not found|no such file|doesn't exist|does not exist",
         r"(?:image|SIF|container)\b.{0,80}\.(?:sif|simg|img|sqsh)\S* (?:does not exist|"
         r"not found|doesn't exist)|\.(?:sif|simg|sqsh)[:'\"]*.{0,10}(?:No such file|"
         r"does not exist|not found)", "apptainer", "wd"),
    Rule("image-not-found", "pyxis: ",
         r"pyxis: (?:.{0,60}No such file.{0,60}sqsh|couldn't|failed to import docker image)",
         "apptainer", "wd"),
    Rule("image-unusable", "image format not recognized",
         r"image format not recognized", "apptainer", "wd"),
    Rule("image-unusable", "exec format error|image's architecture",
         r"image's architecture.{0,40}could not run|exec format error", "apptainer", "wd"),
    Rule("image-unusable", "exec format error", r"[Ee]xec format error", "errno", "wd"),
    Rule("image-unusable",
         "wrong fs type|bad superblock|not a squashfs|structure needs|invalid argument|"
         "input/output error",
         r"(?:failed to mount|mounting|while mounting).{0,80}(?:squashfs|"
         r"image).{0,120}(?:[Ii]nput/output error|invalid argument|bad superblock|"
         r"wrong fs type|not a squashfs|structure needs)", "apptainer", "wd"),
    Rule("image-unusable", "squashfs: |squashfs error",
         r"SQUASHFS error|squashfs: .{0,60}(?:corrupt|fail)", "fs", "a"),
    Rule("image-unusable", "squashfuse| superblock|can't find a valid squashfs",
         r"(?:find|valid|read).{0,30}(?:SQUASHFS|squashfs) superblock|"
         r"can't find a valid squashfs|squashfuse.{0,80}(?:magic|superblock|fail)",
         "apptainer", "wd"),
    Rule("image-unusable", "sif|error|fatal|container image",
         r"(?:FATAL|(?<![a-z])ERROR)\b.{0,60}(?:SIF|image|container).{0,160}(?:corrupt|truncat|"
         r"EOF|invalid|bad magic|header|descriptor|checksum|digest|mismatch)|(?:SIF|\.sif\b|"
         r"container image).{0,80}(?:corrupt|truncated|(?:checksum|digest|hash|"
         r"integrity).{0,20}(?:mismatch|fail|not match))", "apptainer", "wd"),
    Rule("image-unusable", "hash|integrity|failed to verify container",
         r"(?:object|image|signature|data) (?:integrity|hash).{0,40}(?:not match|mismatch|"
         r"invalid|fail)|failed to verify container", "apptainer", "wd"),
    Rule("image-unusable",
         "invalid sif|no partition|unexpected eof|not a valid sif|no root partition",
         r"(?:FATAL|ERROR).{0,200}(?:invalid SIF|not a valid SIF|no partition|unexpected EOF|"
         r"no root partition)", "apptainer", "wd"),
    Rule("container-mount-failed", "mount source ",
         r"mount source .{0,200}doesn't exist", "apptainer", "wd"),
    Rule("container-mount-failed", "error|fatal",
         r"(?:FATAL|(?<![a-z])ERROR)\W.{0,200}(?:while mounting|mount error|failed to mount|"
         r"unable to (?:bind|mount)|mount \S+->\S+ error)", "apptainer", "wd"),
    Rule("container-mount-failed", "can't mount|skipping mount| doesn't exist in container",
         r"(?:skipping mount|Skipping mount) of|can't mount|"
         r"destination \S+ doesn't exist in container", "apptainer", "?"),
    Rule("container-mount-failed", "overlay |bind path|bind mount|scratch mount",
         r"(?:bind path|bind mount|overlay (?:mount|image|dir)|"
         r"scratch mount).{0,120}(?:does not exist|doesn't exist|failed|not permitted|no such)",
         "apptainer", "wd"),
    Rule("container-mount-failed", "overlay",
         r"(?:FATAL|(?<![a-z])ERROR)\W.{0,120}overlay", "apptainer", "wd"),
    Rule("container-mount-failed", "pyxis:|enroot-mount",
         r"pyxis:.{0,80}mount.{0,40}(?:fail|No such)|enroot-mount", "apptainer", "wd"),
    Rule("container-runtime-unavailable", "not found",
         r"(?:apptainer|singularity|enroot|podman|srun_container|charliecloud|"
         r"ch-run): (?:command )?not found", "libc", "wd"),
    Rule("container-runtime-unavailable", "no such file",
         r"(?:execve\(\): (?:\S*/)?|exec: \"?)(?:apptainer|singularity|enroot|"
         r"podman)\b.*No such file|(?:/bin/|/)(?:apptainer|singularity): No such file",
         "slurm", "wd"),
    Rule("container-runtime-unavailable", "user",
         r"(?:user namespaces?|userns).{0,100}(?:exceeded|not (?:available|enabled|permitted|"
         r"supported)|disabled|requires|fail)|[Ff]ailed to create user namespace",
         "apptainer", "wd"),
    Rule("container-runtime-unavailable",
         "/dev/fuse|fusermount|mount failed|failed to open|device not found",
         r"fuse: (?:device not found|failed to open|mount failed|failed to exec fusermount)|"
         r"fusermount3?.{0,60}(?:not found|not permitted|executable)|"
         r"/dev/fuse.{0,60}(?:No such|denied|not permitted)", "apptainer", "w"),
    Rule("container-runtime-unavailable", "etuid|et-uid|tarter-suid",
         r"(?:setuid|set-uid|starter-suid).{0,100}(?:not|no|disabled|required|requires|fail|"
         r"nosuid)|[Nn]o setuid installation", "apptainer", "wd"),
    Rule("container-runtime-unavailable", "not found|executable|must be owned|doesn't exist",
         r"starter.{0,40}(?:not found|doesn't exist|must be owned)|(?:unsquashfs|squashfuse|"
         r"fusermount3?|fuse2fs|mksquashfs|gocryptfs) (?:is )?not found|(?:unsquashfs|"
         r"squashfuse)\b.{0,40}executable.{0,20}not found", "apptainer", "wd!"),
    Rule("container-runtime-unavailable", "idmap|o mapping entry found in /etc/sub",
         r"new[ug]idmap.{0,60}(?:not found|failed|not permitted)|"
         r"no mapping entry found in /etc/sub[ug]id", "apptainer", "wd"),
    Rule("container-runtime-unavailable", " namespace",
         r"(?:unshare|clone|mount) namespace.{0,40}(?:not permitted|fail)|"
         r"creating namespace.{0,60}(?:not permitted|fail)", "apptainer", "wd"),
    Rule("container-gpu-missing", "could not find any nv files",
         r"[Cc]ould not find any nv files", "apptainer", "w?"),
    Rule("container-gpu-missing", "found no nvidia driver on your system",
         r"Found no NVIDIA driver on your system", "torch"),
    Rule("container-gpu-missing",
         "cudaerrornodevice|cuda_error_no_device|no cuda-capable device is detected",
         r"no CUDA-capable device is detected|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE",
         "cuda", "?"),
    Rule("container-gpu-missing", "no cuda gpus are available",
         r"No CUDA GPUs are available", "torch", "?"),
    Rule("container-gpu-missing", "cuda.so|nvidia-ml|could not load|failed to find libcuda",
         r"(?:libcuda\.so\S*|libnvidia-ml\S*).{0,40}(?:cannot open|not found|No such)|"
         r"Could not load.{0,40}libcuda|failed to find libcuda", "tf", "w?"),
    Rule("container-gpu-missing", "failed call to cuinit", r"failed call to cuInit", "tf", "w?"),
    Rule("container-gpu-missing",
         "cpu|no gpu|not find|cuda available: |cuda.is_available|gpu available: false|"
         "skipping registering gpu devices|device_type of 'cuda', but cuda is not available",
         r"(?:[Uu]sing|[Rr]unning on|[Ff]alling back to|[Dd]efaulting to|"
         r"device\W{1,4}) ?(?:the )?(?:device\W{1,3})?cpu\b|"
         r"device_type of 'cuda', but CUDA is not available|GPU available: False|"
         r"cuda\.is_available\S* ?\W? ?False|CUDA available: (?:False|no)|"
         r"No GPU(?:/TPU)?s? (?:found|detected|available).{0,40}CPU|No GPU (?:found|detected|"
         r"available)|not find.{0,20}GPU|Skipping registering GPU devices", "torch", "w?"),
    Rule("container-gpu-missing", "error|fatal|warning",
         r"(?:WARNING|ERROR|FATAL)\W.{0,80}(?:nvidia-container-cli|nvliblist|"
         r"nvidia.{0,30}(?:not found|unable|could not|missing))", "apptainer", "w?"),
    Rule("software-incompatible", "torch not compiled with cuda enabled",
         r"Torch not compiled with CUDA enabled", "torch"),
    # Slurm.
    Rule("time-limit", " due to time limit", r"CANCELLED AT \S+ DUE TO TIME LIMIT", "slurm", "wd"),
    Rule("node-failure", " due to node failure",
         r"CANCELLED AT \S+ DUE TO NODE FAILURE", "slurm", "wd"),
    Rule("node-failure", "node failure on ",
         r"[Nn]ode failure on (?P<node>[\w.-]+)", "slurm", "wd"),
    Rule("node-failure", "not responding|lost communication with node",
         r"(?:error: Nodes? (?P<node>[\w.-]+) not responding|Node (?:is )?not responding|"
         r"Lost communication with node)", "slurm", "w"),
    Rule("node-failure", " on failed node",
         r"Killing (?:Job|job)\S* on failed node", "slurm", "w"),
    Rule("preempted", "due to preemption",
         r"CANCELLED AT \S+ DUE TO PREEMPTION|due to preemption", "slurm", "wd"),
    Rule("preempted", "preempted",
         r"(?:[Jj]ob|STEP|step)\S* .{0,40}(?:was |has been |being )?preempted", "slurm", "w"),
    Rule("cancelled", " cancelled at ",
         r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ (?:by|\*\*\*|DUE TO (?:JOB REQUEUE|"
         r"CANCEL))", "slurm", "wd?"),
    Rule("cancelled", "srun: force terminated ",
         r"srun: Force Terminated (?:job|JobId)", "slurm", "w?"),
    Rule("launch-failed", "task launch for ",
         r"Task launch for \S+ failed on node (?P<node>[^\s:]+)", "slurm", "wd"),
    Rule("launch-failed", "application launch failed",
         r"Application launch failed", "slurm", "wd"),
    Rule("launch-failed", "prolog",
         r"(?:task_?)?prolog\b.{0,40}(?:failed|exit(?:ed)?|error|timed out|status)|"
         r"[Ee]rror running prolog|Prolog (?:error|failure|hung)", "slurm", "w"),
    Rule("launch-failed", "munge|credential",
         r"[Ii]nvalid job credential|credential.{0,40}(?:expired|invalid|revoked|replayed|"
         r"failed|error)|Munge decode failed|munge.{0,60}(?:fail|error)", "slurm", "w"),
    Rule("launch-failed", "getpwuid|not found|no such user",
         r"(?:uid|user id|gid).{0,30}not found|[Uu]ser not found on host|getpwuid.{0,20}fail|"
         r"no such user", "slurm", "w"),
    Rule("launch-failed", "batch jobid|job launch fail|launch failed requeued held",
         r"[Bb]atch JobId\S* .{0,40}(?:launch fail|missing)|batch job launch fail|"
         r"launch failed requeued held|[Jj]ob launch fail", "slurm", "w"),
    Rule("launch-failed", "slurmstepd|unable to contact slurmd",
         r"(?:_fork_|fork\S*|exec\S*).{0,30}slurmstepd.{0,40}fail|"
         r"slurmstepd.{0,40}(?:failed to (?:start|initialize)|unable to)|"
         r"Unable to contact slurmd", "slurm", "w"),
    Rule("launch-failed", "couldn't chdir|could not open stdout file",
         r"slurmstepd.{0,30}couldn't chdir|[Cc]ould not open stdout file", "slurm", "w?"),
    Rule("step-rejected", "unable to create step for job",
         r"Unable to create step for job", "slurm", "wd"),
    Rule("step-rejected", "requested node|more processors requested than",
         r"(?:srun: |error: ).{0,40}(?:More processors requested than|"
         r"Requested node configuration is not available|Requested nodes? .{0,20}not)",
         "slurm", "wd"),
    Rule("step-rejected", "generic resource|job id specified",
         r"Invalid generic resource|Invalid job id specified", "slurm", "w?"),
    Rule("step-rejected", "srun: ",
         r"srun: (?:error|fatal|warning): .{0,40}(?:can't run \d+ processes on \d+ nodes|"
         r"exceeds the|CPU count per node|memory.{0,20}(?:not available|exceeds))", "slurm", "w"),
    Rule("step-rejected", "invalid generic resource (gres)",
         r"(?:error|failed).{0,80}Invalid generic resource \(gres\)", "slurm", "wd"),
    # Storage.
    Rule("disk-full", "enospc|no space left on device",
         r"No space left on device|ENOSPC", "errno"),
    Rule("disk-full", "errno = 28|[errno 28]", r"\[Errno 28\]|errno = 28\b", "errno"),
    Rule("disk-full", "disk |system |not enough ",
         r"[Dd]isk (?:is )?full|file ?system (?:is )?full|not enough (?:free )?(?:disk )?space",
         "errno"),
    Rule("quota-exceeded", "edquot|[errno 122]|quota exceeded",
         r"quota exceeded|EDQUOT|\[Errno 122\]", "errno"),
    Rule("quota-exceeded", "quota|reached|exhausted",
         r"(?:exceeds?|exceeded|over|reached|out of).{0,30}\bquota|quota.{0,30}(?:exhausted|"
         r"limit reached|reached)", "errno"),
    Rule("filesystem-error", "estale|file handle", r"Stale (?:NFS )?file handle|ESTALE", "errno"),
    Rule("filesystem-error", " not responding", r"nfs: server \S+ not responding", "fs", "k"),
    Rule("filesystem-error", "nfs: server ", r"nfs: server \S+ .{0,20}timed out", "fs", "k"),
    Rule("filesystem-error", "lustreerror|was evicted by",
         r"LustreError.{0,120}evicted|was evicted by", "fs", "a"),
    Rule("filesystem-error", "connection to ",
         r"Lustre: .{0,80}Connection to \S+ .{0,60}was lost", "fs", "k?"),
    Rule("filesystem-error", "lustreerror",
         r"LustreError.{0,160}(?:-5\b|-110|-107|-108|timed out|I/O error)", "fs", "k?"),
    Rule("filesystem-error", "eio|[errno 5]|input/output error",
         r"[Ii]nput/output error|\[Errno 5\]|\bEIO\b", "errno"),
    Rule("filesystem-error", "[errno 10|transport endpoint ",
         r"[Tt]ransport endpoint (?:is not connected|shutdown)|\[Errno 10[78]\]", "errno"),
    Rule("filesystem-error", "remounting",
         r"[Rr]emounting filesystem read-only|Remounting.{0,20}read-only", "fs", "k"),
    Rule("filesystem-error", "ext4-fs",
         r"EXT4-fs error|EXT4-fs.{0,40}(?:Detected aborted|I/O error)", "fs", "k"),
    Rule("filesystem-error", "xfs",
         r"XFS.{0,60}(?:[Cc]orruption|metadata I/O error|Shutting down|log I/O error|"
         r"shut ?down)", "fs", "k"),
    Rule("filesystem-error", "medium error", r"(?:critical )?medium error", "fs", "k"),
    Rule("filesystem-error", "error|timeout",
         r"(?:blk_update_request|Buffer I/O|I/O) error.{0,20}(?:dev |on )|"
         r"nvme\S*: .{0,40}I/O.{0,20}(?:timeout|error)|I/O error, dev", "fs", "k"),
    Rule("filesystem-error", "mmfs",
         r"mmfs.{0,80}(?:[Ee]xpel|panic|unmounted|stale|quorum|Lost)", "fs", "a"),
    Rule("filesystem-error", "beegfs",
         r"[Bb]ee[Gg][Ff][Ss].{0,80}(?:Communication error|unreachable|Unable|timeout)",
         "fs", "a"),
    Rule("filesystem-error", "ceph",
         r"(?:libceph|ceph).{0,60}(?:socket closed|mds\d* (?:hung|caps stale|evict)|"
         r"blacklisted|blocklisted|session lost)", "fs", "k"),
    Rule("filesystem-error", "[errno 121]|remote i/o error",
         r"Remote I/O error|\[Errno 121\]", "errno"),
    Rule("filesystem-error", "structure needs cleaning", r"Structure needs cleaning", "errno"),
    Rule("filesystem-error", " blocked for more than ",
         r"task \S+ blocked for more than \d+ seconds.{0,40}nfs", "fs", "k?"),
    Rule("permission-denied", "eacces|permissionerror|permission denied",
         r"Permission denied|EACCES|PermissionError", "errno"),
    Rule("permission-denied", "erofs|read-only file system",
         r"Read-only file system|EROFS", "errno"),
    Rule("permission-denied", "[errno 1]|operation not permitted",
         r"Operation not permitted|\[Errno 1\]", "errno"),
    # Network.
    Rule("name-resolution", "gaierror|gai error|name or service not known",
         r"Name or service not known|gaierror|gai error", "errno", "w"),
    Rule("name-resolution", "temporary failure in name resolution",
         r"Temporary failure in name resolution", "errno", "w"),
    Rule("name-resolution",
         "resolve |getaddrinfo|temporary failure|no address associated with hostname",
         r"(?:[Cc]ould not|[Cc]annot|[Uu]nable to|[Ff]ailed to|can't) (?:be )?resolve (?:host|"
         r"hostname|address|name|the)?|No address associated with hostname|"
         r"(?:Temporary failure|getaddrinfo).{0,40}(?:fail|error)", "errno", "w"),
    Rule("name-resolution", "getaddrinfo|unknown host|nodename nor servname",
         r"getaddrinfo\S*.{0,40}(?:fail|error|not known)|Unknown host|nodename nor servname",
         "errno", "w"),
    Rule("name-resolution", "unknown host", r"[Uu]nknown host", "errno", "w"),
    Rule("endpoint-unreachable", "client socket has ",
         r"client socket has (?:failed to connect|timed out after).{0,120}", "c10d", "w"),
    Rule("endpoint-unreachable", "[errno 113]|ehostunreach|no route to host",
         r"No route to host|\[Errno 113\]|EHOSTUNREACH", "errno", "w"),
    Rule("endpoint-unreachable", "enetunreach|network is unreachable",
         r"Network is unreachable|ENETUNREACH", "errno", "w"),
    Rule("endpoint-unreachable", "[errno 111]|econnrefused|connection refused",
         r"Connection refused|ECONNREFUSED|\[Errno 111\]", "errno", "w?"),
    Rule("endpoint-unreachable", "etimedout|[errno 110]|connection timed out",
         r"Connection timed out|ETIMEDOUT|\[Errno 110\]", "errno", "w?"),
    Rule("endpoint-unreachable", "connect",
         r"(?:socket\S*Connect|Connect to|connect\(\) to|connection to) \S+ .{0,30}(?:failed|"
         r"timed out|refused|unreachable)|failed to connect to all addresses", "nccl", "w"),
    Rule("endpoint-unreachable", "connect to |make a tcp connection",
         r"(?:unable to|could not|cannot|failed to) (?:make a TCP connection|"
         r"connect to (?:the )?(?:master|coordinator|head|rank 0|scheduler|server at \d))",
         "ompi", "w"),
    Rule("endpoint-unreachable", "tcp connection",
         r"TCP connection.{0,60}(?:refused|fail|unreachable|timed out)", "ompi", "w"),
    Rule("address-in-use", "[errno 98]|eaddrinuse|address already in use",
         r"[Aa]ddress already in use|EADDRINUSE|\[Errno 98\]", "errno", "w"),
    Rule("address-in-use", "eaddrinuse", r"EADDRINUSE", "c10d", "w"),
    Rule("address-in-use", "port ",
         r"[Pp]ort \d+ (?:is )?(?:already )?(?:in use|occupied|taken)", "errno", "w?"),
    Rule("external-service", "couldn't connect to ", r"couldn't connect to '?https?://", "http"),
    Rule("external-service", "http",
         r"(?:\b[45]\d\d (?:Client|Server) Error|Max retries exceeded|HTTP ?Error|HTTPError|"
         r"status code:? [45]\d\d).{0,200}https?://", "http"),
    Rule("external-service", "maxretryerror|connectionpool(host=",
         r"(?:HTTPS?ConnectionPool\(host='?(?!localhost|"
         r"127\.)[\w.-]+\.\w+).{0,200}Max retries exceeded|MaxRetryError", "http"),
    Rule("external-service", "httpsconnectionpool(host=",
         r"HTTPSConnectionPool\(host=", "http", "w?"),
    Rule("external-service", ": error|commerror|usageerror|authenticationerror",
         r"wandb\.(?:errors\.)?\w*(?:CommError|UsageError|AuthenticationError)|"
         r"wandb: ERROR.{0,60}(?:network|connect|api|timed out|401|403|5\d\d)", "http", "w"),
    Rule("external-service", "an error occurred (|botocore.exceptions.",
         r"botocore\.exceptions\.\w+|An error occurred \((?:SlowDown|Throttl\w+|"
         r"RequestLimit\w*|503|ServiceUnavailable|AccessDenied|ExpiredToken|InternalError|"
         r"RequestTimeout)\w*\) when calling", "http"),
    Rule("external-service", "error",
         r"(?:EndpointConnection|ConnectTimeout|ReadTimeout|NoCredentials|ConnectionClosed|"
         r"Client)Error", "http"),
    Rule("external-service", "too many requests", r"(?:429.{0,20})?Too Many Requests", "http"),
    Rule("external-service", "unavailable",
         r"503.{0,10}Service (?:Temporarily )?Unavailable", "http"),
    Rule("external-service",
         "gatedrepoerror|hfhubhttperror|offlinemodeisenabled|repositorynotfounderror|"
         "localentrynotfounderror",
         r"LocalEntryNotFoundError|OfflineModeIsEnabled|HfHubHTTPError|GatedRepoError|"
         r"RepositoryNotFoundError", "http"),
    Rule("external-service",
         "rlm|lmgrd|licen|flexlm|flexnet|checkout| available|"
         "ed number of users already reached",
         r"(?:FlexNet|FLEXlm|lmgrd|RLM|licen[cs]e (?:server|manager|checkout)|"
         r"[Cc]heckout).{0,100}(?:error|fail|unable|cannot|refused|denied|unreachable|down|"
         r"not (?:available|respond))|(?:[Cc]annot|[Ff]ailed to|[Uu]nable to|"
         r"[Cc]ould not).{0,40}licen[cs]e|[Ll]icen[cs]ed number of users already reached|"
         r"No.{0,20}licenses? available", "flexnet", "w"),
    Rule("external-service", "curl: (", r"curl: \((?:5|6|7|22|28|35|52|56|60)\)", "http"),
    Rule("external-service", "fatal: unable to access 'http",
         r"fatal: unable to access 'https?://", "http"),
    Rule("external-service",
         "timed out|unreachable|cannot connect|connectionerror|connection refused",
         r"(?:mlflow|comet|neptune|clearml|aiohttp|gcsfs|s3fs|"
         r"azure)[\w.]*.{0,120}(?:ConnectionError|Connection refused|timed out|unreachable|"
         r"Cannot connect)", "http", "w"),
    Rule("external-service", "retrying (retry|could not fetch url http",
         r"(?:Retrying \(Retry.{0,200}pypi|Could not fetch URL https?)", "http", "w?"),
    Rule("external-service",
         "ratelimit|apiconnection|azure.core.exceptions.|google.api_core.exceptions.",
         r"google\.api_core\.exceptions\.\w+|azure\.core\.exceptions\.\w+|"
         r"openai\.\w*(?:RateLimit|APIConnection)Error", "http"),
    # Environment.
    Rule("launch-env-invalid", "environment variable ",
         r"environment variable \w+ expected, but not set", "env"),
    Rule("launch-env-invalid", "keyerror: '",
         r"KeyError: '(?:(?:LOCAL_|GLOBAL_|NODE_|GROUP_|OMPI_\w*)?(?:RANK|WORLD_SIZE|"
         r"LOCAL_SIZE)|MASTER_(?:ADDR|PORT)|SLURM_\w+|LOCAL_WORLD_SIZE|PMI\w*|HYDRA_\w+)'", "env"),
    Rule("launch-env-invalid", "in your slurm bash script, but this variable is not supported",
         r"in your SLURM bash script, but this variable is not supported", "env"),
    Rule("launch-env-invalid", " match",
         r"(?:number of (?:devices|nodes|tasks|processes)|ntasks\S*|world.?size|WORLD_SIZE|"
         r"SLURM_\w+|num_nodes|devices)\b.{0,80}(?:does not|do not|doesn't|not) match", "env"),
    Rule("launch-env-invalid", "world|rank ",
         r"(?:world.?size|WORLD_SIZE).{0,80}(?:does not match|not (?:equal|divisible)|mismatch|"
         r"must be|is not divisible|!=|invalid)|rank \d+ .{0,30}(?:>=|out of range|larger than|"
         r"must be less).{0,20}world.?size", "env"),
    Rule("launch-env-invalid", "rank|world_size|master_addr|master_port",
         r"(?:RANK|rank|MASTER_ADDR|MASTER_PORT|WORLD_SIZE|LOCAL_RANK)\b.{0,40}(?:(?:is|was|"
         r"are|not) (?:un|not )?set|not defined|undefined|unset|missing|environment variable|"
         r"is required|duplicate|already (?:in use|registered|joined))", "env"),
    Rule("launch-env-invalid", "invalid literal for int",
         r"invalid literal for int.{0,60}(?:rank|world|port)", "env"),
    Rule("launch-env-invalid", ": unbound variable",
         r"(?:MASTER_\w+|WORLD_SIZE|\w*RANK|SLURM_\w+|NNODES|NODE_RANK): unbound variable",
         "libc", "d"),
    Rule("launch-env-invalid", "already |used twice|duplicate |already_exists",
         r"[Dd]uplicate (?:rank|node.?rank|global rank|process id|task)|(?:rank|"
         r"process).{0,30}(?:already (?:registered|connected|exists)|used twice)|"
         r"ALREADY_EXISTS.{0,60}(?:task|process)", "jax"),
    Rule("launch-env-invalid", "connected with a different incarnation",
         r"(?:Aborted|already).{0,60}connected with a different incarnation", "jax"),
    Rule("launch-env-invalid",
         "process_id|number of processes must be defined|coordinator_address should be defined",
         r"coordinator_address should be defined|Number of processes must be defined|"
         r"process_id.{0,40}(?:must|should) be", "jax"),
    Rule("launch-env-invalid", "cluster|tf_config",
         r"TF_CONFIG.{0,60}(?:invalid|missing|not|must)|cluster_?spec.{0,60}(?:invalid|missing|"
         r"not)", "tf"),
    Rule("gpu-visibility", "invalid device ordinal", r"invalid device ordinal", "cuda"),
    Rule("gpu-visibility", "duplicate gpu detected", r"Duplicate GPU detected", "nccl", "w"),
    Rule("gpu-visibility", "need|only |require|expected |requested ",
         r"(?:You requested gpu|requested .{0,20}GPUs?|requires? \d+ GPUs?|expected \d+ GPUs?|"
         r"[Nn]eeds? \d+ GPUs?).{0,80}(?:your machine only has|but only|available|found|"
         r"visible|got|see)|only \d+ (?:GPUs?|devices?) (?:are |is )?(?:available|visible|"
         r"found)", "lightning"),
    Rule("gpu-visibility", "you requested gpu: |but your machine only has",
         r"You requested gpu: |But your machine only has", "lightning"),
    Rule("gpu-visibility", "local_rank|nproc_per_node",
         r"nproc_per_node.{0,60}(?:more|greater|larger|exceeds?) .{0,20}(?:GPU|device)|"
         r"local_rank.{0,60}(?:device_count|number of (?:visible )?(?:GPU|device))", "elastic"),
    Rule("gpu-visibility",
         "exclusive|cudaerrordevicesunavailable|"
         "cuda-capable device(s) is/are busy or unavailable",
         r"exclusive.process|CUDA-capable device\(s\) is/are busy or unavailable|"
         r"cudaErrorDevicesUnavailable", "cuda"),
    Rule("gpu-visibility", "busy or unavailable", r"busy or unavailable", "cuda"),
    Rule("gpu-visibility", "expected |number of |device_count|visible devices",
         r"(?:device_count|visible devices|number of (?:GPU|device)s?)\b.{0,40}(?:mismatch|"
         r"does not match|but |expected|less than|!=)|expected \d+ (?:local )?(?:GPU|"
         r"device)s?,? (?:but )?(?:got|found|saw|see)", "lightning"),
    Rule("software-missing", ": no module named",
         r"(?:ModuleNotFoundError|ImportError): No module named|: No module named", "python"),
    Rule("software-missing",
         "cannot open shared object file|error while loading shared libraries: ",
         r"(?:cannot open shared object file|error while loading shared libraries: \S+: cannot "
         r"open)", "libc"),
    Rule("software-missing", "not found",
         r": (?:\S+ )?[\w./+-]+: (?:command )?not found\s*$|command not found|"
         r"executable file not found in \$PATH|: not found$", "libc"),
    Rule("software-missing", "no such file|bad interpreter",
         r"(?:slurmstepd|srun|mpirun|bash|env|exec)\S*:? .{0,60}(?:execve\(\)|exec|execvp|"
         r"\u2018|')\S*.{0,60}No such file or directory|bad interpreter|(?:env|"
         r"/usr/bin/env): .{0,40}No such file", "slurm", "d"),
    Rule("software-missing", "could not |executable",
         r"(?:was unable to find the specified executable|could not (?:find|"
         r"access).{0,30}executable|executable.{0,30}not found)", "ompi", "w"),
    Rule("software-missing", "unable to locate |mpirun was unable to",
         r"unable to locate (?:a modulefile|the executable)|mpirun was unable to.{0,20}find",
         "ompi", "w"),
    Rule("software-missing",
         "lmod has detected|module(s) are unknown|unable to locate a modulefile",
         r"module\(s\) are unknown|Lmod has detected|Unable to locate a modulefile", "libc", "w"),
    Rule("software-missing", "unable to locate a modulefile",
         r"Unable to locate a modulefile", "libc", "w"),
    Rule("software-missing", " install|requires the |distributionnotfound|packagenotfounderror",
         r"DistributionNotFound|PackageNotFoundError|requires the \S+ (?:package|library)|"
         r"is not installed|(?:Please|please) install", "python", "?"),
    Rule("software-missing",
         "not found|ninja is required to load|cuda_home environment variable is not set",
         r"(?:CUDA_HOME environment variable is not set|nvcc.{0,30}not found|"
         r"Ninja is required to load)", "torch"),
    Rule("software-incompatible", " not found",
         r"version [`'\"]?(?:GLIBC|GLIBCXX|CXXABI|GCC)_[\w.]+'? not found", "libc", "w"),
    Rule("software-incompatible", " not found",
         r"version [`'\"]?(?:GLIBCXX|CXXABI|GCC)_[\w.]+'? not found|version `[^']+' not found",
         "libc", "w"),
    Rule("software-incompatible", "undefined symbol: ", r"undefined symbol: ", "libc", "w"),
    Rule("software-incompatible", "binary incompatib|dtype size changed",
         r"dtype size changed|binary incompatib", "python"),
    Rule("software-incompatible",
         "compiled against a|compiled using numpy 1.x|module 'numpy' has no attribute|"
         "numpy.core.multiarray failed to import",
         r"compiled using NumPy 1\.x|numpy\.core\.multiarray failed to import|"
         r"module 'numpy' has no attribute|compiled against (?:API|ABI) version", "python", "w?"),
    Rule("software-incompatible", "importerror: cannot import name",
         r"ImportError: cannot import name", "python"),
    Rule("software-incompatible", "removed|a deprecated|attributeerror: ",
         r"AttributeError: (?:partially initialized )?module '[\w.]+' has no attribute|"
         r"`?np\.(?:float|int|bool|object)`? was (?:removed|a deprecated)", "python"),
    Rule("software-incompatible", "but |require|versionconflict",
         r"[\w.-]+(?:>=|==|<=|<|>|~=)[\d.]+.{0,40}is required|but (?:found|you have|"
         r"got) [\w.-]+ ?=?=? ?\d+\.\d|requires? [\w.-]+ ?(?:>=|==|<|<=|"
         r"~=) ?\d[\d.]*.{0,60}(?:but|found|installed|incompatible)|VersionConflict", "python"),
    Rule("software-incompatible", "require|versionconflict",
         r"requires? [\w.-]+ ?(?:>=|==|<|<=|~=) ?\d[\d.]*.{0,60}(?:but|found|installed|"
         r"incompatible|got)|VersionConflict|requires (?:a newer|an older) version", "python"),
    Rule("software-incompatible", "version|mismatched|incompatible|loaded runtime cudnn library",
         r"(?:cuDNN|cudnn|CuDNN|CUDA|TensorRT|jaxlib|jax|torch|"
         r"torchvision).{0,60}(?:version (?:mismatch|incompatib\w+)|"
         r"versions? .{0,40}(?:incompatible|not compatible|does not match|mismatch))|"
         r"Loaded runtime CuDNN library.{0,60}but source was compiled with|(?:incompatible|"
         r"mismatched) .{0,20}versions?", "tf", "w"),
    Rule("software-incompatible", "loaded runtime cudnn library",
         r"Loaded runtime CuDNN library", "tf", "w"),
    Rule("software-incompatible", "mismatch|detected cuda version ",
         r"(?:ABI|abi|API|library) (?:version )?mismatch|"
         r"detected CUDA version .{0,40}mismatches", "torch"),
    Rule("software-incompatible", "symbol lookup error", r"symbol lookup error", "libc", "w"),
    Rule("software-incompatible", "incompatible function arguments",
         r"incompatible function arguments", "python", "?"),
    Rule("software-incompatible", "operator torchvision::nms does not exist",
         r"operator torchvision::nms does not exist", "torch"),
    # The program.
    Rule("usage-error", ": error: ",
         r"\S+: error: (?:unrecognized arguments|the following arguments are required|"
         r"argument |ambiguous option|one of the arguments|invalid choice|expected|unknown|"
         r"too few|too many)", "python", "wd"),
    Rule("usage-error",
         "configkeyerror|could not override|' is not in struct|configattributeerror|"
         "missingmandatoryvalue|configcompositionexception",
         r"Could not override|Key '\S+' is not in struct|ConfigAttributeError|ConfigKeyError|"
         r"ConfigCompositionException|MissingMandatoryValue", "lightning", "w"),
    Rule("usage-error", "is not in struct", r"is not in struct", "lightning", "w"),
    Rule("usage-error", "missingmandatoryvalue|missing mandatory value",
         r"[Mm]issing mandatory value|MissingMandatoryValue", "lightning"),
    Rule("usage-error",
         "hydraexception|configkeyerror|validationerror|validation error|"
         "missingconfigexception|overrideparseexception",
         r"\bValidationError\b|validation errors? for \w+|MissingConfigException|"
         r"HydraException|OverrideParseException|ConfigKeyError", "lightning"),
    Rule("usage-error",
         "invalid|illegal|unknown|missing |unrecogni|no such option|got unexpected|"
         "no such command|requires an argument|fatal flags parsing error",
         r"(?:unrecogni[sz]ed|unknown|invalid|illegal) (?:command.?line )?(?:option|flag|"
         r"argument|parameter)s?\b|No such option|FATAL Flags parsing error|Missing (?:option|"
         r"argument) ['\"]|Error: (?:Invalid value for|No such command|Got unexpected)|"
         r"requires an argument", "python", "w"),
    Rule("usage-error", "unknown command line flag|fatal flags parsing error",
         r"FATAL Flags parsing error|Unknown command line flag", "python", "w"),
    Rule("usage-error", "no such command|got unexpected extra|error: invalid value for",
         r"Error: Invalid value for|No such command|Got unexpected extra", "python", "w"),
    Rule("usage-error", "error: missing ",
         r"Error: Missing (?:option|argument|parameter)", "python", "w"),
    Rule("usage-error", "yaml.|configparser.|tomllib.tomldecodeerror",
         r"yaml\.(?:scanner|parser|constructor|composer|reader)\.\w+Error|"
         r"tomllib\.TOMLDecodeError|configparser\.\w+Error", "python"),
    Rule("usage-error",
         "config|is not|setting|must be|not valid|divisible|is invalid|is missing|unknown key",
         r"(?:[Ii]nvalid|[Uu]nknown|[Uu]nsupported|[Bb]ad|[Mm]issing) (?:key |field |value |"
         r"option |section |entry )?(?:in |for )?(?:the )?(?:config|configuration|"
         r"setting)\w*\b|config\w*.{0,60}(?:is invalid|not valid|is missing|unknown key)|"
         r"(?:batch_size|micro.?batch\w*|num_heads|hidden_size)\b.{0,60}(?:must be|is not|"
         r"divisible)", "lightning"),
    Rule("usage-error", "divisible by",
         r"(?:must be|is not|not) (?:evenly )?divisible by", "lightning"),
    Rule("native-crash", "(sigsegv)|signal 11|segmentation fault",
         r"(?:^|[:)\d*] {0,3}|error: |\] )Segmentation fault|\(SIGSEGV\)|"
         r"[Ss]ignal 11\b.{0,20}SEGV", "kernel-trap", "wd"),
    Rule("native-crash", "sigsegv", r"\(SIGSEGV\)|SIGSEGV", "elastic", "wd"),
    Rule("native-crash", "]: segfault at",
         r"\S+\[(?P<pid>\d+)\]: segfault at", "kernel-trap", "k?"),
    Rule("native-crash", "trap divide error|general protection|trap invalid opcode",
         r"traps: \S+\[(?P<pid>\d+)\] (?:general protection|trap invalid opcode|"
         r"trap divide error)", "kernel-trap", "k?"),
    Rule("native-crash", "] trap invalid opcode",
         r"\[(?P<pid>\d+)\] trap invalid opcode", "kernel-trap", "k?"),
    Rule("native-crash", "fatal python error: ",
         r"Fatal Python error: (?:Segmentation fault|Bus error|Illegal instruction|Floating|"
         r"Aborted)", "python", "wd"),
    Rule("native-crash", "bus error", r"(?:^|[:)\d*] {0,3}|error: )Bus error", "kernel-trap", "w"),
    Rule("native-crash", "illegal instruction",
         r"(?:^|[:)\d*] {0,3}|error: )Illegal instruction", "kernel-trap", "wd"),
    Rule("native-crash", "(sig|signal: ",
         r"\((?:SIGILL|SIGBUS|SIGFPE)\)|signal: (?:Illegal|Bus|Floating)", "elastic", "wd"),
    Rule("native-crash", "floating point exception", r"Floating point exception", "libc", "w"),
    Rule("native-crash",
         "corrupted |free(): invalid|invalid next size|munmap_chunk(): invalid|"
         "double free or corruption",
         r"double free or corruption|free\(\): invalid|munmap_chunk\(\): invalid|"
         r"corrupted (?:size|double-linked|unsorted)|invalid next size", "libc", "w"),
    Rule("native-crash", "malloc",
         r"malloc\S*: (?:invalid|corrupted|unaligned|memory corruption|mismatching)|"
         r"malloc\(\): ", "libc", "w"),
    Rule("native-crash", "corrupted |stack smashing detected",
         r"corrupted (?:size vs|double-linked)|stack smashing detected", "libc", "w"),
    Rule("native-crash", "stack smashing detected|buffer overflow detected",
         r"stack smashing detected|buffer overflow detected", "libc", "w"),
    Rule("native-crash", "signal: |caught signal ",
         r"Caught signal (?:11|7|4|8)\b|Signal: (?:Segmentation|Bus|Illegal)", "ucx", "w"),
    Rule("native-crash", "signal 11|signal: segmentation fault",
         r"Signal: Segmentation fault|signal 11", "ompi", "w"),
    Rule("native-crash", "exited on signal ",
         r"(?:process rank (?P<rank>\d+) with PID \d+ on node (?P<node>\S+) )?exited on signal "
         r"(?:11|7|4|8|6)\b", "ompi", "w"),
    Rule("native-crash", "aborted",
         r"(?:tasks? [\d,-]+|\d+): Aborted|\d+ Aborted\s|Fatal Python error: Aborted|"
         r"^Aborted(?: \(core dumped\))?$", "libc", "w?"),
    Rule("native-crash", "killed by signal: ",
         r"killed by signal: (?:Segmentation fault|Aborted|Illegal|Floating)", "dataloader"),
    Rule("native-crash", "assertion ",
         r"Assertion [`'\"].{1,200}['\"`]? failed\.?\s*$", "libc", "w"),
    Rule("non-finite-loss", "stopping training",
         r"[Ll]oss is (?:nan|inf|NaN|-inf|\S{1,10}),? stopping training|"
         r"stopping training.{0,40}\b(?:nan|inf|non-finite)", "lightning"),
    Rule("non-finite-loss", "loss scale",
         r"Minimum loss scale reached|loss scale already at minimum|"
         r"loss scale.{0,40}(?:collapsed|too (?:small|low)|below)", "lightning"),
    Rule("non-finite-loss", "inf|nan|finite",
         r"(?=.*\b(?:loss|grad\w*|scal\w+|diverg\w*|train\w*|forward|activations?|weights?|"
         r"logits|params?|parameters?|optimizer)\b)(?:\w*Error|\w*Exception|FATAL|CRITICAL|"
         r"abort\w*|stop\w*|exit\w*|terminat\w*|halt\w*|diverged)\b.{0,120}\b(?:NaN|nan|NAN|"
         r"Inf|inf|non.?finite|not finite)s?\b", "lightning"),
    Rule("non-finite-loss",
         "halting|aborted|exiting|stopped|aborting|stopping|quitting|giving up|terminating",
         r"\b(?:NaN|nan|NAN|non.?finite|not finite)s?\b.{0,80}\b(?:aborting|aborted|stopping|"
         r"stopped|exiting|terminating|giving up|halting|quitting)\b", "lightning"),
    Rule("non-finite-loss", "finite|loss became ",
         r"(?:Error|FATAL|CRITICAL|ERROR|abort\w*|stop\w*|exit\w*|"
         r"halt\w*)\b.{0,120}(?:non-?finite|not finite)|(?:loss|grad\w*).{0,40}(?:non-?finite|"
         r"not finite|infinite).{0,60}(?:abort|stop|exit|rais|halt|terminat)|"
         r"[Ll]oss became (?:NaN|non-?finite|inf)", "lightning"),
    Rule("non-finite-loss", "loss|gradient|floatingpointerror|invalidargumenterror",
         r"FloatingPointError|(?:loss|gradients?) (?:is|are|became|=) (?:-?inf|infinite|"
         r"infinity).{0,60}(?:abort|stop|exit|rais|halt)|"
         r"InvalidArgumentError.{0,100}(?:Tensor had (?:NaN|Inf)|: Inf and NaN)", "lightning"),
    Rule("non-finite-loss", "loss scal", r"[Ll]oss scal\w+.{0,60}minimum", "lightning"),
    Rule("non-finite-loss", "floatingpointerror", r"FloatingPointError", "lightning"),
    # Data.
    Rule("data-missing", "filenotfounderror|notadirectoryerror",
         r"FileNotFoundError|NotADirectoryError", "python"),
    Rule("data-missing", "no such file or directory", r"No such file or directory", "errno"),
    Rule("data-missing", "found|couldn't|could not|is missing|doesn't exist|does not exist",
         r"(?:[Dd]ataset|[Dd]ata (?:file|dir\w*|path)|[Ii]nput (?:file|dir\w*)|[Ff]ile|[Pp]ath|"
         r"[Dd]irectory)\b.{0,120}(?:not found|does not exist|doesn't exist|is missing|"
         r"could not be found)|(?:Found|found) (?:0|no) (?:files|images|samples|records|valid)|"
         r"(?:Couldn't|[Cc]ould not) find (?:any )?(?:class folder|dataset|file|data|valid)",
         "data"),
    Rule("data-missing", "n't exist| not exist",
         r"(?:[Dd]ataset|[Dd]ata|[Ii]nput|[Ff]ile|[Pp]ath|[Dd]irectory|"
         r"/\S+)\b.{0,120}(?:does not exist|doesn't exist)", "data"),
    Rule("data-missing", "couldn't find |found no valid file|datasetnotfounderror",
         r"Couldn't find (?:any )?(?:class folder|a? ?dataset|file|data)|Found no valid file|"
         r"DatasetNotFoundError", "data"),
    Rule("data-missing", "found no valid file", r"Found no valid file", "data"),
    Rule("data-missing", "errno = 2|no such file",
         r"[Uu]nable to (?:synchronously )?open file.{0,60}No such file|errno = 2\b", "data"),
    Rule("data-missing", "notfounderror", r"NotFoundError", "tf"),
    Rule("data-corrupt", "unidentifiedimageerror|cannot identify image file",
         r"cannot identify image file|UnidentifiedImageError", "data"),
    Rule("data-corrupt", "truncated|datalosserror",
         r"(?:image file is|[Ff]ile|[Rr]ecord|[Ss]tream|[Dd]ata|[Ss]hard|tar|"
         r"[Aa]rchive).{0,40}truncated|truncated (?:file|header|record|image|data|archive|"
         r"gzip)|Truncated (?:tar|or)|DataLossError", "data"),
    Rule("data-corrupt", "datalosserror", r"DataLossError", "tf"),
    Rule("data-corrupt", "corrupte| corrupt",
         r"corrupted? (?:record|file|data|JPEG|PNG|image|shard|block|page|parquet|sample|"
         r"index)|(?:record|file|data|shard|image|dataset|block|page|sample|archive|"
         r"index)s?\b.{0,80}(?:is|are|appears?|seems?|may be|was|be) corrupt", "data"),
    Rule("data-corrupt", "jsondecodeerror", r"JSONDecodeError", "python"),
    Rule("data-corrupt", "unicodedecodeerror|codec can't decode byte",
         r"codec can't decode byte|UnicodeDecodeError", "python"),
    Rule("data-corrupt", "compressed file ended before the end-of-stream",
         r"Compressed file ended before the end-of-stream", "python"),
    Rule("data-corrupt", "zstderror|decompress|zlib.error|lzma.lzmaerror",
         r"zlib\.error|Error -[35] while decompressing|lzma\.LZMAError|[Ff]ailed to decompress|"
         r"decompress\w*.{0,40}(?:fail|error|corrupt)|ZstdError|Error \S+ decompressing",
         "python"),
    Rule("data-corrupt", "badgzipfile|not in gzip format|not a gzipped file",
         r"BadGzipFile|Not a gzipped file|not in gzip format", "python"),
    Rule("data-corrupt", "crc-32|badzipfile|magic number for|file is not a zip file",
         r"BadZipFile|File is not a zip file|Bad (?:CRC-32|magic number for)", "python"),
    Rule("data-corrupt", "crc",
         r"(?:CRC|crc)\b.{0,40}(?:fail|mismatch|error|does not match|check)", "data"),
    Rule("data-corrupt", "match",
         r"(?:[Cc]hecksum|[Dd]igest|hash|MD5|sha256)\w*\b.{0,60}(?:mis|does not |did not |"
         r"not )match|NonMatchingChecksumError|NonMatchingSplitsSizesError", "data"),
    Rule("data-corrupt", "parquet |arrowinvalid",
         r"[Pp]arquet (?:magic bytes|file).{0,40}(?:not found|corrupt|invalid|size is)|"
         r"ArrowInvalid", "data"),
    Rule("data-corrupt", "arrowinvalid", r"ArrowInvalid", "data"),
    Rule("data-corrupt", "tarfile.|readerror: |emptyheadererror",
         r"tarfile\.\w*Error|ReadError: (?:unexpected end|empty|bad|invalid|not a)|"
         r"EmptyHeaderError", "python"),
    Rule("data-corrupt", "unexpected ",
         r"[Uu]nexpected end (?:of (?:file|data|stream|archive|input)|in archive)|"
         r"[Uu]nexpected EOF", "python"),
    Rule("data-corrupt", "parsererror|error tokenizing data",
         r"ParserError|Error tokenizing data", "data"),
    Rule("data-corrupt",
         "bad object header|signature not found|unable to open file|truncated file: eof =",
         r"(?:file )?signature not found|truncated file: eof =|bad object header|"
         r"unable to open file.{0,40}signature", "data"),
    Rule("data-corrupt", "truncated file", r"truncated file", "data"),
    Rule("data-corrupt", "magic |bad magic|invalid header|incorrect header",
         r"[Bb]ad magic|magic (?:number|string).{0,40}(?:not|wrong|incorrect|mismatch)|"
         r"[Ii]ncorrect header|invalid header", "data"),
    Rule("data-corrupt", "moov atom not found|invalid data found when processing",
         r"moov atom not found|Invalid data found when processing", "data"),
    Rule("data-corrupt", "failed to interpret file|cannot load file containing pickled",
         r"(?:Failed to interpret file|Cannot load file containing pickled)", "data"),
    Rule("data-corrupt", "cannot reshape array of size",
         r"cannot reshape array of size", "data", "?"),
    Rule("checkpoint-unusable", "pytorchstreamreader failed",
         r"PytorchStreamReader failed", "torch"),
    Rule("checkpoint-unusable", "error(s) in loading state_dict",
         r"Error\(s\) in loading state_dict", "torch"),
    Rule("checkpoint-unusable", "size mismatch for ",
         r"size mismatch for \S+: copying a param", "torch"),
    Rule("checkpoint-unusable", " key(s) in state_dict",
         r"(?:Missing|Unexpected) key\(s\) in state_dict", "torch", "?"),
    Rule("checkpoint-unusable",
         "safetensors|invalidheader|headertoolarge|safetensorerror|metadataincompletebuffer",
         r"SafetensorError|safetensors.{0,60}(?:header|incomplete|invalid)|"
         r"MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeader", "torch"),
    Rule("checkpoint-unusable", "not an sstable|unable to open table file",
         r"not an sstable|Unable to open table file", "tf"),
    Rule("checkpoint-unusable",
         "unpicklingerror|invalid load key|weights only load failed|pickle data was truncated",
         r"UnpicklingError|invalid load key|Weights only load failed|pickle data was truncated",
         "torch"),
    Rule("checkpoint-unusable", "eoferror: ran out of input",
         r"EOFError: Ran out of input", "torch"),
    Rule("checkpoint-unusable",
         "ckpt|weight|invalid|corrupt|damaged|truncat|snapshot|incomplete|checkpoint|"
         "incompatible",
         r"(?:[Cc]heckpoint|ckpt|[Ww]eights?|[Ss]napshot)\b.{0,120}(?:corrupt\w*|truncat\w*|"
         r"incomplete|invalid|mismatch|incompatible|not compatible|does not match|do not match|"
         r"is damaged|different (?:model|config|number|world)|not (?:a )?valid|unreadable)|"
         r"(?:corrupt\w*|truncat\w*|incomplete|invalid|damaged|incompatible) (?:checkpoint|"
         r"ckpt|weights|restart)", "torch"),
    Rule("checkpoint-unusable",
         ".metadata|checkpointexception|missing key in checkpoint state_dict",
         r"CheckpointException|Missing key in checkpoint state_dict|"
         r"\.metadata.{0,60}(?:missing|not found|No such)", "torch"),
    Rule("checkpoint-unusable", "loaded state dict ",
         r"loaded state dict (?:has a different number|contains a parameter group)", "torch"),
    Rule("checkpoint-unusable", "loaded state dict ",
         r"loaded state dict (?:has a different number|contains a parameter group)", "torch"),
    Rule("checkpoint-unusable", "load|resum|restor",
         r"(?:restor\w+|load\w*|resum\w+).{0,60}(?:checkpoint|ckpt|"
         r"restart file).{0,120}(?:fail|error|mismatch|shape|not match|EOF|corrupt|truncat)|"
         r"(?:fail|error|unable|cannot|could not)\w*.{0,40}(?:restor\w+|load\w*|"
         r"resum\w+).{0,30}(?:checkpoint|ckpt|restart file|weights)", "torch"),
    Rule("checkpoint-unusable", "restart file",
         r"restart file.{0,80}(?:corrupt|truncat|wrong|incompat|mismatch|cannot be read|EOF)",
         "data"),
    Rule("code-exception", " failed|failed ",
         r"^FAILED \S+::\S+ - |^=+ .*\b[1-9]\d* failed\b", "languages", "w"),
    # Errors of other languages.
    Rule("code-exception", "forrtl: severe|fortran runtime error",
         r"Fortran runtime error|forrtl: severe", "languages", "wd"),
    Rule("code-exception", "forrtl: severe", r"forrtl: severe", "languages", "wd"),
    Rule("code-exception", "error: ",
         r"ERROR: (?:LoadError|MethodError|\w+Error)", "languages", "wd"),
    Rule("code-exception", "terminate called ",
         r"terminate called after throwing an instance of '(?!c10::Dist)[^']+'|"
         r"terminate called without", "languages", "wd"),
    Rule("code-exception", "' panicked at", r"thread '[^']*' panicked at", "languages", "wd"),
    Rule("code-exception", "panic: ", r"^panic: ", "languages", "wd"),
    Rule("code-exception", "exception in thread \"main\"",
         r"Exception in thread \"main\"", "languages", "wd"),
    Rule("code-exception", "execution halted", r"Execution halted", "languages", "wd"),
    Rule("code-exception", "error in ", r"^Error in [\w.]+\(.*\) ?:", "languages", "w?"),
    Rule("code-exception", "error using ", r"^\{?Error using \w+", "languages", "w"),
    Rule("code-exception", "uncaught |unhandled exception",
         r"[Uu]ncaught (?:exception|\w*Error)|Unhandled exception", "languages", "w"),
    Rule("code-exception", "unbound variable", r"unbound variable", "libc", "wd"),
    Rule("code-exception", "syntaxerror|indentationerror|syntax error near",
         r"syntax error near|SyntaxError|IndentationError", "libc"),
    Rule("code-exception", "lapack|error stop|petsc error",
         r"(?:LAPACK|ScaLAPACK|PETSC ERROR|ERROR STOP)\b", "languages", "w?"),
    Rule("code-exception", "error stop", r"ERROR STOP", "languages", "wd"),
    Rule("code-exception", "petsc error", r"PETSC ERROR", "languages", "w"),
)

# XID numbers: the class, and whether one alone is a cause.
XIDS: dict[int, tuple[str, bool]] = {
    13: ("gpu-illegal-access", False), 31: ("gpu-illegal-access", True),
    32: ("gpu-illegal-access", False), 39: ("gpu-illegal-access", False),
    48: ("gpu-ecc", True), 61: ("gpu-lost", True), 62: ("gpu-lost", True),
    63: ("gpu-ecc", False), 64: ("gpu-ecc", True), 74: ("gpu-nvlink", True),
    79: ("gpu-lost", True), 94: ("gpu-ecc", True), 95: ("gpu-ecc", True),
    109: ("gpu-lost", False), 110: ("gpu-lost", False),
    119: ("gpu-lost", True), 120: ("gpu-lost", True), 121: ("gpu-nvlink", False),
    122: ("gpu-lost", False), 123: ("gpu-lost", False), 137: ("gpu-nvlink", True),
    140: ("gpu-ecc", True), 143: ("gpu-lost", False),
    144: ("gpu-nvlink", True), 145: ("gpu-nvlink", True), 146: ("gpu-nvlink", True),
    147: ("gpu-nvlink", True), 148: ("gpu-nvlink", True), 149: ("gpu-nvlink", True),
    150: ("gpu-nvlink", True), 155: ("gpu-nvlink", False), 156: ("gpu-ecc", False),
    158: ("gpu-lost", True), 160: ("gpu-ecc", False), 161: ("gpu-ecc", False),
    171: ("gpu-ecc", True), 172: ("gpu-ecc", True),
}
# fmt: on

# On one line the class that stands first here counts.
SPECIFIC: tuple[str, ...] = tuple(
    """
    gpu-ecc gpu-nvlink gpu-lost node-hardware shm-exhausted gpu-oom host-oom node-oom gpu-assert
    gpu-arch-unsupported gpu-driver-too-old gpu-driver-broken gpu-visibility launch-env-invalid
    container-runtime-unavailable image-not-found image-unusable container-gpu-missing
    container-mount-failed launch-failed step-rejected mpi-startup-failed checkpoint-unusable
    external-service software-incompatible address-in-use name-resolution comm-setup-failed
    rdma-error collective-mismatch rendezvous-timeout endpoint-unreachable quota-exceeded os-limit
    disk-full filesystem-error non-finite-loss data-corrupt software-missing permission-denied
    data-missing gpu-illegal-access gpu-library-error usage-error preempted time-limit node-failure
    native-crash hang cancelled code-exception peer-lost -
    """.split()  # noqa: SIM905
)
_ORDER = {name.strip("-"): place for place, name in enumerate(SPECIFIC)}

_DEVICE = ("gpu-illegal-access", "gpu-library-error", "gpu-assert", "native-crash")
# What follows from a class beside waiting ranks; a GPU's hardware explains errors of its programs.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "gpu-ecc": _DEVICE,
    "gpu-lost": _DEVICE,
    "gpu-nvlink": _DEVICE,
    "node-hardware": (*_DEVICE, "gpu-lost", "node-failure", "rdma-error"),
    "gpu-assert": ("gpu-library-error", "gpu-illegal-access"),
    "gpu-illegal-access": ("gpu-library-error",),
    "gpu-oom": ("gpu-library-error",),
    "filesystem-error": ("data-corrupt", "checkpoint-unusable", "native-crash"),
    "disk-full": ("checkpoint-unusable",),
    "gpu-driver-broken": ("container-gpu-missing",),
}
# What a class explains although it may be noticed later, or is as specific.
EXPLAINS: dict[str, tuple[str, ...]] = {
    "image-unusable": ("filesystem-error", "software-missing", "native-crash"),
    "external-service": ("name-resolution", "endpoint-unreachable"),
    "gpu-driver-broken": ("container-gpu-missing", "gpu-visibility", "gpu-lost"),
    "gpu-lost": ("gpu-visibility", "container-gpu-missing", "gpu-driver-broken"),
    "container-runtime-unavailable": ("image-unusable", "container-mount-failed"),
    "shm-exhausted": ("disk-full", "os-limit"),
    "software-incompatible": ("software-missing",),
}
WAITING = ("hang", "rendezvous-timeout", "endpoint-unreachable", "time-limit")
HARDWARE = ("gpu-ecc", "gpu-lost", "gpu-nvlink", "node-hardware")

# Bounds: what is kept of huge files in detail.
# Bytes at the end of all files together that are read line by line.
TAIL = 2 * 1024 * 1024
LEAST = 32 * 1024
CHUNK = 2 * 1024 * 1024
KEPT = 3000
BORING = 100_000
SAME = 40
LONGEST = 4000

_STEMS = tuple(
    word.encode()
    for word in (
        "rror",
        "ail",
        "xcept",
        "raceback",
        "atal",
        "FATAL",
        "bort",
        "ill",
        "oom",
        "memory",
        "Xid",
        "NCCL WARN",
        "imed out",
        "imeout",
        "CANCELLED",
        "ignal",
        "anic",
        "enied",
        "efused",
        "reachable",
        "orrupt",
        "ismatch",
        "issing",
        "not found",
        "o such",
        "xceeded",
        "lost",
        "nvalid",
        "nable to",
        "annot",
        "ould not",
        "egmentation",
        "ssert",
        "nan",
        "NaN",
        "No space",
        "not respond",
        "evicted",
        "UE ",
        "Node failure",
        "busId",
    )
)
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}


class Record:
    """A line, or a part of it between carriage returns, with what its prefix says."""

    __slots__ = (
        "file",
        "kernel",
        "label",
        "level",
        "local",
        "low",
        "node",
        "number",
        "old",
        "pid",
        "place",
        "rank",
        "skip",
        "stream",
        "text",
        "time",
        "uptime",
    )

    def __init__(self, file: int, number: int, text: str) -> None:
        self.file, self.number, self.text = file, number, text
        self.low = ""
        self.place = 0
        self.rank: int | None = None
        self.local: int | None = None
        self.label: int | None = None
        self.node: str | None = None
        self.pid: int | None = None
        self.time: float | None = None
        self.uptime: float | None = None
        self.level = ""
        self.kernel = False
        self.skip = False
        self.old = False
        self.stream: tuple[int, Any] = (file, None)


class Event:
    """A record that matches a rule, or ends a traceback."""

    __slots__ = (
        "alive",
        "bus",
        "dead",
        "exception",
        "groups",
        "hint",
        "name",
        "record",
        "rule",
        "weak",
    )

    def __init__(self, name: str, record: Record, rule: Rule | None, **groups: str) -> None:
        self.name, self.record, self.rule = name, record, rule
        flags = rule.flags if rule else ""
        self.hint = "?" in flags
        self.dead = "d" in flags
        self.weak = False
        self.alive = True
        self.exception = False
        self.groups = groups
        self.bus = ""


# Reading.


def read_lines(path: str, budget: int = TAIL) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines: all of a small file, of a large one those that may tell.

    :param budget: bytes at the end of a large file that are read line by line, and as many as a
        quarter of it at the beginning.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        if size <= budget * 2:
            yield from enumerate(file.read(budget * 2 + CHUNK).split(b"\n"), 1)
            return
        yield from _large(file, size, budget)


def _large(file: Any, size: int, budget: int) -> Iterator[tuple[int, bytes]]:
    """Yield head and tail, and of what is between them lines that look like trouble."""
    number, offset, rest = 1, 0, b""
    sieve = Sieve()
    while True:
        data = file.read(CHUNK)
        block = rest + data
        if data:
            cut = block.rfind(b"\n") + 1
            # A line without an end is cut where it becomes too long to hold.
            cut = cut or (len(block) if len(block) > 2 * CHUNK else 0)
            block, rest = block[:cut], block[cut:]
        head = max(budget // 4 - offset, 0)
        tail = max(size - budget - offset, head)
        yield from _whole_lines(block[:head], number)
        yield from sieve.lines(block, head, min(tail, len(block)), number)
        if tail < len(block):
            start = block.rfind(b"\n", 0, tail) + 1
            yield from _whole_lines(block[start:], number + block.count(b"\n", 0, start))
        number += block.count(b"\n")
        offset += len(block)
        if not data:
            return


def _whole_lines(block: bytes, number: int) -> Iterator[tuple[int, bytes]]:
    return enumerate(block.split(b"\n"), number) if block else iter(())


class Sieve:
    """Finds lines with words of trouble in large blocks, a bounded number of each shape."""

    def __init__(self) -> None:
        self._stems = dict.fromkeys(_STEMS, 0)
        self._any = re.compile(b"|".join(map(re.escape, _STEMS)))
        self._shapes: Counter[int] = Counter()
        self._boring: set[int] = set()
        self._digits = bytes(48 if chr(code).isdigit() else code for code in range(256))

    def lines(
        self, block: bytes, start: int, end: int, number: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield numbered lines between two places; the block begins with line ``number``."""
        if start >= end:
            return
        number += block.count(b"\n", 0, start)
        block = block[start:end]
        shapes = list(map(hash, block.translate(self._digits).split(b"\n")))
        fresh = [place for place, shape in enumerate(shapes) if shape not in self._boring]
        if len(fresh) * 3 < len(shapes):
            found = self._among(block.split(b"\n"), fresh)
        else:
            found = self._in(block)
        if len(self._boring) < BORING:
            self._boring.update(shapes[place] for place in fresh if place not in found)
        for place in sorted(found):
            shape = shapes[place]
            if len(self._shapes) < KEPT or shape in self._shapes:
                self._shapes[shape] += 1
                if self._shapes[shape] <= SAME:
                    yield number + place, found[place]

    def _among(self, lines: list[bytes], places: list[int]) -> dict[int, bytes]:
        """The lines at ``places`` that have a word of trouble: the fast way for like lines."""
        return {place: lines[place] for place in places if self._any.search(lines[place])}

    def _in(self, block: bytes) -> dict[int, bytes]:
        """All lines with a word of trouble: the fast way for lines that are all different."""
        found: dict[int, bytes] = {}
        for stem in list(self._stems):
            place = block.find(stem)
            while place >= 0 and self._stems.get(stem, KEPT) < KEPT:
                self._stems[stem] += 1
                begin = block.rfind(b"\n", 0, place) + 1
                stop = block.find(b"\n", place)
                stop = len(block) if stop < 0 else stop
                found.setdefault(begin, block[begin : min(stop, begin + LONGEST * 4)])
                place = block.find(stem, stop)
            if self._stems[stem] >= KEPT:
                # A word of every line says nothing.
                del self._stems[stem]
        numbered, line, last = {}, 0, 0
        for begin in sorted(found):
            line += block.count(b"\n", last, begin)
            last = begin
            numbered[line] = found[begin]
        return numbered


_RANKED = re.compile(
    r"(?:^|[^a-z])(?:rank|task|proc|process|global_rank|r|t)[-_.]?(\d{1,5})(?=[^\d]|$)", re.I
)
_STDS = re.compile(r"(?:stdout|stderr|std|out|err|log)[-_.](\d{1,5})$", re.I)
_LOCAL = re.compile(
    r"attempt_\d+/(\d+)/(?:std(?:out|err)|error\.json)|local_?rank[-_]?(\d+)", re.I
)
_KERNEL_FILE = re.compile(r"dmesg|kern\b|kernel|kern\.log|journal|messages|syslog", re.I)

_TIMES: tuple[tuple[str, Pattern[str]], ...] = (
    (
        "iso",
        re.compile(
            r"\[?\(?(\d{4})[-/](\d\d)[-/](\d\d)[T _](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?"
            r"(Z|[+-]\d\d:?\d\d)?\)?\]?[:,]?"
        ),
    ),
    (
        "ctime",
        re.compile(
            r"\[?(?:\w{3} )?([A-Z][a-z]{2})\s+(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)? "
            r"(\d{4})\]?"
        ),
    ),
    ("syslog", re.compile(r"([A-Z][a-z]{2})\s+(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?(?= )")),
    ("glog", re.compile(r"\[?([IWEFC])(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)(?:\.\d+)?")),
    ("clock", re.compile(r"\[?(\d\d):(\d\d):(\d\d)(?:[.,]\d+)?\]?(?=[\s|:-]|$)")),
)
_PREFIXES: tuple[tuple[str, Pattern[str]], ...] = (
    ("uptime", re.compile(r"(?:<\d+>)?\[\s*(\d+\.\d{3,6})\]\s*")),
    ("rank", re.compile(r"\[(?:global_?)?rank[ :_=]*\s?(\d+)(?:[/,][^\]]*)?\]:?[ \t]?", re.I)),
    ("rank", re.compile(r"\(?rank[ :_=]\s?(\d+)(?:/\d+)?\)?\s?[:|>]\s?|rank(\d+)[:|]\s?", re.I)),
    ("ompi", re.compile(r"\[[^\][]*[@\d],(\d+)\]<std\w+>:\s?")),
    ("local", re.compile(r"\[(?:default|trainer|local_?rank[ :_]?|worker)(\d+)\]:\s?", re.I)),
    ("label", re.compile(r"\s{0,4}(\d{1,5}): ?(?=\D|\d\d:|\d{4}-|$)")),
    ("host", re.compile(r"([A-Za-z][\w.-]*)(?::| ?\|) ")),
    ("host", re.compile(r"\[([A-Za-z][\w.-]*)\]:? ")),
)
_TAGGED = re.compile(r" ([\w.-]+) ([\w./()-]+?)(?:\[\d+\])?: ?")
_WHERE = re.compile(
    r"(?:\[\d{4}-\d\d-\d\d[ T][\d:.]+\] )?(?:\[(?P<h1>[A-Za-z][\w.-]*):(?P<p1>\d+)(?: "
    r"?:\d+)*(?::\d+)?"
    r"\]|(?P<h2>[A-Za-z][\w.-]*):(?P<p2>\d+):\d+ \[(?P<l2>\d+)\]|"
    r"\[(?P<h3>[A-Za-z][\w.-]*)\]\[\[\d+,\d+\],(?P<r3>\d+)\]|"
    r"\[(?P<h4>[A-Za-z][\w.-]*)(?:\]|:) )"
)
_LEVEL = re.compile(
    r"\b(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b|: ([WIE]) [\w/.-]+\.(?:cc|cu)"
    r":\d+\]",
    re.I,
)
_PROGRESS = re.compile(
    r"\b(?:step|iter|iteration|epoch|global_step|update|batch|train)s?\b\W{0,4}\[?\d+|\d+%\||"
    r"\d+/\d+ \[|\bloss\b\W{0,4}\d|\bit/s\b|s/it\b|(?:samples|tokens|images)/s|\beta\b|"
    r"^\s*\d+/\d+ ",
)
# What a program and Slurm print when the limit is reached.
_ENDING = re.compile(
    r"slurmstepd|srun|SIG[A-Z]|[Ss]ignal|[Tt]erminat|CANCELLED|^\s+File |Traceback"
)
_NO_PROGRESS = re.compile(r"srun|slurmstepd|\s+File|.*NCCL")
_MAY_COMPLETE = re.compile(
    r"complet|finish|done|succe|reached|saved|written|passed|converg|ok\b|result"
)
_DIGIT = re.compile(r"\d")
_COMPLETE = re.compile(
    r"\btraining (?:is |has |was )?(?:complete|completed|finished|done|succe\w+)|"
    r"finished training|"
    r"(?:max_epochs|max_steps|max_time)\S* reached|\bsuccessfully (?:completed|finished)|"
    r"completed successfully|(?:final|last) (?:model|checkpoint|weights) (?:saved|written)|"
    r"saved (?:the )?final|successfully finished|\b\d+ passed\b|\ball done\b|"
    r"^\W*(?:done|finished|success|complete[d]?|ok)[.! ]*$|(?:run|job|experiment|evaluation|"
    r"fine-?tuning|simulation|benchmark|inference|solver) (?:is |has )?(?:complete|"
    r"completed|finished"
    r"|converged)|^result",
    re.I,
)
_SURVIVED = re.compile(
    r"\bretrying\b|\b(?:will|to) retry\b|trying (?:again|another|next|port|batch|with)|"
    r"fall(?:ing|s|en)?[ -]?back|\busing\b.{0,60}\binstead\b|\bignor(?:ed|ing)\b|"
    r"\bskipp(?:ed|ing)\b|"
    r"\bcontinuing\b|\brecovered\b|\bcaught and\b|(?:exception|error) (?:was )?(?:caught|"
    r"handled)|non-?fatal|harmless|backing off|"
    r"\busing (?:the )?(?:cache|default|local|offline|native|slower)|reduc\w+ (?:the )?batch|"
    r"retry (?:\d+|attempt|in)|attempt \d+(?:/| of )\d+|\bresumed ok|suppressed|swallow|"
    r"entering retry|is optional|disabl(?:ed|ing) (?:it|logging|the feature)",
    re.I,
)
_GIVEN_UP = re.compile(
    r"giv(?:ing|en) up|no more retries|exhausted|aborting|all (?:\d+ )?(?:attempts|"
    r"retries)|out of retries|final attempt",
    re.I,
)
_QUOTE = re.compile(
    r"^\s*(?:#(?!\d)|//|>>>|\.\.\. |\+{1,3} |\$ |> |\* |\| |--? |<!--|;;|%|\"\"\"|echo |grep |"
    r"sed |awk )|"
    r"::test_|\bPASSED\b|\bXFAIL\b|\bsample(?:s|d)?\b\W{0,3}\d*\W|\b(?:prompt|example|"
    r"question|answer|input|output|reply|text|"
    r"document|caption|generated|completion|input_text|output_text|response|decoded|target|"
    r"tokens?|"
    r"title|label|snippet|README|docs?|changelog|hint|note|tip|pattern|regex|simulat\w+|inject\w*|"
    r"mock\w*|expected|pytest|assertRaises|metric|unit test|self-?test)\b\s*[\d\[\]#]*\s*[:=]|"
    r"\bif you (?:see|get|encounter)|\bin case of\b|\bto avoid\b|\bknown issue|troubleshoot|"
    r"\be\.g\.|such as|for example|(?:catch|detect|handle|monitor|watch|look)(?:es|ing|"
    r"s)? (?:for )?"
    r"[\"'`]|errors? like|\bon_error\b|\bon_oom\b|error_?pattern|\"(?:text|prompt|content|input|"
    r"output|target|question|answer|title)\":",
    re.I,
)
_SOURCE = re.compile(
    r"^\s+(?:raise |return |assert |self\.|[\w.]+ = |with |for |if |except|print\(|"
    r"logger?\.|warnings\.|\^+|~+)|^\s*(?:raise|except|catch|throw|print|logger?\.\w+)"
    r"\b ?\(?[\w\"']"
)
_FINAL = re.compile(
    r"^(?:\S*\s?\|\s)?(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Timeout|"
    r"Failure|"
    r"Abort\w*|Fault|Closed\w*|Expired|NotFound|Missing\w*|Invalid\w*|Empty\w*)\b(?=:|\s*$|\()"
)
# Programs that print failures as information.
_TELL_AS_INFORMATION = ("nccl", "apptainer", "elastic", "c10d", "slurm", "tf", "torch", "ompi")
# Frames that load checkpoints, and errors that then are the checkpoint's.
_LOADS = re.compile(
    r"load_checkpoint|torch\.load\(|load_state|def resume|in resume|restore_checkpoint|"
    r"load_weights|"
    r"\.restore\(|load_pretrained|load_ckpt|checkpoint.{0,20}load|load_model\("
)
_CHECKS_FINITE = re.compile(
    r"(?:assert|if|raise)\b.{0,80}(?:isnan|isfinite|is_nan|is_finite|isinf)\b|check_for_nan"
)
_UNFIT = re.compile(r"EOFError|shape|mismatch|truncat|not compatible|unexpected (?:key|end)", re.I)
_TRACEBACK = "Traceback (most recent call last)"
_FRAME = re.compile(r'^\s*File "([^"]*)", line \d+(?:, in (\S+))?')
_CHAIN = re.compile(
    r"During handling of the above exception|The above exception was the direct cause"
)
_RESTART = re.compile(
    r"will restart worker group|[Rr]estarting (?:worker|the worker|training|from|job|run)|"
    r"Starting "
    r"worker group|starting workers for entrypoint|(?:[Rr]estart|[Aa]ttempt|RESTART|ATTEMPT|"
    r"retry|requeue)(?: count)?\W{0,3}(?:#|number|no\.?)? ?\W{0,2}[1-9]\d*\b|"
    r"SLURM_RESTART_COUNT\W{1,3}"
    r"[1-9]|(?:[Rr]esum(?:ing|ed)|[Rr]estor(?:ing|ed)|[Cc]ontinu(?:ing|ed)) (?:training )?from\b|"
    r"requeued|[Ll]oaded checkpoint|auto-?resum",
    re.I,
)
_ENDED_BEFORE = re.compile(
    r"CANCELLED AT \S+ DUE TO (?:PREEMPTION|NODE FAILURE|JOB REQUEUE)|Worker group FAILED|"
    r"attempts? left|requeu",
    re.I,
)
_OTHER_JOB = re.compile(
    r"(?:StepId=|JobId=|JobID=|job_id=|jobid=|\bJOB |\bSTEP |[/_]job_|SLURM_JOB_ID=)(\d+)|"
    r"(?:\b[Jj]ob |/job)(\d{2,})"
)
# How lines of the kernel begin that no program prints.
_KERNEL_TEXT = re.compile(
    r"NVRM: |mlx[45]_core \d|EDAC [A-Z]|mce: \[Hardware|SQUASHFS error|oom-kill:constraint=|"
    r"Memory cgroup out of memory: Kill|Out of memory: Kill(?:ed)? process|nvidia-nvswitch\d|"
    r"LustreError: \d|nfs: server |XFS \(|EXT4-fs |Kernel panic - |Memory failure: 0x|"
    r"\{\d+\}\[Hardware Error\]|pcieport |blk_update_request: |Buffer I/O error on dev"
)
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, pid='?(\d+))?")
_BUSID = re.compile(r"\brank (\d+) nranks (\d+) cudaDev (\d+)(?: nvmlDev \d+)? busId ([0-9a-f]+)")
_SMI = re.compile(
    r"\|\s+(?P<row>\d+)\s+\S.*\|\s+(?P<at>[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)|"
    r"(?P<csv>\d+), .{0,60}?(?P<bus>[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)|"
    r"\s*(?:GPU |<gpu id=\")(?P<head>[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)"
)
_EXIT = re.compile(
    r"srun: error: (?P<node>[\w.-]+)(?:\[[^\]]*\])?: tasks? (?P<task>\d+)(?P<more>[-\d,]*): "
    r"(?P<how>.*)"
)
_SCRIPT = re.compile(
    r"slurm_script: line \d+: \s*\d+ (Killed|Segmentation fault|Aborted|Bus error|"
    r"Illegal instruction|Terminated)"
)
_BAD_EXIT = re.compile(
    r"Exited with exit code [1-9]|Out Of Memory|Killed|Segmentation|Abort|Bus err|"
    r"Illegal|Floating",
    re.I,
)
_EXTERNAL = re.compile(
    r"https?://(?!localhost|127\.|10\.|192\.168\.)([\w-]+\.)+[a-z]{2,}|"
    r"host='?(?!localhost)([\w-]+\.)+"
    r"(?:com|co|org|io|ai|net|dev)\b|\b(?:[\w-]+\.)+(?:com|co|org|io|ai|dev)\b",
    re.I,
)


class Facts:
    """What Slurm knows of the job, with missing fields filled."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.id = _whole(job.get("job_id"))
        self.ids = {str(value) for value in (job.get("job_id"), job.get("array_job_id")) if value}
        nodes = job.get("nodes")
        self.nodes: list[str] = [str(n) for n in nodes] if isinstance(nodes, list) else []
        self.short = {node.split(".")[0].lower(): node for node in self.nodes}
        self.gpus = _whole(job.get("gpus_per_node")) or 0
        self.tasks = _whole(job.get("ntasks")) or 0
        self.restarts = _whole(job.get("restarts")) or 0
        self.elapsed = _whole(job.get("elapsed_s")) or 0
        self.limit = _whole(job.get("time_limit_s")) or 0
        self.state = str(job.get("state") or "").upper().split(" ")[0]
        self.reason = str(job.get("reason") or "")
        self.container = job.get("container")
        self.command = str(job.get("command") or "")
        self.start, self.end = _moment(job.get("start")), _moment(job.get("end"))
        status = _whole(job.get("exit_status"))
        code, signal = _whole(job.get("exit_code")), _whole(job.get("exit_signal"))
        if code is None and status is not None:
            code = status >> 8
        if signal is None and status is not None:
            signal = status & 127
        self.code, self.signal = code, signal
        self.world = self.tasks

    @property
    def failed(self) -> bool | None:
        """Whether Slurm says that the job failed; None if it says nothing."""
        if self.state in ("COMPLETED", "COMPLETING"):
            return bool(self.code or self.signal)
        if self.state and self.state not in ("RUNNING", "PENDING", "UNKNOWN", "NONE"):
            return True
        if self.code is not None or self.signal is not None:
            return bool(self.code or self.signal)
        return None

    def node(self, name: str | None) -> str | None:
        """The job's node of a host name, with or without domain; None for others."""
        if not name:
            return None
        short = name.split(".")[0].lower()
        if self.short:
            return self.short.get(short)
        return name

    def per_node(self) -> int:
        """Ranks of each node; 0 if unknown."""
        count = len(self.nodes)
        return self.world // count if count and self.world and self.world % count == 0 else 0

    def node_of(self, rank: int | None) -> str | None:
        """The node of a rank, as block distribution places it."""
        each = self.per_node()
        if rank is None or not each or rank // each >= len(self.nodes):
            return self.nodes[0] if len(self.nodes) == 1 else None
        return self.nodes[rank // each]


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(value: Any) -> float | None:
    match = re.match(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)", str(value or ""))
    return _seconds(*map(int, match.groups())) if match else None


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> float | None:
    """Seconds of a local time on a scale without time zones; None for no date."""
    try:
        at = datetime.datetime(year, month, day, hour, minute, min(second, 59))
    except (ValueError, OverflowError):
        return None
    return (at - datetime.datetime(2000, 1, 1)).total_seconds()


class Log:
    """All records of the files, and what they say about ranks, nodes and devices."""

    def __init__(self, facts: Facts, paths: list[str]) -> None:
        self.facts, self.paths = facts, paths
        self.records: list[Record] = []
        self.ranks: set[int] = set()
        self.pids: dict[int, int] = {}
        self.pid_nodes: dict[int, str] = {}
        self.buses: dict[tuple[str | None, str], int] = {}
        self.elastic = False
        self.root_report: dict[str, str] = {}
        base = facts.start if facts.start is not None else facts.end
        origin = datetime.datetime(2000, 1, 1)
        self.day = origin + datetime.timedelta(seconds=base) if base is not None else None
        large = sum(os.stat(path).st_size > 2 * LEAST for path in paths)
        self._budget = max(TAIL // max(large, 1), LEAST)
        for index in sorted(range(len(paths)), key=lambda i: _age(paths[i])):
            self._file(index, paths[index])
        for place, record in enumerate(self.records):
            record.place = place
        self._align()
        self._learn()
        self._settle()

    def _file(self, index: int, path: str) -> None:
        name = path.replace("\\", "/")
        tail = "/".join(name.split("/")[-3:])
        kernel_file = bool(_KERNEL_FILE.search(tail.rsplit("/", 1)[-1]))
        node = self._node_in_name(tail)
        rank, local = self._rank_in_name(tail, node) if not kernel_file else (None, None)
        foreign = kernel_file and node is None and self._names_other_node(tail)
        last_time: float | None = None
        for number, raw in read_lines(path, self._budget):
            for text in _segments(raw):
                record = Record(index, number, text)
                record.node, record.rank, record.local = node, rank, local
                self._peel(record, kernel_file)
                record.old = record.old or (foreign and record.node is None)
                record.kernel = record.kernel or (kernel_file and "dmesg" in tail)
                record.low = record.text.lower()
                if record.time is None and record.uptime is None:
                    record.time = last_time
                elif record.time is not None:
                    last_time = record.time
                record.stream = (index, (record.label, record.rank, record.local))
                if record.rank is not None:
                    self.ranks.add(record.rank)
                self.records.append(record)

    def _node_in_name(self, name: str) -> str | None:
        low = name.lower()
        found = [
            node
            for short, node in self.facts.short.items()
            if re.search(rf"(?<![a-z0-9]){re.escape(short)}(?![a-z0-9])", low)
        ]
        return found[0] if len(found) == 1 else None

    def _names_other_node(self, name: str) -> bool:
        """Whether a file is named for a node of the cluster that is not of the job."""
        shapes = {re.sub(r"\d+", r"\\d+", re.escape(short)) for short in self.facts.short}
        low = name.rsplit("/", 1)[-1].lower()
        named = re.match(r"(?:dmesg|kern|kernel)[-_.]([a-z][a-z0-9-]*\d)(?=[._]|$)", low)
        if named and not re.match(
            r"(?:rank|task|job|node|host|proc|log|[nrt])[-_]?\d+$", named[1]
        ):
            return bool(shapes)
        return any(
            re.search(rf"(?<![a-z0-9]){shape}(?![a-z0-9])", low)
            for shape in shapes
            if "\\d" in shape
        )

    def _rank_in_name(self, name: str, node: str | None) -> tuple[int | None, int | None]:
        text = name.rsplit("/", 1)[-1]
        if node:
            text = re.sub(re.escape(node.split(".")[0]), "", text, flags=re.I)
        if match := _LOCAL.search(name):
            return None, int(match[1] or match[2])
        if match := _RANKED.search(text.rsplit(".gz", 1)[0]):
            return int(match[1]), None
        if match := re.search(r"(?:^|/)rank[._-]?(\d+)/", name, re.I):
            return int(match[1]), None
        match = _STDS.search(text) if not re.search(r"\.log\.\d+$", text) else None
        return (int(match[1]), None) if match and int(match[1]) != self.facts.id else (None, None)

    def _peel(self, record: Record, kernel_file: bool) -> None:
        """Take prefixes from the text: rank, node and time of the line."""
        text = record.text
        for _ in range(6):
            # Megatron prints a space before its time stamp.
            lead = text.startswith(" ") and text.lstrip(" ")[:1] in ("[", "1", "2")
            rest = self._time(record, text.lstrip(" ") if lead else text, kernel_file)
            if rest is None:
                rest = self._prefix(record, text, kernel_file)
            if rest is None:
                break
            text = rest
        record.text = text
        if "CANCELLED AT " in text:
            match = _TIMES[0][1].search(text, text.index("CANCELLED AT "))
            record.time = self._at(*map(int, match.groups()[:6])) if match else record.time
        record.kernel = record.kernel or _KERNEL_TEXT.match(text) is not None
        if match := _WHERE.match(text):
            self._where(record, match)
        if not record.level and (match := _LEVEL.search(text, 0, 90)):
            word = (match[1] or {"W": "WARN", "I": "INFO", "E": "ERROR"}[match[2].upper()]).upper()
            if match[1] is None or match[1].isupper() or match.start() < 12:
                record.level = word[:4]

    def _where(self, record: Record, match: re.Match[str]) -> None:
        host = match["h1"] or match["h2"] or match["h3"] or match["h4"]
        node = self.facts.node(host)
        if node:
            record.node = node
        if match["p1"] or match["p2"]:
            record.pid = int(match["p1"] or match["p2"])
            if node:
                self.pid_nodes[record.pid] = node
        if match["l2"] and record.rank is None:
            record.local = int(match["l2"])
        if match["r3"]:
            record.rank = int(match["r3"])

    def _time(self, record: Record, text: str, kernel_file: bool) -> str | None:
        for kind, pattern in _TIMES:
            match = pattern.match(text)
            if not match:
                continue
            if kind == "glog":
                record.level = {"W": "WARN", "I": "INFO", "E": "ERRO", "F": "FATA"}.get(
                    match[1], record.level
                )
                month, day = int(match[2]), int(match[3])
                found = self._at(None, month, day, *map(int, match.groups()[3:6]))
            elif kind == "iso":
                found = self._at(*map(int, match.groups()[:6]))
            elif kind == "clock":
                found = self._at(None, None, None, *map(int, match.groups()[:3]))
            else:
                month = _MONTHS.get(match[1].lower(), 0)
                year = int(match[6]) if kind == "ctime" else None
                found = self._at(year, month, int(match[2]), *map(int, match.groups()[2:5]))
                if not month:
                    continue
            record.time = found if found is not None else record.time
            rest = text[match.end() :]
            if kind in ("syslog", "iso") and (tagged := _TAGGED.match(rest)):
                return self._tagged(record, tagged, rest, kernel_file)
            if kind == "ctime" and (kernel_file or text.startswith("[")):
                record.kernel = kernel_file or record.kernel or "NVRM" in rest
            return rest.lstrip(" ") if kind != "iso" else re.sub(r"^\s*[-|,]?\s+", "", rest)
        return None

    def _tagged(self, record: Record, tagged: re.Match[str], rest: str, kernel_file: bool) -> str:
        """Read ``host program[pid]:`` of a system log."""
        host, program = tagged[1], tagged[2]
        if program == "kernel" or kernel_file or self.facts.node(host):
            node = self.facts.node(host)
            record.kernel = program == "kernel"
            record.node = node or record.node
            record.old = record.kernel and bool(self.facts.short) and node is None
            if program != "kernel":
                return rest.lstrip()[len(host) + 1 :]
            return rest[tagged.end() :]
        return rest.lstrip()

    def _at(
        self,
        year: int | None,
        month: int | None,
        day: int | None,
        hour: int,
        minute: int,
        second: int,
    ) -> float | None:
        if self.day is None and (year is None or month is None):
            base = datetime.datetime(2001, 1, 1)
        else:
            base = self.day or datetime.datetime(2001, 1, 1)
        found = _seconds(
            year or base.year, month or base.month, day or base.day, hour, minute, second
        )
        start = self.facts.start
        if month is None and found is not None and start is not None and found < start - 3600 * 6:
            # A clock without a date after midnight.
            found += 86400 * max(0, round((start - found) / 86400))
            if found < start - 3600:
                found += 86400
        return found

    def _prefix(self, record: Record, text: str, kernel_file: bool) -> str | None:
        for kind, pattern in _PREFIXES:
            match = pattern.match(text)
            if not match:
                continue
            if kind == "host":
                node = self.facts.node(match[1]) if self.facts.short else None
                if not node:
                    continue
                record.node = node
            elif kind == "uptime":
                seconds = float(match[1])
                if seconds < 1e9:
                    record.uptime = seconds
                    record.kernel = True
            else:
                self._number(record, kind, int(next(group for group in match.groups() if group)))
            return text[match.end() :]
        return None

    def _number(self, record: Record, kind: str, number: int) -> None:
        if kind == "local":
            record.local = number
        elif kind == "label":
            # srun's label is a task: a rank, unless torchrun starts the ranks of a node.
            record.label = number
        else:
            record.rank = number

    def _align(self) -> None:
        """Shift times of programs whose clock is in another time zone than Slurm's."""
        times = [r.time for r in self.records if r.time is not None and not r.kernel]
        start = self.facts.start
        if start is None or not times or self.facts.restarts:
            return
        apart = start - min(times)
        shift = round(apart / 1800) * 1800
        zone = abs(apart) > 1500 and abs(apart - shift) < 600 and abs(shift) <= 14 * 3600
        if zone and (apart > 0 or self.facts.elapsed < -apart):
            for record in self.records:
                if record.time is not None and not record.kernel:
                    record.time += shift

    def _list_gpus(self) -> None:
        """Read from nvidia-smi's lists which device has which index."""
        order: dict[int, int] = {}
        each, nodes = self.facts.per_node(), self.facts.nodes
        for record in self.records:
            match = None if record.kernel else _SMI.match(record.text)
            if not match:
                continue
            index = int(match["row"] or match["csv"] or order.get(record.file, 0))
            if match["head"]:
                order[record.file] = index + 1
            node = record.node or (nodes[0] if len(nodes) == 1 else None)
            if node in nodes and index < each and self.facts.gpus in (0, each):
                rank = nodes.index(node) * each + index
                bus = _bus(match["head"] or match["at"] or match["bus"])
                self.buses.setdefault((record.node, bus), rank)

    def _learn(self) -> None:
        """Learn the size of the world, and which process and device belongs to which rank."""
        facts = self.facts
        for record in self.records:
            low = record.low
            if "nranks" in low and (match := _BUSID.search(record.text)):
                rank, size = int(match[1]), int(match[2])
                if size >= facts.world:
                    facts.world = size
                    self.buses[record.node, _bus_of_nccl(match[4])] = rank
                    if record.pid:
                        self.pids[record.pid] = rank
                    self.ranks.add(rank)
            if record.pid and (match := re.search(r"reported by process \[\d+,(\d+)\]", low)):
                self.pids[record.pid] = int(match[1])
            if "process rank" in low and (
                match := re.search(r"process rank (\d+) with pid (\d+) on node ", low)
            ):
                self.pids.setdefault(int(match[2]), int(match[1]))
            if "distributed/elastic" in low or "childfailederror" in low or "torchrun" in low:
                self.elastic = True
            if record.pid and record.rank is not None and not record.kernel:
                self.pids.setdefault(record.pid, record.rank)
            elif record.pid and record.label is not None and facts.tasks > len(facts.nodes):
                self.pids.setdefault(record.pid, record.label)
        self._elastic_report()
        spread = len(facts.nodes) * facts.gpus
        if (
            facts.tasks <= len(facts.nodes)
            and spread > facts.world
            and (self.elastic or any(rank >= max(facts.tasks, 1) for rank in self.ranks))
        ):
            facts.world = spread
        if not facts.world:
            facts.world = len(facts.nodes) or (max(self.ranks) + 1 if self.ranks else 1)
        self._list_gpus()

    def _elastic_report(self) -> None:
        """Read torchrun's report of the first failure."""
        inside = False
        for record in self.records:
            if "root cause (first observed failure)" in record.low:
                inside = True
            elif inside and (
                match := re.match(
                    r"\s*(host|rank|exitcode|error_file|traceback|time)\s*: (.*)", record.text
                )
            ):
                self.root_report[match[1]] = match[2].strip()
            elif inside and record.text.startswith("===="):
                inside = False
        rank = re.match(r"\d+", self.root_report.get("rank", ""))
        pid = re.search(r"pid: (\d+)", self.root_report.get("exitcode", ""))
        if rank and pid:
            self.pids[int(pid[1])] = int(rank[0])

    def _settle(self) -> None:
        """Give records their final ranks and nodes; streams; times of kernel logs."""
        facts = self.facts
        labels_are_nodes = facts.tasks == len(facts.nodes) and facts.world > facts.tasks
        each = facts.per_node()
        for record in self.records:
            if record.label is not None and labels_are_nodes and record.label < facts.tasks:
                record.node = record.node or facts.nodes[record.label]
            elif record.label is not None and record.rank is None:
                record.rank = record.label
                self.ranks.add(record.label)
            if record.rank is None and record.pid in self.pids:
                record.rank = self.pids[record.pid]
            if record.rank is None and record.local is not None and each and record.node:
                record.rank = facts.nodes.index(record.node) * each + record.local
            elif record.rank is None and record.local is not None and len(facts.nodes) == 1:
                record.rank = record.local
            if record.rank is not None and record.rank >= max(facts.world, 1) and facts.world > 1:
                record.rank = None
        self._uptimes()

    def _uptimes(self) -> None:
        """Mark lines of kernel logs without dates that are older than the job."""
        last: dict[int, float] = {}
        for record in self.records:
            if record.uptime is not None and record.time is None:
                last[record.file] = record.uptime
        for record in self.records:
            if record.uptime is not None and record.time is None and self.facts.elapsed:
                record.old = record.old or (
                    last[record.file] - record.uptime > self.facts.elapsed + 900
                )

    def file(self, record: Record) -> str:
        """The path of a record's file as it was given."""
        return self.paths[record.file]


def _age(path: str) -> tuple[str, int]:
    """Sort key: files by name, rotated pieces before the file that they were cut from."""
    match = re.match(r"(.*\.(?:log|out|err|txt))\.(\d{1,3})$", path)
    return (match[1], -int(match[2])) if match else (path, 0)


def _segments(raw: bytes) -> Iterator[str]:
    """Yield the parts of a line between carriage returns that may matter, without colours."""
    text = raw[: LONGEST * 8].decode("utf-8", "replace")
    if len(raw) > LONGEST * 8:
        text += "\r" + raw[-LONGEST:].decode("utf-8", "replace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" not in text:
        yield text[:LONGEST]
        return
    parts = [part for part in text.split("\r") if part.strip()]
    for place, part in enumerate(parts):
        if len(parts) - place <= 2 or not _PROGRESS.search(part):
            yield part[:LONGEST]
    if not parts:
        yield ""


def _bus_of_nccl(text: str) -> str:
    """NCCL prints a bus id as one hexadecimal number: 1b000 is 1b:00.0."""
    value = int(text, 16)
    return f"{value >> 12 & 0xFF:02x}:{value >> 4 & 0xFF:02x}"


def _bus(text: str) -> str:
    """The bus and device of a PCI address: 00000000:1B:00.0 is 1b:00."""
    parts = text.lower().split(".")[0].split(":")
    return ":".join(parts[-2:])


class Findings:
    """The events of a log, without those that do not count."""

    def __init__(self, log: Log) -> None:
        self.log, self.facts = log, log.facts
        self.events: list[Event] = []
        self.exits: list[tuple[Record, str | None, int, bool, str]] = []
        self.progress: list[Record] = []
        self.complete: list[Record] = []
        self.foreign_pids: set[int] = set()
        self.tops: dict[int, bool] = {}
        self.frames: dict[int, str] = {}
        self.chains: dict[int, int] = {}
        self._tracebacks()
        self._match()
        self._milestones()
        self._attempts()
        self._belong()
        self._survive()

    # Which lines say something.

    def _tracebacks(self) -> None:
        """Find where tracebacks end; their source lines say nothing."""
        streams: dict[tuple[int, Any], list[Record]] = {}
        for record in self.log.records:
            if not record.kernel:
                streams.setdefault(record.stream, []).append(record)
        chain = 0
        for records in streams.values():
            place = 0
            chained = False
            ignored = -9
            while place < len(records):
                text = records[place].text
                if _CHAIN.search(text):
                    chained = True
                    records[place].skip = True
                elif "Exception ignored in" in text:
                    ignored = place
                elif _TRACEBACK in text and '"' not in text[: text.find(_TRACEBACK)]:
                    if not chained:
                        chain += 1
                    chained = False
                    spoken = _QUOTE.search(text, 0, text.find(_TRACEBACK)) is not None
                    skip = spoken or place - 2 <= ignored
                    place = self._traceback(records, place, chain, ignored=skip)
                    continue
                elif text.strip():
                    chained = chained and not text.strip()
                place += 1

    def _traceback(self, records: list[Record], place: int, chain: int, *, ignored: bool) -> int:
        """Read one traceback from its first line on; return the place behind its last."""
        top: bool | None = None
        frames: list[str] = []
        # An error that a logger prints is one that the program caught.
        logged = records[place].level in ("WARN", "INFO", "DEBU") or (
            records[place].text.find(_TRACEBACK) > 40
        )
        indent = len(records[place].text) - len(records[place].text.lstrip())
        records[place].skip = True
        strangers = 0
        place += 1
        while place < len(records) and strangers < 6:
            record = records[place]
            text = record.text
            frame = _FRAME.match(text)
            if frame:
                if top is None:
                    # Code that a program evaluates is not the program.
                    top = frame[2] in (None, "<module>") and not frame[1].startswith("<")
                frames.append(text)
                record.skip = True
            elif text[:1] in (" ", "\t") and len(text) - len(text.lstrip()) > indent:
                record.skip = True
                frames.append(text)
            elif _FINAL.match(text.strip()) or (
                frames
                and re.match(r"^[\w.]+(?:: |$)", text.strip())
                and not record.level
                and not _PROGRESS.search(text)
            ):
                if ignored:
                    # What Python says at its end, of destructors.
                    record.skip = True
                    return place + 1
                self.tops[record.place] = bool(top) and not logged
                self.frames[record.place] = "\n".join(frames)
                self.chains[record.place] = chain
                return place + 1
            elif _TRACEBACK in text:
                return place
            else:
                strangers += 1
            place += 1
        return place

    def _match(self) -> None:
        """Make events of the lines that rules match."""
        likely = self._likely()
        patterns: dict[str, Pattern[str]] = {}
        full: Counter[tuple[int, str, str]] = Counter()
        for record in self.log.records:
            if record.skip or not record.low:
                continue
            if record.kernel and "xid" in record.low and self._xid(record):
                continue
            rules = likely.get(record.place, ())
            found = self._best(record, rules, patterns) if rules else None
            final = record.place in self.tops or (
                not record.kernel
                and record.level not in ("WARN", "INFO", "DEBU")
                and _FINAL.match(record.text) is not None
            )
            if found is None and final:
                found = Event("code-exception", record, None)
                found.hint = record.place not in self.tops
            if found is None:
                self._exit(record)
                continue
            key = (record.file, found.name, str(record.stream))
            full[key] += 1
            if full[key] <= KEPT // 10:
                found.exception = final
                found.dead = found.dead or self.tops.get(record.place, False)
                self.events.append(self._in_context(found))
            self._exit(record)

    def _likely(self) -> dict[int, list[Rule]]:
        """The rules whose words a record has, by its place: the fast part of matching."""
        lows = [record.low for record in self.log.records]
        # Progress differs in its numbers alone, and is most of a log.
        digits = dict.fromkeys(range(ord("1"), ord("9") + 1), "0")
        shapes = {low.translate(digits): low for low in reversed(lows)}
        text, sample = "\n".join(lows), "\n".join(shapes.values())
        starts = [0]
        for low in lows:
            starts.append(starts[-1] + len(low) + 1)
        found: dict[int, list[Rule]] = {}
        for rule in RULES:
            for word in rule.words.split("|"):
                if word not in (text if _DIGIT.search(word) else sample):
                    continue
                at = text.find(word)
                while at >= 0:
                    place = bisect.bisect_right(starts, at) - 1
                    rules = found.setdefault(place, [])
                    if not rules or rules[-1] is not rule:
                        rules.append(rule)
                    at = text.find(word, starts[place + 1])
        return found

    def _best(
        self, record: Record, rules: Iterable[Rule], patterns: dict[str, Pattern[str]]
    ) -> Event | None:
        best: Event | None = None
        quiet = record.level in ("WARN", "INFO", "DEBU")
        for rule in rules:
            if record.kernel != ("k" in rule.flags) and "a" not in rule.flags:
                continue
            if quiet and not self._counts_quietly(rule, record):
                continue
            # Compiling takes longer than all else: only what may match.
            pattern = patterns.get(rule.pattern)
            if pattern is None:
                pattern = patterns[rule.pattern] = re.compile(rule.pattern, re.I)
            match = pattern.search(record.text)
            if not match or self._unreal(record, match):
                continue
            if best is None or _rank_of(rule) < _rank_of(best.rule):
                groups = {key: value for key, value in match.groupdict().items() if value}
                best = Event(rule.name, record, rule, **groups)
        return best

    def _counts_quietly(self, rule: Rule, record: Record) -> bool:
        """Whether a warning or information can be evidence: only what libraries print so."""
        if record.place in self.tops:
            return True
        told = record.level == "WARN" or rule.source in _TELL_AS_INFORMATION
        return "w" in rule.flags and told

    def _unreal(self, record: Record, match: re.Match[str]) -> bool:
        """Whether the text is a quotation, a source line or documentation."""
        if record.kernel:
            return False
        text = record.text
        if record.place in self.tops:
            return False
        if record.level in ("ERRO", "FATA", "CRIT") and not _QUOTE.search(text, 0, match.start()):
            return False
        return bool(
            _SOURCE.match(text)
            or _QUOTE.search(text, 0, max(match.start(), 24) + 1)
            or _quoted_before(text, match.start())
        )

    def _in_context(self, event: Event) -> Event:
        """Refine a class by what stands around: frames of the traceback, hosts, paths."""
        text, name = event.record.text, event.name
        frames = self.frames.get(event.record.place, "")
        if (
            name in ("name-resolution", "endpoint-unreachable", "peer-lost")
            and (match := _EXTERNAL.search(text))
            and not self._ours(match[0])
        ):
            event.name = "external-service"
        elif (
            name == "cancelled" and "*** STEP" in text and not self.facts.state.startswith("CANC")
        ):
            # Slurm ends a step because one of its tasks failed.
            event.name, event.hint = "peer-lost", False
        elif name == "code-exception" and _CHECKS_FINITE.search(frames):
            event.name = "non-finite-loss"
        elif (
            name in ("data-corrupt", "code-exception")
            and _LOADS.search(frames)
            and (name == "data-corrupt" or _UNFIT.search(text))
        ):
            event.name = "checkpoint-unusable"
        elif (
            name == "data-missing"
            and "subprocess.py" in frames
            and not re.search(r"['\"][^'\"]*/[^'\"]*\.\w+['\"]", text)
        ):
            event.name = "software-missing"
        elif name == "permission-denied" and "squashfs" in text:
            event.name = "image-unusable"
        elif name == "software-missing" and re.search(r"libcuda\.so|libnvidia-ml", text):
            event.name = "container-gpu-missing"
        return event

    def _ours(self, text: str) -> bool:
        low = text.lower()
        return any(short in low for short in self.facts.short)

    def _xid(self, record: Record) -> bool:
        match = _XID.search(record.text)
        if not match:
            return False
        name, alone = XIDS.get(int(match[2]), ("", False))
        if not name:
            return True
        rule = Rule(name, "xid", _XID.pattern, "xid", "k" if alone else "k?")
        event = Event(name, record, rule, **({"pid": match[3]} if match[3] else {}))
        event.bus = _bus(match[1])
        self.events.append(event)
        return True

    def _exit(self, record: Record) -> None:
        if "noticed that process rank" in record.low:
            # The launcher ends all other ranks, whatever this one ended of.
            self.events.append(Event("peer-lost", record, None))
        if match := _EXIT.match(record.text):
            bad = bool(_BAD_EXIT.search(match["how"]))
            node = self.facts.node(match["node"])
            task = int(match["task"]) if not match["more"] else -1
            self.exits.append((record, node, task, bad, match["how"]))
        elif match := _SCRIPT.search(record.text):
            self.exits.append((record, None, -1, True, match[1]))

    def _milestones(self) -> None:
        eventful = {event.record.place for event in self.events}
        for record in self.log.records:
            if record.kernel or record.skip or record.place in eventful:
                continue
            may = record.level not in ("ERRO", "WARN") and _MAY_COMPLETE.search(record.low)
            if may and _COMPLETE.search(record.text):
                self.complete.append(record)
            elif _PROGRESS.search(record.low) and not _NO_PROGRESS.match(record.text):
                self.progress.append(record)

    # What does not count.

    def _attempts(self) -> None:
        """Forget what earlier attempts printed: after a failure, the job began again."""
        cut: dict[int, int] = {}
        ended: set[int] = set()
        moment: float | None = None
        failures = {event.record.place for event in self.events}
        ends = {e.record.place for e in self.events if e.dead or e.exception}
        first: dict[int, str] = {}
        for record in self.log.records:
            if record.kernel:
                continue
            if record.place in ends or _ENDED_BEFORE.search(record.text):
                ended.add(record.file)
            again = False
            if self.facts.restarts and len(record.text) > 15:
                shape = re.sub(r"\d+", "0", record.text)
                again = first.setdefault(record.file, shape) == shape
            if record.file in ended and (
                again or (record.place not in failures and _RESTART.search(record.text))
            ):
                cut[record.file] = record.place
                moment = record.time if record.time is not None else moment
        numbers = {
            index: int(match[1])
            for index, path in enumerate(self.log.paths)
            if (match := re.search(r"attempt[-_]?(\d+)", path))
        }
        latest = max(numbers.values(), default=0)
        start = self.facts.start
        both = {r.file for r in self.log.records if (r.time or 0) >= (start or 0)}
        for record in self.log.records:
            # Clocks differ by minutes; a program's may be in another time zone.
            early = (
                start is not None
                and record.time is not None
                and record.time < start - (60 if self.facts.restarts else 300)
                and (record.kernel or (self.facts.restarts > 0 and record.file in both))
            )
            # What a node's kernel logged after the job is another job's.
            late = (
                self.facts.end is not None
                and record.kernel
                and (record.time or 0) > self.facts.end + 300
            )
            if (
                record.place < cut.get(record.file, -1)
                or early
                or late
                or (numbers.get(record.file, latest) < latest)
            ) or (
                moment is not None
                and self.facts.restarts
                and record.time is not None
                and (record.time < moment - 1)
            ):
                record.old = True
        for group in (self.progress, self.complete):
            group[:] = [record for record in group if not record.old]
        self.exits = [found for found in self.exits if not found[0].old]

    def _belong(self) -> None:
        """Drop events of other jobs, other nodes and other GPUs."""
        ids = self.facts.ids
        for event in self.events:
            record = event.record
            # Slurm pads the id in the path of its script with zeros.
            named = {
                (match[1] or match[2]).lstrip("0") for match in _OTHER_JOB.finditer(record.text)
            }
            if record.old or (ids and named and not named & ids):
                event.alive = False
                if "pid" in event.groups and not record.old:
                    self.foreign_pids.add(int(event.groups["pid"]))
        for event in self.events:
            pid = event.groups.get("pid")
            if pid and int(pid) in self.foreign_pids:
                event.alive = False
            if event.bus and not self._our_gpu(event):
                event.alive = False
        self.events = [event for event in self.events if event.alive]

    def _our_gpu(self, event: Event) -> bool:
        """Whether a GPU is one of the job's, as far as its devices on that node are known."""
        node = event.record.node
        known = {
            bus: rank
            for (at, bus), rank in self.log.buses.items()
            if at is None or node is None or at == node
        }
        pid = event.groups.get("pid")
        if event.bus in known:
            event.groups["rank"] = str(known[event.bus])
            return True
        if pid and int(pid) in self.log.pids:
            return True
        return not (known and len(known) >= max(self.facts.gpus, 1))

    def _survive(self) -> None:
        """Mark events after which the same process, or the whole job, went on."""
        by_stream: dict[tuple[int, Any], list[int]] = {}
        by_rank: dict[int | None, list[int]] = {}
        for record in self.progress:
            by_stream.setdefault(record.stream, []).append(record.place)
            by_rank.setdefault(record.rank, []).append(record.place)
        done = [record.place for record in self.complete]
        for event in self.events:
            record = event.record
            if record.kernel:
                event.weak = self._recovered(record)
                continue
            if event.name in ("time-limit", "preempted", "cancelled", "container-gpu-missing"):
                continue
            if self._told_so(record) and not event.dead:
                event.weak = True
                continue
            later = sum(place > record.place for place in by_stream.get(record.stream, ()))
            same_file = sum(
                p.place > record.place and p.file == record.file for p in self.progress[-60:]
            )
            own = record.rank is not None and bool(by_rank.get(record.rank))
            if (
                later >= (1 if own else 2)
                or (same_file >= 6 and not event.dead)
                or (
                    not event.dead
                    and any(
                        place > record.place and self.log.records[place].file == record.file
                        for place in done
                    )
                )
            ):
                event.weak = True

    def _recovered(self, record: Record) -> bool:
        """Whether the kernel says later that a server answers again."""
        match = re.search(
            r"nfs: server (\S+) (?:not responding|.*timed out)|Connection to (\S+) ", record.text
        )
        if not match:
            return False
        good = f"nfs: server {match[1]} OK" if match[1] else f"Connection restored to {match[2]}"
        later = self.log.records[record.place + 1 :]
        return any(good in r.text for r in later if r.file == record.file)

    def _told_so(self, record: Record) -> bool:
        """Whether this line or the next of its stream says that the program goes on."""
        if _SURVIVED.search(record.text) and not _GIVEN_UP.search(record.text):
            return True
        count = 0
        for other in self.log.records[record.place + 1 : record.place + 40]:
            if other.stream != record.stream or other.skip:
                continue
            count += 1
            if (
                _SURVIVED.search(other.text)
                and not _GIVEN_UP.search(other.text)
                and (not _FINAL.match(other.text) and _TRACEBACK not in other.text)
            ):
                return True
            if count == 2:
                break
        return False


def _rank_of(rule: Rule | None) -> int:
    if rule is None:
        return len(_ORDER)
    if "!" in rule.flags:
        return -1
    return _ORDER[rule.name] + (100 if "?" in rule.flags and rule.name != "" else 0)


def _quoted_before(text: str, start: int) -> bool:
    """Whether a quotation is open where a match begins; JSON logs of errors are none."""
    before = text[:start]
    if '"py_callstack"' in text or re.match(r'\s*\{"message":', text):
        return False
    if before.count('"') % 2 and re.search(
        r'"(?:level|severity|lvl|levelname)"\s*:\s*"(?:error|'
        r"critical|fatal)",
        text,
        re.I,
    ):
        return False
    if before.count("`") % 2:
        return True
    key = re.search(r"(\w*)['\"]?\s*[:=,\[({]+\s*'[^']*$", before)
    if key and "'" in text[start:] and before.count("'") % 2:
        return not re.search(r"err|exc|msg|message|reason|detail", key[1], re.I) or (
            key[1].lower().startswith("on_")
        )
    return before.count('"') % 2 == 1 and '"' in text[start:] and not re.match(r'\s*File "', text)


class Verdict:
    """The diagnosis of one job."""

    def __init__(self, found: Findings) -> None:
        self.found, self.log, self.facts = found, found.log, found.facts
        self.name = "unknown"
        self.event: Event | None = None
        self.record: Record | None = None
        self.rank: int | None = None
        self.node: str | None = None
        self.many = False
        self.confidence = 0.5
        self._end = max(
            (
                r.time
                for r in self.log.records
                if r.time is not None and not r.kernel and not r.old
            ),
            default=None,
        )
        self._decide()
        if self.name not in ("healthy", "unknown"):
            self._locate()
        self.cascade = self._cascade()

    # The root.

    def _decide(self) -> None:
        good = self.facts.failed is False
        candidates = self._behind_zero() if good else self._candidates()
        best = min(candidates, key=self._key, default=None)
        if best is not None:
            best = self._mismatch() or self._scheduler(best) or self._explained(best, candidates)
            self._take(best)
        else:
            self._without()

    def _explained(self, best: Event, candidates: list[Event]) -> Event:
        """The event that explains the best one, though it is not before it."""
        for event in candidates:
            if best.name in EXPLAINS.get(event.name, ()) and not event.hint:
                return event
        return best

    def _take(self, event: Event) -> None:
        self.name, self.event, self.record = event.name, event, event.record
        tier = CLASSES[event.name].tier
        self.confidence = round(0.95 - 0.05 * min(tier, 6) - (0.2 if event.hint else 0.0), 2)

    def _candidates(self) -> list[Event]:
        """Events that may be the root: alive, no victims, hardware only in its time."""
        events = self.found.events
        named = [e for e in events if e.name not in ("", "peer-lost") and not e.weak]
        memory = {e.name for e in named if e.record.kernel}
        if "node-oom" in memory and "host-oom" not in memory:
            # Slurm counts processes that the kernel killed for the node's sake, too.
            named = [e for e in named if e.name != "host-oom"]
        victims = any(e.name in ("", "peer-lost", "hang") for e in events)
        result = []
        for event in named:
            killed = event.name in ("host-oom", "node-oom")
            if event.record.kernel and not killed and not self._in_time(event):
                continue
            if event.name == "cancelled" and not self._cancels(event):
                continue
            if event.name == "native-crash" and event.hint and victims:
                continue
            if event.name == "code-exception" and event.hint and self._is_noise(event):
                continue
            result.append(event)
        return result

    def _is_noise(self, event: Event) -> bool:
        """Whether a bare line of an error repeats what a traceback said, or precedes nothing."""
        return any(
            other.exception and not other.hint and other is not event
            for other in self.found.events
        )

    def _cancels(self, event: Event) -> bool:
        whole = "*** JOB" in event.record.text.upper() or "Force" in event.record.text
        return self.facts.state.startswith("CANCELLED") or (
            whole and not self.facts.state and "DUE TO" not in event.record.text
        )

    def _in_time(self, event: Event) -> bool:
        """Whether a hardware event is near the end of the program's progress."""
        at = event.record.time
        times = [r.time for r in self.found.progress if r.time is not None]
        if at is None or not times:
            return True
        later = [time for time in times if time > at + 600]
        return len(later) < 5 or (event.name == "node-hardware" and not later)

    def _key(self, event: Event) -> tuple[float, int, float, int]:
        record = event.record
        tier = CLASSES[event.name].tier + (0.5 if event.hint else 0.0)
        after = self._after_end(record)
        if after:
            tier += 4
        if event.name in ("code-exception",) and not event.dead and event.hint:
            tier += 0.5
        if event.name == "node-failure" and self.facts.state == "NODE_FAIL":
            tier = 1.5
        if event.name == "host-oom" and self.facts.state == "OUT_OF_MEMORY":
            tier = 0.9
        at = record.time if record.time is not None else float("inf")
        # Launchers only report what a process has told better.
        report = (
            bool(
                re.match(
                    r"srun: |slurmstepd|\s+(?:traceback|exitcode)\s+:|.*slurm_script: ",
                    record.text,
                )
            )
            and event.name == "native-crash"
        )
        # One that names the node says more than one that names the first.
        report = report or (event.name == "node-failure" and "node" not in event.groups)
        return (tier, int(report), at // 5 if at != float("inf") else at, record.place)

    def _after_end(self, record: Record) -> bool:
        """Whether Slurm had already ended the job or step when a line was printed."""
        for event in self.found.events:
            if (
                event.name in ("time-limit", "preempted", "cancelled")
                and event.rule
                and ("CANCELLED AT" in event.record.text)
            ):
                if event.record is record:
                    return False
                if event.record.file == record.file and event.record.place < record.place:
                    return True
                if (
                    event.record.file != record.file
                    and None not in (event.record.time, record.time)
                    and not event.hint
                    and ((event.record.time or 0) < (record.time or 0))
                ):
                    return True
        return False

    def _scheduler(self, best: Event) -> Event | None:
        """Preemption and cancellation beat what the program said after them."""
        state = self.facts.state
        want = {"PREEMPTED": "preempted"}.get(state) or (
            "cancelled" if state.startswith("CANCELLED") else None
        )
        if want is None or best.name in (want, *HARDWARE):
            return None
        ends = [event for event in self.found.events if event.name == want and not event.weak]
        if not ends:
            return None
        tier = self._key(best)[0]
        return ends[0] if tier >= CLASSES[want].tier + 1 or self._after_end(best.record) else None

    def _mismatch(self) -> Event | None:
        """Time-outs of one sequence number in different operations: ranks disagree."""
        seen: dict[str, dict[tuple[str, str], list[Event]]] = {}
        for event in self.found.events:
            match = re.search(r"SeqNum=(\d+), OpType=(\w+)(?:, NumelIn=(\d+))?", event.record.text)
            if event.name == "hang" and match:
                kinds = seen.setdefault(match[1], {})
                kinds.setdefault((match[2], match[3] or ""), []).append(event)
        candidates = [e for e in self._candidates() if CLASSES[e.name].tier <= 4]
        for kinds in seen.values():
            if len(kinds) > 1 and not candidates:
                few = min(kinds.values(), key=len)
                event = Event("collective-mismatch", few[0].record, few[0].rule)
                if len(few) == 1 and sum(map(len, kinds.values())) > 2:
                    return event
                return event
        return None

    def _behind_zero(self) -> list[Event]:
        """Failures that exit status 0 hides: a process surely ended, and nothing went well."""
        done = self.found.complete
        result = []
        for event in self._candidates():
            record = event.record
            later = any(r.place > record.place for r in done if r.file == record.file)
            trained = any(r.place > record.place and "train" in r.low for r in done)
            if event.exception and self._logs_after(record):
                continue
            ended = event.dead or (event.exception and not later)
            if record.kernel or (event.name in ("hang", "time-limit", "native-crash") and later):
                continue
            if event.name == "container-gpu-missing":
                if self.facts.gpus and self._on_cpu():
                    result.append(event)
                continue
            if event.hint or trained or (later and not self._main_died(event)):
                continue
            if not event.dead and self._progress_after(record):
                continue
            if ended or (
                not done
                and not self._progress_after(record)
                and event.record.level not in ("WARN", "INFO")
            ):
                result.append(event)
        return result

    def _logs_after(self, record: Record) -> bool:
        """Whether the same stream logs on, as only a living program does."""
        later = self.log.records[record.place + 1 : record.place + 400]
        return any(r.stream == record.stream and r.level in ("INFO", "DEBU") for r in later)

    def _main_died(self, event: Event) -> bool:
        return event.dead and event.exception

    def _progress_after(self, record: Record) -> bool:
        return any(r.place > record.place and r.file == record.file for r in self.found.progress)

    def _on_cpu(self) -> bool:
        """Whether the program says that it uses the CPU though GPUs were allocated."""
        hits = [e for e in self.found.events if e.name == "container-gpu-missing"]
        return len(hits) >= 2 or any(
            re.search(r"\bcpu\b|cuInit|GPU available: False|not available", e.record.text, re.I)
            for e in hits
        )

    def _singletons(self) -> Record | None:
        """The line of the second process that believes to be rank 0 of 1."""
        found = [
            r
            for r in self.log.records
            if not r.old
            and re.search(
                r"\brank\W{0,3}0 (?:of|out of|/) ?1\b|\b0/1\b|world.?size\W{0,3}1\b|"
                r"size\W{1,3}1\b.{0,20}"
                r"rank\W{1,3}0\b|\bprocess(?:or)? 0 (?:of|out of) 1\b",
                r.text,
                re.I,
            )
        ]
        if self.facts.tasks > 1 and len(found) >= max(2, min(self.facts.tasks, len(found))):
            return found[0]
        return None

    def _without(self) -> None:
        """Decide without an event: by what Slurm says, and by silence."""
        state = self.facts.state
        single = self._singletons()
        if single is not None:
            self.name, self.record = "mpi-startup-failed", single
        elif self.facts.failed is False:
            self.name, self.confidence = "healthy", 0.9
        elif state in ("TIMEOUT", "DEADLINE"):
            self.name = "time-limit"
        elif state == "OUT_OF_MEMORY":
            self.name = "host-oom"
        elif state in ("NODE_FAIL", "BOOT_FAIL"):
            self.name = "node-failure"
        elif state == "PREEMPTED":
            self.name = "preempted"
        elif state.startswith("CANCELLED"):
            self.name = "cancelled"
        elif re.search(r"launch failed|JobHeldAdmin|Prolog", self.facts.reason, re.I):
            self.name = "launch-failed"
        elif self.facts.failed is None and (self.found.complete or not self.log.records):
            self.name = "healthy"
        if self.name == "unknown":
            self.confidence = 0.6
        self._silence()

    def _silence(self) -> None:
        """A job that said nothing long before its time limit hung."""
        live = [r for r in self.log.records if not r.old and not r.kernel and r.text.strip()]
        if self.record is None and live and self.name != "healthy":
            self.record = live[-1]

    def quiet_since(self) -> Record | None:
        """The last line of progress if nothing came for long before the time limit."""
        times = [
            r
            for r in self.log.records
            if not (r.old or r.kernel or r.time is None or _ENDING.search(r.text))
            and r.text.strip()
        ]
        ended = [e.record for e in self.found.events if e.name == "time-limit"]
        end = self.facts.end
        if end is None and self.facts.start is not None and self.facts.elapsed:
            end = self.facts.start + self.facts.elapsed
        if not times or end is None:
            return None
        last = max(times, key=lambda r: (r.time or 0, r.place))
        gap = end - (last.time or 0)
        steps = sorted(r.time for r in self.found.progress if r.time is not None)
        if len(steps) < 3:
            return None
        usual = max(
            (
                b - a
                for a, b in zip(steps, steps[1:])  # noqa: B905, RUF007
            ),
            default=0.0,
        )
        whole = max(self.facts.elapsed, 1)
        if ended and gap > max(600, 0.2 * whole, 6 * usual) and self.found.progress:
            return last
        return last if gap > max(900, 0.3 * whole, 6 * usual) and self.found.progress else None

    # Where.

    def _locate(self) -> None:
        if self.name == "time-limit" and (last := self.quiet_since()) is not None:
            self.name, self.record, self.event = "hang", last, None
            self.rank = self._slowest()
            self.node = self.facts.node_of(self.rank) if self.rank is not None else None
            return
        if self.name in ("time-limit", "cancelled", "preempted"):
            return
        if self.name in ("hang", "rendezvous-timeout"):
            self._locate_absent()
            return
        record = self.record
        assert record is not None or self.event is None  # noqa: S101
        if record is not None:
            self._locate_event(record)
        if self.node is None and len(self.facts.nodes) == 1:
            self.node = self.facts.nodes[0]
        if self.rank is None and self.facts.world == 1 and not self.many:
            self.rank = 0

    def _same(self) -> list[Event]:
        return [e for e in self.found.events if e.name == self.name and not e.weak]

    def _locate_event(self, record: Record) -> None:
        event, facts = self.event, self.facts
        ranks = {e.record.rank for e in self._same() if e.record.rank is not None}
        each = max(facts.world, 1)
        self.many = len(ranks) > 1 and (len(ranks) >= each or len(ranks) >= max(3, each // 2 + 1))
        if self.many:
            nodes = {facts.node_of(rank) for rank in ranks}
            self.node = nodes.pop() if len(nodes) == 1 else None
            return
        groups = event.groups if event else {}
        self.rank, self.node = record.rank, record.node
        if self.rank is None and "pid" in groups:
            self.rank = self.log.pids.get(int(groups["pid"]))
        if self.rank is None and "rank" in groups and int(groups["rank"]) < facts.world:
            self.rank = int(groups["rank"])
        if self.rank is None and "task" in groups:
            self.rank = self._task(int(groups["task"]))
        if "node" in groups:
            self.node = facts.node(groups["node"]) or self.node
        self._from_exits(record)
        self._from_report()
        if self.node is None:
            self.node = self._named_node(record)
        if self.node is None and self.rank is None and self.name not in ("step-rejected",):
            # Other messages of the same cause may say where.
            said = {e.record.node or self._named_node(e.record) for e in self._same()} - {None}
            self.node = said.pop() if len(said) == 1 else None
        if self.node is None and self.rank is not None:
            self.node = facts.node_of(self.rank)
        if self.rank is None and self.node and facts.per_node() == 1:
            self.rank = facts.nodes.index(self.node) if self.node in facts.nodes else None

    def _task(self, task: int) -> int | None:
        """The rank of a task in a control group's path; it counts globally or on a node."""
        each = self.facts.per_node()
        if not each or self.node not in self.facts.nodes:
            return task if task < self.facts.world else None
        first = self.facts.nodes.index(self.node) * each
        return task if first <= task < first + each else first + task if task < each else None

    def _named_node(self, record: Record) -> str | None:
        """The only node of the job that a line names."""
        low = record.low
        named = [
            node
            for short, node in self.facts.short.items()
            if re.search(rf"(?<![\w-]){re.escape(short)}(?![\w-])", low)
        ]
        return (
            named[0]
            if len(named) == 1 and self.name not in ("endpoint-unreachable", "name-resolution")
            else None
        )

    def _from_exits(self, record: Record) -> None:
        """Slurm's report of the first task that failed, for messages without a rank."""
        if self.rank is not None or self.name in ("step-rejected", "launch-failed"):
            return
        wanted = {
            "host-oom": "Out Of Memory|Killed",
            "node-oom": "Killed|Out Of",
            "native-crash": "Segm|Abort|Bus|Illeg|Float",
        }.get(self.name, "")
        bad = [
            x
            for x in self.found.exits
            if x[3] and (self.node is None or x[1] in (None, self.node))
        ]
        fit = [x for x in bad if wanted and re.search(wanted, x[4])] or bad
        if not fit:
            return
        _, node, task, _, _ = fit[0]
        others = {x[2] for x in fit if x[2] >= 0}
        if record.rank is None and (len(others) == 1 or wanted):
            self.node = self.node or node
            nodes_only = self.facts.tasks == len(self.facts.nodes) < self.facts.world
            if task >= 0 and not nodes_only:
                self.rank = task

    def _from_report(self) -> None:
        """Torchrun's report of the first failure, for messages without a rank."""
        report = self.log.root_report
        rank = re.match(r"\d+", report.get("rank", ""))
        if not rank:
            return
        host = self.facts.node(report.get("host"))
        if (
            self.rank is None
            and self.node in (None, host)
            and self.name not in ("step-rejected", "launch-failed", "collective-mismatch")
        ):
            self.rank = int(rank[0])
        if self.rank == int(rank[0]) and self.node is None:
            self.node = host

    def _locate_absent(self) -> None:
        """The rank that does not report, is named as absent, or is behind."""
        facts = self.facts
        events = self._same()
        absent: set[int] = set()
        for event in events:
            if text := event.groups.get("absent"):
                absent |= {int(number) for number in re.findall(r"\d+", text)}
        absent = absent or self._listed_tasks()
        if not absent:
            absent = self._unheard(events)
        absent = {rank for rank in absent if rank < max(facts.world, 1)}
        if len(absent) == 1:
            self.rank = absent.pop()
            self.node = facts.node_of(self.rank)
            sizes = [
                int(m[1])
                for r in self.log.records
                if (
                    m := re.search(
                        r"(?:reached the barrier|waiting for clients)\W{1,2}\d+/(\d+)", r.text
                    )
                )
            ]
            if sizes and sizes[0] == len(facts.nodes) > self.rank:
                # One process for each node, whatever srun started.
                self.node = facts.nodes[self.rank]
        elif absent:
            nodes = {facts.node_of(rank) for rank in absent}
            self.node = nodes.pop() if len(nodes) == 1 else None
        if self.rank is None and self.node is None and self.name == "rendezvous-timeout":
            heard: set[str | None] = {r.node for r in self.log.records if r.node and not r.kernel}
            heard |= {facts.node_of(r.rank) for r in self.log.records if r.rank is not None}
            silent = [node for node in facts.nodes if node not in heard]
            self.node = silent[0] if len(silent) == 1 else None
        if self.rank is None and self.name == "hang":
            self.rank = self._behind(events)
            self.node = facts.node_of(self.rank) if self.rank is not None else self.node

    def _unheard(self, events: list[Event]) -> set[int]:
        """Ranks that say nothing of a time-out which the others report."""
        heard = {e.record.rank for e in events if e.record.rank is not None}
        for event in events:
            if "rank" in event.groups:
                heard.add(int(event.groups["rank"]))
        everyone = set(range(self.facts.world))
        if self.name == "hang":
            few = len(heard) * 2 < len(everyone) or (len(heard) == 1 and len(everyone) > 2)
            return set() if few else everyone - heard
        joined = {r.rank for r in self.log.records if r.rank is not None and not r.kernel}
        missing = everyone - joined
        if len(missing) * 2 <= len(everyone):
            return missing
        return set()

    def _listed_tasks(self) -> set[int]:
        """Tasks that a coordination service or Horovod lists as absent."""
        absent: set[int] = set()
        listing = 0
        for record in self.log.records:
            if record.old:
                continue
            if "timed out task names" in record.low or "missing ranks" in record.low:
                listing = 8
                tail = record.text[max(record.low.find("timed out task names"), 0) :]
                absent |= (
                    {int(n) for n in re.findall(r"/task:(\d+)", tail)}
                    if "names" in (record.low)
                    else set()
                )
            elif listing:
                listing -= 1
                match = re.match(r"\s*(?:/job:\S+/task:(\d+)|(\d+): ?\[)", record.text)
                if match:
                    absent.add(int(match[1] or match[2]))
                elif record.label is not None and record.text.startswith("["):
                    absent.add(record.label)
        return absent

    def _behind(self, events: list[Event]) -> int | None:
        """The one rank whose sequence number or step is lower than that of all others."""
        last: dict[int, int] = {}
        for event in events:
            match = re.search(
                r"SeqNum=(\d+)|last (?:enqueued|completed) NCCL work: (\d+)", event.record.text
            )
            if match and event.record.rank is not None:
                last[event.record.rank] = int(match[1] or match[2])
        return _lowest(last) if last else self._slowest()

    def _slowest(self) -> int | None:
        steps: dict[int, int] = {}
        for record in self.found.progress:
            match = re.search(r"(?:step|iter(?:ation)?|batch)\W{0,4}(\d+)", record.text, re.I)
            if match and record.rank is not None:
                steps[record.rank] = int(match[1])
        return _lowest(steps) if len(steps) == self.facts.world > 1 else None

    # What followed.

    def _cascade(self) -> list[dict[str, Any]]:
        if self.name == "healthy":
            return []
        wanted = set(FOLLOWS.get(self.name, ()))
        if self.name not in ("time-limit", "preempted", "cancelled", "unknown"):
            wanted |= set(WAITING)
            if self.name in HARDWARE:
                wanted.add("node-failure")
        wanted.discard(self.name)
        wanted.add("peer-lost")
        groups: dict[str, list[Event]] = {}
        for event in self.found.events:
            if event.name in wanted and self._follows(event):
                groups.setdefault(event.name, []).append(event)
        if self.facts.state == "TIMEOUT" and "time-limit" in wanted and "time-limit" not in groups:
            groups["time-limit"] = []
        return [self._told(name, events) for name, events in groups.items()]

    def _follows(self, event: Event) -> bool:
        if event.name != "peer-lost":
            if event.hint or (event.name, self.name) == (
                "endpoint-unreachable",
                "name-resolution",
            ):
                return False
            return not event.weak or event.name == "time-limit"
        if event.hint or event.weak:
            return False
        by_slurm = event.rule is not None and event.rule.source == "slurm"
        if by_slurm and self.name in ("time-limit", "preempted", "cancelled", "hang"):
            stopped = [e for e in self.found.events if e.name in ("time-limit", "preempted")]
            return not stopped and self.name == "hang"
        alone = self.facts.world == 1
        if self.name == "mpi-startup-failed" and not by_slurm:
            return False
        own = (
            self.record is not None
            and event.record.rank is not None
            and event.record.rank == self.rank
            and self.name != "unknown"
            and event.record.file == self.record.file
        )
        return not alone and not (own and not by_slurm)

    def _told(self, name: str, events: list[Event]) -> dict[str, Any]:
        told: dict[str, Any] = {"class": name}
        if events:
            told["ranks"] = sorted({e.record.rank for e in events if e.record.rank is not None})
            told["evidence"] = self._evidence(events[0].record)
        return told

    def _evidence(self, record: Record | None) -> dict[str, Any] | None:
        if record is None:
            return None
        return {"file": self.log.file(record), "line": record.number, "text": record.text[:500]}

    # What to do.

    def answer(self) -> dict[str, Any]:
        """The diagnosis as a value for JSON; a how-to of the documentation lists its keys."""
        kind = CLASSES[self.name]
        fault, retry = self._fault(kind)
        avoid = [self.node] if self.node and fault in ("hardware", "admin") else []
        where = [f"rank {self.rank}"] if self.rank is not None else []
        where += [f"node {self.node}"] if self.node else []
        step = f"{kind.next} ({', '.join(where)})" if where else kind.next
        return {
            "schema": SCHEMA,
            "job": self.facts.id,
            "root": {
                "class": self.name,
                "group": kind.group,
                "rank": self.rank,
                "node": self.node,
                "evidence": self._evidence(self.record if self.name != "healthy" else None),
                "confidence": self.confidence,
            },
            "cascade": self.cascade,
            "fault": fault,
            "retry": retry,
            "avoid_nodes": avoid,
            "next": [step],
        }

    def _fault(self, kind: Class) -> tuple[str, bool]:
        """The usual fault, unless the evidence names another."""
        text = self.record.text if self.record is not None else ""
        some = bool(self.node) and len(self.facts.nodes) > 1
        if (
            self.name
            in (
                "image-not-found",
                "image-unusable",
                "container-gpu-missing",
                "container-mount-failed",
                "name-resolution",
            )
            and some
            and not self.many
        ):
            return "admin", True
        if self.name == "image-not-found":
            return "user", False
        if self.name == "gpu-oom" and re.search(r"Process \d+ has [\d.]+ GiB memory in use", text):
            return "admin", True
        if self.name == "filesystem-error" and re.search(
            r"medium error|I/O error, dev|nvme", text
        ):
            return "hardware", True
        if (
            self.name in ("disk-full", "shm-exhausted")
            and re.search(r"/dev/shm|/tmp|/local|/var", text)
            and some
        ):
            return "admin" if self.name == "disk-full" else "user", True
        return kind.fault, kind.retry


def _lowest(numbers: dict[int, int]) -> int | None:
    low = min(numbers.values())
    behind = [rank for rank, number in numbers.items() if number == low]
    return behind[0] if len(behind) == 1 < len(numbers) else None


def diagnose(job: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return the diagnosis of a job as a value for JSON.

    :param job: what Slurm knows of the job; fields may be missing.
    :param paths: text files with the job's output and logs of its nodes.
    :raises OSError: if a file cannot be read.
    """
    log = Log(Facts(job), list(paths))
    return Verdict(Findings(log)).answer()


def told(answer: dict[str, Any]) -> str:
    """The diagnosis in a few lines for people."""
    root = answer["root"]
    kind = CLASSES[root["class"]]
    where = [f"rank {root['rank']}"] if root["rank"] is not None else []
    where += [f"node {root['node']}"] if root["node"] else []
    name = f"job {answer['job']}" if answer["job"] is not None else "this job"
    lines = [
        f"{name}: {root['class']}" + (f" ({', '.join(where)})" if where else ""),
        f"  {kind.meaning}",
    ]
    if root["evidence"]:
        at = root["evidence"]
        lines.append(f"  {at['file']}:{at['line']}: {at['text'].strip()[:160]}")
    if answer["cascade"]:
        lines.append("  followed by: " + ", ".join(one["class"] for one in answer["cascade"]))
    retry = "yes" if answer["retry"] else "no"
    lines.append(f"  fault: {answer['fault']}; retry: {retry}")
    lines += [f"  next: {step}" for step in answer["next"]]
    return "\n".join(line.translate(_CONTROL) for line in lines)


# Logs may hold what moves a terminal's cursor.
_CONTROL = {code: "?" for code in (*range(32), *range(127, 160)) if code != 10}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="diagnose_training_failure.py",
        description="Names the root cause of a failed training job from its logs.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--job", metavar="FILE", help="what Slurm knows of the job, as JSON")
    parser.add_argument("files", nargs="*", metavar="FILE", help="output and logs of the job")
    options = parser.parse_args(arguments)
    if not options.files and not options.job:
        parser.error("no files: give the job's output, or --job FILE")
    try:
        answer = diagnose(_read_job(options.job), options.files)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        name = getattr(error, "filename", None) or options.job
        print(f"diagnose_training_failure: cannot read {name}: {reason}", file=sys.stderr)
        return 2
    text = json.dumps(answer) if options.json else told(answer)
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.flush()
    return 0


def _read_job(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    with open(path, "rb") as file:
        job = json.loads(file.read().decode("utf-8", "replace"))
    if not isinstance(job, dict):
        raise ValueError("not a JSON object")
    return job


if __name__ == "__main__":
    sys.exit(main())
