"""Configuration files: which file a name means, which network and run folder a command line gives, what may be in a file."""

import time
from pathlib import Path

import pytest
import yaml

from reslight.messages import UsageError
from reslight.runs.config_files import find, find_all, names, naming_file, packaged, run_name
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.yaml_file import read

NAMES = [
    "cifar10/fast",
    "cifar10/modern",
    "cifar10/muon",
    "cifar10/paper",
    "cifar100/fast",
    "cifar100/modern",
    "cifar100/muon",
    "cifar100/paper",
    "digits",
    "finetune",
]
NAMES += ["imagenet/a3", "imagenet/paper", "imagenet/v1", "imagenet/v2"]
NAMES += ["overlays/bf16", "overlays/cpu", "overlays/ddp", "overlays/multinode", "overlays/smoke"]


def test_names():
    assert names() == NAMES


def test_a_file_here_comes_first(tmp_path: Path):
    mine = tmp_path / "digits"
    mine.write_text("seed_everything: 9\n")
    assert find("digits") == Path("digits")
    mine.unlink()
    for name in ("digits", "digits.yaml", "configs/digits.yaml"):
        assert find(name) == packaged() / "digits.yaml"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("overlays/smok", "did you mean overlays/smoke"),
        ("modern", "did you mean cifar10/modern or cifar100/modern?"),
        ("cifar10/fats", "did you mean cifar10/fast"),
        ("imagenet/resnet50", "did you mean imagenet/"),  # never a name
        ("nothing.yaml", "`reslight configs` lists them"),
        # names of earlier versions, and names of the folders of runs
        ("cifar10/resnet56", "Use --config cifar10/modern --model.net resnet56"),
        ("cifar100/paper_plain110", "Use --config cifar100/paper --model.net plain110"),
        ("configs/cifar10/resnet18_cifar.yaml", "Use --config cifar10/modern --model.net resnet18_cifar"),
        ("imagenet/v1_resnet18", "Use --config imagenet/v1 --model.net resnet18"),
        ("cifar10/paper-resnet110", "Use --config cifar10/paper --model.net resnet110"),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_the_line_of_today(reslight, name: str, hint: str):
    answer = reslight("fit", "--config", name)
    assert answer.code == 2
    assert f"--config is {name}: " in answer.err
    assert hint in answer.err
    assert len(answer.err.splitlines()) == 1


def found(line: str) -> str:
    """Return the files that a command line uses, as names, and what is left of it."""
    files, words = find_all(line.split())
    return " ".join([path.relative_to(packaged()).with_suffix("").as_posix() for path in files] + words)


@pytest.mark.parametrize(
    ("typed", "used"),
    [
        ("-c cifar10/modern --model.net resnet56", "cifar10/modern --model.net resnet56"),
        ("--config=cifar10/paper --model.net=resnet110", "cifar10/paper cifar10/paper-resnet110"),
        # what is typed, and overlays, come after the network's settings, in any order
        (
            "--seed_everything 2 --model.net resnet1202 --config cifar10/paper --config overlays/bf16",
            "cifar10/paper cifar10/paper-resnet1202 overlays/bf16 --seed_everything 2",
        ),
        # the recipe's own network keeps its fields
        ("--config imagenet/paper --model.net resnet50", "imagenet/paper"),
        ("--config imagenet/v1 --model.net {name:resnet34}", "imagenet/v1 --model.net {name:resnet34}"),
        # a later file has another network: what is typed wins
        (
            "--config cifar10/paper --config digits --model.net resnet110",
            "cifar10/paper cifar10/paper-resnet110 digits --model.net resnet110",
        ),
        # a name keeps the other fields
        (
            "--config cifar10/paper --model.net.shortcut B --model.net.name resnet110",
            "cifar10/paper cifar10/paper-resnet110 --model.net.name resnet110 --model.net.shortcut B",
        ),
        ("--config digits --model.net", "digits --model.net"),
    ],
)
def test_a_network_gets_its_own_settings(typed: str, used: str):
    assert found(typed) == used


