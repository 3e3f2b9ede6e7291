"""What the README says is true; of the units, see test_units.py, and of the examples test_examples.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from bub_cron import wire
from bub_cron.cli import commands
from bub_cron.cli.contents import ENTRIES
from bub_cron.errors import FileFaultsError
from bub_cron.reminders import STARTER, json_schema, load, parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
YAML_BLOCKS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
KEYS = (ROOT / "docs" / "keys.md").read_text()
KEYS_BLOCKS = re.findall(r"```yaml\n(.*?)```", KEYS, re.DOTALL)


EXAMPLES = [*YAML_BLOCKS, *KEYS_BLOCKS, (ROOT / "examples" / "reminders.yaml").read_text(), STARTER]
SCHEMA = Draft202012Validator(json_schema())


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_parser_and_the_schema_take_every_example(example: str) -> None:
    assert parse(example.encode(), "example.yaml")
    SCHEMA.validate(yaml.safe_load(example))


@pytest.mark.parametrize(
    ("bad", "example"),
    [
        ("an unknown key", {"reminders": {"a": {"every": "1h", "to": "a:b", "text": "x", "atempts": 2}}}),
        ("two schedules", {"reminders": {"a": {"every": "1h", "cron": "@daily", "to": "a:b", "text": "x"}}}),
        ("no message", {"reminders": {"a": {"every": "1h", "to": "a:b"}}}),
        ("a target without a chat id", {"reminders": {"a": {"every": "1h", "to": "telegram", "text": "x"}}}),
        ("a name with a space", {"reminders": {"a b": {"every": "1h", "to": "a:b", "text": "x"}}}),
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(bad: str, example: dict[str, object]) -> None:
    assert not SCHEMA.is_valid(example), bad
    with pytest.raises(FileFaultsError):
        parse(yaml.safe_dump(example).encode(), "example.yaml")


def test_the_schema_is_a_schema_and_the_starter_file_points_to_it() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert STARTER.startswith("# yaml-language-server: $schema=")
    assert "bub-cron schema >" in STARTER


def test_there_is_yaml_in_the_readme() -> None:
    assert YAML_BLOCKS


def test_the_example_files_are_good_and_show_every_key() -> None:
    paths = [ROOT / "examples" / name for name in ("reminders.yaml", "days.yaml")]
    assert all(len(load(str(path))) >= 6 for path in paths)
    keys = {key for path in paths for key in re.findall(r"^ +(\w+):", path.read_text(), re.MULTILINE)}
    table = set(re.findall(r"^\| `(\w+)`", README, re.MULTILINE)) & set(_documented_keys())
    assert table <= keys | {"enabled"}


def test_the_starter_file_is_good() -> None:
    assert all(not reminder.enabled for reminder in parse(STARTER.encode(), "reminders.yaml"))


def test_every_command_in_the_readme_exists_and_has_help() -> None:
    named = set(re.findall(r"\| `bub-cron (\w+)", README)) | set(
        re.findall(r"^\$ bub-cron (\w+)", README, re.MULTILINE)
    )
    assert named == set(ENTRIES)
    for name in named:
        done = CliRunner().invoke(commands, [name, "--help"])
        assert done.exit_code == 0
        assert "Usage:" in done.output


def test_every_key_of_a_reminder_stands_in_the_readme() -> None:
    documented = _documented_keys()
    keys = set(parse(b"reminders: {a: {every: 1h, to: 'a:b', text: x}}", "x")[0].content()) - {"reminder"}
    assert keys <= set(documented)


def test_each_rare_key_has_its_section_and_its_example_in_the_docs() -> None:
    headings = set(re.findall(r"\w+", " ".join(re.findall(r"^## (.*)$", KEYS, re.MULTILINE))))
    shown = set(re.findall(r"^ +(\w+):", "".join(KEYS_BLOCKS), re.MULTILINE))
    for key in set(wire.LEFT_OUT) - {"delivery", "timezone"}:
        assert key in headings & shown, key
        assert key in _documented_keys(), key


def test_the_files_that_the_readme_links_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_version_is_said_in_one_voice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CliRunner().invoke(commands, ["--version"]).output.strip().endswith(project["version"])


def _documented_keys() -> list[str]:
    [table] = re.findall(r"\| key \| default \| meaning \|\n(.*?)\n\n", README, re.DOTALL)
    return [key for line in table.splitlines() for key in re.findall(r"`(\w+)`", line.split("|")[1])]
