"""reminders.d/*.yaml: each file by itself, names unique over all, and one state directory for one place."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_gateway import Place, at, firing

from bub_cron.cli import commands
from bub_cron.errors import FaultyFilesError, FileFaultsError, FileMissingError, FileUnreadableError
from bub_cron.paths import drop_in_directory, drop_ins
from bub_cron.reminders import load
from bub_cron.trigger import load as taking

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR = 60, 3600


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def file(*names: str, to: str = "telegram:1", schedule: str = "every: 1m") -> str:
    entries = [f"  {name}: {{{schedule}, text: hi}}" for name in names]
    return "\n".join([f"defaults: {{to: '{to}', timezone: UTC}}", "reminders:", *entries, ""])


def write(place: Place, name: str, text: str, saved: int = NOON - 30) -> Path:
    """Write a drop-in, as saved at an instant."""
    path = place.home / "reminders.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{os.urandom(4).hex()}"
    fresh.write_text(text)
    os.utime(fresh, (saved, saved))
    os.replace(fresh, path)
    return path


def in_force(place: Place) -> list[str]:
    return [name for (name,) in place.select("SELECT name FROM reminders ORDER BY name")]


def bub_cron(place: Place, *arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments, env=place.environ)


# --- Which files there are


@pytest.mark.parametrize(
    ("file", "directory"),
    [("/a/reminders.yaml", "/a/reminders.d"), ("/a/b", "/a/b.d"), ("/a/b.c.yml", "/a/b.c.d"), ("/a.x/.b", "/a.x/.b.d")],
)
def test_the_directory_has_the_files_name_with_another_suffix(file: str, directory: str) -> None:
    assert drop_in_directory(file) == directory


def test_a_file_that_is_its_own_directory_has_no_drop_ins(tmp_path: Path) -> None:
    (tmp_path / "x.d").write_text(file("a"))
    assert [reminder.name for reminder in load(str(tmp_path / "x.d"))] == ["a"]


def test_they_come_in_the_order_of_their_names_and_others_are_left_out(place: Place) -> None:
    for name in ("b.yaml", "B.yaml", "a.yaml", ".hidden.yaml", "c.yml", "d.yaml~", "#e.yaml#", "yaml"):
        write(place, name, file("x"))
    assert [Path(path).name for path in drop_ins(place.paths.file)] == ["B.yaml", "a.yaml", "b.yaml"]


def test_without_a_directory_there_are_none(place: Place) -> None:
    assert drop_ins(place.paths.file) == []


# --- What the commands read


def test_each_file_has_defaults_of_its_own_and_each_reminder_knows_its_file(place: Place) -> None:
    place.write(file("a"), NOON)
    one = write(place, "one.yaml", file("b", to="matrix:2"))
    found = {reminder.name: (reminder.to, reminder.file) for reminder in load(place.paths.file)}
    assert found == {"a": ("telegram:1", place.paths.file), "b": ("matrix:2", str(one))}


def test_a_drop_in_alone_will_do(place: Place) -> None:
    write(place, "one.yaml", file("b"))
    assert [reminder.name for reminder in load(place.paths.file)] == ["b"]
    assert place.tick(NOON - 20) == (0, "")
    assert in_force(place) == ["b"]


def test_missing_is_only_where_there_is_neither(place: Place) -> None:
    (place.home / "reminders.d").mkdir(parents=True)
    with pytest.raises(FileMissingError):
        load(place.paths.file)
    assert place.tick(NOON)[0] == 66


def test_a_name_that_an_earlier_file_has_is_a_fault_of_the_later_one(place: Place) -> None:
    place.write(file("a", "b"), NOON)
    write(place, "one.yaml", file("c", "d"))
    two = write(place, "two.yaml", file("b", "e", "d"))
    with pytest.raises(FileFaultsError) as error:
        load(place.paths.file)
    assert [str(error.value.path), *(f"{f.line}:{f.column}: {f.message}" for f in error.value.faults)] == [
        str(two),
        f"3:3: b stands in {place.paths.file}:4 already; give one of them another name",
        f"5:3: d stands in {place.home}/reminders.d/one.yaml:4 already; give one of them another name",
    ]


def test_all_faults_of_all_files_come_in_one_run(place: Place) -> None:
    place.write("reminders: [", NOON)
    write(place, "a.yaml", file("b"))
    write(place, "c.yaml", "reminders:\n  d: {evry: 1m}\n")
    (place.home / "reminders.d" / "e.yaml").mkdir()
    with pytest.raises(FaultyFilesError) as error:
        load(place.paths.file)
    assert [type(one) for one in error.value.errors] == [FileFaultsError, FileFaultsError, FileUnreadableError]
    result = bub_cron(place, "check")
    assert result.exit_code == 65
    assert f"{place.paths.file}:1:" in result.stdout
    assert f"{place.home}/reminders.d/c.yaml:2:" in result.stdout
    assert "e.yaml" in result.stdout
    assert "a.yaml" not in result.stdout
    listed = bub_cron(place, "list")
    assert listed.exit_code == 65
    assert listed.stderr.count("c.yaml:2:") > 0


def test_a_link_to_nowhere_is_a_fault_of_that_drop_in_alone(place: Place) -> None:
    place.write(file("a"), NOON - 30)
    write(place, "b.yaml", file("b"))
    (place.home / "reminders.d" / "c.yaml").symlink_to("gone")
    with pytest.raises(FileUnreadableError, match=r"c\.yaml leads to nothing"):
        load(place.paths.file)
    assert place.tick(NOON)[0] == 65
    assert in_force(place) == ["a", "b"]


def test_check_counts_them_and_names_the_file_of_a_warning(place: Place) -> None:
    place.write(file("a"), NOON)
    one = write(place, "one.yaml", file("b", schedule="at: 2020-01-01 08:00"))
    result = bub_cron(place, "check")
    assert (result.exit_code, result.stdout.split(":")[0]) == (0, f"{place.paths.file} (1), one.yaml (1)")
    assert result.stderr.startswith(f"{one}:3:11: warning: b is past")


def test_check_of_one_file_names_it_alone(place: Place) -> None:
    place.write(file("a"), NOON)
    assert bub_cron(place, "check").stdout.startswith(f"{place.paths.file}: 1 reminder;")
    os.unlink(place.paths.file)
    one = write(place, "one.yaml", file("b"))
    assert bub_cron(place, "check").stdout.startswith(f"{one}: 1 reminder;")
    write(place, "two.yaml", file("c", "d"))
    assert bub_cron(place, "check").stdout.startswith(f"{one} (1), two.yaml (2): 3 reminders;")


def test_a_list_names_the_file_above_the_reminders_of_a_drop_in_and_grows_no_wider(place: Place) -> None:
    place.write(file("a", "b"), NOON)
    alone = bub_cron(place, "list").stdout.splitlines()
    write(place, "chat.yaml", file("c", "d"))
    write(place, "work.yaml", file("e"))
    lines = bub_cron(place, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["reminder", "a", "b", "chat.yaml:", "c", "d", "work.yaml:", "e"]
    assert lines[:3] == alone


@pytest.mark.parametrize("command", ["next", "week"])
def test_next_and_week_tell_below_which_come_from_which_drop_in(place: Place, command: str) -> None:
    place.write(file("a"), NOON)
    assert "from" not in bub_cron(place, command).stdout
    write(place, "chat.yaml", file("b", "c"))
    write(place, "work.yaml", file("d", schedule="at: 2020-01-01 08:00"))  # not in sight
    lines = bub_cron(place, command).stdout.splitlines()
    assert [line for line in lines if line.startswith("from")] == ["from chat.yaml: b, c"]


def test_list_as_json_tells_the_file_of_each(place: Place) -> None:
    place.write(file("a"), NOON)
    one = write(place, "one.yaml", file("b"))
    lines = map(json.loads, bub_cron(place, "list", "--json").stdout.splitlines())
    assert [line["file"] for line in lines] == [place.paths.file, str(one)]


@pytest.mark.parametrize("command", [["list", "--json"], ["next", "b", "-n", "1", "--json"], ["next", "--json"]])
def test_the_commands_that_look_see_them_all(place: Place, command: list[str]) -> None:
    place.write(file("a"), NOON)
    write(place, "one.yaml", file("b"))
    result = bub_cron(place, *command)
    assert result.exit_code == 0
    assert "b" in {json.loads(line)["reminder"] for line in result.stdout.splitlines()}


def test_a_directory_that_is_none_is_a_fault(place: Place) -> None:
    place.write(file("a"), NOON)
    (place.home / "reminders.d").write_text("")
    with pytest.raises(FileUnreadableError, match=r"reminders\.d can't be read"):
        load(place.paths.file)


# --- What a tick puts in force


def begin(place: Place) -> None:
    place.write(file("a"), NOON - 60)
    write(place, "one.yaml", file("b", "c"))
    write(place, "two.yaml", file("d"))
    assert place.tick(NOON - 30) == (0, "")
    assert in_force(place) == ["a", "b", "c", "d"]


def test_a_file_with_a_fault_keeps_its_last_good_version_as_a_whole_and_the_others_count(place: Place) -> None:
    begin(place)
    place.write(file("a", "a2"), NOON)
    one = write(place, "one.yaml", file("b", "b2") + "  c: {every: 1x}\n", NOON)
    write(place, "two.yaml", file("d2"), NOON)
    with place.gateway() as gateway:
        status, said = place.tick(NOON + 5)
        assert (status, said.startswith(f"bub-cron: {one}:5:")) == (65, True)
        assert said.endswith("bub-cron: until that is fixed, the last good version stays in force\n")
        assert in_force(place) == ["a", "a2", "b", "c", "d2"]
        assert place.tick(NOON + MINUTE) == (65, "")
        write(place, "one.yaml", file("b", "b2"), NOON + MINUTE)
        assert place.tick(NOON + MINUTE + 30) == (0, "")
    assert in_force(place) == ["a", "a2", "b", "b2", "d2"]
    assert firing("c", DAY + "12:01:00") in gateway.taken


def test_a_drop_in_that_is_removed_takes_its_reminders_along(place: Place) -> None:
    begin(place)
    (place.home / "reminders.d" / "one.yaml").unlink()
    assert place.tick(NOON - 20) == (0, "")
    assert in_force(place) == ["a", "d"]


def test_the_file_itself_may_go_while_there_are_drop_ins(place: Place) -> None:
    begin(place)
    os.unlink(place.paths.file)
    assert place.tick(NOON - 20) == (0, "")
    assert in_force(place) == ["b", "c", "d"]


def test_when_all_have_gone_all_stay_in_force(place: Place) -> None:
    begin(place)
    os.unlink(place.paths.file)
    for path in drop_ins(place.paths.file):
        os.unlink(path)
    status, said = place.tick(NOON - 20)
    assert (status, "the last good version stays in force" in said) == (66, True)
    assert in_force(place) == ["a", "b", "c", "d"]


def test_a_name_that_comes_into_an_earlier_file_is_its_own_and_the_later_file_is_at_fault(place: Place) -> None:
    begin(place)
    place.write(file("a", "b", to="matrix:2"), NOON - 25)
    status, said = place.tick(NOON - 20)
    assert (status, f"b stands in {place.paths.file}:4 already" in said) == (65, True)
    assert place.select("SELECT name, file FROM reminders ORDER BY name") == [
        ("a", place.paths.file), ("b", place.paths.file),
        ("c", f"{place.home}/reminders.d/one.yaml"), ("d", f"{place.home}/reminders.d/two.yaml"),
    ]  # fmt: skip
    place.write(file("a"), NOON - 15)  # and it goes again: the later file is whole as it stands
    assert place.tick(NOON - 10) == (0, "")
    assert dict(place.select("SELECT name, file FROM reminders"))["b"].endswith("one.yaml")


def test_a_name_of_a_broken_files_last_good_version_is_taken(place: Place) -> None:
    begin(place)
    write(place, "one.yaml", "reminders: [", NOON - 25)
    write(place, "two.yaml", file("d", "b"), NOON - 25)
    status, said = place.tick(NOON - 20)
    assert status == 65
    assert f"two.yaml:4:3: b stands in {place.home}/reminders.d/one.yaml already" in said
    assert in_force(place) == ["a", "b", "c", "d"]


def test_a_reminder_that_moves_to_another_file_keeps_its_place_in_time(place: Place) -> None:
    begin(place)
    write(place, "two.yaml", file("d", "c"), NOON)
    write(place, "one.yaml", file("b"), NOON)
    assert place.tick(NOON + 10)[0] == 69
    assert place.states()[firing("c", DAY + "12:00:00")] == "due"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that another user may own: those above pytest's are root's alone."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_directory_that_cannot_be_listed_keeps_all_of_its_files_in_force(
    home: Path,
) -> None:
    place = Place(home)
    begin(place)
    for path in (home, *home.rglob("*")):
        os.chown(path, 65534, 65534)
    (home / "reminders.d").chmod(0)
    os.seteuid(65534)
    try:
        status, said = place.tick(NOON - 20)
        assert (status, f"{home}/reminders.d can't be read" in said) == (65, True)
        assert in_force(place) == ["a", "b", "c", "d"]
        (home / "reminders.d").chmod(0o700)
        assert place.tick(NOON - 10) == (0, "")
    finally:
        os.seteuid(0)


def test_an_entry_counts_from_the_save_of_its_own_file(place: Place) -> None:
    begin(place)
    place.write(file("a", "new1"), NOON + 30)
    write(place, "two.yaml", file("d", "new2"), NOON + 90)
    with place.gateway():
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert firing("new1", DAY + "12:01:00") in place.states()
    assert firing("new2", DAY + "12:01:00") not in place.states()


def test_a_drop_in_that_is_moved_aside_while_it_is_saved_is_not_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place)
    path = place.home / "reminders.d" / "one.yaml"
    assert place.tick(NOON)[0] == 69
    os.rename(path, f"{path}~")
    monkeypatch.setattr(taking, "_GONE_SECONDS", 2.0)
    saver = threading.Timer(0.1, lambda: write(place, "one.yaml", file("b", "c"), NOON))
    saver.start()
    with place.gateway() as gateway:
        assert place.tick(NOON + 30) == (0, "")
    saver.join()
    assert firing("b", DAY + "12:00:00") in gateway.taken


# --- Two ticks, two files


def test_of_two_ticks_the_one_that_read_an_older_version_does_not_put_it_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place)
    place.write(file("old"), NOON - 29)
    read = taking.read_files

    def slowly(path: str, machine_zone: Callable[[], str]) -> object:
        files = read(path, machine_zone)
        monkeypatch.setattr(taking, "read_files", read)
        place.write(file("newer"), NOON - 28)
        assert place.tick(NOON - 28) == (0, "")  # another tick, meanwhile
        return files

    monkeypatch.setattr(taking, "read_files", slowly)
    assert place.tick(NOON - 28) == (0, "")
    assert in_force(place) == ["b", "c", "d", "newer"]


def test_files_that_change_all_the_while_are_left_for_the_next_tick(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place)
    read = taking.read_files

    def changing(path: str, machine_zone: Callable[[], str]) -> object:
        files = read(path, machine_zone)
        place.write(file("a", f"x{os.urandom(2).hex()}"), NOON - 28)
        return files

    place.write(file("a", "x"), NOON - 28)
    with monkeypatch.context() as patch:
        patch.setattr(taking, "read_files", changing)
        status, said = place.tick(NOON - 28)
    assert (status, "is being written" in said) == (65, True)
    assert in_force(place) == ["a", "b", "c", "d"]
    assert place.tick(NOON - 27) == (0, "")


def test_a_state_directory_that_two_files_share_is_told_at_each_tick(place: Place) -> None:
    other = str(place.home / "other.yaml")
    mine = place.paths.file
    place.write(file("a"), NOON - 60)
    Path(other).write_text(file("b"))
    assert place.tick(NOON - 50) == (0, "")
    for number in range(6):
        place.paths.file = [other, mine][number % 2]
        status, said = place.tick(NOON + number * MINUTE)
        assert status in (65, 69)
        assert (
            f"this state directory belonged to {[mine, other][number % 2]}; {place.paths.file} has taken it over"
            in said
        )
        assert in_force(place) == [["b"], ["a"]][number % 2]


def test_taking_a_file_over_is_told_once(place: Place) -> None:
    place.write(file("a"), NOON - 60)
    place.tick(NOON - 50)
    place.paths.file = str(place.home / "moved.yaml")
    os.rename(place.home / "reminders.yaml", place.paths.file)
    assert place.tick(NOON - 40)[0] == 65
    assert place.tick(NOON - 30) == (0, "")


def by_link(place: Path) -> str:
    (place / "link.yaml").symlink_to("reminders.yaml")
    return str(place / "link.yaml")


def by_directory(place: Path) -> str:
    (place.parent / "linked").symlink_to(place)
    return str(place.parent / "linked" / "reminders.yaml")


@pytest.mark.parametrize("way", [by_link, by_directory])
def test_the_same_file_by_another_way_is_no_other_file(place: Place, way: Callable[[Path], str]) -> None:
    place.write(file("a"), NOON - 60)
    place.tick(NOON - 50)
    place.paths.file = way(place.home)
    assert place.tick(NOON - 40) == (0, "")
