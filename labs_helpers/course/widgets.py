"""The annotator: two answers side by side, and buttons that say which is better.

Every choice is on disk before the next pair is shown, and a session goes on where the
file ends, also where another window has written to it. Preferences are JSON Lines in
the library's format; ties and skipped pairs are no preferences and go into a second
file beside the first. Works under ipywidgets 7.7 and 8; without a front end it waits.
"""

import html
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from labs_helpers.course.annotations import append_line, mend, read_lines
from labs_helpers.course.judgements import (
    Pair,
    as_pair,
    as_preference,
    as_row,
    choice_of,
    key_of,
    said_of,
    text_of,
)
from labs_helpers.data import Preference

__all__ = ["Annotator", "Pair"]

CHOICES = {"A": "A is better", "B": "B is better", "tie": "Tie", "skip": "Skip"}
# Seconds in which a second click on the same button belongs to the first.
DOUBLE_CLICK = 0.4
BOX = (
    "border:1px solid #bbb;border-radius:4px;padding:0.6em;white-space:pre-wrap;"
    "overflow-wrap:anywhere;line-height:1.5;max-height:24em;overflow-y:auto"
)
# The front end marks widgets whose kernel has gone: no button there does anything.
STYLE = """<style>
.labs-annotator.jupyter-widgets-disconnected > * { display: none }
.labs-annotator.jupyter-widgets-disconnected::after {
    content: "The kernel was restarted. Your choices are saved: run this cell again.";
    font-weight: bold;
}
</style>"""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
VIEW = "application/vnd.jupyter.widget-view+json"


