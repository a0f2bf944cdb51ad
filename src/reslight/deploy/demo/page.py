"""The page: drop an image, see the most probable classes and where the network found the first of them."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reslight.analysis.explain import explain
from reslight.deploy.images import decoded
from reslight.deploy.listen import bind, url_of
from reslight.messages import MissingPackageError, UsageError, counted, visible
from reslight.models import ResNet
from reslight.version import __version__
from reslight.weights.card import title_of

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise MissingPackageError("the demo needs gradio: pip install 'reslight[demo]'") from error

_MAX_UPLOAD = "20mb"
_KEPT = 600
"""Seconds for which uploaded images stay in the temporary folder."""
_WAITING = 32
"""Images that may wait for their turn."""


def make_page(net: ResNet, title: str, examples: Sequence[str | os.PathLike[str]] = ()) -> gr.Blocks:
    """Return the page of a network.

    Args:
        net: A network with its `preprocess`, in eval mode.
        title: The heading of the page.
        examples: Image files to choose from.
    """

    def classify(path: str | None) -> tuple[dict[str, float] | None, Any]:
        if path is None:
            return None, gr.Image(value=None, label="Grad-CAM")
        try:
            found = explain(net, "", decoded(path, net.preprocess).image)
        except (OSError, UsageError) as error:
            raise gr.Error(visible(str(error).replace(path, "The image"), 300), print_exception=False) from None
        where = gr.Image(value=np.asarray(found.heat), label=f"Grad-CAM: {visible(found.label)}")
        return dict(found.best), where

    labels = net.labels or [str(number) for number in range(net.config.num_classes)]
    page: gr.Blocks = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_KEPT, _KEPT))
    with page:
        gr.Markdown(f"# {title}\nTells {counted(len(labels), 'class', 'classes')} apart, and shows where in the image it found its class.")
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=320)
                # gradio's own opens the file, with a traceback if it cannot.
                image.preprocess = partial(_path, Path(image.GRADIO_CACHE))  # type: ignore[method-assign]  # of this component only
                if examples:
                    gr.Examples([[str(Path(one))] for one in examples], inputs=[image], cache_examples=False)
            with gr.Column():
                best = gr.Label(num_top_classes=5, label="Most probable classes")
                heat = gr.Image(label="Grad-CAM", interactive=False, height=320, buttons=["fullscreen"])
        image.change(classify, image, [best, heat], api_name="classify")
        gr.Markdown(f"Made with reslight {__version__}. Uploaded images are deleted after ten minutes.")
    page.queue(max_size=_WAITING, default_concurrency_limit=1)
    return page


def _path(uploads: Path, payload: Any) -> str | None:
    """Return the path of an uploaded file, or of an example.

    Raises:
        gr.Error: a path outside the folder of uploads. gradio refuses such paths only in requests that have the field `meta`, and the
            heat map would show any image on this machine.
    """
    if payload is None or payload.path is None:
        return None
    if not Path(payload.path).resolve().is_relative_to(uploads.resolve()):
        raise gr.Error("The image was not uploaded to this page.", print_exception=False)
    return str(payload.path)


def launch(page: gr.Blocks, host: str | None = None, port: int | None = None) -> None:
    """Start a page's server in a thread.

    Args:
        page: The page.
        host: The address; None for GRADIO_SERVER_NAME, or this machine only.
        port: The port; None for GRADIO_SERVER_PORT, or a free one.
    """
    page.launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),  # the usual ones are fetched
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        footer_links=["gradio"],
        max_file_size=_MAX_UPLOAD,
    )


def load_examples(files: Sequence[str], net: ResNet) -> None:
    """Check that the examples can be read.

    Raises:
        OSError: a missing file.
        UsageError: a file that is no image.
    """
    for name in files:
        decoded(name, net.preprocess)


def demo(source: str, host: str, port: int, examples: Sequence[str], *, say: Callable[[str], None]) -> None:
    """Show the page of a network until SIGTERM or Ctrl-C.

    Args:
        source: A run, or a folder or name of weights.
        host: The address to listen at.
        port: The port; 0 for any free one.
        examples: Image files to choose from.
        say: Prints a line.

    Raises:
        OSError: missing weights or examples.
        UsageError: damaged weights, an example that is no image, or an address that cannot be used.
    """
    from reslight.deploy.formats.sources import load_to_export  # imports Lightning, which a Space does without

    with bind(host, port) as listener:
        url, port = url_of(listener), listener.getsockname()[1]
    net, record, _ = load_to_export(source)
    load_examples(examples, net)
    page = make_page(net, title_of(record) if Path(source).exists() else source, examples)  # strangers may see the page, not paths
    stopped = threading.Event()
    before = {one: signal.signal(one, lambda *_: stopped.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    launch(page, host, port)
    say(f"the demo of {source} is at {url}; Ctrl-C stops")
    stopped.wait()
    page.close(verbose=False)
    for one, handler in before.items():
        signal.signal(one, handler)
    say("stopped")
