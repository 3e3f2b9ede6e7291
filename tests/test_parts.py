"""parts.py: what a chat takes in one message, and where a longer text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bub_cron.gateway.parts import Limit, code_points, parts, utf8_bytes, utf16_units

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
THUMB = "\U0001f44d\U0001f3fd"
ACCENT = "e\u0301"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"


def limited(most: int, units: object = code_points) -> Limit:
    return Limit(most, units, "characters")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "short", "  two\n\nparagraphs \n", "x" * 10])
def test_what_fits_is_one_part_as_it_is(text: str) -> None:
    assert parts(text, limited(20)) == [text]


def test_without_a_limit_nothing_is_cut() -> None:
    assert parts("x\n\n" * 100_000, None) == ["x\n\n" * 100_000]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two\n\nthree four\nfive", ["one two", "three four", "five"]),  # a paragraph first
        ("one\n\ntwo\n\nthree four", ["one\n\ntwo", "three four"]),  # the last one that fits
        ("one\n \t\ntwo two two", ["one", "two two", "two"]),  # a line of white space ends a paragraph
        ("one two\nthree four", ["one two", "three four"]),  # a line
        ("one two three", ["one two", "three"]),  # a word
        ("one two 345 789", ["one two", "345 789"]),
        ("abcdefghijklmnop", ["abcdefghij", "klmnop"]),  # a character
        ("0123456789 bc", ["0123456789", "bc"]),  # the break right behind what fits
        ("0123456789\n  bc", ["0123456789", "  bc"]),  # indentation stays
        ("\n\n\n   0123456789ab", ["   0123456", "789ab"]),
        ("one two\r\n\r\nthree", ["one two", "three"]),
        ("a" + " " * 30 + "b", ["a", "b"]),
    ],
)  # fmt: skip
def test_a_cut_is_made_at_the_best_place(text: str, expected: list[str]) -> None:
    assert parts(text, limited(10)) == expected


def test_units_are_those_of_the_chat() -> None:
    assert [utf16_units(c) for c in "aé日😀"] == [1, 1, 1, 2]
    assert [utf8_bytes(c) for c in "aé日😀"] == [1, 2, 3, 4]
    assert parts("😀" * 5, limited(4, utf16_units)) == ["😀😀", "😀😀", "😀"]
    assert parts("😀" * 5, limited(5, utf16_units)) == ["😀😀", "😀😀", "😀"]  # never half of one
    assert parts("日" * 5, limited(7, utf8_bytes)) == ["日日", "日日", "日"]


def test_telegrams_limit_is_4096_utf16_units() -> None:
    from bub_cron.gateway.channels import telegram

    assert [len(part) for part in parts("x" * 4097, telegram.FACTS.limit)] == [4096, 1]
    assert [len(part) for part in parts("😀" * 2049, telegram.FACTS.limit)] == [2048, 1]


@pytest.mark.parametrize("character", [FAMILY, FLAG, THUMB, ACCENT, SCOTLAND, "❤\ufe0f", "\u0915\u094d", "\r\n"])
def test_what_people_see_as_one_character_is_not_cut(character: str) -> None:
    text = "x" * 7 + character * 3 + "y"
    cut = parts(text, limited(len(character) + 7, code_points))
    assert "".join(cut).replace("\r\n", "") == text.replace("\r\n", "")
    for part in cut:
        assert part.replace(character, "").strip("xy\r\n") == "", part


def test_a_row_of_flags_is_cut_between_flags() -> None:
    assert parts(FLAG * 4, limited(5)) == [FLAG * 2, FLAG * 2]


def test_one_character_longer_than_the_limit_is_cut_all_the_same() -> None:
    cut = parts("e" + "\u0301" * 100, limited(10))
    assert "".join(cut) == "e" + "\u0301" * 100
    assert max(map(len, cut)) == 10


PIECES = ["a", "b", " ", "\n", "\n\n", "\t", "日", "😀", FAMILY, FLAG, ACCENT, "\ud83d", "."]
WORDS = st.lists(st.sampled_from(PIECES), max_size=200).map("".join)


@given(WORDS | st.text(max_size=200), st.integers(1, 40), st.sampled_from([code_points, utf16_units, utf8_bytes]))
def test_nothing_but_white_space_is_lost_and_nothing_is_too_long(text: str, most: int, units: object) -> None:
    limit = limited(most + 3, units)
    cut = parts(text, limit)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(sum(map(limit.units, part)) <= limit.most for part in cut)
    assert cut == [text] or all(part.strip() for part in cut)


def test_a_long_text_is_cut_in_time_that_grows_with_its_length() -> None:
    words = "word " * 13_000
    cut = parts(words, limited(4096, utf16_units))
    assert len(cut) == 16
    assert all(len(part) > 4000 for part in cut[:-1])
