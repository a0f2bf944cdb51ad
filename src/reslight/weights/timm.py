"""Every architecture of reslight for timm: `import reslight.weights.timm`, and timm builds and loads `reslight_resnet20`.

timm has no arguments for networks on small images, for shortcut A or for plain networks, so config.json names these. The
import changes nothing but timm's list of models. Networks that timm has itself (resnet18 to resnet152 and kin) need none of this.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from reslight.messages import UsageError
from reslight.models import VARIANTS, ResNet, ResNetConfig
from reslight.weights.interop.timm_config import IN_TIMM, first_conv, from_timm_arguments

try:
    from timm.models import build_model_with_cfg, register_model
except ImportError as error:
    raise ImportError("reslight.weights.timm registers networks in timm, which is not installed: pip install timm") from error


class TimmResNet(ResNet):
    """A `ResNet` with the methods and attributes that timm expects of its networks.

    Args:
        base: The network that the other arguments change.
        num_classes: 0 for no classifier: the pooled features come out, (N, num_features).
        global_pool: Only "avg".
        drop_rate: Dropout before the classifier, which reslight's networks do not have: only 0.
        **changes: Fields of `ResNetConfig`, and timm's `in_chans` and `drop_path_rate`.

    Raises:
        ValueError: An argument is unknown or not allowed.
    """

    def __init__(self, base: ResNetConfig, *, num_classes: int, global_pool: str = "avg", drop_rate: float = 0.0, **changes: Any) -> None:
        if drop_rate:
            raise UsageError(f"drop_rate={drop_rate} is not allowed; reslight's networks have no dropout, leave it out")
        super().__init__(from_timm_arguments(base, changes | {"num_classes": num_classes or 1}))
        self.num_features = self.head_hidden_size = self.fc.in_features
        self.num_classes = num_classes
        scales = [(1 if self.config.stem == "small" else 4) * 2**index for index in range(len(self.config.widths))]
        self.feature_info = [
            {"num_chs": width * self.config.expansion, "reduction": scale, "module": name}
            for width, scale, name in zip(self.config.widths, scales, self.config.stage_names, strict=True)
        ]
        _check_pool(global_pool)
        if not num_classes:
            self.reset_classifier(0)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """A new classifier; none with 0 classes."""
        _check_pool(global_pool)
        weight = next(self.parameters())
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype) if num_classes else nn.Identity()
        self.fc = head  # type: ignore[assignment]  # a feature extractor has none

    def forward_features(self, x: Tensor) -> Tensor:  # type: ignore[override]  # timm's meaning of the name, for timm's users
        """Output of the last stage, (N, num_features, H / s, W / s), of images (N, in_chans, H, W)."""
        return list(super().forward_features(x).values())[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives -> logits, (N, num_classes); with `pre_logits` the pooled features, (N, num_features)."""
        return self.forward_pool(x) if pre_logits else super().forward_head(x)


def _check_pool(name: str) -> None:
    if name != "avg":
        raise UsageError(f"global_pool={name!r} is not allowed; reslight's networks have avg")


def _entrypoint(name: str, base: ResNetConfig) -> Callable[..., Any]:
    """What timm calls to build a network; registered under its own name, in this module."""

    def build(pretrained: bool = False, **arguments: Any) -> Any:
        return build_model_with_cfg(
            partial(TimmResNet, base),
            name,
            pretrained,
            feature_cfg={"feature_cls": "fx", "out_indices": tuple(range(len(base.widths)))},
            **arguments,
        )

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    return build


def _feed(config: ResNetConfig) -> dict[str, Any]:
    """What timm must know of a network to which no config.json belongs."""
    shape = (config.in_channels, config.input_size, config.input_size)
    return {"input_size": shape, "num_classes": config.num_classes, "first_conv": first_conv(config), "classifier": "fc"}


default_cfgs = {IN_TIMM + name: _feed(config) for name, config in VARIANTS.items()}  # where register_model looks for them
for _name, _config in VARIANTS.items():
    register_model(_entrypoint(IN_TIMM + _name, _config))
