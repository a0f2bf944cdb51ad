"""metrics.csv is whole at each moment: what one process has appended, another one reads and continues."""

import errno
import os
from pathlib import Path

import pytest

from reslight.messages import UsageError
from reslight.runs.metrics_table import MetricsTable


def text(path: Path) -> str:
    return path.read_bytes().decode().replace("\r\n", "|")


def test_values_that_come_after_a_flush_join_the_row_at_once(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in (1, 2):
        table.add({"epoch": 1, "a": step}, step)
        table.flush()
    table.add({"a": 2.5, "b": 3}, 2)
    assert text(table.path) == "epoch,step,a,b|1,1,1,|1,2,2.5,3|"
    before = table.path.stat().st_ino
    table.add({"a": 2.5}, 2)
    table.flush()
    assert table.path.stat().st_ino == before, "nothing has changed"
    table.add({"a": 4}, 4)
    table.flush()
    assert text(table.path) == "epoch,step,a,b|1,1,1,|1,2,2.5,3|,4,4,|"
    assert table.path.stat().st_ino == before, "the row is appended"


def test_rows_are_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.add({"a": 1}, 1)
    table.flush()
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    for step in (2, 3):
        table.add({"a": step}, step)
    assert not synced, "not for each row"
    table.flush()
    table.flush()
    assert len(synced) == 1


def test_a_table_that_an_editor_has_changed_is_kept(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.path.write_text("epoch;step;train/loss\n1;20;2,5\n")
    with pytest.raises(UsageError, match=r"metrics\.csv has no column epoch: .* move it away"):
        table.cut(20)
    assert table.path.read_text() == "epoch;step;train/loss\n1;20;2,5\n"
    table.path.write_text("epo")  # a crash in the first write
    table.cut(20)
    assert text(table.path) == "epoch,step|"


def test_a_resume_without_a_later_row_leaves_the_file(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        table.add({"a": step}, step)
    table.flush()
    before = table.path.stat().st_ino
    again = MetricsTable(table.path)
    (tmp_path / ".metrics.csv.0f.tmp").touch()
    again.cut(3)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    again.add({"b": 1}, 3)
    assert before != table.path.stat().st_ino
    assert text(table.path) == "epoch,step,a,b|,1,1,|,2,2,|,3,3,1|"
    again.cut(2)
    assert text(table.path) == "epoch,step,a,b|,1,1,|,2,2,|"


def test_a_file_that_is_no_table_is_replaced(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.path.write_text("epo")
    table.cut(5)
    table.add({"a": 1}, 6)
    table.flush()
    assert text(table.path) == "epoch,step,a|,6,1|"


def test_a_row_without_room_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.add({"a": 1}, 1)
    table.flush()

    class Full:
        """A file that takes half of what is written to it."""

        def __init__(self, path: Path) -> None:
            self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.descriptor)

        def write(self, content: bytes) -> None:
            os.write(self.descriptor, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table.add({"a": 2}, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Full(path))
        with pytest.raises(OSError, match="No space"):
            table.flush()
    assert text(table.path) == "epoch,step,a|,1,1|"
    table.flush()
    assert text(table.path) == "epoch,step,a|,1,1|,2,2|", "there is room again"
