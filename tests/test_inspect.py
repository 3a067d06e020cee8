"""What there is, where it lies and whether it works: ``list``, ``data``, ``doctor``, and what scripts can rely on."""

import importlib.metadata
import json
import re

import pytest

import sps_jax
from sps_jax.cli import doctor
from sps_jax.cli import list as list_command
from sps_jax.cli.main import command
from sps_jax.results.reading import aligned
from sps_jax.runs import console


@pytest.fixture(autouse=True)
def as_before():
    yield
    console.hush(True)


def said(capsys, *arguments, status=0):
    assert command(list(map(str, arguments))) == status
    return capsys.readouterr().out


def test_version(capsys):
    assert said(capsys, "--version") == f"sps_jax {sps_jax.__version__}\n"
    assert importlib.metadata.version("sps_jax") == sps_jax.__version__


def test_help_has_a_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as end:
        command(["--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [name for line in lines for name in re.findall(r"• (\w+)", line)]
    assert commands == ["run", "resume", "sweep", "table", "plot", "list", "data", "doctor"]
    (first,) = (i for i, line in enumerate(lines) if "(required)" in line)
    assert "doctor" in lines[first + len(commands)]  # no command has two lines


def test_list_has_a_sentence_for_everything(capsys):
    everything = json.loads(said(capsys, "list", "--json"))
    assert everything == list_command.summaries()
    assert {kind: list(names) for kind, names in everything.items()} == {
        kind: list(names) for kind, names in list_command.TABLES.items()
    }
    sentences = [words for names in everything.values() for words in names.values()]
    assert all(words.endswith(".") and len(words) < 120 and not {"`", "\\", "\n"} & set(words) for words in sentences)
    assert set(json.loads(said(capsys, "list", "scopes", "--json"))) == {"scopes"}


def test_list_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = said(capsys, "list")
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"  {name}  " in text for names in list_command.TABLES.values() for name in names)


def test_data_are_absent_then_prepared_then_found(capsys, shared_data, tmp_path):
    places = ["--data-dir", tmp_path]
    assert "nothing is prepared" in said(capsys, "data", "where", *places)
    assert said(capsys, "data", "list", *places).count(" no ") == 6
    manual = ["--manual-dir", shared_data / "libsvm"]
    prepared = json.loads(said(capsys, "data", "prepare", "mushrooms", "--json", *manual, *places))
    assert list(prepared) == ["mushrooms"] and prepared["mushrooms"]["prepared_megabytes"] > 0
    folder = str(tmp_path / "sps_libsvm" / "mushrooms" / "1.0.0")
    assert prepared["mushrooms"]["prepared"] == [folder]
    assert said(capsys, "data", "where", *places).split() == [folder]
    assert said(capsys, "data", "where", "mushrooms", *places).split() == [folder]
    assert said(capsys, "data", "list", *places).count(" no ") == 5  # a9a is another config of the same builder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "name at least one data set to prepare: femnist, "),
        (["list", "femnst"], "unknown data set 'femnst': did you mean 'femnist'?"),
        (["list", "--manual-dir", "x"], "--manual-dir needs the action prepare"),
        (["prepare", "a9a", "--manual-dir", "nowhere"], "manual_dir nowhere is not a folder"),
    ],
)
def test_what_is_wrong_with_data_is_said(arguments, message, capsys, tmp_path):
    assert command(["data", *arguments, "--data-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_doctor_finds_this_installation_whole(capsys):
    found = json.loads(said(capsys, "doctor", "--json"))
    assert found["broken"] == [] and "cpu" in found["devices"] and sps_jax.__version__ in found["sps_jax"]
    assert "jax " in found["packages"] and found["import"].endswith(" s")


def test_doctor_names_what_is_missing_or_of_another_version():
    installed, wrong = doctor.packages(["nosuchthing>=1", "numpy<1", "jax>=0.1", 'ruff; extra == "test"'])
    assert set(installed) == {"numpy", "jax"}
    assert wrong == ["nosuchthing is not installed", f"numpy is {installed['numpy']}, sps_jax needs <1"]


def test_the_table_of_the_longest_names_fits_100_columns():
    from sps_jax.results.tables import table_row

    final = {
        "test_accuracy": 0.91234,
        "uplink_bits": 12.3e6,
        "downlink_bits": 123e6,
        "density": 0.1,
        "control_sum": 1e-5,
    }
    summary = {"algorithm": max(sps_jax.ALGORITHMS, key=len), "seed": 0, "target": 0.86352, "bits_to_target": 16.4e6}
    text = aligned([table_row(summary | {"target_metric": "test_accuracy", "final": final})])
    assert max(map(len, text.splitlines())) <= 100
