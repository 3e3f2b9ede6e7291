"""Names of zones, and the machine's own zone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bub_cron.errors import ScheduleError
from bub_cron.schedule import machine_zone, parse_at, parse_cron, require_zone


@pytest.mark.parametrize(
    "name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Asia/Kolkata"]
)
def test_a_known_zone_is_returned(name: str) -> None:
    """The name as it is."""
    assert require_zone(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        # Offsets, abbreviations and Windows' names are never guessed from their spelling.
        ("GMT+8", "Etc/GMT-8 is 8 hours ahead of UTC all year"),
        ("UTC+8", "such as Europe/Berlin, for its zone follows the changes of its clock; Etc/GMT-8"),
        ("utc-1", "Etc/GMT+1 is 1 hour behind UTC"),
        ("+05:30", "no zone is named by that offset; write the name of a city there"),
        ("GMT+15", "no zone is named by that offset"),
        ("UTC+0", "did you mean UTC?"),
        ("Z", "did you mean UTC?"),
        ("AEST", "abbreviations are not taken, for several zones may share one; write the name of a city"),
        ("JST", "abbreviations are not taken"),
        ("cest", "abbreviations are not taken"),
        ("Pacific Standard Time", "that is Windows' name for America/Los_Angeles"),
        ("w. europe standard time", "that is Windows' name for Europe/Berlin"),
        ("Wonderland Standard Time", "Windows' names are not taken; write the name of a city there"),
        ("", "write an IANA name"),
        ("Europe", "not a time zone"),
        ("Europe/", "not a time zone"),
        ("..", "not a time zone"),
        ("../zoneinfo/UTC", "not a time zone"),
        ("Europe/../UTC", "not a time zone"),
        ("/usr/share/zoneinfo/UTC", "not a time zone"),
        ("/etc/passwd", "not a time zone"),
        ("right/Europe/Berlin", "not a time zone"),
        ("posix/Europe/Berlin", "not a time zone"),
        ("localtime", "not a time zone"),
        ("tzdata.zi", "not a time zone"),
        ("leapseconds", "not a time zone"),
        ("__init__.py", "not a time zone"),
        ("UTC\x00", "not a time zone"),
        ("UTC\n", "not a time zone"),
        ("\ud800", "not a time zone"),
        ("Zürich", "not a time zone"),
        pytest.param("x" * 100_000, "not a time zone", id="long"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "not a time zone"),
    ],
)
def test_an_unknown_zone_is_refused(name: str, words: str) -> None:
    """With the nearest names, whatever zoneinfo would have raised."""
    with pytest.raises(ScheduleError) as caught:
        require_zone(name)
    assert words in str(caught.value)
    with pytest.raises(ScheduleError):
        parse_cron("0 9 * * *", name, "x")
    with pytest.raises(ScheduleError):
        parse_at(["2026-12-01 08:30"], name)


@pytest.mark.parametrize("name", ["GMT+8", "AEST", "JST", "CEST", "Z", "Pacific Standard Time", "UTC+5:30"])
def test_no_zone_is_offered_that_is_hours_away(name: str) -> None:
    """The nearest spelling was: Etc/GMT+8, EST, MST, NZ, US/Tahiti."""
    with pytest.raises(ScheduleError) as caught:
        require_zone(name)
    for wrong in ("Etc/GMT+8", "EST ", " MST", "HST", "NZ", "Tahiti"):
        assert wrong not in str(caught.value).replace(f"'{name}'", "")


def machine(root: Path, link: str = "", line: str = "") -> str:
    """A file system with /etc/localtime as a link and /etc/timezone, where given."""
    (root / "etc").mkdir()
    if link:
        (root / "etc/localtime").symlink_to(link)
    if line:
        (root / "etc/timezone").write_bytes(line.encode("utf-8", "surrogateescape"))
    return str(root)


@pytest.mark.parametrize("value", ["Europe/Berlin", ":Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin"])
def test_tz_comes_first(tmp_path: Path, value: str) -> None:
    """Also with a colon, or as a path."""
    root = machine(tmp_path, "/usr/share/zoneinfo/Asia/Tokyo", "Asia/Kolkata")
    assert machine_zone({"TZ": value}, root) == "Europe/Berlin"


@pytest.mark.parametrize("value", ["", ":", " ", ":/etc/localtime"])
def test_a_tz_that_says_nothing_counts_as_none(tmp_path: Path, value: str) -> None:
    """Then the link decides."""
    assert machine_zone({"TZ": value}, machine(tmp_path, "/usr/share/zoneinfo/Asia/Tokyo")) == "Asia/Tokyo"


@pytest.mark.parametrize(
    "value", ["Mars/Olympus", "CET-1CEST", "/my/own/zone", pytest.param("x" * 100_000, id="long"), "\x00"]
)
def test_a_tz_that_cannot_be_used_is_a_fault(tmp_path: Path, value: str) -> None:
    """It is not passed over in silence, for the user's programs go by it."""
    with pytest.raises(ScheduleError, match=r"as TZ says.*set `timezone:`"):
        machine_zone({"TZ": value}, machine(tmp_path, "/usr/share/zoneinfo/Asia/Tokyo"))


@pytest.mark.parametrize(
    "link",
    ["/usr/share/zoneinfo/Asia/Tokyo", "../usr/share/zoneinfo/Asia/Tokyo", "/usr/share/zoneinfo/posix/Asia/Tokyo"],
)
def test_the_link_comes_second(tmp_path: Path, link: str) -> None:
    """Absolute or relative, and before /etc/timezone."""
    assert machine_zone({}, machine(tmp_path, link, "Asia/Kolkata")) == "Asia/Tokyo"


@pytest.mark.parametrize("link", ["", "/elsewhere/file", "nowhere"])
def test_the_line_comes_third(tmp_path: Path, link: str) -> None:
    """Without a link, or with one that names no zone."""
    assert machine_zone({}, machine(tmp_path, link, "Asia/Kolkata\n")) == "Asia/Kolkata"


@pytest.mark.parametrize("line", ["", "\n", "Mars/Olympus\n", "\udcff\udcfe", "\x00"])
def test_a_machine_without_a_zone_is_not_utc(tmp_path: Path, line: str) -> None:
    """The user is told to set one."""
    with pytest.raises(ScheduleError, match="set `timezone:`"):
        machine_zone({}, machine(tmp_path, "", line))
