"""Every network that torchvision has is torchvision's: same parameter names, same logits to the bit."""

import pytest
import torch
import torchvision

from reslight.models import VARIANTS, ResNet, create_model

BOTH = [name for name in VARIANTS if name in torchvision.models.list_models()]
LARGE = {"resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2"}  # seconds each for weights of the same blocks


def test_torchvision_has_ten_of_them():
    assert len(BOTH) == 10


def random_state(net):
    """A state dict with lively values everywhere, running statistics included."""
    generator = torch.Generator().manual_seed(1)

    def draw(name, tensor):
        if not tensor.is_floating_point():
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        if tensor.dim() == 1:  # batch norms and biases: kept positive, as a running variance must be
            return torch.rand(tensor.shape, generator=generator) + 0.5
        return torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5

    return {name: draw(name, tensor) for name, tensor in net.state_dict().items()}


def clone(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly if name in LARGE else ()) for name in BOTH])
def test_equal_to_torchvision_to_the_bit(name):
    with torch.device("meta"):  # the random weights of the two would only be thrown away
        ours, theirs = ResNet(VARIANTS[name]), torchvision.models.get_model(name)
    state = random_state(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(clone(state), strict=True, assign=True)
    ours.load_state_dict(clone(theirs.state_dict()), strict=True, assign=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    for training in (False, True):
        with torch.no_grad():
            logits = ours.train(training)(images)
            assert torch.equal(logits, theirs.train(training)(images))
        assert logits.isfinite().all()
        assert logits.std() > 0
    changed = 0
    for (key, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, other), key
        changed += not torch.equal(mine, state[key])
    assert changed == 3 * sum(isinstance(module, torch.nn.BatchNorm2d) for module in ours.modules())


def test_gradients_equal_to_the_bit():
    ours, theirs = ResNet(VARIANTS["resnet18"]), torchvision.models.resnet18()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 64, 64)
    for net in (ours, theirs):
        torch.nn.functional.cross_entropy(net(images), torch.arange(4)).backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad), name


def test_zero_init_is_torchvisions():
    ours = create_model("resnet18", zero_init=True)
    theirs = torchvision.models.resnet18(zero_init_residual=True)
    for key in ("layer1.0.bn2.weight", "layer2.0.bn2.weight", "layer2.0.downsample.1.weight"):
        assert torch.equal(ours.state_dict()[key], theirs.state_dict()[key])
