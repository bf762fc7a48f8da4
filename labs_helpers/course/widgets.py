"""The annotator: two answers side by side, and buttons that say which is better.

Every choice is on disk before the next pair is shown, and a session goes on where the
file ends. Preferences are JSON Lines in the library's format; ties and skipped pairs
are no preferences and go into a second file beside the first. Works under ipywidgets
7.7 and 8; without a front end it waits.
"""

import html
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.display import display

from labs_helpers.course.annotations import append_line, read_lines
from labs_helpers.data import Preference, as_messages

CHOICES = {"A": "A is better", "B": "B is better", "tie": "Tie", "skip": "Skip"}
BOX = "border:1px solid #bbb;border-radius:4px;padding:0.6em;white-space:pre-wrap"
VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers to compare, on a dimension if there is one."""

    prompt: Any
    first: str
    second: str
    dimension: str | None = None

    @property
    def key(self) -> str:
        """The same for the same pair, whichever way round it is shown."""
        answers = sorted([self.first, self.second])
        return json.dumps([as_messages(self.prompt), answers, self.dimension])


class Annotator:
    """Ask a person which answer is better.

    Args:
        pairs: `Pair`s, `Preference`s (whose labels stay hidden), or tuples of prompt
            and two answers.
        path: of the preferences; what is there already counts as done.
        name: of the person, as it is written down. Each name has its own progress.
        seed: decides which answer stands on the left.
    """

    def __init__(
        self,
        pairs: Sequence[Pair | Preference | tuple[Any, ...]],
        path: str | Path,
        *,
        name: str = "me",
        seed: int = 0,
    ):
        self.path = Path(path)
        self.undecided_path = self.path.with_suffix(f".undecided{self.path.suffix}")
        self.name = name
        self._pairs = [_as_pair(pair) for pair in pairs]
        self._in_messages = any(
            not isinstance(_plain(pair.prompt), str) for pair in self._pairs
        )
        rng = random.Random(seed)
        self._swapped = [rng.random() < 0.5 for _ in self._pairs]
        self._choices: dict[int, str] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self._resume()
        self._build()
        self._show()

    @property
    def preferences(self) -> list[Preference]:
        """What was preferred; ties and skipped pairs are left out."""
        fields = Preference.__dataclass_fields__
        decided = [
            self._rows[i] for i in sorted(self._rows) if "chosen" in self._rows[i]
        ]
        return [
            Preference(**{k: row[k] for k in row if k in fields}) for row in decided
        ]

    @property
    def progress(self) -> str:
        """How far the work has got."""
        counts = Counter(self._choices.values())
        parts = [f"{len(self._choices)} of {len(self._pairs)} pairs done"]
        parts += [f"{counts[c]} {c}" for c in ("tie", "skip") if counts[c]]
        return ", ".join(parts)

    def choose(self, choice: str) -> None:
        """Record a choice for the pair that is shown: A, B, tie or skip."""
        if choice not in CHOICES:
            raise ValueError(f"a choice is one of {', '.join(CHOICES)}, got {choice!r}")
        index = self._current
        if index is None:
            return
        row = self._row(index, choice)
        append_line(self.path if "chosen" in row else self.undecided_path, row)
        self._choices[index], self._rows[index] = choice, row
        self._show()

    # What is on disk

    def _row(self, index: int, choice: str) -> dict[str, Any]:
        pair, (a, b) = self._pairs[index], self._answers(index)
        prompt = as_messages(pair.prompt) if self._in_messages else _plain(pair.prompt)
        asked = {"prompt": prompt}
        if choice in ("A", "B"):
            chosen, rejected = (a, b) if choice == "A" else (b, a)
            asked |= {"chosen": self._said(chosen), "rejected": self._said(rejected)}
        else:
            asked |= {"answers": [a, b]}
        if pair.dimension is not None:
            asked["dimension"] = pair.dimension
        now = time.time()
        return asked | {
            "annotator": self.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            # The answer on the left was A.
            "meta": {"choice": choice, "seconds": round(now - self._shown_at, 1)},
        }

    def _said(self, answer: str) -> Any:
        """Write an answer in the format of the prompts: one file holds one format."""
        if not self._in_messages:
            return answer
        return [{"role": "assistant", "content": answer}]

    def _resume(self) -> None:
        """Match what the files hold with the pairs, one line for one pair."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in [*read_lines(self.path), *read_lines(self.undecided_path)]:
            if row.get("annotator") == self.name:
                rows.setdefault(_row_key(row), []).append(row)
        for index, pair in enumerate(self._pairs):
            if rows.get(pair.key):
                row = rows[pair.key].pop(0)
                self._rows[index] = row
                self._choices[index] = row.get("meta", {}).get("choice", "A")

    # What is on the screen

    @property
    def _current(self) -> int | None:
        undone = (i for i in range(len(self._pairs)) if i not in self._choices)
        return next(undone, None)

    def _answers(self, index: int) -> tuple[str, str]:
        pair = self._pairs[index]
        if self._swapped[index]:
            return pair.second, pair.first
        return pair.first, pair.second

    def _build(self) -> None:
        half = ipywidgets.Layout(width="50%")
        self._prompt = _with_class(ipywidgets.HTML(), "labs-prompt")
        self._a = _with_class(ipywidgets.HTML(layout=half), "labs-answer-a")
        self._b = _with_class(ipywidgets.HTML(layout=half), "labs-answer-b")
        self._status = _with_class(ipywidgets.HTML(), "labs-progress")
        self.buttons = {
            choice: _with_class(
                ipywidgets.Button(description=label), f"labs-choose-{choice.lower()}"
            )
            for choice, label in CHOICES.items()
        }
        for choice, button in self.buttons.items():
            button.on_click(self._on_click(choice))
        answers = ipywidgets.HBox([self._a, self._b])
        buttons = ipywidgets.HBox(list(self.buttons.values()))
        box = ipywidgets.VBox([self._prompt, answers, buttons, self._status])
        self.box = _with_class(box, "labs-annotator")

    def _on_click(self, choice: str) -> Callable[[Any], None]:
        def clicked(_: Any) -> None:
            try:
                self.choose(choice)
            except OSError as error:
                # The pair stays until its choice is safe.
                reason = html.escape(str(error))
                self._status.value = f"<b>Not saved: {reason}. Choose again.</b>"

        return clicked

    def _show(self) -> None:
        index = self._current
        self._shown_at = time.time()
        self._status.value = html.escape(self.progress)
        for button in self.buttons.values():
            button.disabled = index is None
        if index is None:
            self._prompt.value = "<b>That was the last pair. Thank you.</b>"
            self._a.value = self._b.value = ""
            return
        pair, (a, b) = self._pairs[index], self._answers(index)
        asked = "Which answer is better?"
        if pair.dimension is not None:
            asked = f"Which answer is better in {pair.dimension}?"
        self._prompt.value = f"<b>{html.escape(asked)}</b>{_framed(_text(pair.prompt))}"
        self._a.value = f"<b>A</b>{_framed(a)}"
        self._b.value = f"<b>B</b>{_framed(b)}"

    def _ipython_display_(self) -> None:
        # The text is what is left where widgets cannot be drawn.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        text = f"Annotator {self.name}: {self.progress}."
        display({VIEW: view, "text/plain": text}, raw=True)


def _row_key(row: dict[str, Any]) -> str:
    answers = row.get("answers") or [row.get("chosen"), row.get("rejected")]
    return Pair(row["prompt"], *map(_text, answers), row.get("dimension")).key


def _as_pair(pair: Any) -> Pair:
    if isinstance(pair, Pair):
        return pair
    if isinstance(pair, tuple):
        return Pair(*pair)
    return Pair(pair.prompt, _text(pair.chosen), _text(pair.rejected), pair.dimension)


def _plain(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    messages = as_messages(prompt)
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    return messages[0]["content"] if alone else messages


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    messages = as_messages(content)
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _framed(text: str) -> str:
    return f'<div style="{BOX}">{html.escape(text)}</div>'


def _with_class(widget: Any, name: str) -> Any:
    widget.add_class(name)
    return widget
