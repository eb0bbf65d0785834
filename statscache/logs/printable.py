"""Text of other people, made fit to be shown: terminals obey the control characters they get."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with escapes such as ``\x1b`` for what is not printable, but for those in ``keep``.

    That is for control characters, line breaks among them, and for marks that change the direction
    of what is written.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )
