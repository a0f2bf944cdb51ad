"""Every block of docs/guides/extending.md runs as it stands there, one after the other in one folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs/guides/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```|((?:^    reslight [^\n]*\n)+)", PAGE, re.MULTILINE | re.DOTALL)


def test_blocks_of_both_kinds_are_found():
    assert sum(bool(code) for code, _ in BLOCKS) == PAGE.count("```python") >= 8
    assert sum(len(lines.splitlines()) for _, lines in BLOCKS) == len(re.findall(r"^    reslight ", PAGE, re.MULTILINE)) >= 7


@pytest.mark.slow
def test_each_block_runs(reslight, monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    names: dict[str, object] = {}
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for code, lines in BLOCKS:
        if file := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / file[1]).write_text(code)
        elif code:
            exec(compile(code, "docs/guides/extending.md", "exec"), names)
        for line in lines.splitlines():
            answer = reslight(*shlex.split(line)[1:])
            assert answer.code == 0, (line, answer.err)
    for name in (set(sys.modules) - before) & {"blobs", "norms", "printer"}:
        del sys.modules[name]
    assert "norm" in (tmp_path / "runs/digits/2/metrics.csv").read_text().partition("\n")[0].split(",")
    assert list((tmp_path / "logs").rglob("metrics.csv"))
