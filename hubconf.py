"""Entry points of `torch.hub`: one function for each architecture, with or without published weights.

    net = torch.hub.load("OWNER/reslight", "resnet8", pretrained=True, trust_repo=True, skip_validation=True)
    net = torch.hub.load("PATH/TO/reslight", "resnet20", num_classes=100, source="local")

Works without an installation. With `trust_repo=True` torch.hub does not ask for confirmation, and with
`skip_validation=True` it sends no request to GitHub's API.
"""

# torch.hub lists every name in this file that has no leading underscore, and checks `dependencies` after running the file.
# So imports are private here, and third-party packages are imported inside functions.
import sys as _sys
import warnings as _warnings
from pathlib import Path as _Path

dependencies = ["torch", "safetensors", "huggingface_hub"]
_SOURCE = str(_Path(__file__).resolve().parent / "src")


_MORE = """

    Args:
        weights: Name of published weights, a folder, or OWNER/NAME[@REVISION] on the Hugging Face Hub; None for random weights.
        pretrained: Load the first published weights of this architecture.
        fields: num_classes and, without weights, any other field of reslight.ResNetConfig.

    Returns:
        A torch.nn.Module: images (N, C, H, W) to logits (N, num_classes). With weights it is in eval mode and has
        `preprocess` and `labels`.
    """


def _package():
    """Import reslight from this checkout, unless another one is imported already."""
    listed = _SOURCE in _sys.path
    if not listed:
        _sys.path.insert(0, _SOURCE)
    import reslight

    if not listed:
        # Moved to the end, where it hides no other package. It is kept because worker processes unpickle networks.
        _sys.path.remove(_SOURCE)
        _sys.path.append(_SOURCE)
    if not reslight.__file__.startswith(_SOURCE):
        _warnings.warn(f"reslight is already imported from {reslight.__file__}, not from {_SOURCE}; the former is used", stacklevel=4)
    return reslight


def _make(name, weights, pretrained, fields):
    reslight = _package()
    from reslight.weights import architecture_of

    published = reslight.list_weights(f"{name}.*")
    if pretrained and weights is None:
        if not published:
            raise reslight.UsageError(
                f"pretrained is True: no weights of {name} are published. Use one of {', '.join(reslight.list_weights())}."
            )
        weights = published[0]
    if weights is None:
        return reslight.create_model(name, **fields)
    classes = fields.pop("num_classes", None)
    if fields:
        raise reslight.UsageError(f"{', '.join(fields)} cannot be changed with weights. Leave it out, or leave out the weights.")
    net = reslight.load(weights, num_classes=classes)
    found = architecture_of(net.config)
    if found != name:
        raise reslight.UsageError(
            f"weights is {weights}: weights of {found or 'another network'}, not of {name}. Use {found or 'reslight.load'}."
        )
    return net


def resnet8(weights=None, pretrained=False, **fields):
    """Residual network: 75,290 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet8", weights, pretrained, fields)


def resnet20(weights=None, pretrained=False, **fields):
    """Residual network: 269,722 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet20", weights, pretrained, fields)


def resnet32(weights=None, pretrained=False, **fields):
    """Residual network: 464,154 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet32", weights, pretrained, fields)


def resnet44(weights=None, pretrained=False, **fields):
    """Residual network: 658,586 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet44", weights, pretrained, fields)


def resnet56(weights=None, pretrained=False, **fields):
    """Residual network: 853,018 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet56", weights, pretrained, fields)


def resnet110(weights=None, pretrained=False, **fields):
    """Residual network: 1,727,962 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet110", weights, pretrained, fields)


def resnet1202(weights=None, pretrained=False, **fields):
    """Residual network: 19,421,274 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("resnet1202", weights, pretrained, fields)


def plain20(weights=None, pretrained=False, **fields):
    """Plain network: 269,722 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("plain20", weights, pretrained, fields)


def plain32(weights=None, pretrained=False, **fields):
    """Plain network: 464,154 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("plain32", weights, pretrained, fields)


def plain44(weights=None, pretrained=False, **fields):
    """Plain network: 658,586 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("plain44", weights, pretrained, fields)


def plain56(weights=None, pretrained=False, **fields):
    """Plain network: 853,018 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("plain56", weights, pretrained, fields)


def plain110(weights=None, pretrained=False, **fields):
    """Plain network: 1,727,962 parameters, 10 classes, 32 x 32 (He et al. 2015, section 4.2)."""
    return _make("plain110", weights, pretrained, fields)


def resnet18(weights=None, pretrained=False, **fields):
    """Residual network: 11,689,512 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("resnet18", weights, pretrained, fields)


def resnet34(weights=None, pretrained=False, **fields):
    """Residual network: 21,797,672 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("resnet34", weights, pretrained, fields)


def resnet50(weights=None, pretrained=False, **fields):
    """Residual network: 25,557,032 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("resnet50", weights, pretrained, fields)


def resnet101(weights=None, pretrained=False, **fields):
    """Residual network: 44,549,160 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("resnet101", weights, pretrained, fields)


def resnet152(weights=None, pretrained=False, **fields):
    """Residual network: 60,192,808 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("resnet152", weights, pretrained, fields)


