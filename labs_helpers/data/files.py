r"""The one reader of files that people write: text, rows, tables of settings.

Out come texts, values and rows with their lines, or one sentence with file and line.
Reads UTF-8 with or without a byte order mark, packed with gzip or not, and ends a line
at "\n" alone, as JSON Lines does; rows are also read from Parquet, from folders and
from the hub.
"""

import gzip
import json
import re
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import yaml

from labs_helpers.data.report import Finding, PreferenceReport, validated

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
TABLES = (".csv", ".tsv", ".xlsx")
MAX_DEPTH = 100  # a line that is nested deeper is none that anybody wrote

NumberedRow = tuple[str, int, Any]
T = TypeVar("T")
_NULL = "is null, expected an object", "Remove it"
_RECODE = "Save it as UTF-8: iconv -f {} -t UTF-8 old > new"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# What begins so is no text in UTF-8.
_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BINARY = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet table",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\x89HDF": "an HDF5 file",
    b"SQLite": "a database",
}


class BadFile(ValueError):
    """A file that cannot be read; the message says where, what is wrong, what to do."""

    def __init__(self, file: str | Path, line: int | None, problem: str, remedy: str):
        self.file, self.line = str(file), line
        self.problem, self.remedy = problem, remedy
        where = self.file if line is None else f"{self.file}:{line}"
        super().__init__(f"{where}: {problem}. {remedy}.")

    @property
    def finding(self) -> Finding:
        """The same in a report."""
        return Finding(self.file, self.line or 1, "", self.problem, self.remedy)


def read_text(path: str | Path) -> str:
    """Read a file as it stands, without a byte order mark.

    Raises:
        BadFile: It is no text in UTF-8; the message names the encoding, if it can.
        OSError: There is no such file, or it may not be read.
    """
    content = _unpacked(Path(path))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise _wrong_byte(path, line, column, content[error.start]) from None


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked, without a mark; what is no UTF-8 is named."""
    if path.is_dir():
        raise BadFile(path, None, "is a folder, expected a file", "Name a file in it")
    content = path.read_bytes()
    if path.suffix == ".gz" or content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            remedy = "Fetch it again, or take .gz off the name of what is not packed"
            raise BadFile(path, 1, f"cannot be unpacked: {error}", remedy) from None
    begins = content.startswith
    encoding = next((name for mark, name in _ENCODINGS.items() if begins(mark)), None)
    if content[:100].count(b"\x00") * 4 > len(content[:100]):  # every second byte
        encoding = encoding or "UTF-16"
    if encoding:
        remedy = _RECODE.format(encoding)
        raise BadFile(path, 1, f"is in {encoding}, expected UTF-8", remedy)
    if kind := next((kind for magic, kind in _BINARY.items() if begins(magic)), None):
        remedy = "Unpack it, or give it its own suffix"
        raise BadFile(path, 1, f"is {kind}, expected text", remedy)
    return content.removeprefix(b"\xef\xbb\xbf")


def _wrong_byte(path: str | Path, line: int, column: int, byte: int) -> BadFile:
    problem = f"is not UTF-8: byte 0x{byte:02x} at position {column}"
    return BadFile(path, line, problem, _RECODE.format("WINDOWS-1252"))


def read_json_lines(path: str | Path) -> list[tuple[int, Any]]:
    """Read JSON Lines, or a file that holds one list: each value with its line.

    Raises:
        BadFile: The first line that cannot be read.
    """
    rows = list(scan_json_lines(path))
    for broken in (value for _, value in rows if isinstance(value, BadFile)):
        raise broken
    return rows


def scan_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, and its value or the `BadFile` that it is."""
    try:
        content = _unpacked(Path(path))
    except BadFile as error:
        yield error.line or 1, error
        return
    if content.lstrip()[:1] == b"[":
        whole = _value(path, 1, content)
        if not isinstance(whole, BadFile):
            yield from _listed(path, content.decode("utf-8"), whole)
            return
        if isinstance(_value(path, 1, content.lstrip().split(b"\n")[0]), BadFile):
            yield whole.line or 1, whole  # no line of JSON Lines: a list that is broken
            return
    for line, raw in enumerate(content.split(b"\n"), 1):
        if raw.strip():
            yield line, _value(path, line, raw)


