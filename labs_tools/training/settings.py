"""What a settings file of `labs train` may say: a class a method, one schema for all.

In go the name of a method and a TOML or YAML file; out come checked settings, or one
sentence with file and key for all that is wrong. Loads no model and no data.
"""

import inspect
import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from pydantic import Field, TypeAdapter

from labs_helpers.common.settings import (
    Count,
    NotNegative,
    Positive,
    Rank,
    Share,
    Text,
    nearest,
    settings,
    short,
)
from labs_helpers.data.files import read_table
from labs_helpers.data.report import Finding, validated
from labs_helpers.fit import FitConfig
from labs_helpers.rl import RLConfig
from labs_helpers.rl.config import Algorithm

Tracker = Literal[tuple(LOGGER_TYPE_TO_CLASS)]
HeldOut = Annotated[float, Field(gt=0, lt=1)]


class BadSettings(ValueError):
    """A settings file that cannot be used; the message says what to change."""


@settings
class Common:
    """What every file says.

    Attributes:
        policy: an embedded model (town-xs), a folder, or a name on the hub.
        data: a split of the embedded world (train, validation, test), a file or a
            folder, or a data set on the hub: preferences; conversations as well, for
            sft; prompts for methods that learn from their own answers.
        out: folder for the model, history.csv and the checkpoint.
        lora: rank of an adapter; 0 trains all weights.
        report_to: trackers that get the history, too, each with its own package.
        push_to_hub: a name on the hub to upload the model to at the end.
    """

    policy: Text
    data: Text = "train"
    out: Text = "build/train"
    lora: Rank = 0
    report_to: tuple[Tracker, ...] = ()
    push_to_hub: Text | None = None


@settings
class Offline(Common):
    """A method that learns from rows.

    Attributes:
        settings: of `FitConfig`.
        validation: what to evaluate on, as `data`, or a share of it to hold out.
    """

    settings: FitConfig = field(kw_only=True)
    validation: HeldOut | Text | None = None


@settings
class SFT(Offline):
    """Supervised fine-tuning on conversations, or on the better answers."""

    method: Literal["sft"] = "sft"


@settings
class Reward(Offline):
    """A reward model from preferences (Bradley-Terry).

    Attributes:
        heads: one for each dimension of the data; a single one takes all rows.
        margin: ask for a difference of at least the row's margin.
        center_weight: pulls the mean reward of a pair towards 0.
    """

    method: Literal["reward"] = "reward"
    heads: Annotated[tuple[Text, ...], Field(min_length=1)] = ("reward",)
    margin: bool = False
    center_weight: NotNegative = 0.0


@settings
class DPO(Offline):
    """Direct preference optimisation (arXiv 2305.18290).

    Attributes:
        beta: what a nat of KL costs, in units of reward.
        label_smoothing: share of the pairs that are the wrong way round.
    """

    method: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    label_smoothing: Annotated[Share, Field(lt=0.5)] = 0.0


@settings
class IPO(Offline):
    """Identity preference optimisation (arXiv 2310.12036).

    Attributes:
        beta: the paper's tau; margins go to 1 / (2 beta) nats.
    """

    method: Literal["ipo"] = "ipo"
    beta: Positive = 0.1


@settings
class KTO(Offline):
    """Kahneman-Tversky optimisation (arXiv 2402.01306); pairs are taken apart.

    Attributes:
        beta: how fast gains and losses saturate.
        desirable_weight: of desirable answers.
        undesirable_weight: of undesirable ones.
    """

    method: Literal["kto"] = "kto"
    beta: Positive = 0.1
    desirable_weight: NotNegative = 1.0
    undesirable_weight: NotNegative = 1.0


@settings
class SLiC(Offline):
    """Sequence likelihood calibration (arXiv 2305.10425).

    Attributes:
        delta: nats by which the better answer is to be ahead.
        weight: of the supervised loss on the better answers.
    """

    method: Literal["slic"] = "slic"
    delta: Positive = 1.0
    weight: NotNegative = 0.0


@settings
class OnPolicy(Common):
    """A method that learns from the policy's own answers.

    Attributes:
        settings: of `RLConfig`. Several processes share its samples.
        validation: prompts to evaluate on, as `data`, or a share of it to hold out.
        reward: "gold" for prompts of the embedded world; the folder of a reward model;
            or "file.py:function", a function of prompts and answers.
        head: of the reward model.
    """

    settings: RLConfig = field(default_factory=RLConfig)
    validation: HeldOut | Text | None = None
    method: Algorithm = "ppo"
    reward: Text = "gold"
    head: int | str = 0


