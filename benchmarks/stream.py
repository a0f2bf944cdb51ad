"""Images per second of one epoch from the same pictures in class folders, in parquet shards and in litdata's chunks.

The chunks are in a folder, and on an S3 server of this machine (moto's, if it is installed), once with an empty cache and once with a full
one. Each road: random resized crop, flip, normalise, in float32 on the CPU. CPU seconds are those of this process; on a machine with other
work they compare better than the time on the clock.
"""

import gc
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import alternate, introduce, keep, parser, show, use_threads
from pictures import write_pictures

from reslight.cli.commands.data_pack import pack_data
from reslight.data import Folder, Stream
from reslight.data.stream.chunk_store import stream_cache


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="reslight-stream-") as place:
        root = Path(place)
        os.environ["RESLIGHT_CACHE"] = str(root / "cache")
        nbytes = write_pictures(root / "folders", options.images)
        pack_data(str(root / "folders"), str(root / "shards"))
        pack_data(str(root / "folders"), str(root / "chunks"), format="litdata")
        settings = {"batch_size": options.batch_size, "threads": options.threads, "seed": 0}
        made = {
            "class folders": lambda: Folder(str(root / "folders"), val_size=0, **settings),
            "parquet shards": lambda: Folder(str(root / "shards"), val_size=0, **settings),
            "Stream, a folder": lambda: Stream(str(root / "chunks"), **settings),
        }
        with _bucket(root / "chunks") as url:
            if url:
                made["Stream, S3, full cache"] = lambda: Stream(url, **settings)
                made["Stream, S3, empty cache"] = lambda: (shutil.rmtree(stream_cache(), ignore_errors=True), Stream(url, **settings))[1]
            introduce(f"Stream: {options.images:,} images, {nbytes / options.images / 1e3:.0f} kB each, batch {options.batch_size}")
            clocks = {name: _epoch(make, time.perf_counter) for name, make in made.items()}
            values = alternate(clocks, options.rounds)
            show("Stream", "images/s", values, base="class folders")
            cpu = alternate({name: _epoch(make, time.process_time) for name, make in made.items()}, options.rounds)
            show("Stream", "images per CPU second", cpu, base="class folders")
    keep(options, {"images per second": values, "images per CPU second": cpu})


def _epoch(make: Callable[[], Folder], clock: Callable[[], float]) -> Callable[[], float]:
    """Return a function that gives the images per second of an epoch, start included."""

    def run() -> float:
        data = make()
        data.setup("fit")
        gc.collect()
        began, images = clock(), 0
        for batch in data.train_dataloader():
            images += len(data.training_batch(batch, epoch=0).labels)
        return images / (clock() - began)

    return run


@contextmanager
def _bucket(folder: Path):
    """Serve a folder as `s3://set`; None without moto."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield None
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    before = dict(os.environ)
    os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
    try:
        from boto3.session import Session

        client = Session().client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="set")
        for path in folder.rglob("*.*"):
            client.upload_file(str(path), "set", path.relative_to(folder).as_posix())
        yield "s3://set"
    finally:
        server.stop()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def _options(arguments: Sequence[str] | None):
    one = parser(__doc__, rounds=5)
    one.add_argument("--images", type=int, default=2000)
    one.add_argument("--batch-size", type=int, default=64)
    one.set_defaults(threads=1)
    return one.parse_args(arguments)


if __name__ == "__main__":
    main()
