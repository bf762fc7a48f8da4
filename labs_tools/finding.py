"""Which notebooks there are: names as `labs run` takes them come in, paths go out."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from labs_helpers.common.files import ROOT


def find_notebooks(names: Sequence[str]) -> dict[str, Path]:
    """Find notebooks, all if none is named, by what `start` calls them, in order."""
    folders = [Path.cwd() / "notebooks", ROOT / "notebooks"]
    folder = next((f for f in folders if f.is_dir()), folders[0])
    found = {}
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("further/*.ipynb")]):
        if named := re.match(
            r"(further/)?\d+(?=_)", path.relative_to(folder).as_posix()
        ):
            found[named[0]] = path
    if not found:
        raise FileNotFoundError(
            f"no notebooks in {folder}. Run labs in the folder of the project."
        )
    groups = {name.partition("/")[0] for name in found}  # further is all of its own
    if missing := sorted({*names} - found.keys() - groups):
        raise FileNotFoundError(
            f"there is no lab {', '.join(missing)} in {folder}; there is "
            f"{', '.join(found)}"
        )
    return {
        name: path
        for name, path in found.items()
        if not names or {name, name.partition("/")[0]} & {*names}
    }


def graded(notebooks: Mapping[str, Path]) -> dict[int, Path]:
    """Those of them that have exercises, and models by the profile, by number."""
    return {
        int(name): x for name, x in notebooks.items() if name.isdecimal() and int(name)
    }
