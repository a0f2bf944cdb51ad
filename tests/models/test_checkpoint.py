"""Activation checkpointing changes the memory, never a bit of the result."""

import subprocess
import sys

import pytest
import torch

from reslight.models import ResNet, ResNetConfig, cifar_config, resolve_config
from reslight.models.resnet import frozen_statistics

CONFIGS = {
    "basic": cifar_config(14),
    "plain": cifar_config(14, shortcut="none"),
    "stochastic depth": cifar_config(14, drop_path=0.5),
    "preact": cifar_config(14, preact=True, drop_path=0.5),
    "bottleneck": ResNetConfig(depths=(2, 2), widths=(8, 16), block="bottleneck", stem_width=8, num_classes=5),
    "preact bottleneck": cifar_config(20, "bottleneck", preact=True),
}


def two_steps(net, images, autocast):
    """Everything that two training steps leave behind: logits, gradients, weights, statistics, random state."""
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    seen = []
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            logits = net(images)
            loss = logits.float().square().mean()
        loss.backward()
        seen += [logits, *(parameter.grad.clone() for parameter in net.parameters())]
        optimizer.step()
    return [*seen, *net.state_dict().values(), torch.get_rng_state()]


def assert_equal_to_the_bit(config, device="cpu", autocast=False):
    saving = ResNet(resolve_config(config, checkpoint=True)).to(device)
    keeping = ResNet(config).to(device)
    keeping.load_state_dict(saving.state_dict())
    images = torch.randn(8, 3, 16, 16, device=device)
    results = zip(two_steps(saving, images, autocast), two_steps(keeping, images, autocast), strict=True)
    assert all(torch.equal(one, other) for one, other in results)
    assert saving.layer1[0].bn1.num_batches_tracked.item() == 2


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_is_equal_to_the_bit(config, autocast):
    assert_equal_to_the_bit(config, autocast=autocast)


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_is_equal_to_the_bit_on_a_gpu(config, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    assert_equal_to_the_bit(config, "cuda")


def test_it_saves_memory():
    """Counts the bytes that autograd keeps from the forward pass to the backward pass."""

    def kept(checkpoint):
        net, sizes = ResNet(cifar_config(56, checkpoint=checkpoint)), {}
        own = {parameter.data_ptr() for parameter in net.parameters()}

        def pack(tensor):
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = net(torch.randn(4, 3, 32, 32))
        del logits
        return sum(sizes.values())

    assert kept(checkpoint=True) < 0.3 * kept(checkpoint=False)


@pytest.mark.parametrize("momentum", [0.1, None], ids=["moving", "cumulative"])
def test_frozen_statistics_are_left_as_they_were(momentum):
    norm = torch.nn.BatchNorm2d(3, momentum=momentum)
    images = torch.randn(4, 3, 5, 5)
    expected = norm(images)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    with frozen_statistics(norm):
        assert torch.equal(norm(images), expected)
    assert list(norm.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert norm.momentum == momentum
    norm(images)
    assert norm.num_batches_tracked.item() == 2


def test_evaluation_needs_no_recomputation():
    net = ResNet(cifar_config(8, checkpoint=True)).eval()
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    net(images).sum().backward()
    assert images.grad is not None


@pytest.mark.nightly
def test_resnet1202_trains_at_batch_128_in_8_gigabytes():
    """One step of the deepest network of the paper in a process of its own, whose peak memory is read."""
    code = """if True:
        import resource, torch
        from reslight.models import create_model
        net = create_model("resnet1202", checkpoint=True)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        loss = torch.nn.functional.cross_entropy(net(torch.randn(128, 3, 32, 32)), torch.randint(10, (128,)))
        loss.backward()
        optimizer.step()
        assert all(parameter.isfinite().all() for parameter in net.parameters())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 8e9
