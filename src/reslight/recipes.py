"""Where configuration files are: beside the person who asks, else those that come with the package."""

import difflib
from pathlib import Path


def packaged() -> Path:
    """The folder of the configurations that come with reslight: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def names() -> list[str]:
    """Names of the packaged configurations, such as `digits` or `overlays/bf16`."""
    return sorted(path.relative_to(packaged()).with_suffix("").as_posix() for path in packaged().rglob("*.yaml"))


def find(name: str) -> Path:
    """The file that `--config NAME` means: a file of that name here, else the packaged one, with or without `.yaml`.

    Raises:
        FileNotFoundError: There is none; the message offers the nearest.
    """
    here = Path(name)
    if here.is_file():
        return here
    if (here / "config.yaml").is_file():  # a run's folder
        return here / "config.yaml"
    short = name.removeprefix("configs/").removesuffix(".yaml")
    if short in names():
        return packaged() / f"{short}.yaml"
    near = difflib.get_close_matches(short, names(), n=3, cutoff=0.5) or names()
    raise FileNotFoundError(f"no configuration {name!r} here or in the package; the package has {', '.join(near)}")