def plain18(weights=None, pretrained=False, **fields):
    """Plain network: 11,515,688 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("plain18", weights, pretrained, fields)


def plain34(weights=None, pretrained=False, **fields):
    """Plain network: 21,623,848 parameters, 1000 classes, 224 x 224 (He et al. 2015, section 4.1)."""
    return _make("plain34", weights, pretrained, fields)


def resnet18_cifar(weights=None, pretrained=False, **fields):
    """Residual network: 11,173,962 parameters, 10 classes, 32 x 32 (after He et al. 2015, for CIFAR)."""
    return _make("resnet18_cifar", weights, pretrained, fields)


def resnet34_cifar(weights=None, pretrained=False, **fields):
    """Residual network: 21,282,122 parameters, 10 classes, 32 x 32 (after He et al. 2015, for CIFAR)."""
    return _make("resnet34_cifar", weights, pretrained, fields)


def resnet50_cifar(weights=None, pretrained=False, **fields):
    """Residual network: 23,520,842 parameters, 10 classes, 32 x 32 (after He et al. 2015, for CIFAR)."""
    return _make("resnet50_cifar", weights, pretrained, fields)


def resnet101_cifar(weights=None, pretrained=False, **fields):
    """Residual network: 42,512,970 parameters, 10 classes, 32 x 32 (after He et al. 2015, for CIFAR)."""
    return _make("resnet101_cifar", weights, pretrained, fields)


def resnet152_cifar(weights=None, pretrained=False, **fields):
    """Residual network: 58,156,618 parameters, 10 classes, 32 x 32 (after He et al. 2015, for CIFAR)."""
    return _make("resnet152_cifar", weights, pretrained, fields)


def preact_resnet18_cifar(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 11,172,170 parameters, 10 classes, 32 x 32 (after He et al. 2016, for CIFAR)."""
    return _make("preact_resnet18_cifar", weights, pretrained, fields)


def preact_resnet110(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 1,727,962 parameters, 10 classes, 32 x 32 (He et al. 2016, section 4)."""
    return _make("preact_resnet110", weights, pretrained, fields)


def preact_resnet164(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 1,703,258 parameters, 10 classes, 32 x 32 (He et al. 2016, section 4)."""
    return _make("preact_resnet164", weights, pretrained, fields)


def preact_resnet1001(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 10,327,706 parameters, 10 classes, 32 x 32 (He et al. 2016, section 4)."""
    return _make("preact_resnet1001", weights, pretrained, fields)


def preact_resnet50(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 25,549,352 parameters, 1000 classes, 224 x 224 (He et al. 2016, section 5)."""
    return _make("preact_resnet50", weights, pretrained, fields)


def preact_resnet101(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 44,541,480 parameters, 1000 classes, 224 x 224 (He et al. 2016, section 5)."""
    return _make("preact_resnet101", weights, pretrained, fields)


def preact_resnet152(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 60,185,128 parameters, 1000 classes, 224 x 224 (He et al. 2016, section 5)."""
    return _make("preact_resnet152", weights, pretrained, fields)


def preact_resnet200(weights=None, pretrained=False, **fields):
    """Pre-activation residual network: 64,666,152 parameters, 1000 classes, 224 x 224 (He et al. 2016, section 5)."""
    return _make("preact_resnet200", weights, pretrained, fields)


def wrn28_10(weights=None, pretrained=False, **fields):
    """Wide residual network: 36,479,194 parameters, 10 classes, 32 x 32 (Zagoruyko and Komodakis 2016, section 2)."""
    return _make("wrn28_10", weights, pretrained, fields)


def wide_resnet50_2(weights=None, pretrained=False, **fields):
    """Wide residual network: 68,883,240 parameters, 1000 classes, 224 x 224 (Zagoruyko and Komodakis 2016, section 2)."""
    return _make("wide_resnet50_2", weights, pretrained, fields)


def wide_resnet101_2(weights=None, pretrained=False, **fields):
    """Wide residual network: 126,886,696 parameters, 1000 classes, 224 x 224 (Zagoruyko and Komodakis 2016, section 2)."""
    return _make("wide_resnet101_2", weights, pretrained, fields)


def resnext50_32x4d(weights=None, pretrained=False, **fields):
    """ResNeXt: 25,028,904 parameters, 1000 classes, 224 x 224 (Xie et al. 2017, section 3)."""
    return _make("resnext50_32x4d", weights, pretrained, fields)


def resnext101_32x8d(weights=None, pretrained=False, **fields):
    """ResNeXt: 88,791,336 parameters, 1000 classes, 224 x 224 (Xie et al. 2017, section 3)."""
    return _make("resnext101_32x8d", weights, pretrained, fields)


def resnext101_64x4d(weights=None, pretrained=False, **fields):
    """ResNeXt: 83,455,272 parameters, 1000 classes, 224 x 224 (Xie et al. 2017, section 3)."""
    return _make("resnext101_64x4d", weights, pretrained, fields)


def resnet50d(weights=None, pretrained=False, **fields):
    """ResNet-D: 25,576,264 parameters, 1000 classes, 224 x 224 (T. He et al. 2019, section 4.2)."""
    return _make("resnet50d", weights, pretrained, fields)


for _function in [value for name, value in list(globals().items()) if callable(value) and not name.startswith("_")]:
    _function.__doc__ += _MORE
