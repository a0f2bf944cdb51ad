"""`reslight configs`."""

import pytest

from reslight.runs.config_files import find, names, packaged


def test_every_configuration_is_listed_with_its_first_line(reslight):
    answer = reslight("configs")
    assert answer.code == 0
    listed = dict(line.split(maxsplit=1) for line in answer.out.partition("\n\n")[0].splitlines()[1:])
    assert list(listed) == names()
    assert all(find(name).read_text(encoding="utf-8").startswith(f"# {text}\n") for name, text in listed.items())
    assert str(packaged()) in answer.out
    assert "--model.net NET" in answer.out


IMAGENET = ["imagenet/a3", "imagenet/paper", "imagenet/v1", "imagenet/v2"]


@pytest.mark.parametrize(
    ("pattern", "found"), [("digits", ["digits"]), ("*/modern", ["cifar10/modern", "cifar100/modern"]), ("imagenet", IMAGENET)]
)
def test_a_pattern_or_a_folder_chooses(reslight, pattern: str, found: list[str]):
    rows = reslight("configs", pattern).out.partition("\n\n")[0].splitlines()[1:]
    assert [row.split()[0] for row in rows] == found


def test_no_match_is_a_mistake_in_one_line(reslight):
    answer = reslight("configs", "digit")
    assert answer.code == 2
    assert "Did you mean digits?" in answer.err
    assert len(answer.err.splitlines()) == 1