@settings
class CAI(Common):
    """Constitutional AI (arXiv 2212.08073), as in Lab 4.

    The policy's answers are criticised and revised by itself, and it learns the
    revisions; then it compares pairs of its answers, and DPO learns from that.

    Attributes:
        constitution: principles in YAML; without, the project's.
        max_new_tokens: of an answer.
        pairs: prompts to which two answers are compared; all, if there are fewer.
        beta: DPO's price of a nat of KL.
        sft: of `FitConfig`, for the revisions.
        dpo: of `FitConfig`, for the comparisons.
    """

    method: Literal["cai"] = "cai"
    constitution: Text | None = None
    max_new_tokens: Count = 64
    pairs: Count = 500
    beta: Positive = 0.1
    sft: FitConfig = field(default_factory=lambda: FitConfig(lr=5e-4, epochs=2))
    dpo: FitConfig = field(default_factory=lambda: FitConfig(lr=1e-4))


KINDS = (SFT, Reward, DPO, IPO, KTO, SLiC, OnPolicy, CAI)
Settings = SFT | Reward | DPO | IPO | KTO | SLiC | OnPolicy | CAI
METHODS = {
    name: kind
    for kind in KINDS
    for name in get_args(kind.__dataclass_fields__["method"].type)
}
# Steps between checkpoints, and the figure that patience waits for.
USUAL = {Offline: (100, "-validation_loss"), OnPolicy: (10, "validation_objective")}


def read_settings(method: str, path: Path) -> Settings:
    """Read what a method is to do.

    Raises:
        BadSettings: no such method, or a file that cannot be used.
    """
    kind = METHODS.get(method)
    if kind is None:
        known = ", ".join(METHODS)
        raise BadSettings(f"no method {short(method)}; there are {known}")
    if path.is_dir() or not path.exists():
        raise BadSettings(f"there is no file {path}: give --config a TOML or YAML file")
    try:
        table = read_table(path)
    except (OSError, ValueError) as error:
        raise BadSettings(str(error)) from error
    said = table.get("method", method)
    if said != method:
        raise BadSettings(f"{path} is for {short(said)}, the command is for {method}")
    asked, found = validated(kind, _filled_in(table, method, kind), str(path), 1)
    if found:
        raise BadSettings(f"{path}: {' '.join(map(_sentence, found[:5]))}")
    _require_validation(asked, path)
    return asked


def _sentence(found: Finding) -> str:
    """What is wrong with a setting, with the nearest name if it is none."""
    end = "."
    if found.problem == "is no field":
        known = found.remedy.removeprefix("Fields are ").split(", ")
        end = nearest(found.field.split(".")[-1], known) or end
    return f"{found.field or 'it'} {found.problem}{end} {found.remedy}."


def _filled_in(table: dict[str, Any], method: str, kind: type) -> dict[str, Any]:
    """The table with what goes without saying; what is wrong in it stays so."""
    table = {**table, "method": method}
    out = table.get("out", Common.out)
    if kind is CAI or not isinstance(out, str):
        return table
    given = table.get("settings", {})
    if isinstance(given, dict):
        save_every, best_by = USUAL[OnPolicy if kind is OnPolicy else Offline]
        usual = {"checkpoint": str(Path(out) / "checkpoint"), "save_every": save_every}
        usual |= {"best_by": best_by} if "patience" in given else {}
        usual |= {"algorithm": method} if kind is OnPolicy else {}
        table["settings"] = {**usual, **given}
    return table


def _require_validation(asked: Settings, path: Path) -> None:
    if isinstance(asked, CAI):
        return
    if isinstance(asked, OnPolicy) and asked.settings.algorithm != asked.method:
        raise BadSettings(
            f"{path}: settings.algorithm is {asked.settings.algorithm}, the command is "
            f"for {asked.method}: leave it out"
        )
    config = asked.settings
    if asked.validation is None and (config.evaluate_every or config.best_by):
        raise BadSettings(
            f"{path}: settings.evaluate_every, best_by and patience need rows that no "
            "step learns from. Add validation, a file, a split, or a share such as 0.1"
        )


def schema() -> dict[str, Any]:
    """The JSON Schema of all settings files, told apart by their `method`."""
    union = Annotated[Settings, Field(discriminator="method")]
    found = TypeAdapter(union).json_schema()
    classes = {kind.__name__: kind for kind in (*KINDS, FitConfig, RLConfig)}
    for name, entry in found["$defs"].items():
        about = _attributes(classes[name])
        entry["description"] = (inspect.getdoc(classes[name]) or "").split("\n")[0]
        for key, value in entry["properties"].items():
            if key in about:
                value["description"] = about[key]
    return found


def _attributes(kind: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its attributes."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        _, _, listed = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): ((?:.|\n {8})+)", listed, re.M):
            found[name] = " ".join(text.split())
    return found