@pytest.mark.parametrize(("option", "line"), [("--model.net=resnet20", "net: resnet20"), ("--model.optim.lr=0.5", "lr: 0.5")])
def test_what_is_typed_wins_over_a_file_in_any_order(reslight, option: str, line: str):
    outputs = [reslight("fit", *words, "--print_config").out for words in (["--config", "digits", option], [option, "--config", "digits"])]
    assert outputs[0] == outputs[1]
    assert f"  {line}\n" in outputs[0]


def test_the_fields_of_a_network_are_added_to_its_name(reslight):
    answer = reslight("fit", "--config", "cifar10/paper", "--model.net.name", "resnet1202", "--model.net.shortcut", "B", "--print_config")
    assert yaml.safe_load(answer.out)["model"]["net"] == {"name": "resnet1202", "checkpoint": True, "shortcut": "B"}


def test_a_config_without_a_name_is_refused():
    with pytest.raises(UsageError, match="--config has no value"):
        find_all(["--config"])
    with pytest.raises(UsageError, match="did you mean --config"):
        find_all(["--conf", "digits"])


def test_the_name_of_a_run(tmp_path: Path):
    modern = find("cifar10/modern")
    for net in (None, "resnet20", {"name": "resnet20", "shortcut": "B"}, {"depths": [1], "widths": [8]}):
        assert run_name(modern, net) == "cifar10/modern"
    for net in ("resnet56", {"name": "resnet56"}):
        assert run_name(modern, net) == "cifar10/modern-resnet56"
    assert run_name(find("imagenet/paper"), {"name": "resnet50", "stride_on": "1x1"}) == "imagenet/paper"
    assert run_name(find("finetune"), "resnet18") == "finetune-resnet18"
    mine, run = tmp_path / "mine.yaml", tmp_path / "runs/mine/3/config.yaml"
    run.parent.mkdir(parents=True)
    for path in (mine, run):
        path.write_text("model: {net: resnet8}\n")
        assert [run_name(path, net) for net in ("resnet8", "resnet20")] == ["mine", "mine-resnet20"]
    assert run_name(None, "resnet20") == "custom"


def test_an_overlay_names_no_run():
    overlay, digits = find("overlays/smoke"), find("digits")
    mine = Path("overlays/mine.yaml")  # not one of ours
    assert naming_file([overlay, digits, mine]) == naming_file([digits, overlay]) == digits
    assert naming_file([overlay, mine, digits]) == mine
    assert naming_file([overlay]) == overlay
    assert naming_file([]) is None


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("model: {net: resnet8}\ndata: Digits\ntrainer: {max_epochs: 1}\nmodel: {net: resnet20}", 4, "model", 1),
        ("model:\n  net: resnet8\n  ema: 0.9\n  net: resnet20", 4, "net", 2),
        ("model: {net: resnet8, ema: 0.9, net: resnet20}", 1, "net", 1),
        ('{"model": {"net": "resnet8"},\n"model": {}}', 2, "model", 1),
        ("data: &a {name: 1}\nx: [{b: *a}, {b: *a,\nb: 2}]", 3, "b", 2),
    ],
)
def test_a_key_is_there_once(text: str, line: int, key: str, first: int):
    Path("d.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read(Path("d.yaml"))
    assert str(caught.value) == f"d.yaml, line {line}: {key} is there twice (first in line {first}). Keep one."


def test_folders_and_checkpoints_as_configurations():
    for number in ("9", "10"):
        run = Run(Path("runs/mine", number))
        run.checkpoints.mkdir(parents=True)
        run.config.write_text("seed_everything: 1")
        run.checkpoint().touch()
    assert find("runs/mine") == Path("runs/mine/10/config.yaml")
    with pytest.raises(UsageError, match=r"this is a checkpoint. Use --config runs/mine/9 --ckpt_path runs/mine/9/checkpoints/last.ckpt."):
        find("runs/mine/9/checkpoints/last.ckpt")
    Path("void").mkdir()
    with pytest.raises(FileNotFoundError, match=r"--config is void: this folder has neither a config.yaml nor runs"):
        find("void")
    Path("digits").mkdir()
    assert find("digits") == packaged() / "digits.yaml"


@pytest.mark.parametrize("saved", [None, "out"])
def test_the_configuration_of_a_run_keeps_the_folder_of_its_recipe(saved: str | None):
    run = Run((Path(saved or "runs") / "cifar10/modern/3").resolve())
    run.folder.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"trainer": {"default_root_dir": saved}, "model": {"net": "resnet20"}}))
    for net in ("resnet20", "resnet56"):
        name = run_name(run.config, net)
        beside = run.folder.parent.with_name(Path(name).name).relative_to(Path.cwd())
        assert name == ("cifar10/modern" if net == "resnet20" else "cifar10/modern-resnet56")
        for root in (None, Path(saved or "runs"), Path.cwd()):  # a run that is under the chosen folder already stays there
            assert RunDirectory.for_config(run.config, name, root).folder == beside
        assert RunDirectory.for_config(run.config, name).only == (Run(beside / "3") if net == "resnet20" else None)
        assert RunDirectory.for_config(run.config, name, Path("other")).folder == Path("other") / name


