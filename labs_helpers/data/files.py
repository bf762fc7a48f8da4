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

NumberedRow = tuple[str, int, Any]
T = TypeVar("T")
_TOO_DEEP = "is nested too deep"
_RECODE = "Save it as UTF-8: iconv -f {} -t UTF-8 old > new"
# What a file begins with that is no text.
_BINARY = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet table",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
}


class BadFile(ValueError):
    """A file that cannot be read; the message says where, what is wrong, what to do."""

    def __init__(self, file: str | Path, line: int | None, problem: str, remedy: str):
        self.file, self.line = str(file), line
        self.problem, self.remedy = problem, remedy
        where = self.file if line is None else f"{self.file}:{line}"
        super().__init__(f"{where}: {problem}. {remedy}.")


def read_text(path: str | Path) -> str:
    """Read a file as it stands, without a byte order mark.

    Raises:
        BadFile: It is no text in UTF-8; the message names the encoding, if it can.
        OSError: There is no such file, or it may not be read.
    """
    return _decoded(path, 1, _unpacked(Path(path)))


def read_json_lines(path: str | Path) -> list[tuple[int, Any]]:
    """Read JSON Lines, or one list, with lines; the first broken one is a BadFile."""
    rows = list(scan_json_lines(path))
    for broken in (value for _, value in rows if isinstance(value, BadFile)):
        raise broken
    return rows


def scan_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, and its value or the `BadFile` that it is."""
    try:
        if Path(path).suffix in TABLES:
            remedy = "Read it with from_trl(pandas.read_csv(path)), say"
            raise BadFile(path, 1, "is a spreadsheet, expected rows of JSON", remedy)
        content = _unpacked(Path(path))
        first = content.lstrip().split(b"\n", 1)[0]
        if first.startswith(b"["):
            try:
                yield from _listed(path, content)
                return
            except BadFile:
                if not first.rstrip().endswith(b"]"):  # nor is it a line of its own
                    raise
    except BadFile as error:
        yield error.line or 1, error
        return
    for line, raw in enumerate(content.split(b"\n"), 1):
        if raw.strip():
            try:
                yield line, _value(path, line, raw)
            except BadFile as error:
                yield line, error


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked, without a mark; what is no UTF-8 is named."""
    if path.is_dir():
        remedy = f"Name one in it, or one that ends in {', '.join(SUFFIXES)}"
        raise BadFile(path, None, "is a folder, expected a file", remedy)
    content = path.read_bytes()
    if path.suffix == ".gz" or content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            remedy = "Fetch it again, or take .gz off the name of what is not packed"
            raise BadFile(path, 1, f"cannot be unpacked: {error}", remedy) from None
    encoding = json.detect_encoding(content).upper()
    if not encoding.startswith("UTF-8"):
        remedy = _RECODE.format(encoding)
        raise BadFile(path, 1, f"is in {encoding}, expected UTF-8", remedy)
    for beginning, kind in _BINARY.items():
        if content.startswith(beginning):
            remedy = "Unpack it, or give it its own suffix"
            raise BadFile(path, 1, f"is {kind}, expected text", remedy)
    return content.removeprefix(b"\xef\xbb\xbf")


