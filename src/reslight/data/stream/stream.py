"""`Stream`: images in litdata's chunks, in a folder or on S3, also more than the disk holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslight.data.image_folder.folder import Folder
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, LabelledImages, SplitName
from reslight.data.loading.encoded import EncodedSplit
from reslight.data.loading.loaders import AnySplit
from reslight.data.stream.chunk_index import DESCRIPTION, INDEX, Description, SplitDescription, parse_description, parse_index
from reslight.data.stream.chunk_store import DOWNLOADS, ChunkStore, folder_for
from reslight.data.stream.images import UNKNOWN, StreamImages, StreamSplit
from reslight.data.stream.items import check_installed
from reslight.data.stream.s3 import Bucket
from reslight.messages import UsageError, shortened, unprintable, visible

_GIGABYTE = 10**9


class Stream(Folder):
    """Images in chunks that `reslight data pack --format litdata` or litdata's `optimize` wrote: in a folder, or on S3.

    The layout is `ROOT/train/index.json` with `val` or `test` beside `train`, or `ROOT/index.json` with training images alone. Chunks on
    S3 are downloaded to the cache ahead of their use. Order and augmentation are functions of the seed, as for any other dataset, and do
    not depend on devices, threads or the cache.

    Args:
        root: Folder of the chunks, or s3://BUCKET/PATH. Credentials and the endpoint are AWS's usual settings, such as AWS_PROFILE
            and AWS_ENDPOINT_URL.
        classes: Names of the classes in the order of their numbers, or how many there are; if null, from reslight.json, which
            `reslight data pack` writes.
        image_field: Name of the field that has the image; if null, a usual name, or the only field that may have it.
        label_field: The same for the label.
        shuffle_chunks: Chunks whose images are shuffled together. The order depends on it; twice as many are in memory at a time.
        cache_gb: Gigabytes of disk for downloaded chunks; if null, they are kept while a tenth of the disk is free.
        val_size: 0: validation needs a split of its own.

    Raises:
        OSError: a missing folder or bucket, or one that cannot be read.
        UsageError: a setting that is out of range, or data in another format.
    """

    def __init__(
        self,
        root: str,
        *,
        classes: int | list[str] | None = None,
        image_field: str | None = None,
        label_field: str | None = None,
        shuffle_chunks: int = 8,
        cache_gb: float | None = None,
        val_size: float = 0,
        **settings: Any,
    ) -> None:
        if shuffle_chunks < 1:
            raise UsageError(f"data.shuffle_chunks is {shuffle_chunks}: it must be at least 1. Use 8, the default.")
        if cache_gb is not None and not cache_gb > 0:
            raise UsageError(f"data.cache_gb is {cache_gb}: it must be above 0. Use null to keep what the disk can hold.")
        if val_size:
            raise UsageError(
                f"data.val_size is {val_size:g}: a stream has validation images in a split of its own. Write val, and set it to 0."
            )
        if settings.get("sampling", "uniform") != "uniform":
            raise UsageError(
                f"data.sampling is {settings['sampling']}: a stream is read chunk by chunk, so that classes cannot be drawn. "
                "Use uniform, and data.class_weights."
            )
        self.shuffle_chunks, self.cache_gb = shuffle_chunks, cache_gb
        self._classes, self._fields = classes, (image_field, label_field)
        self._descriptions: dict[str, SplitDescription] = {}
        super().__init__(root, val_size=0, labels=None, labels_columns=LabelColumns(), fold=None, on_unknown_class="raise", **settings)

    def find_image_set(self) -> ImageSet:
        """Read the index of each split."""
        check_installed(f"data.root is {self.root}: Stream")
        bucket = Bucket(self.root) if self.root.startswith("s3://") else None
        if bucket is None and "://" in self.root:
            raise UsageError(f"data.root is {visible(self.root)}: it must be a folder, or s3://BUCKET/PATH. Use one of them.")
        folder = Path(self.root).expanduser()
        if bucket is None and not folder.is_dir():
            raise FileNotFoundError(f"data.root is {self.root}: there is no such folder. Set it to the folder of your chunks.")
        where = bucket.url if bucket else str(folder)

        def read(name: str) -> bytes | None:
            if bucket is not None:
                return bucket.read(name)
            return (folder / name).read_bytes() if (folder / name).is_file() else None

        data = read(DESCRIPTION)
        description = None if data is None else parse_description(data, f"{where}/{DESCRIPTION}")
        classes = self._class_names_of(description, where)
        splits: dict[SplitName, LabelledImages] = {}
        for split, names in SPLIT_FOLDERS.items():
            # Each name that is tried is a request; of our own datasets, the names are known.
            for name in names if description is None else [split] if split in description.splits else []:
                if (data := read(f"{name}/{INDEX}")) is not None:
                    described = description.splits[split] if description else SplitDescription()
                    splits[split] = self._split(data, split, f"{where}/{name}", described, classes)
                    break
        if not splits and description is None and (data := read(INDEX)) is not None:
            splits["train"] = self._split(data, "train", where, SplitDescription(), classes)
        if "train" not in splits:
            found = f"it has {' and '.join(splits)}, but no train" if splits else f"it has neither train/{INDEX} nor {INDEX}"
            raise UsageError(f"data.root is {where}: {found}. Set it to a dataset that `reslight data pack` or litdata wrote.")
        return ImageSet(classes, splits)

    def data_info(self) -> dict[str, Any]:
        """Return what `Folder.data_info` does, and the number of chunks that are shuffled together."""
        return super().data_info() | {"shuffle_chunks": self.shuffle_chunks}

    def for_training(self, split: AnySplit) -> AnySplit:
        """Return the split with the training crop, whose chunks are read two windows ahead."""
        trained = super().for_training(split)
        assert isinstance(trained, StreamSplit)
        return replace(trained, distance=2 * self.shuffle_chunks)

    def _split(self, data: bytes, split: str, where: str, described: SplitDescription, classes: tuple[str, ...]) -> LabelledImages:
        index = parse_index(data, f"{where}/{INDEX}", *self._fields)
        self._descriptions[split] = described
        bucket = Bucket(where) if where.startswith("s3://") else None
        folder = Path(where) if bucket is None else folder_for(bucket, index.digest)
        limit = None if self.cache_gb is None else int(self.cache_gb * _GIGABYTE)
        least = (DOWNLOADS + 1) * max(index.sizes)
        if bucket is not None and limit is not None and limit < least:
            raise UsageError(f"data.cache_gb is {self.cache_gb:g}: downloads need {least / _GIGABYTE:.3g}. Increase it.")
        images = StreamImages(ChunkStore(index, folder, bucket, described.checksums, limit), classes)
        # Of the labels, only the number is known before the images are read; an expanded tensor takes no memory.
        labels = torch.tensor([UNKNOWN]).expand(len(index))
        return LabelledImages(images, labels, described.fingerprint or index.fingerprint(classes))

    def _class_names_of(self, description: Description | None, where: str) -> tuple[str, ...]:
        chosen, known = self._classes, description.classes if description else None
        if chosen is None and known is None:
            raise UsageError(
                f"data.classes is null: {where} has no {DESCRIPTION} that names them. Set it to their number, or to their names."
            )
        if chosen is None:
            return known or ()
        names = tuple(map(str, range(chosen) if isinstance(chosen, int) else chosen))
        if len(names) < 2 or len(set(names)) < len(names):
            raise UsageError(
                f"data.classes is {visible(chosen)}: it must be two different names or more, or a number from 2 on. Correct it."
            )
        if bad := unprintable(names):
            raise UsageError(
                f"data.classes has {shortened(bad)}: the name of a class must be one line of printable text. Rename the class."
            )
        if known is not None and len(names) != len(known):
            raise UsageError(f"data.classes has {len(names)} classes: {where}/{DESCRIPTION} has {len(known)}. Use null, the default.")
        return names

    def _encoded(self, found: LabelledImages, content: str | None) -> EncodedSplit:
        split = super()._encoded(found, content)
        return StreamSplit(**vars(split), window=self.shuffle_chunks)

    def _checked(self, split: AnySplit) -> AnySplit:
        return split  # the number of images is checked with the index, and labels when they are read

    def class_counts(self) -> Tensor:
        """Return the number of training images of each class, int64 `(K,)`.

        Raises:
            UsageError: the dataset's writer did not count them.
        """
        if (counts := self._descriptions["train"].counts) is None:
            raise UsageError(
                f"data.root is {visible(self.root)}: it has no {DESCRIPTION} with the number of images of each class. "
                "Write it with `reslight data pack --format litdata`; data.class_weights may be a weight for each class."
            )
        return torch.tensor(counts)

    def _report_imbalance(self) -> None:
        if self._descriptions["train"].counts is not None:
            super()._report_imbalance()
