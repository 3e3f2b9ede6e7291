"""The wheel, in a clean environment: it brings the command, the plugin, the skill and the types, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What an environment has of bub-cron, and where.
ASKED = """\
import json, sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from bub.skills import discover_skills
[plugin] = entry_points(group="bub", name="cron")
package = Path(find_spec("bub_cron").origin).parent
print(json.dumps({
    "package": str(package),
    "plugin": sys.modules[plugin.load().__module__].__file__,
    "typed": (package / "py.typed").exists(),
    "skills": [str(one.location) for one in discover_skills(Path(sys.argv[1])) if one.name == "reminders"],
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    made = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, ROOT],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "hatchling" in built.stderr and built.returncode != 0:
        pytest.skip("hatchling, which builds the wheel, can't be had here")
    assert built.returncode == 0, built.stderr
    [found] = made.glob("*.whl")
    return found


def test_it_has_all_modules_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "bub_cron").rglob("*.py")}
    assert names == {*package, "bub_cron/py.typed", "skills/reminders/SKILL.md"}


def test_a_clean_environment_has_the_command_the_plugin_the_skill_and_the_types(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    python, site = environment / "bin" / "python", next((environment / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel],
        check=True, timeout=120,
    )  # fmt: skip
    # What it depends on is here already. A path alone brings the modules there, but not an editable bub-cron.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def ask(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path)},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    package = site / "bub_cron"
    assert json.loads(ask(python, "-P", "-c", ASKED, tmp_path)) == {
        "package": str(package),
        "plugin": str(package / "gateway" / "plugin.py"),
        "typed": True,
        "skills": [str(site / "skills" / "reminders" / "SKILL.md")],
    }
    ask(environment / "bin" / "bub-cron", "init")
    ask(environment / "bin" / "bub-cron", "check")
