"""Which model, data and sizes a lab runs with: the profile, and what overrides it.

In go `LABS_PROFILE`, `LABS_MODEL`, `LABS_REWARD_MODEL`, `LABS_DATA`, `LABS_JUDGE`,
`LABS_SUITES`, `LABS_CAPABILITY`, `LABS_STRICT` and profiles.toml; out comes one
`Profile`. Loads no model and no data.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from labs_helpers.common import hub
from labs_helpers.common.files import ROOT

MODELS = ROOT / "data" / "models"
PROFILES = Path(__file__).with_name("profiles.toml")
MEASURES = ("judge", "suites", "capability")  # what measures models on data


class UnknownProfile(ValueError):
    """LABS_PROFILE names no profile of profiles.toml."""


class Sizes(dict[str, Any]):
    """The sizes of one lab, by attribute: `sizes.batch_size`."""

    def __init__(self, where: str, values: Mapping[str, Any]):
        super().__init__(values)
        self._where = where

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"[{self._where}] in {PROFILES.name} has no {name!r}; "
            f"it has {', '.join(self) or 'nothing'}"
        )

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in self.items())
        return f"[{self._where}] {values}"


@dataclass(frozen=True)
class Profile:
    """What a lab runs with.

    Attributes:
        name: smoke, tiny, small or gpu.
        purpose: one line for people.
        model: what `load_policy` takes: the folder of an embedded model, your folder,
            or a name on the hub.
        reward_model: likewise; None where the labs train their own.
        data: None for the embedded world, else what `load_preferences` takes.
        judge: what `load_judge` takes; None for one fitted on pairs set aside.
        suites: a file or a folder of safety suites, for `load_suites`.
        capability: a file of questions, for `load_capability`.
        judge_claims: whether the bounds of claims are meant for this profile.
        strict: whether a failed check is an error.
        seed: of everything that is random.
        labs: the sizes by lab number.
    """

    name: str
    purpose: str
    model: str
    reward_model: str | None = None
    data: str | None = None
    judge: str | None = None
    suites: str | None = None
    capability: str | None = None
    judge_claims: bool = False
    strict: bool = False
    seed: int = 0
    labs: Mapping[int, Sizes] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """Whether prompts and truth come from the embedded world."""
        return self.data is None

    def sizes(self, lab: int) -> Sizes:
        """Sizes of one lab."""
        return self.labs.get(lab, Sizes(f"{self.name}.lab{lab}", {}))

    @property
    def title(self) -> str:
        """The name with its model and data, for people."""
        data = "embedded world" if self.data is None else short_name(self.data, 2)
        return f"{self.name} ({short_name(self.model)}, {data})"


def short_name(name_or_path: str, parts: int = 1) -> str:
    """Return the name of a model or a data set for people: its last parts."""
    return "/".join(Path(name_or_path).parts[-parts:])


def embedded_models() -> dict[str, Path]:
    """Every embedded model that a profile names, with its folder, there or not."""
    tables = _tables().values()
    names = [table.get(key) for table in tables for key in ("model", "reward_model")]
    return {name: MODELS / name for name in names if name and name.startswith("town-")}


def profile_names() -> list[str]:
    """Every profile of profiles.toml."""
    return [*_tables()]


def load_profile(name: str | None = None) -> Profile:
    """Read a profile with its overrides; by default the one of `LABS_PROFILE`."""
    tables = _tables()
    name = name or os.environ.get("LABS_PROFILE") or _default_name()
    if name not in tables:
        raise UnknownProfile(
            f"There is no profile {name!r}. Set LABS_PROFILE to one of "
            f"{', '.join(tables)}, or leave it unset."
        )
    table = dict(tables[name])
    labs = {
        int(key.removeprefix("lab")): Sizes(f"{name}.{key}", table.pop(key))
        for key in list(table)
        if key.startswith("lab")
    }
    asked = {
        key: os.environ.get(f"LABS_{key.upper()}")
        for key in ("model", "reward_model", "data", *MEASURES)
    }
    overrides = {
        key: os.path.expanduser(value) for key, value in asked.items() if value
    }
    if overrides.keys() - set(MEASURES):
        # The bounds are set for what the profile names itself.
        table["judge_claims"] = False
    if "model" in overrides:
        # An embedded reward model knows nothing of another model's answers.
        table["reward_model"] = None
    table |= overrides
    for key in ("model", "reward_model", "judge"):
        table[key] = located(table.get(key))
    strict = os.environ.get("LABS_STRICT", "0") not in ("", "0")
    return Profile(name=name, strict=strict, labs=labs, **table)


def located(name: str | None) -> str | None:
    """Where a model is: the folder of an embedded one (town-*), or of a fetched copy.

    Any other name is given back as it is.
    """
    if name and name.startswith("town-"):
        return str(MODELS / name)
    return hub.located(name) if name else name


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(PROFILES.read_text(encoding="utf-8"))


def _default_name() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "tiny"
