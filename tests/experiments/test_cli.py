import errno
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import pytest

from experiments import cli
from jukejax import exit_codes
from jukejax.config import MeshConfig
from jukejax.errors import ConfigError, Interrupted, Preempted

T = TypeVar("T")


@dataclass(frozen=True)
class Bake:
    """Bake bread.

    Example: bake --flour 500
    """

    flour: int
    """Grams."""
    salt: float = 0.02
    """Part of the flour."""
    seeds: tuple[str, ...] = ()
    """On top."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


def shown(capsys, *arguments, common=("flour", "seeds")):
    with pytest.raises(SystemExit) as stop:
        cli.parse(Bake, list(arguments), "kitchen bake", common)
    assert stop.value.code == exit_codes.DONE
    return capsys.readouterr().out


def test_help_lists_common_options_an_example_and_where_the_others_are(capsys):
    short = shown(capsys, "--help")
    assert "usage: kitchen bake" in short and "Example: bake --flour 500" in short
    assert "--flour INT" in short and "On top." in short and "kitchen bake --help-all" in short
    assert "--salt" not in short and "--mesh" not in short
    assert shown(capsys, "--flour", "3", "-h") == short


def test_help_all_lists_every_option(capsys):
    every = shown(capsys, "--help-all")
    assert all(f"--{name}" in every for name in ("flour", "salt", "seeds", "mesh.fsdp"))
    assert every == shown(capsys, "--help", common=())


@dataclass(frozen=True)
class Order(Generic[T]):
    """Order some of it."""

    what: T
    pieces: int


def test_a_class_of_a_type_parameter_keeps_its_help(capsys):
    with pytest.raises(SystemExit):
        cli.parse(Order[Bake], ["--help"], "kitchen order", ("pieces",))
    short = capsys.readouterr().out
    assert "Order some of it." in short and "--pieces" in short and "--what" not in short


def test_options_that_short_help_does_not_list_are_parsed():
    parsed = cli.parse(Bake, ["--flour=3", "--salt=1", "--mesh.fsdp=2"], "bake", ("flour",))
    assert parsed == Bake(3, 1.0, mesh=MeshConfig(fsdp=2))


def test_common_names_a_field():
    with pytest.raises(AssertionError, match="sugar"):
        cli.parse(Bake, ["--help"], "bake", ("sugar",))


CHOICES = {"train": "Learn.", "encode": "Songs to codes."}


def test_a_choice_and_what_follows():
    assert cli.choose(CHOICES, ["train", "--help"], "jukejax ...") == ("train", ["--help"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], exit_codes.USAGE, "usage: jukejax ..."),
        (["--help"], exit_codes.DONE, "encode  Songs to codes."),
        (["trian"], exit_codes.USAGE, "there is no 'trian'; did you mean train?"),
        (["bake"], exit_codes.USAGE, "there is no 'bake'; choose one of train, encode."),
    ],
)
def test_no_choice_and_a_wrong_one(arguments, code, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.choose(CHOICES, arguments, "jukejax ...")
    output = capsys.readouterr()
    assert stop.value.code == code and words in (output.err if code else output.out)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("Width is 3; it must be even."), "error: Width is 3; it must be even."),
        (FileNotFoundError(2, "No such file", "songs"), "error: [Errno 2] No such file: 'songs'; "),
        (PermissionError(13, "Permission denied", "songs"), "error: [Errno 13] Permission denied"),
        (OSError(errno.ESTALE, "Stale file handle", "songs"), exit_codes.CRASH),
        (OSError(errno.EIO, "Input/output error", "songs"), exit_codes.CRASH),
        (ConnectionResetError(104, "Connection reset by peer"), exit_codes.CRASH),
        (TimeoutError("timed out"), exit_codes.CRASH),
        (Preempted("Saved at step 3."), exit_codes.RUN_AGAIN),
        (Interrupted("Saved at step 3."), exit_codes.STOPPED),
    ],
)
def test_how_a_command_ends(error, code):
    @cli.command
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    left = stop.value.code
    assert left == code if isinstance(code, int) else left.startswith(code)


def test_an_error_that_is_not_foreseen_stays_one():
    @cli.command
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("error", ["ZeroDivisionError('by 0')", "ModuleNotFoundError('x')"])
def test_an_error_that_nobody_catches_is_a_crash_to_launchers(error):
    code = f"from experiments import cli\n@cli.command\ndef main():\n    raise {error}\nmain()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == exit_codes.CRASH and error.partition("(")[0] in run.stderr


REQUIRED = [
    "numpy>=2.0",
    'soxr>=1.0; extra == "data"',
    'tensorflow-cpu>=2.21; (platform_system == "Linux") and extra == "data"',
    "scikit-learn>=1.5; extra == 'evaluate'",
    "soxr>=1.0; extra == 'evaluate'",
]


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("soxr", "soxr is not installed; the extra data has it (evaluate too): run `pip install "),
        ("tensorflow.io", "tensorflow is not installed; the extra data has it: run `pip install "),
        ("sklearn.cluster", "sklearn is not installed; the extra evaluate has it: "),
        ("numpy", "numpy, which jukejax requires, is not installed: run `pip install numpy`."),
    ],
)
def test_a_missing_package_ends_in_a_sentence_that_names_the_extra(module, sentence, monkeypatch):
    monkeypatch.setattr(cli.metadata, "requires", lambda name: REQUIRED)
    monkeypatch.setitem(sys.modules, module, None)

    @cli.command
    def main():
        __import__(module)

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code.startswith(f"error: {sentence}")


def test_a_module_that_jukejax_does_not_require_is_a_crash(monkeypatch):
    monkeypatch.setattr(cli.metadata, "requires", lambda name: REQUIRED)

    @cli.command
    def main():
        import songs_and_nothing_else  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        main()


@pytest.mark.parametrize(("given", "level"), [({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")])
def test_xla_is_quiet_unless_asked_for(given, level):
    others = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import experiments.cli, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == level
