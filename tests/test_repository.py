"""The files that greet a contributor: what they name is there, and forms and workflows are well formed."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from reslight.version import __version__

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_contributing_names_files_that_are_there_and_at_most_three_of_each_kind():
    rows = re.findall(r"^\| (.*?) ?\| `([^`]+)` \|", CONTRIBUTING, re.MULTILINE)
    kinds: list[list[str]] = []
    for kind, path in rows:
        if kind:
            kinds.append([])
        kinds[-1].append(path)
        assert (ROOT / path.partition("NAME")[0]).parent.exists(), path
        assert "NAME" in path or (ROOT / path).exists(), path
    assert len(kinds) == 6
    assert max(map(len, kinds)) <= 3


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert __version__.startswith(str(citation["version"]))
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["He", "Zhang", "Ren", "Sun"]


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_an_issue_form_is_one_that_github_accepts(name: str):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
    assert "reslight --version" in str(form)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_pins_each_action_by_its_commit_and_has_few_rights(path: Path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used)


def test_the_oldest_versions_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["test"], *(one for name in _extras(extras["test"][0]) for one in extras[name])]
    bounds = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(needed), re.MULTILINE))
    pinned = re.findall(r"^([\w-]+)(?:\[\w+\])?==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: version for name, version in pinned if not f"{version}.".startswith(f"{bounds[name]}.")} == {}
    assert {re.split(r"\W", one)[0] for one in project["dependencies"]} - {re.split(r"\W", name)[0] for name, _ in pinned} == set()


def _extras(requirement: str) -> list[str]:
    return requirement.partition("[")[2].rstrip("]").split(",")
