"""Archives of files: in any order, compressed or not, damaged or not, from any process."""

from __future__ import annotations

import gc
import gzip
import io
import os
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from statscache.archive import FileArchive, Slice, Window, files, open_archive, read
from statscache.archive.lines import lines
from statscache.errors import ArchiveUnavailable
from statscache.message import Message
from tests.support.messages import NOON, message

HOUR = Window(NOON, NOON + 3600)


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch files go: there must be none in the end."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def sample(count: int = 500, seed: int = 0) -> list[Message]:
    """An hour of messages, in no order."""
    generator = random.Random(seed)
    return [
        message(
            generator.choice(["org.fedoraproject.prod.git.receive", "org.fedoraproject.prod.wiki"]),
            timestamp=NOON + round(generator.uniform(0, 3599), 3),
            msg={"number": number},
        )
        for number in range(count)
    ]


def text(messages: list[Message]) -> bytes:
    return b"".join(orjson.dumps(item.raw) + b"\n" for item in messages)


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def identities(messages: list[Message]) -> list[str]:
    return sorted(item.identity for item in messages)


def archive_of(folder: Path, content: bytes, name: str = "messages.jsonl") -> FileArchive:
    path = folder / name
    path.write_bytes(content)
    return FileArchive([str(path)])


COMPRESSIONS: dict[str, Any] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstandard": zstd,
    # As appending to a compressed file makes them.
    "two of gzip": lambda content: gzip.compress(content[:999]) + gzip.compress(content[999:]),
    "two of zstandard": lambda content: zstd(content[:999]) + zstd(content[999:]),
    # Parallel compressors begin with a frame that says how long the next one is.
    "parallel zstandard": lambda content: b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd(content),
    "long zstandard": lambda content: zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            3, window_log=28, enable_ldm=True, write_content_size=False
        )
    ).compress(content),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions(tmp_path: Path, compression: str) -> None:
    sent = sample()
    archive = archive_of(tmp_path, COMPRESSIONS[compression](text(sent)))
    piece = archive.fetch(HOUR)
    assert identities(piece.messages) == identities(sent)
    assert [m.timestamp for m in piece.messages] == sorted(m.timestamp for m in sent)
    assert (piece.window, piece.rejected, piece.missing) == (HOUR, [], 0)
    archive.close()


def test_folders_and_files_together(tmp_path: Path, scratch: Path) -> None:
    sent = sample(100)
    inner = tmp_path / "2023" / "11"
    inner.mkdir(parents=True)
    (tmp_path / "2023" / "a.jsonl").write_bytes(text(sent[:30]))
    (inner / "b.jsonl.gz").write_bytes(gzip.compress(text(sent[30:60])))
    (inner / "c.zst").write_bytes(zstd(text(sent[60:90])))
    (inner / "empty").write_bytes(b"")
    (inner / ".hidden").write_bytes(b"no message")
    (inner / ".git").mkdir()
    (inner / ".git" / "HEAD").write_bytes(b"no message")
    os.mkfifo(inner / "pipe")
    single = tmp_path / "single"
    single.write_bytes(b"\n \n" + text(sent[90:]).rstrip() + b"\r\n\r\n")
    # A file that is named twice is read twice, and counts once.
    archive = FileArchive([str(tmp_path / "2023"), str(single), str(single)])
    piece = archive.fetch(HOUR)
    assert identities(piece.messages) == identities(sent)
    assert piece.rejected == []
    assert archive.describe().startswith("6 files (")
    archive.close()
    assert list(scratch.iterdir()) == []


def test_a_configuration_of_files_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_bytes(text(sample(3)))
    archive = open_archive("http://127.0.0.1:9", (str(path),))
    assert isinstance(archive, FileArchive)
    assert archive.describe() == f"1 file ({path})"
    assert len(archive.fetch(HOUR).messages) == 3
    assert open_archive(None) is None


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match="there is no file or folder 'nowhere'"):
        FileArchive(["nowhere"])
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ArchiveUnavailable, match=r"cannot open .*link: No such file"):
        FileArchive([str(tmp_path)]).fetch(HOUR)


