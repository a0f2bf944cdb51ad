"""Whether several threads may compute with an exported file at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from reslight.deploy.formats.opened import open_file


def assert_threads_agree(path: Path) -> None:
    """Check that three threads at once get what one gets alone."""
    alone, shared = open_file(path, threads=1), open_file(path, threads=1, workers=3)
    generator = torch.Generator().manual_seed(0)
    sizes = [(1 + number % 4, alone.preprocess.channels, 8 + number % 3, 8 + number % 5) for number in range(60)]
    batches = [list(torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)) for size in sizes]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(shared.probabilities, batches))
    for batch, probabilities in zip(batches, found, strict=True):
        torch.testing.assert_close(probabilities, alone.probabilities(batch), atol=1e-6, rtol=0)
