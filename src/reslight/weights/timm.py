"""Register every architecture of reslight in timm: after `import reslight.weights.timm`, timm builds and loads `reslight_resnet20`.

timm cannot express networks for small images, shortcut A and plain networks, so the config.json of their weights names these
architectures. The import only adds to timm's list of models. timm's own networks (resnet18 to resnet152 and similar) load
without it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from reslight.messages import MissingPackageError, UsageError
from reslight.models import VARIANTS, ResNet, ResNetConfig
from reslight.weights.interop.timm_config import IN_TIMM, first_conv, from_timm_arguments

try:
    from timm.models import build_model_with_cfg, register_model
except ImportError as error:
    raise MissingPackageError("timm is not installed: reslight.weights.timm registers networks in it. Run pip install timm.") from error


class TimmResNet(ResNet):
    """A `ResNet` with the methods and attributes that timm expects of its networks.

    Args:
        base: The network that the other arguments change.
        num_classes: Number of classes; with 0 there is no classifier, and the network returns the pooled features, (N, num_features).
        global_pool: Only "avg".
        drop_rate: Probability of dropout before the classifier, in training.
        **changes: Fields of `ResNetConfig`, and timm's `in_chans` and `drop_path_rate`.

    Raises:
        UsageError: an argument that is unknown or not allowed.
    """

    def __init__(self, base: ResNetConfig, *, num_classes: int, global_pool: str = "avg", drop_rate: float = 0.0, **changes: Any) -> None:
        if not 0 <= drop_rate <= 1:
            raise UsageError(f"drop_rate is {drop_rate}: it must be from 0 to 1.")
        super().__init__(from_timm_arguments(base, changes | {"num_classes": num_classes or 1}))
        self.num_features = self.head_hidden_size = self.fc.in_features
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        scales = [(1 if self.config.stem == "small" else 4) * 2**index for index in range(len(self.config.widths))]
        self.feature_info = [
            {"num_chs": width * self.config.expansion, "reduction": scale, "module": name}
            for width, scale, name in zip(self.config.widths, scales, self.config.stage_names, strict=True)
        ]
        _check_pool(global_pool)
        if not num_classes:
            self.reset_classifier(0)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Replace the classifier with a new one; with 0 classes, remove it."""
        _check_pool(global_pool)
        weight = next(self.parameters())
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype) if num_classes else nn.Identity()
        self.fc = head  # type: ignore[assignment]  # Identity in a feature extractor

    def forward_features(self, x: Tensor) -> Tensor:  # type: ignore[override]  # as timm defines it
        """Return the output of the last stage, (N, num_features, H / s, W / s), for images (N, in_chans, H, W)."""
        return list(super().forward_features(x).values())[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (N, num_classes) for the output of `forward_features`; with `pre_logits` pooled features (N, num_features)."""
        pooled = dropout(self.forward_pool(x), self.drop_rate, self.training)
        return pooled if pre_logits else self.fc(pooled)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of the stem, before its max-pool, and of the stages, as timm's ResNets do.

        Args:
            x: Normalized images, (N, in_channels, H, W).
            indices: Which outputs, 0 being the stem's; the last `indices` if a number, all if None.
            norm: Has no effect, as in timm's ResNets.
            stop_early: Do not compute the stages after the last output.
            output_fmt: Only "NCHW".
            intermediates_only: Return the outputs without the last stage's.

        Raises:
            UsageError: another `output_fmt`.
        """
        from timm.models._features import feature_take_indices  # timm before 1.0 has none

        if output_fmt != "NCHW":
            raise UsageError(f"output_fmt is {output_fmt!r}: reslight's networks have NCHW. Leave it out.")
        wanted, last = feature_take_indices(1 + len(self.config.stage_names), indices)
        x = self.conv1(x)
        x = x if self.config.preact else relu(self.bn1(x))
        found = [x] if 0 in wanted else []
        x = self.maxpool(x)
        for number, name in enumerate(self.config.stage_names[: last if stop_early else None], start=1):
            x = self.get_submodule(name)(x)
            if number in wanted:
                found.append(x)
        return found if intermediates_only else (x, found)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the blocks again in the backward pass, which takes less memory and more time."""
        for name in self.config.stage_names:
            self.get_submodule(name).recompute = enable  # type: ignore[assignment]  # a Stage's own attribute

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns of the names of parameters by depth, from which timm computes learning rates by layer."""
        return {"stem": r"^conv1|^bn1|^maxpool", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


def _check_pool(name: str) -> None:
    if name != "avg":
        raise UsageError(f"global_pool is {name!r}: reslight's networks have avg. Leave it out.")


def _entrypoint(name: str, base: ResNetConfig) -> Callable[..., Any]:
    """Return the function that timm calls to build a network, with the name and module under which timm registers it."""

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


def _default_cfg(config: ResNetConfig) -> dict[str, Any]:
    """Return what timm has to know of a network that is built without a config.json."""
    shape = (config.in_channels, config.input_size, config.input_size)
    return {"input_size": shape, "num_classes": config.num_classes, "first_conv": first_conv(config), "classifier": "fc"}


default_cfgs = {IN_TIMM + name: _default_cfg(config) for name, config in VARIANTS.items()}  # timm's register_model reads this name
for _name, _config in VARIANTS.items():
    register_model(_entrypoint(IN_TIMM + _name, _config))
