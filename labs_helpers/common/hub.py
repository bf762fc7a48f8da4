"""What of the hub is on this disk, and whether the hub can be asked for more.

In go names on the hub; out come places and sentences. Knows the copies that `labs
fetch` makes without the hub; loads nothing and downloads nothing.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants

from labs_helpers.common.printable import one_line

# What `labs fetch` brings without the hub: its name there and on the hub.
PACKAGED = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
SECONDS = 5.0  # to wait for the hub before it counts as out of reach
MEMORY = 10.0  # seconds for which the answer holds
WEIGHTS = ("*.safetensors", "*.bin")
T = TypeVar("T")
_heard: list[tuple[float, str]] = []  # when the hub was asked last, and what it said


def copy_of(name: str) -> Path:
    """The folder for `labs fetch`'s copy of a model of the hub."""
    return Path(constants.HF_HOME) / "alignment-labs" / name.rpartition("/")[2]


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model's weights."""
    return any(found for kind in WEIGHTS for found in folder.glob(kind))


def located(name: str) -> str:
    """The copy of a packaged model, unless the hub's own is here; or the name itself.

    The hub's own comes first, for the copy's weights were rounded to four bits.
    """
    if Path(name).exists():
        return name
    name = PACKAGED.get(name, name)
    if name in PACKAGED.values() and not downloaded(name) and is_model(copy_of(name)):
        return str(copy_of(name))
    return name


def cache_of(name: str, kind: str = "model") -> Path:
    """Where the hub's client keeps what it downloads of a "model" or a "dataset"."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def downloaded(name: str, kind: str = "model") -> bool:
    """Whether a "model" or a "dataset" came from the hub before."""
    snapshots = cache_of(name, kind).glob("snapshots/*")
    if kind == "model":  # weights come last
        return any(is_model(snapshot) for snapshot in snapshots)
    prepared = Path(constants.HF_HOME) / "datasets" / name.replace("/", "___").lower()
    return any(path for place in (*snapshots, prepared) for path in place.glob("*"))


def out_of_reach() -> str:
    """Why the hub cannot be asked; empty if it can. Remembered for ten seconds."""
    if not _heard or time.monotonic() - _heard[-1][0] > MEMORY:
        said = _ask()
        _heard[:] = [(time.monotonic(), said)]
    return _heard[-1][1]


def _ask() -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    from huggingface_hub.utils import get_session

    def ask() -> object:
        return get_session().head(constants.ENDPOINT, timeout=SECONDS)

    try:
        within(SECONDS, ask)
    except Exception as error:  # no network, no proxy, no certificate
        return one_line(str(error), 60) or type(error).__name__
    return ""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives or raises; TimeoutError where it takes longer.

    A limit of the call's own does not hold while a name server is silent.
    """
    given: Future[T] = Future()

    def run() -> None:
        try:
            given.set_result(call())
        except Exception as error:
            given.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return given.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def how_to_be_let_in(name: str, kind: str = "model") -> str:
    """What to do about something on the hub that not everybody may have."""
    place = name if kind == "model" else f"{kind}s/{name}"
    return (
        f"its owner lets people in one by one: ask at {constants.ENDPOINT}/{place}, "
        "then set HF_TOKEN to your token (on Colab, a secret of that name)"
    )
