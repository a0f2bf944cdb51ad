"""Distillation: train a network on the predictions of another one (Hinton et al. 2015, arXiv:1503.02531)."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from reslight.messages import UsageError, as_sentence, check_number, counted, shortened
from reslight.models import ResNet, ResNetConfig
from reslight.models.cost import cost_of
from reslight.preprocess import Preprocess
from reslight.weights import load

log = logging.getLogger(__name__)

_MOST_RESIZED = 2
"""Largest ratio of the images' size to the size that the teacher was trained for, and of that to the images'."""


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence from the teacher's softened probabilities, mean over images.

    It is multiplied by the squared temperature, so that its gradient is about as large at any temperature (section 2 of the paper).

    Args:
        logits: `(N, K)`.
        teacher: The teacher's logits `(N, K)`, without gradient.
        temperature: Divisor of the logits, above 0.

    Returns:
        A scalar, in float32 under mixed precision too.
    """
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
    ours, theirs = ((one.to(dtype) / temperature).log_softmax(dim=1) for one in (logits, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


class Teacher:
    """A trained network in eval mode, and how to give it the images of another network's training.

    A plain object on purpose: as a submodule, its weights would be in checkpoints, in the average of the weights, and on every
    device of a sharded run.

    Args:
        net: The network.
        scale: Factor that brings the images into the teacher's normalization, `(C, 1, 1)`.
        shift: Summand, `(C, 1, 1)` or `(C, H, W)`.
        classes: int64 `(K,)`: for each class of the data its number in the teacher's logits; None if they are the same.
    """

    def __init__(self, net: ResNet, scale: Tensor, shift: Tensor, classes: Tensor | None = None) -> None:
        self.net = net.eval().requires_grad_(False)
        self._scale, self._shift, self._classes = scale, shift, classes
        self._is_same = bool((scale == 1).all() and (shift == 0).all())
        self._format: tuple[torch.device, torch.dtype, bool] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same object: an average of the student's weights needs no second teacher."""
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return logits `(N, K)` of a training batch, in the order of the data's classes."""
        self._move_to(images)
        # The constants are wider than half precision: rounded ones would shift every image.
        inputs = images if self._is_same else (images * self._scale + self._shift).to(images.dtype)
        logits: Tensor = self.net(inputs)
        return logits if self._classes is None else logits.index_select(1, self._classes)

    def _move_to(self, images: Tensor) -> None:
        """Move everything to the device, dtype and memory format of the images, when these are new."""
        is_channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        if self._format == (images.device, images.dtype, is_channels_last):
            return
        self._format = (images.device, images.dtype, is_channels_last)
        layout: dict[str, Any] = {"memory_format": torch.channels_last if is_channels_last else torch.contiguous_format}
        self.net.to(images.device, images.dtype, **layout)
        wide = torch.promote_types(images.dtype, torch.float32)
        self._scale, self._shift = (one.to(images.device, wide) for one in (self._scale, self._shift))
        self._classes = None if self._classes is None else self._classes.to(images.device)


def load_teacher(source: str, config: ResNetConfig, data_info: Mapping[str, Any]) -> Teacher:
    """Load a teacher, check that it fits the data, and log what it costs.

    Args:
        source: As `reslight.load` takes it.
        config: The network that is trained.
        data_info: The data module's information about the data; empty if it has none.

    Raises:
        UsageError: a teacher that cannot be loaded, or that was trained for other images or classes.
    """
    name = f"model.teacher is {source}"
    try:
        net = load(source)
    except (OSError, UsageError) as error:
        raise UsageError(f"{name}: {as_sentence(error)} Training needs it at the start and at each resume; null trains without.") from error
    if net.multi_label:
        raise UsageError(f"{name}: it was trained on several labels for each image, and the data have one. Choose another.")
    if (channels := net.config.in_channels) != config.in_channels:
        raise UsageError(
            f"{name}: it takes images with {counted(channels, 'channel')}, and the data have {config.in_channels}. Choose another."
        )
    scale, shift = torch.ones(config.in_channels, 1, 1), torch.zeros(config.in_channels, 1, 1)
    if net.preprocess is not None and data_info:
        scale, shift = _conversion(name, Preprocess.from_dict(data_info["preprocess"]), net.preprocess)
    else:
        log.warning("%s: it gets images as they are, since the loaders do not say how they are normalized.", name)
    classes = _classes(name, net, config.num_classes, data_info.get("labels"))
    size = data_info.get("image_size", config.input_size)
    macs, own = (cost_of(one, size).macs for one in (net.config, config))
    log.info(
        "teacher %s: %.1f million multiply-adds an image, %.2g times the network's; a step costs about %.2g times as much",
        *(source, macs / 1e6, macs / own, 1 + macs / (3 * own)),  # a step of training is three passes, the teacher's is one
    )
    return Teacher(net, scale, shift, classes)


def _conversion(name: str, data: Preprocess, teacher: Preprocess) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand that bring the data's normalized images into the teacher's normalization."""
    is_mean_image = len(teacher.mean) > teacher.channels
    most = 1 if is_mean_image else _MOST_RESIZED
    if any(max(sides) > min(sides) * most for sides in zip(data.shape, teacher.shape, strict=True)):
        allowed = "the same size" if is_mean_image else f"at most {_MOST_RESIZED} times as large or small"
        raise UsageError(
            f"{name}: it was trained for {_sides(teacher)} pixels, and the data have {_sides(data)}: "
            f"they must be {allowed}. Choose another."
        )
    means, stds = zip(*((_mean(one), torch.tensor(one.std, dtype=torch.float64).view(-1, 1, 1)) for one in (data, teacher)), strict=True)
    return stds[0] / stds[1], (means[0] - means[1]) / stds[1]


def _sides(preprocess: Preprocess) -> str:
    return str(preprocess.size) if isinstance(preprocess.size, int) else f"{preprocess.shape[0]} x {preprocess.shape[1]}"


def _mean(preprocess: Preprocess) -> Tensor:
    mean = torch.tensor(preprocess.mean, dtype=torch.float64)
    return mean.view(-1, *((1, 1) if len(mean) == preprocess.channels else preprocess.shape))


def _classes(name: str, net: ResNet, count: int, labels: Sequence[str] | None) -> Tensor | None:
    """Match classes by their names, where both sides have names and share some, or by their numbers."""
    theirs = net.labels
    if labels and theirs and set(labels) & set(theirs) and list(labels) != list(theirs):
        if missing := [label for label in labels if label not in theirs]:
            raise UsageError(f"{name}: it does not know the classes {shortened(missing)}. Choose a teacher of all classes of the data.")
        if double := [label for label in labels if theirs.count(label) > 1]:
            raise UsageError(f"{name}: it has several classes called {shortened(double)}. Choose another.")
        numbers = {label: number for number, label in enumerate(theirs)}
        return torch.tensor([numbers[label] for label in labels])
    if net.config.num_classes != count:
        raise UsageError(f"{name}: it has {net.config.num_classes} classes, and the data have {count}. Choose a teacher of these classes.")
    if labels and theirs and not set(labels) & set(theirs):
        log.warning("%s: its classes have other names than the data's; they are matched by number.", name)
    return None


def check_distillation(weight: float, temperature: float) -> None:
    """Check the settings of distillation.

    Raises:
        UsageError: a value that is out of range.
    """
    check_number("model.teacher_weight", weight)
    check_number("model.teacher_temperature", temperature)
    if not 0 < weight <= 1:
        raise UsageError(f"model.teacher_weight is {weight}: it must be above 0 and at most 1.")
    if not 0 < temperature < math.inf:
        raise UsageError(f"model.teacher_temperature is {temperature}: it must be above 0 and finite, for example 4.")
