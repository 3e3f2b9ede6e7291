"""skills/reminders: found by Bub, and true to the tools that there are; docs/chat.md, too. Of the wheel, see test_wheel.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bub.skills import SkillMetadata, discover_skills

from bub_cron.gateway.chat.tools import _TOOLS, _VALUES
from bub_cron.reminders import parse
from bub_cron.reminders.chat_file import ChatFile

ROOT = Path(__file__).parent.parent


@pytest.fixture
def skill(tmp_path: Path) -> SkillMetadata:
    [found] = [one for one in discover_skills(tmp_path) if one.name == "reminders"]
    return found


def test_an_editable_install_has_it(skill: SkillMetadata) -> None:
    assert skill.location == ROOT / "skills" / "reminders" / "SKILL.md"


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
