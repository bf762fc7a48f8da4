"""Lines that people's work goes into: nothing that stands there is lost."""

import json
import multiprocessing
import os
import signal
from contextlib import contextmanager

import pytest

from labs_helpers.course.annotations import append_line, mend, read_lines

resource = pytest.importorskip("resource", reason="this system limits no file's size")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


@contextmanager
def disk_of(size):
    """A disk on which a file can hold so many bytes, for as long as the block lasts.

    No longer: what pytest prints may go into a file too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_lines_survive_any_text(path):
    row = {"text": "line\nbreak, “quotes”, \u2028, \x85, \x1b[31m, 🌉"}
    append_line(path, row)
    append_line(path, row)
    assert read_lines(path) == [row, row]


def test_full_disk_leaves_what_was_there(path):
    append_line(path, {"a": "x" * 900})
    before = path.read_bytes()
    for _ in range(3):
        with disk_of(1500), pytest.raises(OSError, match="too large"):
            append_line(path, {"b": "y" * 900})
        assert path.read_bytes() == before
    append_line(path, {"b": "y"})
    assert read_lines(path) == [{"a": "x" * 900}, {"b": "y"}]


def test_no_room_for_the_end_of_the_last_line(path):
    path.write_bytes(b'{"a": 1}')
    with disk_of(8), pytest.raises(OSError, match="too large"):
        append_line(path, {"b": 2})
    assert path.read_bytes() == b'{"a": 1}'


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
def test_row_that_fails_leaves_no_trace(path, monkeypatch, error):
    append_line(path, {"a": 1})

    def fail(fd):
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(type(error)):
        append_line(path, {"b": 2})
    assert read_lines(path) == [{"a": 1}]


@pytest.mark.parametrize(
    "row", [{"a": "\ud83d"}, {"a": float("nan")}, {"a": {1}}, {"a": object()}]
)
def test_row_that_is_no_json_is_refused(path, row):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        append_line(path, row)
    assert not path.exists()


@pytest.mark.parametrize(
    "foreign",
    [
        b"Dear diary",
        b"Dear diary\nno line is JSON",
        b'{"a": 1}\nhalf a letter',
        b"[1, 2]",
        b'[{"a": 1},\n{"a": 2}]\n',
        b'{\n  "a": 1\n}',
        b"null\n",
        b"3",
        b'{"a": 1}\n"text"\n',
        '{"a": "é"}\n'.encode("latin-1"),
        '{"a": 1}\n'.encode("utf-16"),
        '{"a": 1}\n'.encode("utf-16-le"),
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"\n",
        b'{"a": ' + b"9" * 5_000 + b"}\n",
        b"\x1f\x8b\x08\x00\x00",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_nothing_happens_to_a_file_of_something_else(path, foreign):
    path.write_bytes(foreign)
    try:
        rows = read_lines(path)
    except ValueError as error:
        rows = []
        assert str(path) in str(error)  # noqa: PT017 - some are cut off, not foreign
    assert rows == []
    assert path.read_bytes() == foreign


@pytest.mark.parametrize("foreign", [b"Dear diary", b"[1, 2]", b"3", b"[\n{}\n]"])
def test_nothing_is_added_to_a_file_of_something_else(path, foreign):
    path.write_bytes(foreign)
    with pytest.raises(ValueError, match=r"lines\.jsonl"):
        append_line(path, {"a": 1})
    assert path.read_bytes() == foreign


ROW = {"text": "café 🌉 \\", "other": [True, None, -1.5e-7], "half": "\x1b"}
LINE = json.dumps(ROW, ensure_ascii=False).encode()


def test_line_cut_off_anywhere_is_not_there(path):
    append_line(path, ROW)
    whole = path.read_bytes()
    for length in range(1, len(LINE)):
        path.write_bytes(whole + LINE[:length])
        assert read_lines(path) == [ROW]
        assert path.read_bytes() == whole + LINE[:length]


@pytest.mark.parametrize("cut", [b"{", b'{"b": "\xf0\x9f', b'{"b\0\0', LINE + b"\0"])
@pytest.mark.parametrize("zeros", [b"", b"\0" * 50])
def test_line_cut_off_is_kept_beside(path, cut, zeros):
    first, second = {"a": "x" * 100}, {"b": 2}
    append_line(path, first)
    before = path.read_bytes()
    for number in (1, 2):
        with path.open("ab") as file:
            file.write(cut + zeros)
        mend(path)
        assert path.read_bytes() == before
        beside = path.with_name("lines.jsonl.cut").read_bytes()
        assert beside == (cut + zeros + b"\n") * number
    path.write_bytes(before + cut + zeros)
    append_line(path, second)
    assert read_lines(path) == [first, second]


@pytest.mark.parametrize(
    "broken", [b'{"a": 1,}', b"{'a': 1}", b"{hello", b'{"a": 1} {', b'{"a" = 1']
)
def test_line_that_was_not_cut_off_but_is_wrong_stays(path, broken):
    path.write_bytes(broken)
    mend(path)
    with pytest.raises(ValueError, match=r"lines\.jsonl:1"):
        read_lines(path)
    with pytest.raises(ValueError, match=r"lines\.jsonl:1"):
        append_line(path, ROW)
    assert path.read_bytes() == broken


def test_last_line_without_its_end_is_whole(path):
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_lines(path) == [{"a": 1}]
    append_line(path, {"b": 2})
    assert read_lines(path) == [{"a": 1}, {"b": 2}]


def test_windows_lines_and_empty_ones(path):
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"b": 2}\r\n')
    assert read_lines(path) == [{"a": 1}, {"b": 2}]


def test_row_that_will_not_do_is_named(path):
    def check(row):
        if "a" not in row:
            raise ValueError("has no a")

    path.write_text('{"a": 1}\n\n{"b": 2}\n')
    with pytest.raises(ValueError, match=r"lines\.jsonl:3: has no a"):
        read_lines(path, check)


def _append_many(path, name, count):
    for i in range(count):
        append_line(path, {"name": name, "i": i, "text": "x" * 5000})


def test_two_processes_add_to_one_file(path):
    context = multiprocessing.get_context("fork")
    others = [
        context.Process(target=_append_many, args=(path, name, 20)) for name in "ab"
    ]
    for other in others:
        other.start()
    for other in others:
        other.join()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 40
    assert not os.path.exists(f"{path}.cut")
    assert [row["i"] for row in rows if row["name"] == "a"] == list(range(20))
