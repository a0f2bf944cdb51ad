"""`reslight serve` and `reslight demo`: classify images that come over HTTP, and show a page for people."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from reslight.cli.parser import Commands, runs


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_serve(commands)
    _add_demo(commands)


def _add_serve(commands: Commands) -> None:
    about = "classify images that come over HTTP: POST /predict, GET /health and /info"
    more = "Needs pip install 'reslight[serve]'. SIGTERM and Ctrl-C finish the requests in work; the exit code is then 0"
    parser = commands.add_parser("serve", help=about, description=f"{about[0].upper()}{about[1:]}. {more}.")
    parser.add_argument("source", metavar="NAME|FOLDER|RUN|FILE", help="weights, a run, or a file that `reslight export` wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all of this machine (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 for any free one (default: %(default)s)")
    parser.add_argument("--max-mb", type=float, default=20, help="million bytes of a request (default: %(default)s)")
    parser.add_argument("--max-megapixels", type=float, default=100, help="million pixels of a request's images (default: %(default)s)")
    parser.add_argument("--max-files", type=int, default=16, help="images of a request (default: %(default)s)")
    parser.add_argument("--max-requests", type=int, default=32, help="requests in work at a time (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="requests per second of a client; 0 for no limit (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds to receive a request, and to answer it (default: %(default)s)")
    parser.add_argument("--proxy", metavar="ADDRESS", help="a proxy in front, whose X-Forwarded-For names the client")
    parser.add_argument("--threads", type=int, help="threads for decoding and computing (default: all cores)")
    parser.add_argument("--exact", action="store_true", help="compute in the precision of the weights, not in the quickest form")
    runs(parser, serve)


def _add_demo(commands: Commands) -> None:
    about = "show a page that classifies images, with heat maps (Grad-CAM)"
    more = "Needs pip install 'reslight[demo]'. The page needs no internet and sends nothing away"
    parser = commands.add_parser("demo", help=about, description=f"{about[0].upper()}{about[1:]}. {more}.")
    parser.add_argument("source", metavar="RUN|FOLDER|NAME", help="a run's folder, or a folder or name of weights")
    parser.add_argument("--examples", nargs="+", default=[], metavar="IMAGE", help="image files to choose from on the page")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all of this machine (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port; 0 for any free one (default: %(default)s)")
    runs(parser, demo)


def serve(
    source: str,
    *,
    host: str,
    port: int,
    proxy: str | None,
    threads: int | None,
    exact: bool,
    **limits: Any,
) -> bool:
    """Serve a classifier, see `reslight.deploy.serve.server.serve`."""
    from reslight.deploy.serve.limits import Limits
    from reslight.deploy.serve.server import serve

    say = partial(print, flush=True)
    return serve(source, host, port, Limits(**limits), say=say, threads=threads, exact=exact, proxy=proxy)


def demo(source: str, *, examples: Sequence[str], host: str, port: int) -> None:
    """Show a page, see `reslight.deploy.demo.page.demo`."""
    from reslight.deploy.demo.page import demo

    demo(source, host, port, examples, say=partial(print, flush=True))
