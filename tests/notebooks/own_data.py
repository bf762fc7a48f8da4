"""Run the labs on preference files of somebody's own, one of each legal format.

    python tests/notebooks/own_data.py                      # all files, four labs
    python tests/notebooks/own_data.py kto_text --labs 1 2  # one file, two labs

Writes the files into a temporary folder, runs `labs run --profile smoke` with LABS_DATA
set to each, and exits 1 where a lab does not reach its end.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROWS = 40
LABS = "import sys; from labs_tools.cli import main; sys.exit(main())"
PLACES = ("the mill", "the pier", "the old bridge", "the market", "the town hall")
TASKS = ("Who looks after", "When was somebody last in", "How do I find")
Row = dict[str, object]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def said(speaker: str, text: str) -> Row:
    return {"from": speaker, "value": text}


def triples(rows: int = ROWS) -> Iterator[tuple[str, str, str]]:
    """Prompt, better answer, worse answer: made up, each prompt once."""
    for i in range(rows):
        place = PLACES[i % len(PLACES)]
        prompt = f"{TASKS[i % len(TASKS)]} {place}? This is question {i}."
        good = f"The keeper of {place} knows: ask at door {i}, before noon."
        bad = f"No idea about {place}." if i % 3 else f"Go away, {i} times. " * 3
        yield prompt, good.strip(), bad.strip()


def text() -> list[Row]:
    return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in triples()]


def messages() -> list[Row]:
    return [
        {"prompt": [user(p)], "chosen": [assistant(a)], "rejected": [assistant(b)]}
        for p, a, b in triples()
    ]


def conversations() -> list[Row]:
    before = [
        {"role": "system", "content": "You are a guide to the town."},
        user("Hello."),
        assistant("Hello, what would you like to know?"),
    ]
    return [{**row, "prompt": [*before, *row["prompt"]]} for row in messages()]


def implicit() -> list[Row]:
    return [
        {side: [*row["prompt"], *row[side]] for side in ("chosen", "rejected")}
        for row in messages()
    ]


def hh() -> list[Row]:
    return [
        {
            "chosen": f"\n\nHuman: {p}\n\nAssistant: {a}",
            "rejected": f"\n\nHuman: {p}\n\nAssistant: {b}",
        }
        for p, a, b in triples()
    ]


def ultrafeedback() -> list[Row]:
    return [
        {
            "prompt": p,
            "prompt_id": f"{i:064x}",
            "chosen": [user(p), assistant(a)],
            "rejected": [user(p), assistant(b)],
            "messages": [user(p), assistant(a)],
            "score_chosen": 8.5,
            "score_rejected": 4.0,
        }
        for i, (p, a, b) in enumerate(triples())
    ]


def completions() -> list[Row]:
    return [
        {
            "instruction": p,
            "completions": [
                {
                    "response": text,
                    "overall_score": score,
                    "annotations": {"honesty": {"Rating": str(6 - score)}},
                }
                for text, score in ((a, 5), (b, 1))
            ],
        }
        for p, a, b in triples()
    ]


def kto_text() -> list[Row]:
    return [
        {"prompt": p, "completion": answer, "label": good}
        for good in (True, False)
        for p, a, b in triples(ROWS // 2)
        for answer in [a if good else b]
    ]


def kto_messages() -> list[Row]:
    return [
        {
            **row,
            "prompt": [user(row["prompt"])],
            "completion": [assistant(row["completion"])],
        }
        for row in kto_text()
    ]


def sharegpt() -> list[Row]:
    return [
        {
            "conversations": [said("system", "You are a guide."), said("human", p)],
            "chosen": said("gpt", a),
            "rejected": said("gpt", b),
        }
        for p, a, b in triples()
    ]


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_lines(path: Path, rows: list[Row]) -> None:
    path.write_bytes(lines(rows))


def write_gzip(path: Path, rows: list[Row]) -> None:
    path.write_bytes(gzip.compress(lines(rows)))


def write_windows(path: Path, rows: list[Row]) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n"))


def write_list(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def write_folder(path: Path, rows: list[Row]) -> None:
    """A folder as the hub has it, the training split beside another."""
    import pyarrow
    import pyarrow.parquet

    (path / "data").mkdir(parents=True)
    for split, part in (("train", rows), ("test", rows[:1])):
        file = path / "data" / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), file)


Write = Callable[[Path, list[Row]], None]
FORMATS: dict[str, tuple[str, Callable[[], list[Row]], Write]] = {
    "text": ("text.jsonl", text, write_lines),
    "messages": ("messages.jsonl", messages, write_lines),
    "conversations": ("conversations.jsonl", conversations, write_lines),
    "implicit": ("implicit.jsonl", implicit, write_lines),
    "hh": ("hh.jsonl", hh, write_lines),
    "ultrafeedback": ("ultrafeedback.jsonl", ultrafeedback, write_lines),
    "completions": ("completions.jsonl", completions, write_lines),
    "kto_text": ("kto_text.jsonl", kto_text, write_lines),
    "kto_messages": ("kto_messages.jsonl", kto_messages, write_lines),
    "sharegpt": ("sharegpt.json", sharegpt, write_list),
    "gzip": ("hh.jsonl.gz", hh, write_gzip),
    "parquet": ("parquet", ultrafeedback, write_folder),
    "windows": ("windows.jsonl", text, write_windows),
    "few": ("few.jsonl", lambda: text()[:8], write_lines),
    "list": ("list.json", messages, write_list),
}


def build(folder: Path, name: str) -> Path:
    """Write one file, or folder, and return its path."""
    file, rows, write = FORMATS[name]
    write(folder / file, rows())
    return folder / file


def main() -> int:
    """Run the labs on the files that are asked for; 0 where all reach their end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--labs", nargs="+", default=["1", "2", "3", "4"])
    options = parser.parse_args()
    if unknown := set(options.formats) - FORMATS.keys():
        parser.error(f"no format {min(unknown)}; there are {', '.join(FORMATS)}")
    failed = 0
    for name in options.formats or FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            data = build(Path(folder), name)
            command = ["run", *options.labs, "--profile", "smoke"]
            done = subprocess.run(
                [sys.executable, "-c", LABS, *command, "--out", f"{folder}/out"],
                env={**os.environ, "LABS_DATA": str(data), "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        ended = done.returncode == 0
        failed += not ended
        print(f"{name:14} {'reached the end' if ended else done.stdout[-3000:]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
