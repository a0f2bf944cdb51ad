"""The quickest form of a ResNet on a CPU whose classes are those of the network itself.

Batch norms are folded into the convolutions before them, and images are in the layout that convolutions read (channels last). In float32
that is the network within rounding. On a CPU that multiplies bfloat16, a convolution in it takes about a third of the time, and does what
comes after it, too. Logits are then off by 1 to 2 %, which could change the class of an image whose two best classes are nearly equal; the
network itself computes such images again.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reslight.cores import available_cores
from reslight.deploy.fused import fuse_blocks
from reslight.deploy.torch_threads import torch_threads
from reslight.messages import UsageError, counted
from reslight.models import ResNet
from reslight.models.blocks import PreActBasicBlock, PreActBottleneck
from reslight.preprocess import network_format

NEAR = 1 / 80
"""Difference of the two best logits below which an image is computed again, relative to the length of the features times that of the
difference of the two classes' weights. Among the test images of the published residual networks of CIFAR, no class changed above 0.0099."""
PLAIN_BLOCKS = 9
"""Blocks of a plain network up to which NEAR is enough; for more blocks it grows in proportion. With no shortcuts, the rounding errors
of a block pass through all later blocks: classes changed up to 0.0089 in plain-20, which has 9 blocks, and up to 0.0214 in plain-56,
which has 27."""


class Inference:
    """A network, ready to compute on a CPU.

    Args:
        net: A network in eval mode; it is not changed, and must not be changed.
        exact: Compute with the network as it is.
        threads: Threads of torch; the cores that this process may use if None.
        threshold: With several labels, the probability above which a class is predicted.

    Attributes:
        net: The network.
        description: How it computes, in words.
    """

    def __init__(self, net: ResNet, *, exact: bool = False, threads: int | None = None, threshold: float = 0.5) -> None:
        self._edge = net.temperature * float(torch.tensor(threshold, dtype=torch.float64).logit())  # infinite for 0 and 1
        plain_blocks = sum(net.config.depths) if net.config.shortcut == "none" else 0
        self._near = NEAR * max(1, plain_blocks / PLAIN_BLOCKS)
        self.net, self.threads = net, threads or min(torch.get_num_threads(), available_cores())
        weight = net.fc.weight
        is_on_cpu = weight.device.type == "cpu"
        self._quick = quick_form(net) if is_on_cpu and weight.dtype == torch.float32 and not exact else None
        dtype, self._layout = network_format(self._quick or net)
        self._is_rounded = self._quick is not None and dtype == torch.bfloat16
        self._normalize = net.preprocess.normalizer(weight.device, dtype)
        self._normalize_exactly = net.preprocess.normalizer(weight.device, weight.dtype)
        form = "channels last, batch norm folded" if self._quick else "the network as it is"
        place = counted(self.threads, "thread") if is_on_cpu else str(weight.device)
        self.description = f"{str(dtype).removeprefix('torch.')}, {form}, {place}"

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and features.

        Args:
            pixels: uint8 or uint16 `(N, C, *preprocess.shape)`, resized and cropped.

        Returns:
            Logits, float32 or float64 `(N, num_classes)`, and what the last layer gets, float32 `(N, features)`.

        Raises:
            UsageError: logits that are not numbers.
        """
        with torch.inference_mode(), torch_threads(self.threads):
            pixels = pixels.to(self.net.fc.weight.device)
            logits, features = _forward(self._quick or self.net, self._normalize(pixels, self._layout))
            if self._is_rounded and len(near := self._is_near(logits, features).nonzero().flatten()):
                logits[near], features[near] = _forward(self.net, self._normalize_exactly(pixels[near]))
            if not bool(logits.isfinite().all()):
                raise UsageError(
                    "the network's probabilities are not finite numbers: its weights are too large. Get the weights again, or retrain."
                )
            return logits.cpu(), features.float().cpu()

    def _is_near(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return whether rounding may change what an image is: bool `(N,)`."""
        weight, length = self.net.fc.weight, features.norm(dim=1)
        if self.net.multi_label:
            are_near: Tensor = (logits - self._edge).abs() < self._near * length[:, None] * weight.norm(dim=1)
            return are_near.any(dim=1)
        if logits.shape[1] < 2:
            return torch.zeros(len(logits), dtype=torch.bool)
        best = logits.topk(2, dim=1)
        apart = (weight[best.indices[:, 0]] - weight[best.indices[:, 1]]).norm(dim=1)
        is_near: Tensor = best.values[:, 0] - best.values[:, 1] < self._near * length * apart
        return is_near


def quick_form(net: ResNet) -> ResNet:
    """Return a copy of a float32 network that computes the same faster, in bfloat16 where the CPU has instructions for it.

    The last layer stays in float32: it takes no time, and its result decides.
    """
    quick = folded(net).to(memory_format=torch.channels_last)
    if multiplies_bfloat16():
        quick.to(torch.bfloat16).fc.float()
        fuse_blocks(quick)
    return quick


def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies matrices of bfloat16; on others, bfloat16 is slower than float32."""
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has_instructions = any(has.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return has_instructions and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch declares no types here


def folded(net: ResNet) -> ResNet:
    """Return a copy of a network in eval mode, in which each convolution with a batch norm behind it does that one's work, too."""
    copied = copy.deepcopy(net).requires_grad_(False)
    for parent in list(copied.modules()):
        children = dict(parent.named_children())
        for name, child in children.items():
            after = _after(name, parent)
            # A deep stem ends with a convolution.
            home, last = (child, str(len(child) - 1)) if isinstance(child, nn.Sequential) else (parent, name)
            conv, norm = getattr(home, last, None), children.get(after)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(home, last, fuse_conv_bn_eval(conv, norm))
                setattr(parent, after, nn.Identity())
    return copied


def _after(name: str, parent: nn.Module) -> str:
    """Return the name that the batch norm behind a layer has, if there is one."""
    if isinstance(parent, nn.Sequential):
        return str(int(name) + 1)
    shift = isinstance(parent, PreActBasicBlock | PreActBottleneck)  # whose bn1 comes before conv1
    return f"bn{int(name[4:]) + shift}" if name.startswith("conv") else ""


def _forward(net: ResNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and what the last layer gets."""
    x = net.forward_stem(images)
    for name in net.config.stage_names:
        x = net.get_submodule(name)(x)
    features = net.forward_pool(x).to(net.fc.weight.dtype)
    return net.fc(features), features
