"""The figure of an evaluation shows the numbers of its report."""

import sys
from pathlib import Path

import pytest

from reslight.analysis import draw_evaluation, save


def report(classes: int = 3) -> dict:
    names = ["cat", "$dog$", "fish", *(f"class {number}" for number in range(3, classes))]
    confusion = [[0] * classes for _ in range(classes)]
    for row in range(classes):
        confusion[row][row], confusion[row][(row + 1) % classes] = 90 - row, 10 + row
    rows = [{"label": name, "total": 100, "correct": 90 - row, "accuracy": (90 - row) / 100} for row, name in enumerate(names)]
    bins = [
        {"images": 0, "accuracy": None, "probability": None},
        {"images": 100, "accuracy": 0.5, "probability": 0.6},
        {"images": 200, "accuracy": 0.9, "probability": 0.95},
    ]
    return {"per_class": rows, "confusion": confusion, "calibration": {"ece": 0.0667, "bins": bins}}


def test_everything_is_in_it():
    confusion, classes, calibration, _ = draw_evaluation(report()).axes
    assert confusion.images[0].get_array().tolist() == [[0.9, 0.1, 0.0], [0.0, 0.89, 0.11], [0.12, 0.0, 0.88]]
    assert [text.get_text() for text in confusion.texts] == ["90", "10", "89", "11", "12", "88"]
    assert [label.get_text() for label in confusion.get_yticklabels()] == ["cat", r"\$dog\$", "fish"]
    assert [bar.get_width() for bar in classes.patches] == [90, 89, 88]
    assert [label.get_text() for label in classes.get_yticklabels()] == ["cat", r"\$dog\$", "fish"]
    assert calibration.collections[0].get_offsets().tolist() == [[0.6, 0.5], [0.95, 0.9]]
    assert calibration.get_title() == "Calibration: ECE 6.67 %"


def test_of_many_classes_the_worst_are_named():
    confusion, classes, *_ = draw_evaluation(report(60)).axes
    assert not confusion.texts
    assert classes.get_title() == "The 20 worst of 60 classes"
    assert [bar.get_width() for bar in classes.patches] == list(range(50, 30, -1))


def test_of_more_classes_the_most_confused_pairs_are_shown():
    """Of 300 classes, each is taken for the next; both forms of the report give the same figure."""
    content = report(300)
    for row in range(300):
        content["confusion"][row] = [0] * 300
        content["confusion"][row][row], content["confusion"][row][(row + 1) % 300] = 5, row
    as_pairs = {name: values for name, values in content.items() if name != "confusion"}
    rows = enumerate(content["confusion"])
    as_pairs["confusion_pairs"] = [[row, column, images] for row, counts in rows for column, images in enumerate(counts) if images]
    for form in (content, as_pairs):
        confusion, classes, *_ = draw_evaluation(form).axes
        assert not confusion.images
        assert [bar.get_width() for bar in confusion.patches] == list(range(280, 300))
        assert [text.get_text() for text in confusion.texts][-2:] == [" 298", " 299"]
        texts = [label.get_text() for label in confusion.get_yticklabels()]
        assert (len(texts), texts[0], texts[-1]) == (20, "class 280 → class 281", "class 299 → cat")
        assert classes.get_title() == "The 20 worst of 300 classes"


def test_pairs_of_ties_keep_their_order_and_none_may_be_wrong():
    content = report(300)
    del content["confusion"]
    drawn = draw_evaluation({**content, "confusion_pairs": [[1, 2, 1], [7, 7, 9], [8, 1, 1]]}).axes[0]
    assert [label.get_text() for label in drawn.get_yticklabels()] == [r"class 8 → \$dog\$", r"\$dog\$ → fish"]
    for pairs in ([[7, 7, 9]], []):
        figure = draw_evaluation({**content, "confusion_pairs": pairs})
        figure.draw_without_rendering()
        assert not figure.axes[0].patches


def test_a_class_without_images_is_left_out():
    content = report()
    content["confusion"][1], content["per_class"][1] = [0, 0, 0], {"label": "$dog$", "total": 0, "correct": 0, "accuracy": None}
    confusion, classes, *_ = draw_evaluation(content).axes
    assert confusion.images[0].get_array().tolist()[1] == [0, 0, 0]
    assert [label.get_text() for label in classes.get_yticklabels()] == ["cat", "fish"]


def test_nothing_covers_a_point_or_is_cut_off():
    for classes in (3, 100):
        figure = draw_evaluation(report(classes))
        figure.draw_without_rendering()
        confusion, _, calibration, _ = figure.axes
        assert not calibration.get_legend().get_window_extent().overlaps(calibration.get_window_extent())
        assert confusion.yaxis.label.get_window_extent().x0 >= 5  # pixels


def test_it_can_be_saved():
    save(draw_evaluation(report()), Path("test.png"))
    assert Path("test.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"matplotlib is missing.* pip install"):
        draw_evaluation(report())
