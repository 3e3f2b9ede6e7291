"""Tell a reply that means "send nothing" from one that says something.

Invariants:
- Only a whole reply is judged: the tag within a sentence silences nothing.
- A letter, a digit, an emoji or any other symbol of its own is something to say.
"""

from __future__ import annotations

import re
import unicodedata

_TAG = re.compile(r"<\s*/?\s*no_reply\s*/?\s*>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\w*[ \t]*$", re.MULTILINE)
_MARKUP = "*_~`#>|=^+-"
_QUOTES = "\"'\u00ab\u00bb\u2039\u203a\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u300c\u300d\u300e\u300f"


def is_no_reply(text: str) -> bool:
    """Tell whether a whole reply is `<no_reply/>`, in any of the tag's spellings and whatever markup, or is empty.

    Beside the tag, punctuation counts as nothing. Without it only markup, quotes and white space do: `?` says something.
    """
    rest, tags = _TAG.subn("", text)
    rest = _FENCE.sub("", rest)
    return all(_is_nothing(character, beside_tag=tags > 0) for character in rest)


def without_no_reply(text: str) -> str:
    """Return a reply without the tag, which is for us: no chat shows it."""
    while _TAG.search(text):  # what is left of `<no_<no_reply/>reply/>` is a tag again
        text = _TAG.sub("", text).strip()
    return text


def _is_nothing(character: str, *, beside_tag: bool) -> bool:
    kind = unicodedata.category(character)
    if character.isspace() or kind in ("Cc", "Cf"):
        return True
    return character in _MARKUP or character in _QUOTES or (beside_tag and kind.startswith("P"))
