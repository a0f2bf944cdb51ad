"""The pages that are made from the cards of the published weights are what the commands give."""

import csv
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from reslight.weights.catalog import CATALOG

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / "docs" / "results" / "leaderboard.json").read_text(encoding="utf-8"))


@pytest.fixture
def leaderboard(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("leaderboard")


def cells(page: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_page_is_what_the_command_writes(leaderboard: ModuleType, tmp_path: Path):
    leaderboard.main(["--from", str(ROOT / "docs" / "results" / "leaderboard.json"), "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == (ROOT / "docs" / "results" / "leaderboard.md").read_text(encoding="utf-8")
    rows = cells(page)
    assert set(rows) == {name for name, row in CATALOG.items() if not row.repository}
    assert "not measured" not in page
    accuracies = [float(row[3].split()[0]) for row in rows.values() if row[0] == "cifar10"]
    assert accuracies == sorted(accuracies, reverse=True)
    # 0.85 M parameters and 125 M multiply-adds are the paper's ResNet-56 of option A.
    assert rows["resnet56.cifar10"][1:4] == ["853,018", "125.5", "93.82 % (9,382 of 10,000)"]


def test_epochs_and_hours_are_those_of_the_logs(leaderboard: ModuleType):
    rows = cells(leaderboard.page(RECORD))
    for log in (ROOT / "docs" / "weights").glob("*/metrics.csv"):
        config = yaml.safe_load((log.parent / "config.yaml").read_text(encoding="utf-8"))
        batch = config["data"]["init_args"]["batch_size"]
        seconds, before = list[float](), 0
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["train/acc1"]:  # the end of an epoch
                    seconds.append((int(row["step"]) - before) * batch / float(row["images_per_second"]))
                    before = int(row["step"])
        *_, epochs, hours = rows[log.parent.name]
        assert int(epochs) == config["trainer"]["max_epochs"]
        total = f"{len(seconds) * sorted(seconds)[len(seconds) // 2] / 3600:.2f}"[:-1]  # of an even number, the median is a mean
        assert hours.startswith(total)
        assert hours.endswith((" core-hours", " GPU-hours"))
    assert rows["resnet8.digits"][-2:] == ["60", "not logged"]


def test_measurements_of_another_file_do_not_count(leaderboard: ModuleType):
    name = "resnet20.cifar10"
    others = RECORD["results"] | {name: RECORD["results"][name] | {"sha256": "0" * 64}}
    rows = cells(leaderboard.page(RECORD | {"results": others}))
    assert rows[name][4:6] == ["not measured"] * 2
    assert "not measured" not in rows["resnet32.cifar10"]


def test_the_tables_of_the_paper_s_page_are_those_of_the_cards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    family = importlib.import_module("family")
    page = (ROOT / "docs" / "paper" / "index.md").read_text(encoding="utf-8")
    found = family.read_responses(ROOT / "docs" / "paper" / family.RESPONSES)
    assert [one.name for one in found] == [one.name for data in family.SETS for one in family.members(data)]
    for table in family.tables(found):
        assert table in page
    for name in (one.name for one in found):
        assert f"**{100 - CATALOG[name].accuracy:.2f} %**" in page, name
