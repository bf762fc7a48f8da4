"""Files are written whole or not at all."""

import pytest

from labs_helpers.common.files import replacing, write_atomically


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "first\n")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    write_atomically(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o600


def test_half_a_surrogate_pair_is_no_reason_to_lose_a_file(tmp_path):
    write_atomically(tmp_path / "a.html", "a \ud83d b")
    assert (tmp_path / "a.html").read_text() == "a ? b"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def half():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
