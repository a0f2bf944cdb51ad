"""The commands about weights, as plain functions. They print; heavy imports are local."""

import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.commands import table
from reslight.messages import UsageError


def export(source: str, output: str, *, format: str | None = None, raw: bool = False, license: str | None = None) -> None:
    """Write the weights of a checkpoint as a folder to publish or to load, or as an ONNX file.

    Args:
        source: A checkpoint file, or a run's folder, which means its last.ckpt; for ONNX also a folder or a name of weights.
        output: The folder, or the .onnx file, to write.
        format: "safetensors" or "onnx"; None to go by the name of `output`.
        raw: The weights of the last step, not their average.
        license: An SPDX identifier for the card.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ImportError: What writes ONNX is not installed.
        ValueError: It cannot be exported, or `output` holds other things.
    """
    from reslight.training.export import export, trained
    from reslight.training.resume import read_checkpoint

    path = Path(source)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if (format or ("onnx" if output.endswith(".onnx") else "safetensors")) == "onnx":
        from reslight.weights import load
        from reslight.weights.interop.onnx import export_onnx

        if raw and not path.is_file():
            raise UsageError(f"{source} is no checkpoint, so it holds one set of weights; leave out --raw")
        net = trained(read_checkpoint(path), path, raw=raw)[0] if path.is_file() else load(source)
        print("\n".join(export_onnx(net, Path(output), license=license)))
        return
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; give a run's folder, such as runs/digits/1, or a file")
    print("\n".join(export(path, Path(output), raw=raw, license=license)))


def deepen(source: str, output: str, to: str) -> None:
    """Write weights, or a run to go on with, of a deeper network that computes the same, see `reslight.deepen`.

    Args:
        source: A run's folder, or a folder or a name of weights.
        output: The folder to write: a run for a run, weights for weights.
        to: The architecture.

    Raises:
        OSError: There is no such run or weight, or it cannot be written.
        ValueError: `to` is no deeper version of the network.
    """
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        from reslight.analysis import find_run
        from reslight.training.deepen import fork_run

        run = find_run(source)
        step = fork_run(run, Path(output), to)
        print(f"written {output}: the run {run} at step {step:,}, its network now {to}")
        print(f"next   reslight fit --config {output}/config.yaml --ckpt_path {output}, with a larger --trainer.max_epochs or max_steps")
        return
    from reslight.models import count_parameters
    from reslight.weights.deepen import deepen_folder

    net, deeper, difference = deepen_folder(source, Path(output), to)
    same = "equal to the bit" if difference == 0 else f"the largest difference is {difference:.1e} of the largest logit"
    print(f"written {output}: {to}, {count_parameters(deeper.config):,} parameters where {count_parameters(net.config):,} were")
    print(f"checked on the golden images: {same}")


def push(folder: str, repository: str, *, private: bool, create_pr: bool, dry_run: bool) -> None:
    """Publish a folder on the Hugging Face Hub, see `reslight.push`."""
    from reslight.hub.client import bars_for_people_only
    from reslight.weights.push import push

    bars_for_people_only()
    print("\n".join(push(folder, repository, private=private or None, create_pr=create_pr, dry_run=dry_run)))


def pull(repository: str, output: str) -> None:
    """Copy weights from the Hugging Face Hub into a folder, see `reslight.pull`."""
    from reslight.hub.client import bars_for_people_only
    from reslight.weights.pull import pull

    bars_for_people_only()
    print(f"written {pull(repository, output)}")


def classify(source: str, images: Sequence[str]) -> bool:
    """Print the most probable classes of pictures, and what was done to each.

    Args:
        source: A folder, a published weight's name, or a repository of the Hub.
        images: Files.

    Returns:
        Whether all could be read; each that could not has its line on stderr.
    """
    from reslight.analysis.classify import classify, read
    from reslight.weights import load

    net, good = load(source), True
    for name in images:
        try:
            picture = read(Path(name), net)
        except (OSError, ValueError) as error:
            good = False
            print(f"reslight: error: {error}", file=sys.stderr)
            continue
        print(f"{name}  ({', '.join(picture.done)})")
        for label, probability in classify(net, picture):
            print(f"  {probability:7.2%}  {label}")
    return good


