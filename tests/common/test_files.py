"""Files are replaced whole or not at all."""

import pytest

from labs_helpers.common.files import replacing


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as unfinished:
        unfinished.write_text("first")
        assert not path.exists()
    path.chmod(0o640)
    with replacing(path) as unfinished:
        unfinished.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("No space left"), KeyboardInterrupt()])
def test_after_an_error_all_is_as_it_was(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("first")

    def write():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
