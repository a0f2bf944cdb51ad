"""What config.json says to other libraries, in their words: timm, and transformers, which reads timm's.

Only of networks that timm can build and whose tensors have the same names there: none with the stem for small images, and
no pre-activation network. Source: github.com/huggingface/pytorch-image-models, timm/models/_hub.py.
"""

from dataclasses import replace
from typing import Any

from reslight.models import VARIANTS, ResNetConfig
from reslight.weights import peers
from reslight.weights.record import Record


def architecture_of(config: ResNetConfig) -> str | None:
    """The architecture's name, whatever its classes, channels and way of training; None for one without a name."""
    return next((name for name, known in VARIANTS.items() if _essence(known) == _essence(config)), None)


def timm_architecture(config: ResNetConfig) -> str | None:
    """The name in timm of a network for RGB images that takes the same file and gives the same logits there; None where it has none."""
    return None if config.preact or config.in_channels != 3 else peers.timm_architecture(config)


def other_libraries(record: Record) -> dict[str, Any]:
    """The keys of config.json beside `reslight`; those of timm only where timm can build the network."""
    config, feed = record.net, record.preprocess
    timm = timm_architecture(config)
    said: dict[str, Any] = {"architecture": timm or record.name, "num_classes": config.num_classes}
    if record.labels is not None:
        said["label_names"] = list(record.labels)
    if timm is None or len(feed.mean) != feed.channels:  # timm knows no mean image
        return said
    pretrained = {
        "tag": "reslight",
        "custom_load": False,
        "input_size": [feed.channels, feed.size, feed.size],
        "fixed_input_size": False,
        "interpolation": feed.interpolation,
        "crop_pct": feed.size / (feed.resize or feed.size),
        "crop_mode": "center",
        "mean": list(feed.mean),
        "std": list(feed.std),
        "num_classes": config.num_classes,
        "pool_size": [-(-feed.size // 32)] * 2,
        "first_conv": "conv1.0" if config.stem == "deep" else "conv1",
        "classifier": "fc",
    }
    return said | {"num_features": config.widths[-1] * config.expansion, "global_pool": "avg", "pretrained_cfg": pretrained}


def _essence(config: ResNetConfig) -> ResNetConfig:
    """Without what changes neither the architecture nor its logits in evaluation."""
    return replace(config, num_classes=1, in_channels=3, drop_path=0.0, zero_init=False, checkpoint=False)
