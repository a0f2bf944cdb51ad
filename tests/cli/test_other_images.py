"""Which label file names the images of another root than the run's."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from reslight.cli.other_images import use_other_images


@pytest.mark.parametrize(("has_typed_labels", "expected"), [(True, "all.csv"), (False, None)])
def test_the_file_of_the_training_images_is_used_where_it_is_typed_again(monkeypatch, tmp_path, has_typed_labels, expected):
    """One file may name the images of several folders."""
    monkeypatch.setattr("reslight.cli.other_images.data_settings_of", lambda _: {"root": "first", "labels": "all.csv"})
    arguments = Namespace(root=str(tmp_path), labels="all.csv")
    settings = Namespace(data=Namespace(class_path="reslight.data.Folder", init_args=arguments))
    contents = {"reslight": {"data": {"labels": ["ant", "bee"]}}}
    use_other_images(settings, "test", Path("last.ckpt"), contents, has_typed_labels=has_typed_labels)
    assert settings.data.init_args.labels == expected
    assert settings.data.init_args.classes == ["ant", "bee"]
