"""Inference: compiled when that saves time, with smaller batches when memory is short."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._inductor

from tl_dagster import InputError
from tl_dagster.backbones import compiled, inference
from tl_dagster.backbones.inference import InferenceRunner
from tl_dagster.runtime.hardware import batch_size_for

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


class Small(torch.nn.Module):
    """Two outputs; as a GPU would, it has no memory for more than ``most`` images."""

    def __init__(self, most: int = 99) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.most = most

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        values = self.body(images)
        return [values.mean((2, 3)), values.amax((2, 3))]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def made(precision: str = "fp32", batch_size: int = 4, most: int = 99) -> InferenceRunner:
    return InferenceRunner(lambda: Small(most).eval(), ["small"], precision, [0.5] * 3, [0.5] * 3, batch_size)


def test_a_part_of_a_batch_gives_the_same_rows():
    whole, part = made()(PIXELS)(), made()(PIXELS[:3])()
    assert [output.shape for output in part] == [(3, 8), (3, 8)]
    assert all(torch.equal(a[:3], b) for a, b in zip(whole, part, strict=True))


def test_compiled_once_and_kept(monkeypatch, home):
    monkeypatch.setattr(inference, "COMPILE_SECONDS", 0.0)
    lines: list[str] = []
    first = made()
    first.consider_compiling(PIXELS, 10**6, lines.append)
    assert first.compiled and "compiling takes about" in lines[0]
    outputs = first(PIXELS)()
    torch.testing.assert_close(outputs, made()(PIXELS)())
    lines.clear()
    second = InferenceRunner(lambda: pytest.fail("it is not needed"), ["small"], "fp32", [0.5] * 3, [0.5] * 3, 4)
    second.consider_compiling(PIXELS, 1, lines.append)  # however little there is to do: it is there
    assert second.compiled and not lines
    assert all(torch.equal(a, b) for a, b in zip(second(PIXELS)(), outputs, strict=True))

    (library,) = (home / "tl-dagster").glob("*.pt2")
    library.write_bytes(b"damaged")
    third = made()
    third.consider_compiling(PIXELS, 1, lines.append)
    assert not third.compiled and "cannot be used" in lines[0] and not library.exists()


class ChangedLoader:
    """The private loader of another release of torch, which takes other arguments."""

    def __init__(self, path: str) -> None:
        pass


@pytest.mark.parametrize("private", [SimpleNamespace(), SimpleNamespace(AOTIModelPackageLoader=ChangedLoader)])
def test_without_the_private_loader_the_public_one_gives_the_same(monkeypatch, home, private):
    lines: list[str] = []
    first = made()
    first.consider_compiling(PIXELS, 1, lines.append, always=True)
    (library,) = (home / "tl-dagster").glob("*.pt2")
    # As compiled.py sees torch: the public function of this release uses the same class.
    monkeypatch.setattr(compiled, "torch", SimpleNamespace(_C=SimpleNamespace(_aoti=private)))
    loaded = compiled.load_compiled(library)
    images = torch.from_numpy(PIXELS)
    assert first.compiled and not lines
    assert all(torch.equal(a, b) for a, b in zip(loaded(images), first(PIXELS)(), strict=True))


def test_without_the_compiler_of_torch_it_runs_uncompiled(monkeypatch):
    monkeypatch.delattr(torch._inductor, "aoti_compile_and_package")
    lines: list[str] = []
    network = made()
    network.consider_compiling(PIXELS, 1, lines.append, always=True)
    assert not network.compiled and "cannot be compiled" in lines[0]
    assert all(torch.equal(a, b) for a, b in zip(network(PIXELS)(), made()(PIXELS)(), strict=True))


def test_little_work_is_not_compiled(home):
    lines: list[str] = []
    little = made()
    little.consider_compiling(PIXELS, 100, lines.append)
    assert not little.compiled and not lines and not (home / "tl-dagster").exists()


def test_without_a_compiler_it_runs_eagerly(monkeypatch):
    monkeypatch.setattr(inference, "COMPILE_SECONDS", 0.0)
    lines: list[str] = []
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        without.delenv("CXX", raising=False)
        made().consider_compiling(PIXELS, 10**6, lines.append)
    assert "no C++ compiler" in lines[0]
    monkeypatch.setenv("CXX", "/bin/false")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/bin/false"))
    broken = made()
    broken.consider_compiling(PIXELS, 10**6, lines.append)
    assert not broken.compiled and "runs uncompiled" in lines[-1]
    assert len(broken(PIXELS)()[0]) == 4


def test_out_of_memory_halves_the_batch():
    whole, tight = made()(PIXELS)(), made(most=1)
    torch.testing.assert_close(tight(PIXELS)(), whole)
    assert tight.batch_size == 1
    with pytest.raises(InputError, match=r"choose a smaller backbone.image_size"):
        made(most=0)(PIXELS)


def test_precision_error():
    half = made("bf16")
    found = half.precision_error(PIXELS)
    assert len(found) == 2 and all(0 < each["median"] <= each["largest"] < 0.02 for each in found)
    assert half(PIXELS)()[0].dtype == torch.bfloat16


def test_batches_hold_about_as_many_pixels():
    assert [batch_size_for(size, gpu=False) for size in (64, 224, 448)] == [32, 32, 8]
    assert [batch_size_for(size, gpu=True) for size in (224, 448)] == [256, 64]