class Annotator:
    """Ask a person which answer is better.

    Args:
        pairs: `Pair`s, `Preference`s (whose labels stay hidden), or tuples of prompt
            and two answers.
        path: of the preferences; what is there already counts as done.
        name: of the person, as it is written down. Each name has its own progress.
        seed: decides which answer stands on the left.

    Raises:
        ValueError: A pair cannot be compared, or a file there is none of annotations.
        OSError: A file there cannot be read.
    """

    def __init__(
        self, pairs: Iterable[Any], path: str | Path, *, name: str = "me", seed: int = 0
    ):
        self.path, self.undecided_path = _paths(path)
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name is that of a person, as text; got {name!r}")
        self.name = name
        given = self._given = [as_pair(i, pair) for i, pair in enumerate(pairs, 1)]
        rng = random.Random(seed)
        differ = [pair for pair in given if pair.differs]
        self._pairs = [p.turned() if rng.random() < 0.5 else p for p in differ]
        self._left_out = len(given) - len(self._pairs)
        self._note = ""
        self._clicked: str | None = None
        self._read_sizes: list[int] = []
        self._resume()
        for file in (self.path, self.undecided_path):
            mend(file)
        self._build()
        self._show()

    @property
    def preferences(self) -> list[Preference]:
        """What was preferred, in the format of the pairs; no ties, no skipped pairs."""
        self._resume()
        return [
            as_preference(self._pairs[index], row)
            for index, row in self._rows.items()
            if "chosen" in row
        ]

    @property
    def verdicts(self) -> np.ndarray:
        """What was said of each pair: 1 its first answer, 0 its second, 0.5 a tie.

        In the order in which the pairs were given; NaN where nothing was said, also of
        pairs that were skipped. A pair that was given twice has two verdicts.
        """
        self._resume()
        differing = iter(range(len(self._pairs)))
        places = [next(differing) if pair.differs else None for pair in self._given]
        return np.array(
            [
                said_of(pair, self._rows.get(place))
                for pair, place in zip(self._given, places, strict=True)
            ]
        )

    @property
    def judged(self) -> int:
        """The number of pairs with a verdict: A, B or a tie."""
        self._resume()
        return len(self._rows) - self._counts["skip"]

    @property
    def progress(self) -> str:
        """How far the work has got."""
        self._resume()
        parts = [f"{len(self._rows)} of {len(self._pairs)} pairs done"]
        parts += [f"{self._counts[c]} {c}" for c in ("tie", "skip") if self._counts[c]]
        if self._left_out:
            parts.append(f"{self._left_out} left out, with nothing to compare")
        return ", ".join(parts)

    def choose(self, choice: str) -> None:
        """Record a choice for the pair that is shown: A, B, tie or skip."""
        if choice not in CHOICES:
            raise ValueError(f"a choice is one of {', '.join(CHOICES)}, got {choice!r}")
        if self._shown is None:
            return
        self._resume()
        if self._shown in self._rows:
            self._note = ". The last was judged in another window: that holds"
        else:
            row = self._row(choice)
            append_line(self.path if "chosen" in row else self.undecided_path, row)
            self._note = ""
            self._resume()
        self._show()

    # What is on disk

    def _row(self, choice: str) -> dict[str, Any]:
        seconds = time.monotonic() - self._shown_at
        return as_row(self._pairs[self._shown], choice, self._in_text) | {
            "annotator": self.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            # The answer on the left was A.
            "meta": {"choice": choice, "seconds": round(seconds, 1)},
        }

    def _resume(self) -> None:
        """Match what the files hold, if that is new, with the pairs, row for pair."""
        files = (self.path, self.undecided_path)
        sizes = [file.stat().st_size if file.exists() else 0 for file in files]
        if sizes == self._read_sizes:
            return
        rows = read_lines(self.path, key_of) + read_lines(self.undecided_path, key_of)
        own: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row.get("annotator") == self.name:
                own.setdefault(key_of(row), []).append(row)
        # Of more rows than pairs those that were made first hold.
        self._rows = {
            index: own[pair.key].pop(0)
            for index, pair in enumerate(self._pairs)
            if own.get(pair.key)
        }
        self._counts = Counter(map(choice_of, self._rows.values()))
        # One file holds one format: its own, or that of the pairs.
        began_in_text = all(pair.is_text for pair in self._pairs)
        if rows:
            began_in_text = isinstance(rows[0]["prompt"], str)
        self._in_text = began_in_text and all(pair.fits_text for pair in self._pairs)
        self._read_sizes = sizes

    # What is on the screen

    def _build(self) -> None:
        from ipywidgets import HTML, Button, HBox, VBox  # a second, for those who draw

        def field(name: str, **layout: str) -> HTML:
            return HTML(layout=layout, _dom_classes=[f"labs-{name}"])

        self._prompt, self._status = field("prompt"), field("progress")
        self._a, self._b = (field(f"answer-{x}", width="50%") for x in "ab")
        self.buttons = {
            choice: Button(
                description=label, _dom_classes=[f"labs-choose-{choice.lower()}"]
            )
            for choice, label in CHOICES.items()
        }
        for choice, button in self.buttons.items():
            button.on_click(self._on_click(choice))
        answers, buttons = HBox([self._a, self._b]), HBox([*self.buttons.values()])
        parts = [HTML(STYLE), self._prompt, answers, buttons, self._status]
        self.box = VBox(parts, _dom_classes=["labs-annotator"])

    def _on_click(self, choice: str) -> Callable[[Any], None]:
        def clicked(_: Any) -> None:
            since = time.monotonic() - self._shown_at
            if choice == self._clicked and since < DOUBLE_CLICK:
                return
            try:
                self.choose(choice)
            except (OSError, ValueError) as error:
                # The pair stays until its choice is safe.
                reason = html.escape(_visible(str(error)))
                self._status.value = f"<b>Not saved: {reason}. Choose again.</b>"
            else:
                self._clicked = choice

        return clicked

    def _show(self) -> None:
        undone = (i for i in range(len(self._pairs)) if i not in self._rows)
        index = self._shown = next(undone, None)
        self._status.value = html.escape(self.progress + self._note)
        for button in self.buttons.values():
            button.disabled = index is None
        if index is None:
            done = "That was the last pair. Thank you."
            said = done if self._pairs else "There are no pairs to compare."
            self._prompt.value = f"<b>{said}</b>"
            self._a.value = self._b.value = ""
        else:
            pair = self._pairs[index]
            self._prompt.value = _framed(_question(pair.dimension), pair.prompt)
            self._a.value = _framed("A", pair.first)
            self._b.value = _framed("B", pair.second)
        self._shown_at = time.monotonic()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # The text is what is left where widgets cannot be drawn.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        name, progress = _visible(self.name), self.progress
        text = f"Annotator {name}: {progress}. To go on, run this cell again."
        display({VIEW: view, "text/plain": text}, raw=True)


def _paths(path: str | Path) -> tuple[Path, Path]:
    """The files of preferences, and of what is none."""
    path = Path(path).expanduser()
    is_other = path.exists() and not path.is_file()
    if not path.name or is_other or path.suffix == ".gz":
        raise ValueError(
            f"path is that of a file of JSON lines, as my_preferences.jsonl; got {path}"
        )
    return path, path.with_suffix(f".undecided{path.suffix}")


def _question(dimension: str | None) -> str:
    where = {None: "", "": "", "overall": " overall"}.get(dimension, f" in {dimension}")
    return f"Which answer is better{where}?"


def _visible(text: str) -> str:
    r"""The text with characters that a screen would obey written out, as \x1b."""
    text = text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda control: f"\\x{ord(control[0]):02x}", text)


def _framed(title: str, content: Any) -> str:
    title, text = (html.escape(_visible(x)) for x in (title, text_of(content)))
    return f'<b>{title}</b><div dir="auto" style="{BOX}">{text}</div>'