def test_without_room_for_a_scratch_file_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path, text(sample(3)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(ArchiveUnavailable, match=r"scratch file in .*gone: No such file.*TMPDIR"):
        archive.fetch(HOUR)


def test_half_open_and_in_order(tmp_path: Path) -> None:
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    found: list[Message] = []
    for piece in read(archive, NOON, NOON + 3600, width=7):
        for item in piece.messages:
            assert piece.window.start <= item.timestamp < piece.window.stop
        found += piece.messages
    assert [item.id for item in found] == [
        item.id for item in sorted(sent, key=lambda m: (m.timestamp, m.identity))
    ]
    oldest, newest = min(m.timestamp for m in sent), max(m.timestamp for m in sent)
    assert archive.bounds() == (oldest, newest)
    assert archive.fetch(Window(NOON, oldest)).messages == []
    assert archive.fetch(Window(newest, NOON + 9999)).messages[0].timestamp == newest
    archive.close()


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    sent = sample(200)
    # Copies that differ: by a year, and by what they say.
    copies = [
        Message.from_fedmsg(m.raw | {"msg_id": m.identity, "msg": {"number": -1}})
        for m in sent[:50]
    ]
    answers = []
    for seed in range(4):
        content = [*sent, *copies, *sent[:20]]
        random.Random(seed).shuffle(content)
        archive = archive_of(tmp_path, text(content))
        answers.append([(m.identity, m.msg["number"]) for m in archive.fetch(HOUR).messages])
        archive.close()
    assert len(answers[0]) == 200
    assert all(answer == answers[0] for answer in answers)


def test_memory_is_bounded_by_the_beginning_of_a_window(tmp_path: Path) -> None:
    sent = sample(1000)
    sent += [message(timestamp=NOON + 100 + number / 1000) for number in range(500)]
    archive = archive_of(tmp_path, text(sent))
    archive.slice_size = 50
    pieces = list(read(archive, NOON, NOON + 3600))
    assert identities([m for piece in pieces for m in piece.messages]) == identities(sent)
    assert max(piece.size for piece in pieces if piece.window.start != NOON + 100) <= 700
    assert sorted(piece.size for piece in pieces)[-2] <= 2 * archive.slice_size + 10
    archive.close()


def test_topics(tmp_path: Path) -> None:
    sent = sample(100)
    archive = archive_of(tmp_path, text(sent))
    found = archive.fetch(HOUR, ("*.*.*.git.#",)).messages
    assert identities(found) == identities([m for m in sent if m.category == "git"])
    archive.close()


def test_other_shapes(tmp_path: Path) -> None:
    row = {
        "id": "abc",
        "topic": "org.fedoraproject.prod.git.receive",
        "body": {"a": 1},
        "headers": {"sent-at": "2023-11-15T12:00:01+00:00"},
    }
    rows = [
        row,
        row | {"id": "naive", "headers": {"sent-at": "2023-11-15T12:00:01"}},
        row | {"id": "elsewhere", "headers": {}, "sent_at": "2023-11-15T14:00:01+02:00"},
    ]
    archive = archive_of(tmp_path, b"\n".join(map(orjson.dumps, rows)))
    messages = archive.fetch(HOUR).messages
    assert [m.id for m in messages] == ["abc", "elsewhere", "naive"]
    assert {m.timestamp for m in messages} == {NOON + 1}
    assert messages[0].msg == {"a": 1}
    archive.close()


def hole(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


DAMAGES: dict[str, Any] = {
    "half a gzip": lambda content: gzip.compress(content)[: len(content) // 20],
    "nearly a gzip": lambda content: gzip.compress(content)[:-1],
    "gzip with a hole": lambda content: hole(gzip.compress(content)),
    "gzip and rubbish": lambda content: gzip.compress(content) + b"rubbish",
    "half a zstandard": lambda content: zstd(content)[: len(content) // 20],
    "nearly a zstandard": lambda content: zstd(content)[:-1],
    "nearly two of zstandard": lambda content: (zstd(content) * 2)[:-1],
    "the beginning of a zstandard": lambda content: zstd(content)[:5],
    "zstandard with a hole": lambda content: hole(zstd(content)),
    "zstandard and rubbish": lambda content: zstd(content) + b"rubbish",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_give_an_error_and_not_less(
    tmp_path: Path, scratch: Path, damage: str
) -> None:
    archive = archive_of(tmp_path, DAMAGES[damage](text(sample())))
    for _ in range(2):
        with pytest.raises(ArchiveUnavailable, match=r"messages\.jsonl is damaged or cut short"):
            archive.fetch(HOUR)
        assert list(scratch.iterdir()) == []
    # Repaired, it is read without a restart.
    sent = sample()
    archive_of(tmp_path, gzip.compress(text(sent)))
    assert identities(archive.fetch(HOUR).messages) == identities(sent)
    archive.close()


def test_lines_before_the_damage_are_given() -> None:
    content = text(sample(30_000))
    for compressed in (gzip.compress(content), zstd(content)):
        binary = io.BufferedReader(io.BytesIO(compressed[: len(compressed) * 3 // 4]))
        given: list[bytes] = []
        with pytest.raises(ArchiveUnavailable, match="it is damaged or cut short"):
            given.extend(lines(binary, "it"))
        assert 15_000 < len(given) < 30_000


def test_lines_that_are_no_messages_are_rejected_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [message(timestamp=NOON + 60 * number) for number in range(4)]
    content = [
        b"first of all",
        text(good[:2]),
        b'{"topic": "org", "timestamp": null}',
        text(good[2:]),
        b'{"cut": "sho',
    ]
    archive = archive_of(tmp_path, b"\n".join(content))

    def rejected(start: float, stop: float) -> list[str]:
        return [r.content for r in archive.fetch(Window(NOON + start, NOON + stop)).rejected]

    assert rejected(0, 60) == ["first of all"]
    assert rejected(60, 120) == ['{"topic": "org", "timestamp": null}']
    assert rejected(120, 180) == []
    assert rejected(180, 240) == ['{"cut": "sho']
    whole = archive.fetch(HOUR)
    assert (len(whole.messages), len(whole.rejected)) == (4, 3)
    assert "messages.jsonl: not" not in whole.rejected[0].reason
    assert "messages.jsonl: " in whole.rejected[0].reason
    assert "3 lines of" in caplog.text
    # Whoever takes it up elsewhere has them too.
    copy = pickle.loads(pickle.dumps(archive))
    assert len(copy.fetch(HOUR).rejected) == 3
    archive.close()


def test_a_file_of_something_else_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_REJECTED", 5)
    archive = archive_of(tmp_path, text(sample(1)) + b"no message\n" * 50)
    rejected = archive.fetch(HOUR).rejected
    assert len(rejected) == 6
    assert "and 45 more lines" in rejected[-1].reason
    archive.close()


def test_nothing_at_all(tmp_path: Path, scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = FileArchive([str(tmp_path)])
    assert archive.fetch(HOUR) == Slice(HOUR)
    assert archive.bounds() is None
    archive.close()
    archive = archive_of(tmp_path, b"\n\nno message\n")
    assert archive.fetch(HOUR).size == 0
    assert archive.bounds() is None
    assert "1 lines of" in caplog.text
    archive.close()
    assert list(scratch.iterdir()) == []


def fetched(archive: FileArchive) -> list[str]:
    return identities(archive.fetch(HOUR).messages)


def test_processes_share_one_scratch_file(tmp_path: Path, scratch: Path) -> None:
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(fetched, [archive] * 4)) == [identities(sent)] * 4
    # Those who borrowed it have left it.
    assert len(list(scratch.iterdir())) == 1
    assert fetched(archive) == identities(sent)
    archive.close()
    assert list(scratch.iterdir()) == []


def test_elsewhere_it_is_made_anew_once(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, FileArchive] = {}
    monkeypatch.setattr(files, "_SORTED_HERE", kept)
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    pickled = pickle.dumps(archive)
    archive.close()
    # One comes with each task of a worker on another machine.
    for _ in range(3):
        assert fetched(pickle.loads(pickled)) == identities(sent)
        assert len(list(scratch.iterdir())) == 1
    kept.clear()
    assert list(scratch.iterdir()) == []


def test_a_scratch_file_that_was_tidied_away_is_made_anew(tmp_path: Path, scratch: Path) -> None:
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    assert fetched(archive) == identities(sent)
    (path,) = scratch.iterdir()
    path.unlink()
    assert fetched(archive) == identities(sent)
    archive.close()
    assert list(scratch.iterdir()) == []


def test_closed_it_may_be_used_again(tmp_path: Path, scratch: Path) -> None:
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    for _ in range(2):
        assert fetched(archive) == identities(sent)
        archive.close()
        assert list(scratch.iterdir()) == []
    assert fetched(archive) == identities(sent)
    del archive
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_threads_share_it(tmp_path: Path, scratch: Path) -> None:
    sent = sample()
    archive = archive_of(tmp_path, text(sent))
    barrier = threading.Barrier(4)

    def task(_: int) -> list[str]:
        barrier.wait(10)
        return fetched(archive)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(task, range(4))) == [identities(sent)] * 4
    assert len(list(scratch.iterdir())) == 1
    archive.close()


def test_processes_that_end_leave_no_scratch_file(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "messages").write_bytes(text(sample(10)))
    program = (
        "import sys; from statscache.archive import FileArchive, Window\n"
        "archive = FileArchive([sys.argv[1]])\n"
        f"print(len(archive.fetch(Window({HOUR.start}, {HOUR.stop})).messages), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "messages")]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ending,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed,
    ):
        for process in (ending, killed):
            assert process.stdout is not None
            assert process.stdout.readline() == b"10\n"
        # What is in use stays.
        monkeypatch.setattr(files, "_YOUNG", -1.0)
        archive = FileArchive([str(tmp_path)])
        archive.fetch(HOUR)
        assert len(list(scratch.iterdir())) == 3
        ending.communicate()
        assert len(list(scratch.iterdir())) == 2
        killed.kill()
        killed.wait()
        assert len(list(scratch.iterdir())) == 2
    archive.close()
    assert len(list(scratch.iterdir())) == 1
    # The next one tidies up.
    archive.fetch(HOUR)
    assert len(list(scratch.iterdir())) == 1
    archive.close()
    assert list(scratch.iterdir()) == []
