"""reslight: train the ResNets of He et al. 2015 with PyTorch Lightning, and publish weights anyone can check.

The public names are loaded when they are first asked for, so that `import reslight` costs milliseconds and no torch.
"""

from typing import TYPE_CHECKING

from reslight.lazy import loader
from reslight.version import __version__ as __version__

if TYPE_CHECKING:
    from reslight.deploy.classifier import Classifier
    from reslight.deploy.prediction import Prediction
    from reslight.messages import UsageError
    from reslight.models import ResNet, ResNetConfig, cifar_config, create_model, deepen, list_models
    from reslight.preprocess import Preprocess
    from reslight.weights import list_weights, load, save
    from reslight.weights.pull import pull
    from reslight.weights.push import push

_HOMES = {
    "Classifier": "reslight.deploy.classifier",
    "Prediction": "reslight.deploy.prediction",
    "ResNet": "reslight.models",
    "ResNetConfig": "reslight.models",
    "cifar_config": "reslight.models",
    "create_model": "reslight.models",
    "deepen": "reslight.models",
    "list_models": "reslight.models",
    "list_weights": "reslight.weights",
    "load": "reslight.weights",
    "pull": "reslight.weights.pull",
    "push": "reslight.weights.push",
    "save": "reslight.weights",
    "Preprocess": "reslight.preprocess",
    "UsageError": "reslight.messages",
}

__all__ = [
    "Classifier",
    "Prediction",
    "Preprocess",
    "ResNet",
    "ResNetConfig",
    "UsageError",
    "cifar_config",
    "create_model",
    "deepen",
    "list_models",
    "list_weights",
    "load",
    "pull",
    "push",
    "save",
]


__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    """Names for completion."""
    return [*__all__, "__version__"]
