"""Configuration files: beside the person who asks, else those that come with the package; and whether they are in form."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from reslight.messages import UsageError


def packaged() -> Path:
    """The folder of the configurations that come with reslight: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "configs"


def names() -> list[str]:
    """Names of the packaged configurations, such as `digits` or `overlays/bf16`."""
    return sorted(path.relative_to(packaged()).with_suffix("").as_posix() for path in packaged().rglob("*.yaml"))


def name_of(path: Path) -> str:
    """A packaged configuration's name, with its folder, for `resnet20` is there for more than one data set; another file's own name."""
    path = path.resolve()
    inside = path.is_relative_to(packaged().resolve())
    return path.relative_to(packaged().resolve()).with_suffix("").as_posix() if inside else path.stem


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


def find_all(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Replace the names of configurations in a command line by their paths.

    Returns:
        The command line, and the files in their order.

    Raises:
        ValueError: A --config without a name.
        FileNotFoundError: There is no such configuration.
    """
    result, configs = [], []
    words = iter(arguments)
    for word in words:
        option, equals, name = word.partition("=")
        if option in ("-config", "-conf", "--conf"):
            raise UsageError(f"{option} is no option; did you mean --config?")
        if option in ("--config", "-c"):
            name = name if equals else next(words, "")
            if not name:
                raise UsageError("--config needs the name of a file, such as --config digits")
            configs.append(find(name))
            result += ["--config", str(configs[-1])]
        else:
            result.append(word)
    return result, configs


def check(path: Path) -> None:
    """Look at the form of a configuration file.

    Raises:
        ValueError: It is no YAML mapping with names as keys; the line is named where it is known.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{path}{line}: this is not YAML ({error.problem})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a text file in YAML") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings; it must be a mapping such as `model: {{net: resnet20}}`")
    if odd := [key for key in _keys(content) if not isinstance(key, str)]:
        raise UsageError(f"{path} has {odd[0]} where the name of a setting belongs; a decimal number has a point, as in 0.1")
    data = content.get("data")
    stray = sorted(set(data) - {"class_path", "init_args", "dict_kwargs"}) if isinstance(data, dict) and "class_path" in data else []
    if stray:
        raise UsageError(f"{path} has {', '.join(stray)} beside data.class_path; a data set's settings go into data.init_args")


def _keys(content: Any) -> list[Any]:
    """The keys of all mappings in a configuration."""
    if isinstance(content, dict):
        return [*content, *(key for value in content.values() for key in _keys(value))]
    return [key for value in content for key in _keys(value)] if isinstance(content, list) else []
