"""Weights files: what is accepted in the usual wrappers, and one clear error for each other kind."""

import argparse
import collections
import gzip
import json
import pathlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.test_bad_input import failure
from tl_dagster import InputError
from tl_dagster.backbones.building import create_network, load_backbone
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import locate_weights
from tl_dagster.backbones.weights_check import check_weights_file

NAME = "torchvision/squeezenet1_1"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return create_network(NAME, 224)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def declared(path) -> Backbone:
    return Backbone(name=NAME, weights=str(path))


def loaded(path) -> dict[str, torch.Tensor]:
    backbone = declared(path)
    info = describe_backbone(backbone)
    return load_backbone(info, locate_weights(backbone, info)).state_dict()


ACCEPTED = {
    "model": lambda state: {"model": state, "epoch": 3},
    "net": lambda state: {"net": state, "acc": 90.0},
    "lightning": lambda state: {"state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(2)}, "epoch": 1},
    "two wrappers": lambda state: {"model": {"state_dict": state}},
    "namespace": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1, out=pathlib.PosixPath("x"))},
    "numpy": lambda state: {"state_dict": state, "best": np.float64(0.9), "curve": np.arange(3.0), "n": np.int64(2)},
    "optimiser": lambda state: {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "model_state_dict": state,
    },
    "parallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "deep": lambda state: {"state_dict": prefixed(state, "module.model.backbone.")},
    "trunk in a wrapper": lambda state: {
        f"module.{key.removeprefix('features.')}": value for key, value in state.items() if key.startswith("features.")
    },
    "self-supervised": lambda state: {"teacher": {**prefixed(state, "backbone."), "head.mlp.0.weight": torch.ones(2)}},
    "half": lambda state: {key: value.half() for key, value in state.items()},
    "ordered": lambda state: collections.OrderedDict(state),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_ordinary_checkpoints_are_loaded(kind, network, store, tmp_path):
    state = network.state_dict()
    torch.save(ACCEPTED[kind](state), tmp_path / "weights.pth")
    found = loaded(tmp_path / "weights.pth")
    for key in ("features.0.weight", "features.12.expand3x3.bias"):
        torch.testing.assert_close(found[key], state[key], rtol=1e-2, atol=1e-3)


def test_averaged_weights_come_first(network, store, tmp_path):
    state = network.state_dict()
    averaged = {key: value + 1 for key, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "weights.pth")
    assert torch.equal(loaded(tmp_path / "weights.pth")["features.0.bias"], averaged["features.0.bias"])


@pytest.mark.parametrize("kind", ["old", "safetensors.bin", "pickle.safetensors"])
def test_the_content_counts_and_not_the_name(kind, network, store, tmp_path):
    state, path = network.state_dict(), tmp_path / f"weights.{kind}"
    if kind == "safetensors.bin":
        path.write_bytes(save(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "old")
    assert torch.equal(loaded(path)["features.0.weight"], state["features.0.weight"])
    check_weights_file(declared(path))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def torch_bytes(value, folder) -> bytes:
    torch.save(value, folder / "value")
    return (folder / "value").read_bytes()


REFUSED = {
    "empty": (lambda *_: b"", "is empty; copy or download it again"),
    "cut.pth": (lambda net, at: cut(torch_bytes(net.state_dict(), at)), "is cut short or damaged"),
    "cut.safetensors": (lambda net, at: cut(save(net.state_dict())), "is cut short or damaged"),
    "header": (lambda net, at: save(net.state_dict())[:500], "is cut short or damaged"),
    "html": (lambda *_: b"\n<!DOCTYPE html><title>404</title>", "is a web page, not weights"),
    "lfs": (lambda *_: b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n", "git lfs pull"),
    "whole model": (
        lambda net, at: torch_bytes(net, at),
        r"object of torchvision\.\S+, such as a whole model.*state_dict",
    ),
    "list": (lambda net, at: torch_bytes([1], at), "holds a list, not tensors by name"),
    "tensor": (lambda net, at: torch_bytes(torch.ones(3), at), "holds a Tensor, not tensors by name"),
    "numbers": (lambda net, at: torch_bytes({"epoch": 3}, at), "holds only epoch, not tensors by name"),
    "nothing": (lambda net, at: torch_bytes({}, at), "holds only an empty dictionary, not"),
    "script": (lambda net, at: script(net, at), "is a TorchScript archive"),
    "pickle": (lambda net, at: pickle.dumps({"w": 1}), "neither a safetensors file nor one that torch.save wrote"),
    "gzip": (lambda net, at: gzip.compress(b"x"), "compressed with gzip; unpack it"),
    "npz": (lambda net, at: npz(at), "is a zip archive of other files"),
    "hdf5": (lambda *_: b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "json": (lambda *_: json.dumps({"a": [1]}).encode(), "neither a safetensors file nor"),
    "other network": (
        lambda net, at: torch_bytes(torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict(), at),
        r"does not fit torchvision/squeezenet1_1: missing",
    ),
    "two networks": (
        lambda net, at: torch_bytes({**prefixed(net.state_dict(), "q."), **prefixed(net.state_dict(), "k.")}, at),
        r"several networks that fit, 'q\.' and 'k\.': save one",
    ),
}


def script(net, folder) -> bytes:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(folder / "script"))
    return (folder / "script").read_bytes()


def npz(folder) -> bytes:
    np.savez(folder / "arrays.npz", a=np.ones(3))
    return (folder / "arrays.npz").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.parametrize("kind", REFUSED)
def test_another_file_is_refused_in_one_line(kind, network, store, tmp_path):
    content, words = REFUSED[kind]
    path = tmp_path / f"weights.{kind}"
    path.write_bytes(content(network, tmp_path))
    with pytest.raises(InputError, match=words) as caught:
        loaded(path)
    said = str(caught.value)
    assert said.startswith(f"backbone.weights: {path} ")
    assert "\n" not in said and "weights_only" not in said and len(said) < 600


@pytest.mark.parametrize("kind", ["missing", "folder", "html", "another checksum"])
def test_a_file_that_cannot_be_used_is_refused_before_any_image_is_read(kind, pipeline, tmp_path):
    path, more = tmp_path / "weights.pth", {}
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"<html>")
    if kind == "another checksum":
        more = {"sha256": "0" * 8}
    step, said = failure(pipeline, backbone={"name": NAME, "weights": str(path), **more})
    assert step == "cells__dataset"
    assert said.startswith("backbone.weights: ") and str(path) in said and "\n" not in said


def test_a_file_that_was_checked_is_not_looked_at_again(network, store, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    check_weights_file(declared(path))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("looked at again"))
    check_weights_file(declared(path))
