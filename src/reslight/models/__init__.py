"""Residual networks: their configuration, their modules and the table of named architectures. Needs torch only."""

from reslight.models.config import ResNetConfig
from reslight.models.cost import Cost, cost_of, count_parameters
from reslight.models.deepen import added_blocks, deepen, deeper_config
from reslight.models.resnet import ResNet
from reslight.models.variants import SOURCES, VARIANTS, cifar_config, create_model, list_models, resolve_config

__all__ = [
    "SOURCES",
    "VARIANTS",
    "Cost",
    "ResNet",
    "ResNetConfig",
    "added_blocks",
    "cifar_config",
    "cost_of",
    "count_parameters",
    "create_model",
    "deepen",
    "deeper_config",
    "list_models",
    "resolve_config",
]
