"""skills/reminders: found by Bub wherever bub-cron is installed, and true to the tools that there are; docs/chat.md, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bub.skills import SkillMetadata, discover_skills

from bub_cron.gateway.chat.tools import _TOOLS, _VALUES
from bub_cron.reminders import parse
from bub_cron.reminders.chat_file import ChatFile

ROOT = Path(__file__).parent.parent
FOUND = (
    "import sys; from pathlib import Path; from bub.skills import discover_skills\n"
    "print(*(skill.location for skill in discover_skills(Path(sys.argv[1])) if skill.name == 'reminders'))"
)


@pytest.fixture
def skill(tmp_path: Path) -> SkillMetadata:
    [found] = [one for one in discover_skills(tmp_path) if one.name == "reminders"]
    return found


def test_an_editable_install_has_it(skill: SkillMetadata) -> None:
    assert skill.location == ROOT / "skills" / "reminders" / "SKILL.md"


def test_a_wheel_has_it(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "hatchling" in built.stderr and built.returncode != 0:
        pytest.skip("hatchling, which builds the wheel, can't be had here")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    found = subprocess.run(
        [sys.executable, "-P", "-c", FOUND, tmp_path],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert found.stdout == f"{site}/skills/reminders/SKILL.md\n"


def test_what_stands_in_every_prompt_is_short_and_the_rest_not_long(skill: SkillMetadata) -> None:
    assert len(skill.description) < 200
    assert len(skill.location.read_text().splitlines()) < 60


def test_it_names_the_tools_and_parameters_that_there_are(skill: SkillMetadata) -> None:
    body = skill.body()
    named = set(re.findall(r"reminder[_.][a-z]+", body))
    assert {name.replace("_", ".") for name in named} == set(_TOOLS)
    known = {*_VALUES, "bub-cron doctor", "reminders.yaml", "BUB_CRON_CHAT", "<no_reply/>"}
    words = [word for word in re.findall(r"`([a-z_]+)`", body) if not word.startswith("reminder_")]
    assert [word for word in words if word not in known] == []


def test_the_file_that_the_documentation_shows_is_good() -> None:
    [shown] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "chat.md").read_text(), re.DOTALL)
    [reminder] = parse(shown.encode(), "chat.yaml")
    assert (reminder.name, reminder.to) == ("take-the-cake-out", "telegram:123456789")
    assert ChatFile("chat.yaml", shown.encode(), lambda: "UTC").source().decode().endswith(shown)
