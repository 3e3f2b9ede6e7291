"""docs/pictures/: what they show is what the commands print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
README = (ROOT / "README.md").read_text()
TEXT = "{http://www.w3.org/2000/svg}text"
# What may not change a picture.
ELSEWHERE = {"TZ": "Asia/Tokyo", "COLUMNS": "200", "NO_COLOR": "1", "BUB_HOME": "/nowhere", "LANG": "C"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures made just now, elsewhere."""
    made = tmp_path_factory.mktemp("pictures")
    command = [sys.executable, str(ROOT / "docs" / "make_pictures.py"), str(made)]
    subprocess.run(command, env={**os.environ, **ELSEWHERE}, check=True, timeout=120)
    return made


def lines(picture: Path) -> list[str]:
    """Return the text of a picture, line by line, as a reader sees it."""
    by_height: dict[float, list[ET.Element]] = {}
    for text in ET.parse(picture).iter(TEXT):  # noqa: S314 - our own
        by_height.setdefault(float(text.attrib["y"]), []).append(text)
    return ["".join(one.text or "" for one in by_height[y]).replace("\xa0", " ").rstrip() for y in sorted(by_height)]


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_shows_what_its_command_prints(picture: Path, fresh: Path) -> None:
    shown = lines(picture)
    assert f"$ bub-cron {picture.stem}" in shown
    assert shown == lines(fresh / picture.name), "make them anew with `make pictures`"


def test_the_readme_shows_each_and_none_is_left_over(fresh: Path) -> None:
    names = {path.name for path in PICTURES.iterdir()}
    assert names == {path.name for path in fresh.iterdir()}
    assert {name for name in names if f"](docs/pictures/{name})" in README} == names


def test_no_line_of_a_picture_is_cut_by_its_frame() -> None:
    for picture in PICTURES.glob("*.svg"):
        assert max(map(len, lines(picture))) <= 80, picture.name
