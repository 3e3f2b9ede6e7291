"""chat_file: the one file that the program writes stays valid, whole, and somebody's own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bub_cron.errors import BubCronError, ChatFileError, FileFaultsError, UnknownReminderError
from bub_cron.reminders import Reminder, chat_file, parse
from bub_cron.reminders.chat_file import ChatFile, edit

COMMENT = "# made by alice in telegram:1 on Thu 2026-11-26 19:00 UTC"
VALUES = {"to": "telegram:1", "timezone": "UTC", "cron": "0 9 * * *", "text": "hi"}
BY_HAND = """\
# A heading that goes.
defaults:
  to: telegram:7
calendars:
  closed: {dates: [2026-12-24..2027-01-02]}
reminders:
  # Mine, and it stays.
  # It has two lines.
  pills:
    cron: "0 21 * * *"   # goes
    except: closed
    times: 3
    start: 2026-12-01 08:00
    quiet: false
    text: |
      Two lines:
        # this is no comment

  'yes': {every: 30m, text: 'no', attempts: 2, context: {a: '1'}}
"""


def read(path: Path) -> dict[str, Reminder]:
    return {reminder.name: reminder for reminder in parse(path.read_bytes(), str(path), machine_zone=lambda: "UTC")}


def put(path: Path, name: str, **values: object) -> None:
    edit(str(path), lambda file: file.put(name, {**VALUES, **values}, COMMENT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reminders.d" / "chat.yaml"


def test_the_first_one_makes_the_directory_and_the_file_for_its_user_alone(path: Path) -> None:
    put(path, "cake")
    assert read(path)["cake"].body == "hi"
    assert [path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777] == [0o600, 0o700]
    assert f"  {COMMENT}\n  cake:\n    to: telegram:1\n" in path.read_text()
    assert os.listdir(path.parent) == ["chat.yaml"]


def test_what_was_written_by_hand_stays_with_the_comments_above_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(BY_HAND)
    before = read(path)
    for _ in range(3):
        put(path, "cake")
        edit(str(path), lambda file: file.remove("cake"))
    after = read(path)
    assert list(after) == list(before)
    places: dict[str, Any] = {"line": 0, "column": 0, "places": {}, "cut": ""}
    assert [one._replace(**places) for one in after.values()] == [one._replace(**places) for one in before.values()]
    text = path.read_text()
    assert "  # Mine, and it stays.\n  # It has two lines.\n  pills:\n" in text
    assert text.count("# this is no comment") == 1
    assert "A heading that goes" not in text
    assert "# goes" not in text


def test_change_is_partial_and_names_who_changed_it_last(path: Path) -> None:
    put(path, "cake", quiet=False, times=2, start="2026-12-01 08:00")
    edit(str(path), lambda file: file.change("cake", {"text": "new", "times": None}, "# changed by bob"))
    edit(str(path), lambda file: file.change("cake", {"quiet": None}, "# changed by eve"))
    assert (read(path)["cake"].body, read(path)["cake"].schedule_text) == ("new", "0 9 * * *")
    assert f"  {COMMENT}\n  # changed by eve\n  cake:" in path.read_text()
    assert not {"times", "quiet", "bob"} & set(path.read_text().replace(":", " ").split())


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.from_regex("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,10}", fullmatch=True), st.text(min_size=1), max_size=4)
)
def test_any_text_comes_back_as_it_was(texts: dict[str, str]) -> None:
    file = ChatFile("chat.yaml", b"", lambda: "UTC")
    for name, text in texts.items():
        file.put(name, {**VALUES, "text": text}, COMMENT)
    try:
        judged = file.judged()
    except FileFaultsError:
        # What the parser will not have (control characters, blanks alone) is refused one by one, too.
        for text in texts.values():
            alone = ChatFile("chat.yaml", b"", lambda: "UTC")
            alone.put("a", {**VALUES, "text": text}, COMMENT)
            try:
                alone.judged()
            except FileFaultsError:
                return
        raise
    assert {name: reminder.body for name, reminder in judged.items()} == texts
    again = ChatFile("chat.yaml", file.source(), lambda: "UTC")
    assert again.source() == file.source()


def test_what_the_parser_refuses_is_not_written(path: Path) -> None:
    put(path, "cake")
    before = path.read_bytes()
    with pytest.raises(FileFaultsError, match="hour"):
        put(path, "tea", cron="0 25 * * *")
    with pytest.raises(UnknownReminderError):
        chat_file.remove(str(path), "coffee")
    assert path.read_bytes() == before


def test_a_fault_that_stands_there_is_told_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("reminders:\n  a: {cron: x}\n")
    with pytest.raises(FileFaultsError):
        put(path, "cake")
    assert path.read_text() == "reminders:\n  a: {cron: x}\n"


def test_what_is_saved_by_hand_meanwhile_is_read_again(path: Path) -> None:
    put(path, "cake")
    calls: list[int] = []

    def change(file: ChatFile) -> None:
        if not calls:
            path.write_text(BY_HAND)
        calls.append(1)
        file.put("tea", VALUES, COMMENT)

    edit(str(path), change)
    assert (len(calls), set(read(path))) == (2, {"pills", "yes", "tea"})


def test_writers_take_turns(path: Path) -> None:
    threads = [threading.Thread(target=put, args=(path, f"n{number}")) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(path)) == 30


@pytest.mark.parametrize("break_it", [lambda path: path.parent.write_text(""), lambda path: path.mkdir(parents=True)])
def test_where_it_cannot_be_written_one_sentence_says_so(path: Path, break_it: Callable[[Path], object]) -> None:
    break_it(path)
    with pytest.raises(BubCronError, match=r"chat\.yaml|reminders\.d") as raised:
        put(path, "cake")
    assert "\n" not in str(raised.value)


def test_a_disk_that_refuses_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, "cake")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ChatFileError, match=r"chat\.yaml can't be written: No space left on device"):
        put(path, "tea")
    assert path.read_bytes() == before


def test_a_kill_leaves_a_whole_file(path: Path) -> None:
    put(path, "first")
    script = (
        "import sys\nfrom bub_cron.reminders.chat_file import edit\n"
        f"values = {VALUES!r}\n"
        "for number in range(1000):\n"
        f"    edit(sys.argv[1], lambda file: file.put(f'n{{number}}', values, {COMMENT!r}))\n"
        "    print(number, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            last = int(writer.stdout.readline())
            deadline = time.monotonic() + 0.15
            while time.monotonic() < deadline:
                assert "first" in read(path)
            writer.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in writer.stdout if line.strip())])
        assert {f"n{number}" for number in range(last + 1)} <= set(read(path))


def test_the_zone_of_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "reminders.yaml"
    assert chat_file.default_zone(str(file)) is None
    for text, zone in (
        ("defaults: {timezone: Europe/Berlin}\nreminders: {a: broken}", "Europe/Berlin"),
        ("defaults: {timezone: Mars}", None),
        ("defaults: [", None),
        ("reminders:", None),
    ):
        file.write_text(text)
        assert chat_file.default_zone(str(file)) == zone
