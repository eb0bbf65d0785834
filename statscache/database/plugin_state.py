"""What the row of a plugin says of it: its state, and why it is in that state.

The hub writes it (:data:`statscache.database.tables.plugin`); API and command line show it.
"""

from __future__ import annotations

from typing import Any

ACTIVE = "active"

FILLING = "filling"
"""Its history is not complete."""

FAILING = "failing"
"""Its last write did not succeed, or its shadow is blocked."""

GONE = "gone"
"""It is not installed any more."""

STATES = (ACTIVE, FILLING, FAILING, GONE)

STAYS = "it was rebuilt, and the old rows stay"
"""How the error of a plugin begins whose shadow is blocked."""

_STAYS_BEFORE = "it was counted anew, and the old rows stay"
"""The same in rows that an earlier release wrote."""


def is_blocked(row: Any) -> bool:
    """Whether the shadow of a plugin is blocked: it must not take the place of its table.

    Args:
        row: of :data:`statscache.database.tables.plugin`.
    """
    return bool(row.shadow and row.error and _tells_of_block(row.error))


def block_reason(ident: str, objection: str, *, is_retried: bool) -> str:
    """The error of a plugin whose shadow is blocked: cause, consequence and cure.

    Args:
        objection: what the shadow lacks.
        is_retried: whether all that it lacks is tried again by itself.
    """
    cure = "Mend the plugin, and it goes on by itself"
    if not is_retried:
        cure = f"Mend the cause; then 'statscache rebuild {ident}' rebuilds it once more"
    return (
        f"{STAYS}: {objection}. New messages are counted beside, and are not in the old rows. "
        f"{cure}; 'statscache rebuild --force {ident}' puts the new rows in place as they are"
    )


def failure(error: str) -> str:
    """Why a failing plugin is not complete, for a person."""
    return error if _tells_of_block(error) else f"its rows cannot be written: {error}"


def progress_of_rebuild(row: Any) -> str:
    """What there is to say of a plugin that is being rebuilt, for a person.

    Args:
        row: of :data:`statscache.database.tables.plugin`.
    """
    return f"it is being rebuilt; {row.error}" if row.error else "it is being rebuilt"


def _tells_of_block(error: str) -> bool:
    return error.startswith((STAYS, _STAYS_BEFORE))
