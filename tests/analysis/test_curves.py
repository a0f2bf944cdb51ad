"""The figure shows the numbers of metrics.csv with a legend, and mistakes are answered in one line."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text

from reslight.analysis import Curve, History, Run, draw, find_run, names_of, read_run, save
from reslight.analysis.curves import limits
from reslight.analysis.figure import COLORS

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


def history(
    folder: str = "runs/digits/1",
    training: Sequence[float] = (60.0, 20.0, 5.0),
    validation: Sequence[float] = (70.0, 30.0, 10.0),
    *,
    test: float | None = None,
    net: str | None = "resnet8",
    every: int = 20,
) -> History:
    """A run with those errors at the ends of its epochs."""

    def curve(errors: Sequence[float]) -> Curve:
        return Curve(tuple(every * (number + 1) for number in range(len(errors))), tuple(errors))

    end = every * max(len(training), len(validation))
    test_curve = Curve() if test is None else Curve((end,), (test,))
    return History(Path(folder), net, max(len(training), len(validation)), curve(training), curve(validation), test_curve)


def lines_of(*runs: History) -> dict[object, Line2D]:
    (axes,) = draw(runs).axes
    return {line.get_label(): line for line in axes.get_lines()}


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def texts(items: Sequence[Text]) -> list[str]:
    return [item.get_text() for item in items]


def legend_of(*runs: History) -> list[str]:
    legend = draw(runs).axes[0].get_legend()
    assert legend is not None
    return texts(legend.get_texts())


def make_run(folder: str, accuracies: Sequence[tuple[float, float]], *, net: str = "resnet8", test: float | None = None) -> Path:
    """A run's folder, with (training, validation) accuracies at the ends of epochs of 20 steps."""
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(f"model: {{net: {net}}}\n")
    with (path / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "step", "val/acc1", "train/acc1"])
        rows.writerows([number, 20 * number, validation, training] for number, (training, validation) in enumerate(accuracies, 1))
    if test is not None:
        (path / "test.json").write_text(json.dumps({"step": 20 * len(accuracies), "metrics": {"test/acc1": test}}))
    return path


def test_the_lines_are_the_numbers_of_the_table():
    run = make_run("runs/digits/1", [(0.25, 0.125), (0.5, 0.375), (0.875, 0.75)], test=0.625)
    lines = lines_of(read_run(Run(run)))
    assert {label: points(line) for label, line in lines.items()} == {
        "digits/1 training": [(20, 75), (40, 50), (60, 12.5)],
        "digits/1 validation": [(20, 87.5), (40, 62.5), (60, 25)],
        "digits/1 test": [(60, 37.5)],
    }


def test_training_is_thin_and_dashed_validation_bold_in_the_same_color():
    lines = lines_of(history(test=9), history("runs/digits/2", test=8))
    for name, color in (("digits/1", COLORS[0]), ("digits/2", COLORS[1])):
        thin, bold, dot = (lines[f"{name} {split}"] for split in ("training", "validation", "test"))
        assert (thin.get_linestyle(), bold.get_linestyle()) == ("--", "-")
        assert thin.get_linewidth() < bold.get_linewidth()
        assert (dot.get_marker(), dot.get_linestyle()) == ("o", "None")
        assert {to_hex(line.get_color()).upper() for line in (thin, bold, dot)} == {color}


def test_what_was_not_measured_is_neither_drawn_nor_explained():
    assert list(lines_of(history(validation=()))) == ["digits/1 training"]
    assert legend_of(history(validation=())) == ["digits/1", "training"]
    assert legend_of(history(training=(), test=4)) == ["digits/1", "validation", "test"]
    assert legend_of(history(), history("runs/digits/2", test=4)) == ["digits/1", "digits/2", "training", "validation", "test"]


def test_the_legend_looks_like_the_lines():
    (axes,) = draw([history(), history("runs/digits/2", validation=())]).axes
    legend = axes.get_legend()
    assert legend is not None
    styles = [(line.get_linestyle(), to_hex(line.get_color()).upper()) for line in legend.get_lines()[:2]]
    assert styles == [("-", COLORS[0]), ("--", COLORS[1])], "a run without validation has no bold line"


def test_an_only_point_is_seen():
    lines = lines_of(history(training=(60,), validation=(70,)))
    for line in lines.values():
        assert line.get_marker() == "_"
        assert not line.get_clip_on(), "it is on the edge of the axes"


