"""Rows of preference sets and suites, wherever they lie: JSON, Parquet, or a folder.

Yields file, line and row; what cannot be read goes into a report. Knows nothing of what
a row says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs_helpers.data.files import BadFile, scan_json_lines
from labs_helpers.data.report import Finding, PreferenceReport

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")

NumberedRow = tuple[str, int, Any]


def read_rows(path: Path, report: PreferenceReport) -> Iterator[NumberedRow]:
    """Yield file, line and row of a file or a folder's files.

    A row that cannot be read is counted and reported, and not yielded. The line of a
    Parquet table is the row's number.
    """
    try:
        if path.suffix in (".csv", ".tsv", ".xlsx"):
            remedy = "Read it with from_trl(pandas.read_csv(path)), say"
            raise BadFile(path, None, "is a spreadsheet, expected rows of JSON", remedy)
        files = _files(path) if path.is_dir() else [path]
    except BadFile as error:
        report.errors.append(_finding(error))
        return
    for file in files:
        scan = _scan_parquet if file.suffix == ".parquet" else scan_json_lines
        for line, row in scan(file):
            if isinstance(row, BadFile):
                report.total += 1
                report.errors.append(_finding(row))
            else:
                yield str(file), line, row


def _files(folder: Path) -> list[Path]:
    """The files of a folder's training split, or all where no name tells splits."""
    files = sorted(p for p in folder.rglob("*") if p.name.endswith(SUFFIXES))
    if not files:
        raise BadFile(
            folder,
            None,
            f"holds no file that ends in {', '.join(SUFFIXES)}",
            "Put the rows there; what datasets saved with save_to_disk is read by "
            "from_trl(datasets.load_from_disk(folder))",
        )
    train = [p for p in files if "train" in str(p.relative_to(folder)).casefold()]
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


def _finding(error: BadFile) -> Finding:
    return Finding(error.file, error.line or 1, "", error.problem, error.remedy)