TINY = """\
trainer: {max_epochs: 1, enable_progress_bar: false}
model: {net: resnet8, schedule: {name: constant}}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 32, test_size: 8}, batch_size: 8, val_size: 8}}
"""


@pytest.mark.slow
def test_the_same_command_line_finds_the_same_run(reslight):
    Path("tiny.yaml").write_text(TINY)
    other = ["--config", "tiny.yaml", "--model.net", "resnet20"]
    assert reslight("fit", "--config", "tiny.yaml").code == 0
    assert reslight("fit", *other).code == 0
    assert {path.parent.as_posix() for path in Path("runs").rglob("config.yaml")} == {"runs/tiny/1", "runs/tiny-resnet20/1"}
    for words in (["test", *other], ["fit", *other, "--ckpt_path", "last", "--trainer.max_epochs", 2]):
        answer = reslight(*words)
        assert answer.code == 0, answer.err
        assert "checkpoint runs/tiny-resnet20/1/checkpoints/" in answer.out
    answer = reslight("validate", "--config", "runs/tiny/1", "--model.net.name", "resnet20")
    assert (answer.code, "the run runs/tiny/1 has resnet8" in answer.err) == (2, True)
    assert yaml.safe_load(Path("runs/tiny-resnet20/1/config.yaml").read_text())["model"]["net"] == "resnet20"
    answer = reslight("test", "--config", "tiny.yaml", "--model.net", "resnet2O")
    assert (answer.code, "Did you mean resnet20" in answer.err) == (2, True)  # the network, not a run that does not exist


def nested(first: str, form: str) -> str:
    """Return nine lines, each of which repeats the one before ten times."""
    repeats = [form % ", ".join([f"*{name}"] * 10) for name in "abcdefgh"]
    return "".join(f"{name}: &{name} {value}\n" for name, value in zip("abcdefghi", [first, *repeats], strict=True))


TOO_LARGE = {
    "aliases": (nested("[x, x, x]", "[%s]"), "10,000 values"),
    "merged": (nested("{x: 1}", "{<<: [%s]}"), "10,000 values"),
    "itself": ("a: &a [*a]\n", "alias"),
    "chain": ("".join(f"k{n}: &k{n} [{f'*k{n - 1}' if n else 1}]\n" for n in range(100)), "50 levels"),
    "deep": (f"a: {'[' * 3000}{']' * 3000}\n", "50 levels"),
    "long": ("#" * 200_000, "100,000 bytes"),
}


@pytest.mark.parametrize(("text", "bound"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_file_that_grows_is_refused_in_a_second(tmp_path: Path, text: str, bound: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(UsageError, match=bound):
        read(path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "part"),
    {
        "model: {net: [resnet20}\n": "line 1",
        "trainer:\n  max_steps: 3\n model: 1\n": "line 3",
        "a: *b\n": "line 1",
        "a: 2026-13-01\n": "month",
        "a: !!int x\n": "int",
        "a: !!python/object/apply:os.getcwd []\n": "line 1",
        "a: 1\n---\nb: 2\n": "line 2",
        "": "mapping",
        "- a\n": "mapping",
        "data: {class_path: CIFAR, root: x}\n": "root beside data.class_path",
    }.items(),
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, part: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert part in str(raised.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="text file"):
        read(path)


def test_an_alias_is_read(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {net: resnet20}\nb: *x\nc: {<<: *x, lr: 1}\n")
    assert read(path) == {"a": {"net": "resnet20"}, "b": {"net": "resnet20"}, "c": {"net": "resnet20", "lr": 1}}