def convert(
    source: str, output: str, *, came_from: str | None, to: str | None, check: bool, mean: list[float] | None, std: list[float] | None
) -> None:
    """Make a folder of another library's file, or such a file of a folder.

    Args:
        source: The file, or the folder or name of weights.
        output: The folder, or the file.
        came_from: The library whose file it is; None to write one.
        to: The library to write for.
        check: Build that library's network and compare logits.
        mean: Per channel, 0 to 1, where the images are normalised otherwise than in that library's own scripts.
        std: The same of the standard deviation.

    Raises:
        OSError: Something is not there, or cannot be written.
        ValueError: It does not fit, or the library is not there to check with.
    """
    from reslight.weights.interop.agreement import require
    from reslight.weights.interop.exchange import described_beside, export_file, import_file

    if check:
        require(str(came_from or to))
    if came_from:
        fed = {name: tuple(values) for name, values in (("mean", mean), ("std", std)) if values}
        net, feed = import_file(Path(source), Path(output), came_from, fed=fed)
        known = described_beside(Path(source), came_from) is not None
        print(f"written {output}: {sum(p.numel() for p in net.parameters()):,} parameters, {net.config.num_classes} classes")
        how = "as you said" if mean or std else f"as {came_from}'s own scripts do; --mean and --std if yours did otherwise"
        stride = (
            "; that a bottleneck strides on its 3x3 is assumed" if net.config.block == "bottleneck" and came_from == "transformers" else ""
        )
        print("network as the config.json beside it says" if known else f"network read off names and shapes{stride}")
        print(f"fed with {feed.size} x {feed.size}, mean {list(feed.mean)}, std {list(feed.std)}, {how}")
    else:
        net = export_file(source, Path(output), str(to))
        print(f"written {output}, for load_state_dict of {to}")
    if check:
        from reslight.weights.interop.agreement import check as compare

        said = compare(net, str(came_from or to))
        print(
            f"checked on {said.images} images: largest difference of a logit {said.max_difference:.1e}, the same class in {said.top1:.0%}"
        )


def verify(source: str, root: str) -> bool:
    """Measure weights again and print what is as their card says and what is not.

    Args:
        source: A folder, or a published weight's name.
        root: Folder of the images, for data sets that have one.

    Returns:
        Whether everything is.
    """
    from reslight.analysis.evaluate import verify
    from reslight.weights.folder import read_description
    from reslight.weights.locate import locate

    good = True
    for check in verify(read_description(locate(source, whole=True)), root):
        good &= check.good
        print(f"{'ok     ' if check.good else 'DIFFERS'}  {check.text}", flush=True)
    return good


def weights(pattern: str = "*", owner: str | None = None) -> None:
    """Print the weights whose names match, with their accuracy, size and place: those published with reslight and those in the cache.

    Args:
        pattern: Shell-style.
        owner: List this owner's repositories on the Hub instead.

    Raises:
        ValueError: None matches.
        OSError: The Hub cannot be asked.
    """
    from itertools import chain

    from reslight.weights.listing import cached, matching, published, remote

    found = matching(remote(owner) if owner else chain(published(), cached()), pattern)
    if not found and owner:
        matches = "" if pattern == "*" else f" whose name matches {pattern!r}"
        raise UsageError(f"{owner} has no repository with the tag reslight on the Hub{matches}, or none that you may see")
    if not found:
        raise UsageError(f"no published weight matches {pattern!r}; `reslight weights` lists all, and * stands for any letters")
    rows = [
        [
            row.name,
            f"{row.accuracy:.2f} %" if row.accuracy is not None else "",
            f"{row.nbytes / 1e6:.2f} MB" if row.nbytes else "",
            row.place,
        ]
        for row in found
    ]
    print(table(["name", "top-1", "size", "place"], rows))
