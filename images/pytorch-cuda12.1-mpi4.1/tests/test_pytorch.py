"""What the PyTorch image promises: the releases in its name, and numbers that are right."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from sifline.imagetests import Container, run_file
from sifline.imagetests.python import installed, locked, printed, python

FOLDER = Path(__file__).parents[1]
LOCKS = [
    FOLDER / "torch.lock",
    FOLDER / "tools.lock",
    FOLDER.parent / "python-mpi4.1" / "mpi4py.lock",
]
# What takes seconds to import.
TORCH = ["torch", "torchvision", "torchaudio"]


# Releases


def test_the_frameworks_are_those_of_the_name(container: Container) -> None:
    found = printed(
        python(
            container,
            "import json, torch, torchaudio, torchvision\n"
            "print(json.dumps([torch.__version__, torch.version.cuda, torchaudio.__version__,"
            " torchvision.__version__]))",
            loaded=TORCH,
        )
    )
    assert [text.partition("+")[0] for text in found] == ["2.4.0", "12.1", "2.4.0", "0.19.0"]


def test_it_holds_what_the_lock_files_say_and_nothing_else(container: Container) -> None:
    if container.name != FOLDER.name:
        pytest.skip("an image built on this one holds what it likes besides")
    found, wanted = installed(container), locked(container, LOCKS)
    assert {name: found.get(name) for name in wanted} == wanted
    # It comes with every environment.
    assert found.keys() - wanted.keys() == {"pip"}


def test_what_is_installed_fits_together(container: Container) -> None:
    ran = container.run(["pip", "check"])
    assert (ran.returncode, ran.stdout.strip()) == (0, "No broken requirements found.")


# Numbers


def test_a_small_network_learns(container: Container) -> None:
    source = """
import json, torch
torch.manual_seed(1)
x = torch.linspace(-1, 1, 64)[:, None]
y = x ** 2
net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
opt = torch.optim.Adam(net.parameters(), lr=0.05)
losses = []
for _ in range(100):
    opt.zero_grad()
    loss = torch.nn.functional.mse_loss(net(x), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(json.dumps([losses[0], losses[10], losses[-1]]))
"""
    first, early, last = printed(python(container, source, loaded=TORCH))
    assert first > early > last
    assert last < first / 100


def test_a_matrix_product_is_that_of_numpy(container: Container) -> None:
    source = """
import json, numpy, torch
numbers = numpy.random.default_rng(7)
a, b = (numbers.standard_normal((300, 300)) for _ in range(2))
theirs = a @ b
ours = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
print(json.dumps([float(abs(ours - theirs).max()), float(abs(theirs).max())]))
"""
    difference, largest = printed(python(container, source, loaded=TORCH))
    assert difference < 1e-10 < largest


def test_images_and_sounds_are_processed(container: Container) -> None:
    source = """
import json, math, torch, torchaudio, torchvision
image = torch.arange(16.).reshape(1, 4, 4)
flipped = torchvision.transforms.functional.hflip(image)
kept = torchvision.ops.nms(torch.tensor([[0., 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6]]),
                           torch.tensor([0.9, 0.8, 0.7]), 0.5)
tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
heard = torchaudio.transforms.Spectrogram(n_fft=400)(tone).mean(dim=1).argmax()
print(json.dumps([flipped[0, 0].tolist(), kept.tolist(), int(heard) * 16000 / 400]))
"""
    assert printed(python(container, source, loaded=TORCH)) == [[3, 2, 1, 0], [0, 2], 1000.0]


def test_data_loaders_with_workers_give_every_item_once(container: Container) -> None:
    """Workers share memory through /dev/shm: where it is too small they die."""
    source = """
import json, torch
from torch.utils.data import DataLoader, TensorDataset
def main():
    items = TensorDataset(torch.arange(1000))
    loader = DataLoader(items, batch_size=100, num_workers=2, shuffle=True)
    print(json.dumps(sorted(int(x) for (batch,) in loader for x in batch) == list(range(1000))))
if __name__ == "__main__":
    main()
"""
    assert printed(python(container, source, loaded=TORCH)) is True


def test_the_compiler_of_pytorch_works(container: Container) -> None:
    source = """
import json, torch
torch.manual_seed(0)
def f(x):
    return (torch.sin(x) ** 2 + torch.cos(x) ** 2).sum()
x = torch.randn(1000)
print(json.dumps([float(torch.compile(f)(x)), float(f(x))]))
"""
    compiled, plain = printed(python(container, source, loaded=TORCH))
    assert compiled == pytest.approx(1000, rel=1e-5)
    assert plain == pytest.approx(1000, rel=1e-5)


# Several processes


def test_four_processes_train_one_model_together(container: Container) -> None:
    program = (resources.files("sifline") / "nodeside" / "training.py").read_text("utf-8")
    ran = run_file(
        container, program, ["torchrun", "--standalone", "--nproc-per-node", "4"], name="train.py"
    )
    assert ran.returncode == 0, ran.stderr
    found = sorted(map(json.loads, ran.stdout.splitlines()), key=lambda item: int(item["rank"]))
    assert [(item["rank"], item["size"], item["sum"]) for item in found] == [
        (rank, 4, 10) for rank in range(4)
    ]
    for item in found:
        assert item["last"] < 1e-6 < item["first"]
        assert item["spread"] == 0
        assert (item["weights"], item["bias"]) == ([2.0, -3.0, 0.5], 0.25)


def test_processes_that_do_not_average_end_apart(container: Container) -> None:
    """The test above can fail: without DistributedDataParallel the parameters differ."""
    program = (resources.files("sifline") / "nodeside" / "training.py").read_text("utf-8")
    alone = "model = DistributedDataParallel(torch.nn.Linear(TRUE.shape[1], 1))"
    assert alone in program
    program = (
        program.replace(alone, "model = torch.nn.Sequential(torch.nn.Linear(TRUE.shape[1], 1))")
        .replace("return model.module, first", "return model[0], first")
        .replace("STEPS = 200", "STEPS = 3")
    )
    ran = run_file(
        container, program, ["torchrun", "--standalone", "--nproc-per-node", "2"], name="train.py"
    )
    assert ran.returncode == 0, ran.stderr
    assert all(json.loads(line)["spread"] > 0.01 for line in ran.stdout.splitlines())


# What is not in it


def test_no_ssh_host_key_is_shared_by_all_copies(container: Container) -> None:
    found = container.run(["sh", "-c", "ls -d /etc/ssh/ /etc/ssh/ssh_host_* 2> /dev/null"])
    assert found.stdout == "/etc/ssh/\n"
