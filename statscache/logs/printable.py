"""Text from outside made printable: terminals obey control characters."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Returns ``text`` with escapes such as ``\x1b`` for what is not printable nor in ``keep``.

    Not printable are control characters, line breaks among them, and marks that change the
    direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )
