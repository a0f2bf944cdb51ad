"""Latency and throughput of `reslight serve` on loopback, beside LitServe with the same classifier.

Closed loop: each of N clients sends its next request when it has the answer of the last one. Open loop: requests are sent at a fixed rate,
whatever the server does, and latency counts from the planned time, so that waiting is not left out. Clients and server share the machine.

    python benchmarks/serve.py
    python benchmarks/serve.py --weights resnet20.cifar10 --photo 4000 3000 --clients 4
"""

import http.client
import io
import os
import queue
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness import introduce, keep, parser, show
from PIL import Image

LITSERVE = """
import sys
import litserve
import reslight

class Images(litserve.LitAPI):
    def setup(self, device):
        self.classifier = reslight.Classifier(sys.argv[1])
    def decode_request(self, request):
        return self.classifier.decode(request["file"].file.read()).pixels
    def batch(self, inputs):
        return inputs
    def predict(self, pixels):
        return list(self.classifier.compute(pixels)[0])
    def unbatch(self, output):
        return output
    def encode_response(self, output):
        best = output.sort(descending=True)
        rows = zip(best.indices[:5].tolist(), best.values[:5].tolist())
        return {"classes": [{"label": self.classifier.labels[one], "probability": value} for one, value in rows]}

if __name__ == "__main__":
    server = litserve.LitServer(Images(max_batch_size=32, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="error", generate_client_file=False)
"""


class Server:
    """A server in processes of its own, until the end of the benchmark."""

    def __init__(self, words: Sequence[str], port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [sys.executable, *words], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        start = time.perf_counter()
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() - start > 120:
                raise SystemExit(f"no server at port {port}: {' '.join(words)}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def form(image: bytes) -> tuple[bytes, dict[str, str]]:
    """An image as the body of a form, and its headers."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + image + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def ask(connection: http.client.HTTPConnection, image: bytes) -> None:
    body, headers = form(image)
    connection.request("POST", "/predict", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {text[:200]!r}")


def closed_loop(port: int, image: bytes, clients: int, seconds: float) -> list[float]:
    """Latencies in seconds."""
    latencies: list[float] = []
    stop = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (begun := time.perf_counter()) < stop:
            ask(connection, image)
            latencies.append(time.perf_counter() - begun)

    in_threads([client] * clients)
    return latencies


def open_loop(port: int, image: bytes, rate: float, seconds: float, clients: int = 32) -> list[float]:
    """Latencies in seconds from the planned times."""
    latencies: list[float] = []
    plan: queue.SimpleQueue[float] = queue.SimpleQueue()
    begun = time.perf_counter()
    for number in range(int(rate * seconds)):
        plan.put(begun + number / rate)

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            try:
                planned = plan.get_nowait()
            except queue.Empty:
                return
            time.sleep(max(0.0, planned - time.perf_counter()))
            ask(connection, image)
            latencies.append(time.perf_counter() - planned)

    in_threads([client] * clients)
    return latencies


def in_threads(clients: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=client) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--weights", default="resnet8.digits")
    made.add_argument("--photo", nargs=2, type=int, default=(32, 32), metavar=("WIDTH", "HEIGHT"), help="size of the JPEG image")
    made.add_argument("--clients", nargs="+", type=int, default=[1, 8], help="clients of the closed loops")
    made.add_argument("--rate", type=float, default=50, help="requests per second of the open loop")
    made.add_argument("--seconds", type=float, default=4, help="of each loop")
    made.add_argument("--sides", nargs="+", choices=("reslight", "litserve"), default=["reslight", "litserve"])
    options = made.parse_args()
    introduce(f"serve: {options.weights}, JPEG of {options.photo[0]} x {options.photo[1]}")
    file = io.BytesIO()
    noise = Image.effect_noise((options.photo[0] // 8 + 1, options.photo[1] // 8 + 1), 60)
    noise.convert("RGB").resize(options.photo).save(file, "JPEG", quality=90)
    image = file.getvalue()
    print(f"  {len(image):,} bytes")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "lit.py").write_text(LITSERVE, encoding="utf-8")
        ports = {side: free_port() for side in options.sides}
        words = {
            "reslight": ["-m", "reslight", "serve", options.weights, "--rate=0", "--max-requests=64", f"--port={ports.get('reslight')}"],
            "litserve": [str(folder / "lit.py"), options.weights, str(ports.get("litserve"))],
        }
        if options.threads:
            words["reslight"] += ["--threads", str(options.threads)]
        for side in options.sides:
            stack.enter_context(Server(words[side], ports[side]))
            closed_loop(ports[side], image, 2, min(1.0, options.seconds))  # warm
        loads: dict[str, Callable[[int], list[float]]] = {
            f"closed loop, {n} client{'s' * (n > 1)}": lambda port, n=n: closed_loop(port, image, n, options.seconds)
            for n in options.clients
        }
        loads[f"open loop, {options.rate:g} requests/s"] = lambda port: open_loop(port, image, options.rate, options.seconds)
        results = {}
        for title, load in loads.items():
            found: dict[str, dict[str, list[float]]] = {one: {side: [] for side in ports} for one in ("p50", "p99", "rate")}
            for number in range(options.rounds):
                for side in list(ports) if number % 2 == 0 else reversed(list(ports)):
                    begun = time.perf_counter()
                    latencies = load(ports[side])
                    found["rate"][side].append(len(latencies) / (time.perf_counter() - begun))
                    for percent in (50, 99):
                        found[f"p{percent}"][side].append(1e3 * percentile(latencies, percent))
            base, results[title] = options.sides[-1], found
            show(f"{title}, median latency", "ms", found["p50"], base=base, digits=1)
            show(f"{title}, 99th percentile", "ms", found["p99"], base=base, digits=1)
            show(f"{title}, throughput", "requests/s", found["rate"], base=base, digits=1)
    keep(options, results)


if __name__ == "__main__":
    main()
