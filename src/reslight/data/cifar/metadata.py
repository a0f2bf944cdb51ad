"""Metadata of the CIFAR datasets: classes, sizes, statistics, fingerprints, and where they are published.

A. Krizhevsky 2009, "Learning multiple layers of features from tiny images",
https://www.cs.toronto.edu/~kriz/cifar.html. Fingerprints, means and stds were computed from all images by
`loading.fingerprint` and `statistics.channel_statistics`; a test computes them again if the images are available.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SplitName = Literal["train", "test"]
SIZE = 32
"""Height and width of the images, in pixels."""
ADJECTIVES: Mapping[SplitName, str] = {"train": "training", "test": "test"}
"""How messages call the images of a split."""


@dataclass(frozen=True)
class CifarMetadata:
    """Metadata of one of the two datasets."""

    title: str
    """The name for messages."""
    labels: tuple[str, ...]
    """Names of the classes in the official order, which is alphabetical."""
    per_class: dict[SplitName, int]
    """Images of each class."""
    fingerprints: dict[SplitName, str]
    """See `loading.fingerprint`."""
    mean: tuple[float, float, float]
    """Mean of each channel over the pixels of all 50,000 training images, on the scale 0 to 1."""
    std: tuple[float, float, float]
    """Std of each channel over the same pixels. (Many training scripts have (0.2023, 0.1994, 0.2010) instead, the mean of
    the stds of single images.)"""
    archive: str
    """Folder within the official python archive."""
    batches: dict[SplitName, tuple[str, ...]]
    """Files of the archive with images."""
    batch_labels: str
    """Key of the labels in these files."""
    repository: str
    """Name of the dataset on the Hugging Face Hub."""
    revision: str
    """Commit of the dataset on the Hub."""
    shards: dict[SplitName, str]
    """Files of the dataset on the Hub."""


CIFAR10 = CifarMetadata(
    title="CIFAR-10",
    labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    per_class={"train": 5000, "test": 1000},
    fingerprints={
        "train": "16741de5c03e72287adef073cbd93884d810a6d950722d627c22ef9d4f298a2e",
        "test": "d46c4c58a23a82ee34dd25b3b3857ce3db2f6544d5f4483d26195caaa5779837",
    },
    mean=(0.49140, 0.48216, 0.44653),
    std=(0.24703, 0.24349, 0.26159),
    archive="cifar-10-batches-py",
    batches={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    batch_labels="labels",
    repository="uoft-cs/cifar10",
    # as in https://github.com/embeddings-benchmark/mteb, CIFAR10Clustering
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    shards={"train": "plain_text/train-00000-of-00001.parquet", "test": "plain_text/test-00000-of-00001.parquet"},
)

_CIFAR100_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

CIFAR100 = CifarMetadata(
    title="CIFAR-100",
    labels=tuple(_CIFAR100_LABELS.split()),
    per_class={"train": 500, "test": 100},
    fingerprints={
        "train": "9a0cb87de17b65fd4566768d5ae9f3e22f71c519cec54b682914c03808d74d72",
        "test": "b7411c210b695fdcf523b20068f48ad3dca14bed23a09b2bf4d36b41c2715424",
    },
    mean=(0.50708, 0.48655, 0.44092),
    std=(0.26733, 0.25644, 0.27615),
    archive="cifar-100-python",
    batches={"train": ("train",), "test": ("test",)},
    batch_labels="fine_labels",
    repository="uoft-cs/cifar100",
    # as in https://github.com/embeddings-benchmark/mteb, CIFAR100Clustering
    revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
    shards={"train": "cifar100/train-00000-of-00001.parquet", "test": "cifar100/test-00000-of-00001.parquet"},
)

METADATA = {"cifar10": CIFAR10, "cifar100": CIFAR100}