@pytest.mark.parametrize(
    ("every", "label", "ticks"),
    [
        (300, "iteration", {0: "0", 2_000: "2,000"}),
        (6_666, "iteration", {10_000: "10,000"}),
        (20_000, "iter. (1e4)", {0: "0", 20_000: "2", 55_000: "5.5"}),
    ],
)
def test_a_long_run_counts_ten_thousands(every: int, label: str, ticks: dict[int, str]):
    (axes,) = draw([history(every=every)]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (label, "error (%)")
    assert axes.get_xlim() == (0, 3 * every)
    assert {x: axes.xaxis.get_major_formatter()(x) for x in ticks} == ticks


def test_a_short_run_has_a_tick_for_whole_iterations_only():
    (axes,) = draw([history(every=1)]).axes
    assert axes.get_xlim() == (0, 3)
    assert axes.xaxis.get_major_locator().tick_values(0, 3).tolist() == [0, 1, 2, 3]


def falling(start: float, end: float, epochs: int) -> list[float]:
    """Down by a third of the rest each epoch."""
    return [end + (start - end) * (2 / 3) ** epoch for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([history(training=falling(70, 3, 60), validation=falling(80, 5, 60))], (0, 8), id="the first epochs do not matter"),
        pytest.param([history(training=[75, 55], validation=[70, 50])], (40, 100), id="two epochs are all shown"),
        pytest.param([history(training=[3.0] * 20, validation=[5.0] * 10 + [90] + [5.0] * 9)], (0, 6), id="nor does one spike"),
        pytest.param([history(training=[3.0] * 20, validation=[5.0] * 19 + [40])], (0, 50), id="the end is always shown"),
        pytest.param([history(training=[3.0] * 20, validation=[4.0] * 20, test=18)], (0, 25), id="so is the test error"),
        pytest.param([history(training=[3.0] * 20), history(training=[90.0] * 20)], (0, 100), id="and a run that failed"),
        pytest.param([history(training=[99.0] * 20, validation=[100.0] * 20)], (60, 100), id="no error is above 100"),
        pytest.param([history(training=[100.0] * 20, validation=())], (60, 100), id="nothing learned"),
        pytest.param([history(training=[0.0] * 20, validation=[0.0] * 20)], (0, 1), id="nothing wrong"),
        pytest.param([history(training=[50.0] * 30 + [29.0] * 30, validation=[48.0] * 30 + [27.0] * 30)], (20, 60), id="ImageNet"),
        pytest.param(
            [history(training=[3.0] * 100, validation=[4.0] * 100), history(training=[], validation=falling(80, 2, 8))],
            (0, 8),
            id="a short run beside a long one",
        ),
    ],
)
def test_the_limits_show_the_end(runs: list[History], expected: tuple[float, float]):
    assert limits(runs) == expected
    bottom, top = draw(runs).axes[0].get_ylim()
    assert top == expected[1]
    assert expected[0] - 0.05 * (top - expected[0]) < bottom < expected[0], "a line along the bottom must stay in sight"


def test_names_are_as_long_as_it_takes():
    assert names_of([history("runs/digits/1")]) == ["digits/1"]
    assert names_of([history("runs/digits/1"), history("runs/digits/2")]) == ["digits/1", "digits/2"]
    assert names_of([history("runs/cifar10/resnet20/1"), history("runs/cifar100/resnet20/1")]) == [
        "cifar10/resnet20/1",
        "cifar100/resnet20/1",
    ]
    assert names_of([history("runs/cifar10/fast/14"), history("runs/cifar100/fast/1")]) == ["cifar10/fast/14", "cifar100/fast/1"]
    assert names_of([history("runs/digits/1"), history("runs/digits/1")]) == ["digits/1", "digits/1"]
    assert names_of([history("runs/digits/1", net="resnet8"), history("runs/digits/2", net="resnet20")]) == [
        "digits/1 (resnet8)",
        "digits/2 (resnet20)",
    ]
    assert names_of([history("runs/paper_resnet20/1", net="resnet20"), history("runs/digits/2", net=None)]) == [
        "paper_resnet20/1",
        "digits/2",
    ]


def test_a_run_may_have_any_name(tmp_path):
    figure = draw([history("runs/_$a$_\\frac/1")])
    save(figure, tmp_path / "a.png")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert texts(legend.get_texts())[0] == r"_\$a\$_\frac/1"


def test_more_runs_than_colours_are_told_apart():
    runs = [history(f"runs/digits/{number}") for number in range(1, 3 * len(COLORS) + 1)]
    lines = lines_of(*runs)
    looks = {(lines[f"{name} validation"].get_color(), lines[f"{name} validation"].get_marker()) for name in names_of(runs)}
    assert len(looks) == len(runs)


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.svg", "a.b.PNG"])
def test_the_ending_says_the_format(name: str):
    for file in (Path(name), Path(f"again_{name}")):
        save(draw([history(test=9)]), file)
    content = Path(name).read_bytes()
    assert content.startswith(SIGNATURES[name.rpartition(".")[2].lower()])
    assert content == Path(f"again_{name}").read_bytes(), "the same figure gives the same bytes"
    assert b"CreationDate" not in content
    assert b"<dc:date>" not in content


