"""The commands that are not a Trainer's, as plain functions. They print; heavy imports are local."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reslight.analysis import History


def models(pattern: str = "*") -> None:
    """Print the architectures whose names match, with their size, their cost and where they come from.

    Raises:
        ValueError: None matches.
    """
    from reslight.models import SOURCES, VARIANTS, cost_of, list_models

    names = list_models(pattern)
    if not names:
        raise ValueError(f"no architecture matches {pattern!r}; `reslight models` lists all, and * stands for any letters")
    rows = []
    for name in names:
        config = VARIANTS[name]
        cost = cost_of(config)
        rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", f"{config.input_size}", SOURCES[name]])
    print(table(["name", "parameters", "MACs (M)", "at", "source"], rows))


def plot(runs: Sequence[str], output: str) -> None:
    """Draw the error curves of runs in one picture, and print what they came to.

    Args:
        runs: Folders of runs or of configurations, or files in a run's folder; a run that is named twice is drawn once.
        output: Where the picture goes; its ending says in which format.

    Raises:
        ValueError: There is nothing to draw, or nothing to draw it with or as.
        FileNotFoundError: A run or the picture's folder is not there.
    """
    from reslight.analysis import draw, find_run, names_of, read_run, save

    folders = {folder.resolve(): folder for folder in map(find_run, runs)}
    histories = [read_run(folder) for folder in folders.values()]
    save(draw(histories), Path(output))
    print(f"written {output}")
    names = names_of(histories)
    for name, history in zip(names, histories, strict=True):
        print(f"{name.ljust(max(map(len, names)))}  {_outcome(history)}")


def responses(sources: Sequence[str], output: str, root: str, images: int) -> None:
    """Measure the layer responses of networks on test images, draw them as Figure 7 of He et al. 2015, and print their means.

    Args:
        sources: Runs, or folders or names of weights.
        output: Where the picture goes; its ending says in which format.
        root: Folder of the images, for data sets that have one.
        images: How many test images at most.

    Raises:
        OSError: Something is not there, or cannot be written.
        ValueError: A network or its data set cannot be had, or there is nothing to draw with.
    """
    from reslight.analysis.picture import check_name, new_figure, save
    from reslight.analysis.responses import draw_responses, test_batches
    from reslight.analysis.responses import responses as measure
    from reslight.training.export import described_net

    if images < 1:
        raise ValueError(f"--images is {images}; it must be at least 1")
    check_name(Path(output))
    new_figure(1, 1)  # that there is matplotlib is better known before
    measured = []
    for source in sources:
        net, data, name = described_net(source)
        measured.append(measure(net, test_batches(net, data, root, images), name))
        one = measured[-1]
        print(f"{one.name}  {len(one.layers)} layers, mean std {one.mean:.4f}, on {one.images:,} test images of {data['name']}", flush=True)
    save(draw_responses(measured), Path(output))
    print(f"written {output}")


def paper(name: str, budget: str, seeds: int, nets: Sequence[str], data: str, root: str) -> None:
    """Run an experiment of the paper, write what came of it, and print its table.

    Args:
        name: Of the experiment.
        budget: `tiny`, `short` or `full`.
        seeds: Each network is trained with the seeds 1 to this.
        nets: Names of the networks; all if empty.
        data: Folder of CIFAR-10.
        root: Where runs and results are kept: in `<root>/<budget>`.

    Raises:
        OSError: The data are not there, or something cannot be written.
        ValueError: An unknown name, or runs that are there were made with other settings.
    """
    from reslight.analysis.outcome import summary
    from reslight.analysis.paper import BUDGETS, PAPER_STEPS
    from reslight.analysis.picture import new_figure
    from reslight.experiment import Plan, run_experiment, write_outcome

    new_figure(1, 1)  # an evening is too long to learn that there is no matplotlib
    plan = Plan(name, BUDGETS[budget], Path(root) / budget, data)
    finished = run_experiment(plan, seeds, nets)
    written = write_outcome(plan, finished, plan.root)
    print(f"\n{plan.experiment.title}")
    print(f"here {plan.budget.data}, {plan.budget.steps:,} iterations; in the paper CIFAR-10, {PAPER_STEPS:,} iterations\n")
    print(table(*summary(plan.experiment, plan.budget, finished)))
    print("\n" + "\n".join(f"written {path}" for path in written))


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
        from reslight.weights.onnx import export_onnx

        if raw and not path.is_file():
            raise ValueError(f"{source} is no checkpoint, so it holds one set of weights; leave out --raw")
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
    if (Path(source) / "checkpoints").is_dir():
        from reslight.training.deepen import fork_run

        step = fork_run(Path(source), Path(output), to)
        print(f"written {output}: the run {source} at step {step:,}, its network now {to}")
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
    from reslight.weights.client import bars_for_people_only
    from reslight.weights.push import push

    bars_for_people_only()
    print("\n".join(push(folder, repository, private=private or None, create_pr=create_pr, dry_run=dry_run)))


def pull(repository: str, output: str) -> None:
    """Copy weights from the Hugging Face Hub into a folder, see `reslight.pull`."""
    from reslight.weights.client import bars_for_people_only
    from reslight.weights.hub import pull

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
    from reslight.weights.exchange import described_beside, export_file, import_file
    from reslight.weights.peers import require

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
        from reslight.weights.peers import check as compare

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
    from reslight.weights.source import locate

    good = True
    for check in verify(read_description(locate(source, whole=True)), root):
        good &= check.good
        print(f"{'ok     ' if check.good else 'DIFFERS'}  {check.text}", flush=True)
    return good


def check_data(root: str, threads: int | None = None) -> bool:
    """Open every image of a set and print what is wrong with it, see `reslight.data.check`.

    Args:
        root: Folder of the images, or a data set of the Hub.
        threads: Threads that open images; the machine's cores if None.

    Returns:
        Whether nothing is.

    Raises:
        OSError: There is no such set.
        ValueError: It cannot be looked through.
    """
    from reslight.data.check import Summary, check
    from reslight.data.problems import KINDS

    summary, shows = Summary(), sys.stderr.isatty()

    def say(so_far: Summary) -> None:
        if shows:
            print(f"\r{so_far.opened:,} of {so_far.images:,} images", end="", file=sys.stderr, flush=True)

    for problem in check(root, threads, summary, progress=say):
        clear = "\r\x1b[K" if shows else ""
        print(f"{clear}{KINDS[problem.kind]}: {problem}", flush=True)
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr)
    parts = ", ".join(f"{count:,} {part}" for part, count in summary.parts.items())
    print(f"{summary.opened:,} images ({parts}) of {summary.classes:,} classes, {summary.bytes / 1e6:,.1f} MB")
    for kind, count in summary.kinds.items():
        print(f"{count:>6,}  {kind}")
    print("nothing is wrong with them" if not summary.kinds else f"{summary.kinds.total():,} problems")
    return not summary.kinds


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
        raise ValueError(f"{owner} has no repository with the tag reslight on the Hub{matches}, or none that you may see")
    if not found:
        raise ValueError(f"no published weight matches {pattern!r}; `reslight weights` lists all, and * stands for any letters")
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


def _outcome(history: "History") -> str:
    """A run's length and its errors at the end."""
    said = []
    if history.training.steps:
        said.append(f"training {history.training.errors[-1]:.2f} %")
    if errors := history.validation.errors:
        best = min(errors)
        at = history.validation.steps[errors.index(best)]
        said.append(f"validation {errors[-1]:.2f} % (best {best:.2f} % at step {at})")
    for step, error in zip(history.test.steps, history.test.errors, strict=True):
        said.append(f"test {error:.2f} %" + ("" if step == history.steps else f" at step {step}"))
    return f"{history.epochs} epoch{'s' if history.epochs > 1 else ''}, error: {', '.join(said)}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; a column of numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        to_right = all(not cell or cell[0].isdigit() for cell in column[1:])
        padded.append([cell.rjust(width) if to_right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
