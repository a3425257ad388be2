"""The network on its device: compiled when that repays itself, kept, and given smaller batches when memory is short."""

import numpy as np
import pytest
import torch

from tl_dagster import InputError
from tl_dagster.backbones import inference as network
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
    monkeypatch.setattr(network, "COMPILE_SECONDS", 0.0)
    said: list[str] = []
    first = made()
    first.consider_compiling(PIXELS, 10**6, said.append)
    assert first.compiled and "compiling takes about" in said[0]
    compiled = first(PIXELS)()
    torch.testing.assert_close(compiled, made()(PIXELS)())
    said.clear()
    second = InferenceRunner(lambda: pytest.fail("it is not needed"), ["small"], "fp32", [0.5] * 3, [0.5] * 3, 4)
    second.consider_compiling(PIXELS, 1, said.append)  # however little there is to do: it is there
    assert second.compiled and not said
    assert all(torch.equal(a, b) for a, b in zip(second(PIXELS)(), compiled, strict=True))

    (library,) = (home / "tl-dagster").glob("*.pt2")
    library.write_bytes(b"damaged")
    third = made()
    third.consider_compiling(PIXELS, 1, said.append)
    assert not third.compiled and "cannot be used" in said[0] and not library.exists()


def test_little_work_is_not_compiled(home):
    said: list[str] = []
    little = made()
    little.consider_compiling(PIXELS, 100, said.append)
    assert not little.compiled and not said and not (home / "tl-dagster").exists()


def test_without_a_compiler_it_runs_eagerly(monkeypatch):
    monkeypatch.setattr(network, "COMPILE_SECONDS", 0.0)
    said: list[str] = []
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        without.delenv("CXX", raising=False)
        made().consider_compiling(PIXELS, 10**6, said.append)
    assert "no C++ compiler" in said[0]
    monkeypatch.setenv("CXX", "/bin/false")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/bin/false"))
    broken = made()
    broken.consider_compiling(PIXELS, 10**6, said.append)
    assert not broken.compiled and "runs uncompiled" in said[-1]
    assert len(broken(PIXELS)()[0]) == 4


def test_out_of_memory_halves_the_batch():
    whole, tight = made()(PIXELS)(), made(most=1)
    torch.testing.assert_close(tight(PIXELS)(), whole)
    assert tight.batch_size == 1
    with pytest.raises(InputError, match=r"choose a smaller backbone.image_size"):
        made(most=0)(PIXELS)


def test_difference_to_fp32():
    half = made("bf16")
    found = half.difference(PIXELS)
    assert len(found) == 2 and all(0 < each["median"] <= each["largest"] < 0.02 for each in found)
    assert half(PIXELS)()[0].dtype == torch.bfloat16


def test_batches_hold_about_as_many_pixels():
    assert [batch_size_for(size, gpu=False) for size in (64, 224, 448)] == [32, 32, 8]
    assert [batch_size_for(size, gpu=True) for size in (224, 448)] == [256, 64]