def _decoded(path: str | Path, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
        column = at - raw.rfind(b"\n", 0, at)
        problem = f"is not UTF-8: byte 0x{raw[at]:02x} at position {column}"
        remedy = _RECODE.format("WINDOWS-1252")
        raise BadFile(path, line + raw.count(b"\n", 0, at), problem, remedy) from None


def _value(path: str | Path, line: int, raw: bytes) -> Any:
    text = _decoded(path, line, raw)
    try:
        value = json.loads(text)
        if "\\u" not in text or _encodes(value):
            return value
        problem = "holds half of a surrogate pair, which is no text"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        problem = f"is no JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        problem = _TOO_DEEP
    except ValueError:  # Python refuses integers of over 4,300 digits
        problem = "holds a number of thousands of digits"
    remedy = "Write one complete JSON object on the line, as json.dumps does"
    raise BadFile(path, line, problem, remedy)


def _listed(path: str | Path, content: bytes) -> Iterator[tuple[int, Any]]:
    """The values of one JSON list, each with the line that it begins on."""
    values, text = _value(path, 1, content), content.decode("utf-8")
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,]*")
    line, passed, at = 1, 0, text.index("[") + 1
    for value in values:
        at = between.match(text, at).end()
        line += text.count("\n", passed, at)
        passed, at = at, decoder.raw_decode(text, at)[1]
        yield line, value


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_as(
    model: Any, path: str | Path, report: PreferenceReport
) -> Iterator[NumberedRow]:
    """Yield file, line and what a pydantic model makes of a row, or report it."""
    for file, line, row in read_rows(path, report):
        value, found = validated(model, row, file, line)
        report.errors += found
        if not found:
            report.rows += 1
            yield file, line, value


def read_rows(path: str | Path, report: PreferenceReport) -> Iterator[NumberedRow]:
    """Yield file, line (of Parquet the row's number) and row, or report what is none.

    Of a folder, the files of its training split are read, or all if no name tells.
    """
    for file in _files(Path(path)):
        scan = _scan_parquet if file.suffix == ".parquet" else scan_json_lines
        for line, row in scan(file):
            report.total += 1
            if isinstance(row, BadFile):
                found = Finding(row.file, line, "", row.problem, row.remedy)
                report.errors.append(found)
            else:
                yield str(file), line, row


def hub_rows(name: str) -> "Dataset":
    """Load a data set of the hub: name, name:split or name:configuration:split.

    What is no configuration is a folder, as HH-RLHF's "harmless-base" is.

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

    name, *parts = re.split(r":(?![^\[]*\])", name)  # not that of a slice, [:100]
    *configuration, part = parts or ["train"]
    try:
        try:
            return datasets.load_dataset(name, *configuration, split=part or "train")
        except ValueError:
            if not configuration:
                raise
            folder = configuration[0]
            return datasets.load_dataset(name, data_dir=folder, split=part or "train")
    except (OSError, ValueError) as error:
        raise OSError(
            f"Cannot load {name!r}: no file of that name, and no data set with split "
            f"{part!r} came from the hub.\n{error}"
        ) from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
    train = [p for p in files if "train" in str(p.relative_to(path)).casefold()]
    return train or files or [path]


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
    text, line, problem = read_text(path), None, "holds no table"
    try:
        is_yaml = Path(path).suffix in (".yaml", ".yml")
        table = read_yaml(text, path)[1] if is_yaml else tomllib.loads(text)
        if isinstance(table, dict):
            return table
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        problem = f"cannot be read as TOML: {error!s:.200}"
    except RecursionError:
        problem = _TOO_DEEP
    raise BadFile(path, line, problem, "Write lines like name = 1")


def read_yaml(text: str, name: str | Path) -> tuple[yaml.Node | None, Any]:
    """Parse YAML: its nodes, which know their lines, and its value, or `BadFile`."""
    line, remedy = None, "A text with a colon or a brace in it needs quotes"
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = mark.line + 1 if mark else 1, error.problem
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"it holds a control character, U+{ord(text[error.position]):04X}"
        remedy = "Remove it"
    except RecursionError:
        problem = _TOO_DEEP
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, KeyError) as error:
        # What stands behind a tag (!!int x) is read by functions that check nothing.
        problem = error
    raise BadFile(name, line, f"is no YAML: {problem!s:.200}", remedy)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of 1.2, without dates, and each name once."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, at) for tag, at in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        seen: list[Any] = []
        for key, _ in getattr(node, "value", []):
            if key.value in seen and key.value != "<<":
                _refuse(key, f"{key.value!r:.60} stands there twice")
            seen.append(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)
        if not _encodes(value):  # an escape in quotes can write half a pair
            _refuse(node, "holds half of a surrogate pair, which is no text")
        return value


def _refuse(node: yaml.Node, problem: str) -> None:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
