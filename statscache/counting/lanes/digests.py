"""Under which bytes a message is claimed: of its id, or of its content where it came without."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from statscache.message import Message


def claim_digest(identity: str) -> bytes:
    """The 16 bytes under which a message is claimed."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_digests(message: Message) -> Iterator[bytes]:
    """Yields the digests under which it would have been claimed if it had come without id.

    The digest of the content has the time in whole seconds, and the archive may have restamped
    the message: the seconds beside its own are tried as well.
    """
    for shift in (0, -1, 1):
        yield claim_digest(message.digest_at(int(message.timestamp) + shift))


def match_contents(
    archived: Sequence[Message], anonymous: Iterable[bytes]
) -> list[tuple[Message, bytes]]:
    """Pairs messages of the archive with the digests of those that were counted without id.

    Each at most once. Same second first, since a sender may repeat a content every second.
    """
    left = set(anonymous)
    found: dict[Message, bytes] = {}
    for digests in (_own_second, content_digests):
        for message in archived:
            if not left:
                break
            if message not in found:
                digest = next((d for d in digests(message) if d in left), None)
                if digest is not None:
                    left.discard(digest)
                    found[message] = digest
    return list(found.items())


def _own_second(message: Message) -> Iterator[bytes]:
    yield claim_digest(message.digest)
