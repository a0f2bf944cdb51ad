"""The card: what reslight says is true and written anew, what a person wrote stays."""

import pytest
import yaml
from huggingface_hub import ModelCard

from reslight import Preprocess
from reslight.models import VARIANTS
from reslight.weights import EvalResult, Record
from reslight.weights.card import card

TESTED = EvalResult(
    split="test", total=10_000, correct1=9_034, correct5=9_950, nll=3_210.0, precision="bf16-mixed", batch_size=1000, fingerprint=None
)


def record(**fields) -> Record:
    feed = Preprocess(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    known = {"net": VARIANTS["resnet20"], "preprocess": feed, "name": "resnet20", "data": {"name": "cifar10"}, "metrics": (TESTED,)}
    return Record(**(known | fields))


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_client_reads_the_metrics():
    read = ModelCard(card(record(license="apache-2.0"), 1_000_000)).data
    assert (read.license, read.library_name, read.pipeline_tag, read.datasets) == (
        "apache-2.0",
        "reslight",
        "image-classification",
        ["uoft-cs/cifar10"],
    )
    found = {(one.metric_name, one.dataset_type, one.dataset_split): one.metric_value for one in read.eval_results}
    assert found == {("Top-1 accuracy", "uoft-cs/cifar10", "test"): 0.9034, ("Top-5 accuracy", "uoft-cs/cifar10", "test"): 0.995}


def test_the_text_gives_the_counts():
    assert "| test | 90.34 % (9,034 of 10,000) | 99.50 % (9,950 of 10,000) | 0.3210 | bf16-mixed | 1000 |" in card(record(), 1)


def test_what_a_person_wrote_stays_and_ours_is_replaced():
    first = card(record(), 1)
    theirs = first.replace("tags:\n", "base_model: acme/other\ntags:\n- mine\n").replace(
        "<!-- reslight: begin", "Hello.\n\n<!-- reslight: begin"
    )
    theirs += "\n## Ethics\n\nBe kind.\n"
    second = card(record(metrics=()), 1, theirs)
    assert "Hello." in second.partition("<!-- reslight: begin")[0]
    assert second.endswith("## Ethics\n\nBe kind.\n")
    assert "90.34" not in second
    assert front(second)["base_model"] == "acme/other"
    assert "mine" in front(second)["tags"]
    assert card(record(metrics=()), 1, second) == second


@pytest.mark.parametrize(
    "before", ["no front\n", "---\na: [\n---\ntext\n", "---\n!!python/object:os.system {}\n---\ntext\n", "---\n- 1\n---\n"]
)
def test_a_card_whose_front_cannot_be_read_keeps_its_text(before):
    text = card(record(), 1, before)
    assert front(text)["library_name"] == "reslight"
    assert before.rpartition("---\n")[2].strip() in text


def test_names_cannot_break_out_of_the_front():
    text = card(record(name="a: b\u2014'\"c", data={"name": "x---y"}), 1)
    assert front(text)["model-index"][0]["name"] == "a: b\u2014'\"c.x---y"


def test_timm_is_named_where_it_can_load_them():
    feed = Preprocess(size=224, mean=(0.5,) * 3, std=(0.2,) * 3)
    text = card(record(net=VARIANTS["resnet50"], preprocess=feed, name="resnet50"), 1)
    assert front(text)["library_name"] == "timm"
    assert "timm.create_model(" in text
    assert "import reslight.weights.timm" not in text


def test_the_card_says_what_timm_needs_for_networks_that_it_does_not_know():
    assert "import reslight.weights.timm\nimport timm\n" in card(record(), 1)
    text = card(record(preprocess=Preprocess(size=2, mean=(0.5,) * 12, std=(1.0,) * 3)), 1)
    assert "timm.create_model(" not in text
    assert "timm cannot subtract a mean image" in text