def test_a_picture_leaves_no_state_behind():
    check = (
        "import sys; from pathlib import Path; from reslight.analysis import draw, save, Curve, History; import matplotlib\n"
        "state = lambda: [matplotlib.rcParams[name] for name in ('pdf.fonttype', 'svg.hashsalt', 'font.size')]\n"
        "before = state()\n"
        "save(draw([History(Path('runs/a/1'), None, 1, Curve((1, 2), (3.0, 2.0)), Curve(), Curve())]), Path('a.pdf'))\n"
        "assert state() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_no_run_is_an_error():
    with pytest.raises(ValueError, match="there are no runs to draw"):
        draw([])


# -- the command


def test_plot_writes_the_figure_and_prints_the_errors(reslight):
    make_run("runs/digits/1", [(0.25, 0.125), (0.5, 0.875), (0.875, 0.75)], test=0.625)
    make_run("runs/digits/2", [(0.25, 0.125)], net="resnet20")
    answer = reslight("plot", "runs/digits/1", "runs/digits", Path("runs/digits/1/config.yaml").resolve(), "-o", "curves.png")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "written curves.png",
        "digits/1 (resnet8)   3 epochs, error: training 12.50 %, validation 25.00 % (best 12.50 % at step 40), test 37.50 %",
        "digits/2 (resnet20)  1 epoch, error: training 75.00 %, validation 87.50 % (best 87.50 % at step 20)",
    ]
    assert Path("curves.png").read_bytes().startswith(SIGNATURES["png"])


def test_an_early_test_error_says_its_step(reslight):
    run = make_run("runs/digits/1", [(0.25, 0.125), (0.5, 0.875)])
    (run / "test.json").write_text(json.dumps({"step": 20, "metrics": {"test/acc1": 0.625}}))
    assert reslight("plot", run, "-o", "a.svg").out.endswith(", test 37.50 % at step 20\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("digits -o a.png", "digits is not a run. Did you mean runs/digits?"),
        ("nothing -o a.png", "nothing is not a run. Give the folder of one, such as runs/digits/1"),
        ("runs/digits runs/new -o a.png", "runs/new/1/metrics.csv is missing: "),
        ("runs/begun/1 -o a.png", "runs/begun/1 has no finished epoch yet. Wait"),
        ("runs/digits -o a.gif", "--output is a.gif: a figure is saved as .png, .pdf or .svg"),
        ("runs/digits -o a", "--output is a: a figure is saved as .png, .pdf or .svg"),
        ("runs/digits -o not/there/a.png", "--output is not/there/a.png: the folder not/there is missing"),
        (
            "runs/digits -o folder.png",
            "--output is folder.png: this is a folder. Give the name of a file in it, such as folder.png/curves.png",
        ),
        ("runs/digits", "the following arguments are required: -o/--output. `reslight plot --help` shows"),
        ("-o a.png", "the following arguments are required: RUN. `reslight plot --help` shows"),
    ],
)
def test_a_mistake_is_one_line(reslight, words: str, says: str):
    make_run("runs/digits/1", [(0.25, 0.125)])
    make_run("runs/begun/1", [])
    Path("runs/new/1").mkdir(parents=True)
    Path("runs/new/1/config.yaml").write_text("model: {net: resnet8}")
    Path("folder.png").mkdir()
    answer = reslight("plot", *words.split())
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(f"reslight: error: {says}")
    assert [path.name for path in Path().iterdir() if path.is_file()] == [], "a mistake left a figure behind"


def test_without_matplotlib_it_says_how_to_install_it(reslight, monkeypatch):
    make_run("runs/digits/1", [(0.25, 0.125)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    answer = reslight("plot", "runs/digits", "-o", "a.png")
    assert answer.code == 2
    assert answer.err.startswith("reslight: error: matplotlib is missing")
    assert "pip install 'reslight[plot]'" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_plot_is_light_and_its_help_lighter(reslight):
    make_run("runs/digits/1", [(0.25, 0.125)])
    code = "import sys; from reslight.cli.main import main; assert main({words}) == 0; assert not set(sys.modules) & set({absent})"
    for words, absent in (
        (["plot", "runs/digits", "-o", "a.png"], ["torch", "lightning"]),
        (["plot", "--help"], ["torch", "lightning", "matplotlib", "yaml"]),
    ):
        subprocess.run([sys.executable, "-c", code.format(words=words, absent=absent)], check=True, capture_output=True)
    answer = reslight("plot", "--help")
    assert all(text in answer.out for text in ("usage: reslight plot", ".png, .pdf or .svg", "newest run"))


@pytest.mark.slow
def test_a_real_run(reslight):
    short = ["--config", "digits", "--trainer.max_epochs", 2, "--model.schedule.warmup", 0]
    assert reslight("fit", *short).code == 0
    assert reslight("test", *short).code == 0
    answer = reslight("plot", "runs/digits", "-o", "a.pdf")
    assert answer.code == 0, answer.err
    assert "digits/1  2 epochs, error: training " in answer.out
    report, summary = (json.loads(Path("runs/digits/1", name).read_text()) for name in ("test.json", "summary.json"))
    lines = lines_of(read_run(find_run("runs/digits")))
    assert points(lines["digits/1 training"])[-1] == pytest.approx((38, 100 * (1 - summary["metrics"]["train/acc1"])))
    assert points(lines["digits/1 validation"])[-1] == pytest.approx((38, 100 * (1 - summary["metrics"]["val/acc1"])))
    assert points(lines["digits/1 test"]) == [pytest.approx((38, 100 * (1 - report["metrics"]["test/acc1"])))]
