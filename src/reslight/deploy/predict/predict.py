"""Write the classes of any number of pictures to a file; an interrupted command resumes."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from reslight.atomic import make_folder
from reslight.deploy.classifier import Classifier
from reslight.deploy.predict.output import Output, ParquetOutput, Table, open_output, plain_path
from reslight.deploy.predict.pictures import Pictures
from reslight.deploy.predict.pipeline import classified
from reslight.deploy.predict.progress import Progress
from reslight.file_lock import lock_alone
from reslight.messages import UsageError, visible


@dataclass(frozen=True)
class Summary:
    """What `predict` did.

    Attributes:
        pictures: Rows that are in the file, with those of an interrupted command.
        errors: Pictures of this command that could not be read.
        resumed: Rows that an interrupted command had written.
        speed: Images per second of this command.
    """

    pictures: int
    errors: int
    resumed: int
    speed: float


def predict(
    classifier: Classifier,
    pictures: Pictures,
    output: Path | None,
    *,
    top: int,
    threshold: float,
    embeddings: Path | None = None,
) -> Summary:
    """Write a row for each picture.

    Args:
        classifier: The network.
        pictures: The pictures.
        output: The file, see `open_output`; None for standard output.
        top: Classes of each picture, at most.
        threshold: Only classes with a probability above it are kept; all if 0.
        embeddings: A parquet file for what the last layer gets of each picture.

    Raises:
        OSError: a file that cannot be written.
        UsageError: no pictures, an output that exists, or one that was begun with other settings or pictures.
        KeyboardInterrupt: Ctrl-C; all rows so far are in the files.
    """
    if (total := pictures.total) == 0:
        raise UsageError("PICTURES have no images. Give image files, or folders of images.")
    table = Table(min(top, len(classifier.labels)), threshold)
    settings = {"weights": classifier.sha256, "computed": classifier.form, "top": table.top, "threshold": threshold}
    settings["embeddings"] = None if embeddings is None else str(embeddings)
    with _state(output, embeddings, settings) as is_resumed:
        outputs: list[Output] = []
        if embeddings is not None:
            outputs.append(ParquetOutput(embeddings, None, classifier.features))
        outputs.append(open_output(output, table))  # the last one, so that a row of it has its embedding already
        paths = iter(pictures)
        resumed = _resume(outputs, paths, output) if is_resumed and output is not None else 0
        done, errors = resumed, 0
        progress = Progress(total, resumed)
        try:
            for batch in classified(classifier, paths, table.top):
                for one in outputs:
                    one.append(batch)
                done += len(batch)
                errors += sum(result.error is not None for result in batch)
                progress.advance(len(batch))
        except BaseException:
            for one in outputs:
                with suppress(OSError):  # which would hide the error that is raised, such as a full disk
                    one.flush()
                    if output is not None:
                        one.keep(done)
            raise
        finally:
            progress.close()
        for one in outputs:
            one.finish()
    return Summary(done, errors, resumed, progress.speed)


@contextmanager
def _state(output: Path | None, embeddings: Path | None, settings: Mapping[str, Any]) -> Iterator[bool]:
    """Keep the settings beside an unfinished file, locked; yield whether the file was begun by an earlier command.

    Raises:
        UsageError: a file that is complete, that was begun with other settings, or that another process writes.
    """
    if output is None:
        yield False
        return
    path = state_of(output)
    make_folder(path.parent)
    with path.open("a+b") as file:
        if lock_alone(file.fileno()) is False:
            raise UsageError(f"{visible(output)} is being written by another process. Wait for it, or choose another name.")
        file.seek(0)
        begun = file.read()
        if begun:
            _check_settings(begun, path, settings, output)
        else:
            for other in filter(None, (output, embeddings)):
                if os.path.lexists(other):
                    path.unlink()
                    raise UsageError(f"{visible(other)} exists: predictions replace no file. Remove it, or choose another name.")
            file.write(json.dumps(settings, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        yield bool(begun)
    path.unlink(missing_ok=True)


def state_of(output: Path) -> Path:
    """Return the file with the settings of an output that is not complete."""
    return output.with_name(f"{output.name}.unfinished.json")


def _check_settings(begun: bytes, path: Path, settings: Mapping[str, Any], output: Path) -> None:
    try:
        before = json.loads(begun)
    except ValueError:
        before = {}
    for name, value in settings.items():
        if before.get(name) != value:
            shown = "other weights" if name == "weights" else f"{name} {visible(before.get(name))}, not {visible(value)}"
            raise UsageError(
                f"{visible(output)} was begun with {shown}: only the same command resumes it. Repeat that one, or remove {visible(path)} "
                "and the file."
            )


def _resume(outputs: Sequence[Output], paths: Iterator[str], output: Path) -> int:
    """Drop the paths whose rows are in all outputs, and the rows that are not; return how many rows there are.

    Raises:
        UsageError: rows of other pictures.
    """
    rows = min(sum(1 for _ in one.paths()) for one in outputs)
    for one in outputs:
        one.keep(rows)
    for number, (written, path) in enumerate(zip_longest(outputs[-1].paths(), islice(paths, rows))):
        if path is None or written != plain_path(path):
            found = "there are fewer now" if path is None else f"picture {number + 1:,} is {visible(path)} now"
            raise UsageError(
                f"{visible(output)} was begun with other pictures: {found}. Repeat that command, or remove {visible(state_of(output))} "
                "and the file."
            )
    return rows
