"""Configuration files: find the user's own and those that come with reslight, and name the runs that they make."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reslight.messages import UsageError, did_you_mean
from reslight.runs.folder import ROOT, Run, runs_in
from reslight.runs.yaml_file import read


def packaged() -> Path:
    """Return the folder of the configurations that come with reslight: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "configs"


def names() -> list[str]:
    """Return the names of the packaged configurations, such as `digits`, `cifar10/modern` or `overlays/bf16`."""
    return [name for name in _packaged_names() if "-" not in name]


def _packaged_names() -> list[str]:
    """Return the names of all packaged files, with those that hold the settings of one network: `cifar10/paper-resnet110`."""
    return sorted(path.relative_to(packaged()).with_suffix("").as_posix() for path in packaged().rglob("*.yaml"))


def title(name: str) -> str:
    """Return the first comment line of a packaged configuration, which says what it is."""
    with (packaged() / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def net_file(recipe: str, net: str) -> Path | None:
    """Return the file of the settings that a network needs on top of a packaged recipe; None if it needs none."""
    name = f"{recipe}-{net}"
    return packaged() / f"{name}.yaml" if name in _packaged_names() else None


def recipe_settings(recipe: str, net: str) -> dict[str, Any]:
    """Return the settings that `--config RECIPE --model.net NET` gives, for a packaged recipe."""
    settings = read(packaged() / f"{recipe}.yaml")
    model: dict[str, Any] = settings["model"]
    own = net_file(recipe, net)
    changes = read(own)["model"] if own else {} if net == net_name(model["net"]) else {"net": net}
    schedule = model["schedule"] | changes.get("schedule", {})
    return settings | {"model": model | changes | {"schedule": schedule}}


def net_name(net: Any) -> str | None:
    """Return the architecture's name in a `model.net`: a name, or a mapping with one; None for any other."""
    name = net.get("name") if isinstance(net, Mapping) else net
    return name if isinstance(name, str) else None


def run_name(path: Path | None, net: Any = None) -> str:
    """Return the name under which runs are saved: `cifar10/modern`, or `cifar10/modern-resnet56` for another network than the file's.

    Args:
        path: The configuration, of several that of `naming_file`; None without one. A packaged one keeps its folder, since `fast` exists
            twice; the configuration of a run means the name of that run.
        net: The `model.net` in use, from this file or from elsewhere.
    """
    if path is None:
        return "custom"
    name, used = _name_of(path), net_name(net)
    return name if used in (None, net_in(path)) else f"{name}-{used}"


def naming_file(files: Sequence[Path]) -> Path | None:
    """Return which of several configurations names the run: the first that is no overlay of reslight."""
    names = {path: _packaged_name(path) or "" for path in files}
    return next((path for path, name in names.items() if not name.startswith("overlays/")), files[0] if files else None)


def _name_of(path: Path) -> str:
    if run := Run.of_config(path):
        if run.number is None:  # the user gave its folder a name
            return run.folder.name
        folder, root = run.folder.parent, Path((read(path).get("trainer") or {}).get("default_root_dir") or ROOT).resolve()
        return folder.relative_to(root).as_posix() if root in folder.parents else folder.name
    return _packaged_name(path) or path.stem


def _packaged_name(path: Path) -> str | None:
    """Return the name of a packaged configuration; None for a file from elsewhere."""
    path, folder = path.resolve(), packaged().resolve()
    return path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else None


def net_in(path: Path) -> str | None:
    """Return the name of the network in a configuration file."""
    model = read(path).get("model")
    return net_name(model.get("net")) if isinstance(model, dict) else None


def find(name: str) -> Path:
    """Return the file that `--config NAME` means: a file or a run's folder here, a packaged one, or that of the newest run in a folder.

    Raises:
        UsageError: a checkpoint.
        FileNotFoundError: no such configuration; the message has the command line of today for a name of an earlier version.
    """
    here = Path(name)
    if here.is_file() and here.suffix == ".ckpt":
        run = Run.of_checkpoint(here)
        raise UsageError(f"--config is {name}: this is a checkpoint. Use --config {run.folder if run else 'NAME'} --ckpt_path {name}.")
    if here.is_file():
        return here
    if (here / "config.yaml").is_file():
        return here / "config.yaml"
    short = name.removeprefix("configs/").removesuffix(".yaml")
    if short in names():
        return packaged() / f"{short}.yaml"
    if (runs := runs_in(here)) and runs[-1].config.is_file():
        return runs[-1].config
    if here.is_dir():
        raise FileNotFoundError(f"--config is {name}: this folder has neither a config.yaml nor runs. Give a file, or a run's folder.")
    if line := _line_of_today(short):
        raise FileNotFoundError(f"--config is {name}: the network is a setting of its own now. Use {line}.")
    same = [known for known in names() if known.rpartition("/")[2] == short]
    hint = f"did you mean {' or '.join(same)}?" if same else did_you_mean(short, names(), "`reslight configs` lists them.")
    raise FileNotFoundError(f"--config is {name}: there is no such file or packaged configuration; {hint}")


def _line_of_today(old: str) -> str | None:
    """Return what replaces a name of an earlier version, which had a file for each network: cifar10/resnet56, imagenet/v1_resnet18."""
    if found := re.fullmatch(r"(.+?)[/_-]((?:resnet|plain)\d+(?:_cifar)?)", old):
        for recipe in (found[1], f"{found[1]}/modern"):
            if recipe in names():
                return f"--config {recipe} --model.net {found[2]}"
    return None


def find_all(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Find the configurations of a command line, and add the settings that a network needs on top of its recipe.

    `--config cifar10/paper --model.net resnet110` gives the files cifar10/paper.yaml and cifar10/paper-resnet110.yaml.

    Returns:
        The files in the order in which they apply; and the other words, which apply after all files wherever they were typed.

    Raises:
        UsageError: a --config without a name.
        FileNotFoundError: no such configuration.
    """
    files: list[Path] = []
    net_words: list[str] = []
    others: list[str] = []
    words = list(arguments)
    while words:
        option, equals, value = (word := words.pop(0)).partition("=")
        if option in ("-config", "-conf", "--conf"):
            raise UsageError(f"{option} is no option; did you mean --config?")
        if option in ("--config", "-c"):
            value = value if equals else words.pop(0) if words else ""
            if not value:
                raise UsageError("--config has no value: it takes a name or a file. Use --config digits, for example.")
            files.append(find(value))
        elif option in ("--model.net", "--model.net.name") and (equals or words):
            net_words = [option, value if equals else words.pop(0)]
        else:
            others.append(word)
    if net_words:
        option, net = net_words
        files = _with_net_file(files, net)
        if option == "--model.net" and _is_net_of_recipe(files, net):
            net_words = []  # the name alone would reset fields that the recipe sets, such as stride_on
    return files, [*net_words, *others]


def _with_net_file(files: list[Path], net: str) -> list[Path]:
    """Return the files with that of a network's settings behind the packaged recipe that has one."""
    for number, path in enumerate(files, start=1):
        recipe = _packaged_name(path)
        if recipe and (own := net_file(recipe, net)):
            return [*files[:number], own, *files[number:]]
    return files


def _is_net_of_recipe(files: list[Path], net: str) -> bool:
    """Return whether the last file with a network is a packaged one with this network."""
    last = next((path for path in reversed(files) if net_in(path)), None)
    return last is not None and _packaged_name(last) is not None and net_in(last) == net
