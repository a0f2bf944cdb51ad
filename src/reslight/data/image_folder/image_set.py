"""Find the splits of a dataset in each form that people have them in: files with labels, class folders, shards, or one on the Hub."""

from pathlib import Path

from reslight.data.image_folder.hub_dataset import fetch, is_remote
from reslight.data.image_folder.label_files import find_label_files
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.labelled_folder import image_set_of_labels
from reslight.data.image_folder.saved_dataset import image_set_saved, is_saved
from reslight.data.image_folder.shards import image_set_in_shards
from reslight.data.image_folder.splits import ImageSet, find_class_trees, image_set_of
from reslight.messages import UsageError


def find_image_set(root: str, labels: str | None = None, columns: LabelColumns = LabelColumns(), *, partial: bool = False) -> ImageSet:
    """Find the splits of a dataset: images with a label file, a saved dataset, class folders, or shards in a folder or on the Hub.

    Args:
        root: The folder, or `OWNER/DATASET[@REVISION]`.
        labels: The label file; None for `metadata.csv` and the like, if there is one.
        columns: The columns of the label file, where their names are not the usual ones.
        partial: Whether training images, or images of some classes, may be missing.

    Raises:
        OSError: a missing folder or dataset, or one that cannot be opened.
        UsageError: a dataset without training images, or with classes that do not fit together.
    """
    if is_remote(root):
        if labels is not None:
            raise UsageError(
                f"data.labels is {labels}: data.root must be a folder then, but {root} is none. Set it to the folder of your images."
            )
        if (found := image_set_in_shards(fetch(root), partial=partial)) is None:
            raise UsageError(
                f"data.root is {root}: no name of its parquet files begins with train, validation or test. Set it to another dataset."
            )
        return found
    folder = Path(root).expanduser()
    if files := find_label_files(folder, labels, columns):
        return image_set_of_labels(files, partial=partial)
    if is_saved(folder):
        return image_set_saved(folder, partial=partial)
    found = image_set_in_shards(folder, columns, partial=partial)
    return found or image_set_of(find_class_trees(folder, partial=partial), partial=partial)
