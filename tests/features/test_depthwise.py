import copy

import pytest
import torch

from tl_dagster.features.depthwise import freeze_depthwise
from tl_dagster.libraries import import_timm

LAYERS = {
    "padded": lambda: torch.nn.Conv2d(8, 8, 3, 2, 1, groups=8),
    "uneven": lambda: torch.nn.Conv2d(8, 8, 5, (2, 1), 2, groups=8, bias=False),
    "dilated": lambda: torch.nn.Conv2d(8, 8, 3, 3, 1, 2, groups=8),
    "same": lambda: import_timm().layers.Conv2dSame(8, 8, 5, 2, groups=8),
}


def _gradient(model: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.rand(2, 8, 15, 14, generator=torch.manual_seed(0)).to(dtype).requires_grad_()
    output = model(values)
    output.backward(torch.linspace(-1, 1, output.numel()).to(dtype).view_as(output))
    assert values.grad is not None
    return output.detach(), values.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_frozen_strided_layer_has_the_outputs_and_gradients_of_torch(kind, dtype):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Sequential(LAYERS[kind]())).to(dtype)
    theirs = copy.deepcopy(ours)
    freeze_depthwise(ours)
    assert type(ours[0][0]) is not type(theirs[0][0])
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    for found, expected in zip(_gradient(copy.deepcopy(ours), dtype), _gradient(theirs, dtype), strict=True):
        torch.testing.assert_close(found, expected)


def test_only_depthwise_layers_are_frozen_and_no_tap_is_replaced():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), LAYERS["padded"](), LAYERS["padded"]())
    model[1].register_forward_hook(lambda *_: None)
    kept = model[1]
    freeze_depthwise(model)
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["0.weight", "0.bias"]
    assert model[1] is kept
