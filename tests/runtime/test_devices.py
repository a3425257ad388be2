"""Which device a process uses; machines are played by what the detection reads of them."""

import pytest
import torch

from tl_dagster.runtime import devices, hardware
from tl_dagster.runtime.devices import Device, find_device, open_device, resolve_precision, use_device, uses_gpu
from tl_dagster.runtime.errors import InputError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "is_torch_for_cpus", lambda: False)
    monkeypatch.setattr(hardware, "has_gpu_device", lambda: True)
    monkeypatch.setattr(hardware.Path, "glob", lambda self, pattern: iter(["/dev/nvidia0", "/dev/nvidia1"]))


@pytest.mark.parametrize(
    ("declared", "found"),
    [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cuda:2", None), ("mps", None)],
)
def test_declared_devices_are_found_where_they_are(two_gpus, declared, found):
    assert find_device(declared) == found


@pytest.mark.parametrize(("shown", "number"), [("", 0), ("-1", 0), ("1", 1), ("0, 1", 2), ("0,-1,1", 1)])
def test_hidden_gpus_are_not_counted(two_gpus, monkeypatch, shown, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert hardware.count_gpus() == number


def test_precision_follows_the_device_that_was_expected(monkeypatch):
    monkeypatch.setattr(devices, "cpu_flags", set)
    for device, precision in (("cpu", "fp32"), ("cuda:1", "bf16"), ("mps", "fp32")):
        with use_device(Device("cpu", expected=device)):
            assert not uses_gpu()
            assert (resolve_precision("auto"), resolve_precision("fp32")) == (precision, "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch can use the GPU")
def test_a_gpu_that_torch_cannot_use_is_said():
    with (
        use_device(Device("cuda:1", "cuda:1")),
        pytest.raises(InputError, match=r"can use 0 GPUs, and cuda:1 .*doctor"),
    ):
        open_device()