def _value(path: str | Path, line: int, raw: bytes) -> Any:
    """The value of a line, or the `BadFile` that it is."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _wrong_byte(path, line, error.start + 1, raw[error.start])
    try:
        value = json.loads(text)
        if text.count("[") + text.count("{") > MAX_DEPTH < _depth(value):
            return _too_deep(path, line)
    except json.JSONDecodeError as error:
        problem = f"is no JSON: {error.msg} at column {error.colno}"
        remedy = "Write one complete JSON object on the line, as json.dumps does"
        return BadFile(path, line, problem, remedy)
    except RecursionError:
        return _too_deep(path, line)
    except ValueError:  # Python refuses integers of over 4,300 digits
        problem = "holds a number of thousands of digits"
        return BadFile(path, line, problem, "Write a finite number")
    if _SURROGATE.search(text) and not _encodes(value):
        problem = "holds half of a surrogate pair, which is no text"
        return BadFile(path, line, problem, "Write the whole character")
    if value is None:
        return BadFile(path, line, *_NULL)
    return value


def _listed(
    path: str | Path, text: str, values: list[Any]
) -> Iterator[tuple[int, Any]]:
    """The values of one JSON list, each with the line that it begins on."""
    line, passed, at = 1, 0, text.index("[") + 1
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,]*")
    for value in values:
        at = between.match(text, at).end()
        line += text.count("\n", passed, at)
        passed, at = at, decoder.raw_decode(text, at)[1]
        yield line, BadFile(path, line, *_NULL) if value is None else value


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    """How many levels of lists and objects stand in one another."""
    inner = value.values() if isinstance(value, dict) else value
    is_nested = isinstance(value, list | dict)
    return 1 + max(map(_depth, inner), default=0) if is_nested else 0


def _too_deep(path: str | Path, line: int | None) -> BadFile:
    problem = f"is nested more than {MAX_DEPTH} deep"
    return BadFile(path, line, problem, "Write flat rows")


def read_as(
    model: type[T], path: str | Path, report: PreferenceReport
) -> Iterator[tuple[str, int, T]]:
    """Yield file, line and what a pydantic model makes of each row.

    What cannot be read or does not fit the model (see `validated`) is reported, and not
    yielded.
    """
    for file, line, row in read_rows(path, report):
        report.total += 1
        value, found = validated(model, row, file, line)
        report.errors += found
        if not found:
            report.rows += 1
            yield file, line, value


def read_rows(path: str | Path, report: PreferenceReport) -> Iterator[NumberedRow]:
    """Yield file, line and row of a file or a folder's files.

    A row that cannot be read is counted and reported, and not yielded. The line of a
    Parquet table is the row's number.
    """
    try:
        files = _files(Path(path))
    except BadFile as error:
        report.errors.append(error.finding)
        return
    for file in files:
        scan = _scan_parquet if file.suffix == ".parquet" else scan_json_lines
        for line, row in scan(file):
            if isinstance(row, BadFile):
                report.total += 1
                report.errors.append(row.finding)
            else:
                yield str(file), line, row


def hub_rows(name: str) -> "Dataset":
    """Load a data set of the hub: name, name:split or name:configuration:split.

    Raises:
        FileNotFoundError: The name is rather that of a file.
        OSError: There is no such data set, or the hub is not to be reached.
    """
    if not name or name.endswith((*SUFFIXES, *TABLES)) or name[0] in "./~":
        raise FileNotFoundError(
            f"No file {name!r} in {Path.cwd()}. Give the path of a file, or the name "
            "of a data set on the hub, as name, name:split or name:configuration:split."
        )
    import datasets

    name, *parts = re.split(r":(?![^\[]*\])", name)
    *configuration, part = parts or ["train"]
    try:
        return datasets.load_dataset(name, *configuration, split=part or "train")
    except (OSError, ValueError) as error:
        raise OSError(
            f"Cannot load {name!r}: no file of that name, and no data set with split "
            f"{part!r} came from the hub.\n{error}"
        ) from error


def _files(path: Path) -> list[Path]:
    """The file; or a folder's, those of its training split if names tell."""
    if path.suffix in TABLES:
        remedy = "Read it with from_trl(pandas.read_csv(path)), say"
        raise BadFile(path, None, "is a spreadsheet, expected rows of JSON", remedy)
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
    if not files:
        remedy = (
            "Put the rows there; what datasets saved with save_to_disk is read by "
            "from_trl(datasets.load_from_disk(folder))"
        )
        problem = f"holds no file that ends in {', '.join(SUFFIXES)}"
        raise BadFile(path, None, problem, remedy)
    train = [p for p in files if "train" in str(p.relative_to(path)).casefold()]
    return train or files


def _scan_parquet(file: Path) -> Iterator[tuple[int, Any]]:
    # Here, for it is a large library, and most files are JSON.
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, ValueError) as error:
        problem = f"is no Parquet table: {error!s:.200}"
        yield 1, BadFile(file, 1, problem, "Fetch it again")
        return
    yield from enumerate(table.to_pylist(), 1)


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a table of settings, YAML or (by any other suffix) TOML.

    YAML is read as people mean it: 1e-4 is a number, a date is text, and a name that
    stands twice is an error.
    """
    text = read_text(path)
    if Path(path).suffix in (".yaml", ".yml"):
        table = read_yaml(text, path)[1]
    else:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problem, _, place = str(error).rpartition(" (at ")
            found = re.match(r"line (\d+)", place)
            line = int(found[1]) if found else text.count("\n") + 1
            problem = f"cannot be read as TOML: {problem:.200}"
            raise BadFile(path, line, problem, "Write lines like name = 1") from None
        except RecursionError:
            raise _too_deep(path, None) from None
    if not isinstance(table, dict):
        raise BadFile(path, None, "holds no table", "Write lines like name = 1")
    return table


def read_yaml(text: str, name: str | Path) -> tuple[yaml.Node | None, Any]:
    """Parse YAML: its nodes, which know their lines, and its value.

    Raises:
        BadFile: No YAML; `name` stands for the file.
    """
    line, remedy = None, "A text with a colon or a brace in it needs quotes"
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = (
            mark.line + 1 if mark else 1,
            f"is no YAML: {error.problem!s:.200}",
        )
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"holds a control character, U+{ord(text[error.position]):04X}"
        remedy = "Remove it"
    except RecursionError:
        raise _too_deep(name, None) from None
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, KeyError) as error:
        # What stands behind a tag (!!int x) is read by functions that check nothing.
        problem = f"is no YAML: {error!s:.200}"
    raise BadFile(name, line, problem, remedy)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of 1.2, without dates, and each name once."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, at) for tag, at in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        names = [key.value for key, _ in getattr(node, "value", [])]
        for i, name in enumerate(names):
            if name in names[:i] and name != "<<":
                mark = node.value[i][0].start_mark
                problem = f"{name!r:.60} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)
        if not _encodes(value):  # an escape in quotes can write half a pair
            problem = "holds half of a surrogate pair, which is no text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
