"""What the README and docs/ say is true; of the units, see test_units.py, of the examples test_examples.py, of the pictures
test_pictures.py, and of the states test_states.py."""

from __future__ import annotations

import json
import re
import shlex
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click import Context
from click.testing import CliRunner
from editor_kit import as_editor_reads
from fake_gateway import Place, ending
from health_kit import answering
from jsonschema import Draft202012Validator

from bub_cron import wire
from bub_cron.cli import commands
from bub_cron.errors import FileFaultsError
from bub_cron.reminders import STARTER, json_schema, load, parse
from docs.make_pictures import furnish

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")))
}
KEYS = PAGES["docs/keys.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Commands and options that the pages describe and that come with other branches. Empty it once those are here.
COMING: set[str] = set()


def command_names() -> set[str]:
    return set(commands.list_commands(Context(commands)))


def blocks(page: str, kind: str) -> list[str]:
    """Return the contents of a page's fenced blocks of a kind."""
    return [text for found, text in FENCED.findall(PAGES[page]) if found == kind]


EXAMPLES = [
    *(pytest.param(text, id=f"{page}-{number}") for page in PAGES for number, text in enumerate(blocks(page, "yaml"))),
    pytest.param((ROOT / "examples" / "reminders.yaml").read_text(), id="examples/reminders.yaml"),
    pytest.param(STARTER, id="starter"),
]
SCHEMA = Draft202012Validator(json_schema())


@pytest.fixture
def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Yield the house of the pictures, with this process in it."""
    yield furnish(tmp_path, monkeypatch)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_parser_and_the_schema_take_every_example(example: str) -> None:
    # Where the calendars' files are, too.
    assert parse(example.encode(), str(ROOT / "examples" / "example.yaml"))
    SCHEMA.validate(as_editor_reads(example))


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


def test_the_readme_begins_with_a_file_of_two_reminders() -> None:
    [shown] = blocks("README.md", "yaml")
    assert [one.kind for one in parse(shown.encode(), "example.yaml")] == ["prompt", "text"]
    before, _, _ = PAGES["README.md"].partition("## What you see")
    # Nothing of the inside before a newcomer has seen it work.
    assert not re.search(r"ledger|inbox|socket|sqlite", before, re.IGNORECASE)
    assert re.findall(r"^\*\*(\d)\. ", before, re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_the_fourth_step_leads_to_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "bub")
    monkeypatch.setenv("BUB_HOME", str(place.home))
    [step] = [block for block in blocks("README.md", "console") if "bub-cron init" in block]
    with place.gateway(ending(status="delivered", seconds=0.1)) as gateway:
        for line in step.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
            if program == "nano":  # what the step says to do in the editor
                text = Path(place.paths.file).read_text()
                [deleted] = [line for line in text.splitlines(keepends=True) if "    enabled: false" in line]
                Path(place.paths.file).write_text(text.replace(deleted, "").replace("telegram:123456789", "telegram:7"))
                continue
            done = CliRunner().invoke(commands, arguments)
            assert done.exit_code == 0, done.output
    assert [(one["to"], one["text"]) for one in gateway.requests] == [("telegram:7", "Good morning.")]


def test_the_example_files_are_good_and_show_every_key() -> None:
    paths = [ROOT / "examples" / name for name in ("reminders.yaml", "days.yaml")]
    assert all(len(load(str(path))) >= 6 for path in paths)
    keys = {key for path in paths for key in re.findall(r"^ +(\w+):", path.read_text(), re.MULTILINE)}
    assert set(_documented_keys()) <= keys | {"enabled"}


def test_the_starter_file_is_good() -> None:
    assert all(not reminder.enabled for reminder in parse(STARTER.encode(), "reminders.yaml"))


def test_every_command_is_in_the_table_of_commands_and_has_help() -> None:
    named = set(re.findall(r"^\| `bub-cron (\w+)", PAGES["docs/commands.md"], re.MULTILINE))
    assert named == command_names() | {one for one in COMING if " " not in one}
    for name in command_names():
        done = CliRunner().invoke(commands, [name, "--help"])
        assert done.exit_code == 0
        assert "Usage:" in done.output


def _command_lines() -> Iterator[tuple[str, str, list[str]]]:
    """Yield the page, the command and the options of each `bub-cron ...` in a console block or in backticks."""
    for page, text in PAGES.items():
        lines = [
            line[2:].partition(" #")[0]
            for block in blocks(page, "console")
            for line in block.splitlines()
            if line[:2] == "$ "
        ]
        lines += re.findall(r"`(bub-cron [a-z][^`]*)`", FENCED.sub("", text))
        for line in lines:
            for name, rest in re.findall(r"\bbub-cron ([a-z]+)([^|;&>]*)", line.replace(" / ", " ")):
                yield page, name, re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", re.sub(r'"[^"]*"', "", rest))


def test_every_command_line_in_the_pages_has_a_command_and_options_that_there_are() -> None:
    seen = set()
    for page, name, options in _command_lines():
        seen.add(page)
        command = commands.get_command(Context(commands), name)
        if command is None and name in COMING:
            continue
        assert command is not None, f"{page}: bub-cron {name}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = [option for option in options if option not in known and f"{name} {option}" not in COMING]
        assert not unknown, f"{page}: bub-cron {name} {unknown}"
    assert {"README.md", "docs/commands.md", "docs/schedules.md", "docs/keys.md"} <= seen


def test_every_field_of_json_is_in_the_table(furnished: Place) -> None:
    table = PAGES["docs/commands.md"].partition("## JSON")[2]
    for command in ("list", "show", "next", "week", "log", "usage", "status", "doctor"):
        if command in COMING - command_names():
            continue
        [row] = re.findall(rf"^\| `{command} --json` \| (.*) \|$", table, re.MULTILINE)
        fields = set(re.findall(r"`(\w+)`", row + (_row_of_next(table) if "as `next`" in row else "")))
        with furnished.gateway(answering()):
            names = ["pills"] if command == "show" else []
            lines = CliRunner().invoke(commands, [command, *names, "--json"]).stdout.splitlines()
        printed = {key for line in lines for key in json.loads(line)}
        assert printed, command
        assert printed <= fields, command


def _row_of_next(table: str) -> str:
    return next(line for line in table.splitlines() if line.startswith("| `next --json`"))


def test_every_key_of_a_reminder_is_in_the_table_of_keys() -> None:
    documented = _documented_keys()
    keys = set(parse(b"reminders: {a: {every: 1h, to: 'a:b', text: x}}", "x")[0].content()) - {"reminder"}
    assert keys <= set(documented)


def test_each_rare_key_has_its_section_and_its_example_in_the_docs() -> None:
    headings = set(re.findall(r"\w+", " ".join(re.findall(r"^## (.*)$", KEYS, re.MULTILINE))))
    shown = set(re.findall(r"^ +(\w+):", "".join(blocks("docs/keys.md", "yaml")), re.MULTILINE))
    for key in set(wire.LEFT_OUT) - {"delivery", "timezone"}:
        assert key in headings & shown, key
        assert key in _documented_keys(), key


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_headings_that_a_page_links_to_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", FENCED.sub("", PAGES[page])):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path.read_text()), target


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_links_to_every_page() -> None:
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in PAGES["README.md"], page


def test_the_overview_of_the_code_names_every_module_or_its_directory_and_none_that_is_gone() -> None:
    layers = (ROOT / "AGENTS.md").read_text().partition("## Layers")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", layers))
    package = ROOT / "bub_cron"
    assert [name for name in sorted(named) if not (package / name).exists()] == []
    modules = [path.relative_to(package) for path in package.rglob("*.py") if path.name != "__init__.py"]
    assert [str(one) for one in modules if str(one) not in named and f"{one.parent}/" not in named] == []


def test_the_version_is_said_in_one_voice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CliRunner().invoke(commands, ["--version"]).output.strip().endswith(project["version"])


def _documented_keys() -> list[str]:
    [table] = re.findall(r"\| key \| default \| meaning \|\n(.*?)\n\n", PAGES["docs/file.md"], re.DOTALL)
    return [key for line in table.splitlines() for key in re.findall(r"`(\w+)`", line.split("|")[1])]
