"""A study on a Ray cluster: a task for each seed, the rows in their order.

In go a study and the address of a cluster ("local" starts one on this machine); out
come rows. Needs the extra `rl`, and this project on every machine of the cluster.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labs_tools.studies.study import COUNTING, Counted, Row, Study, here, part

LOCAL = "local"


@contextmanager
def cluster(**local: Any) -> Iterator[Any]:
    """Give ray, on the cluster of RAY_ADDRESS, or on one of its own with these options.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: nothing answers at the address.
    """
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    _require_answer(address)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this needs Ray, the extra `rl`: pip install -e '.[rl]'"
        ) from error
    options = {"include_dashboard": False, **local} if address == LOCAL else {}
    ray.init(address, log_to_driver=False, **options)
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray itself waits for minutes."""
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}). Expected ray://HOST:10001 "
            "(with ray[client]), auto on a machine of the cluster, or local"
        ) from error


def rows_of(study: Study) -> Iterator[Row]:
    """The rows of a study, measured seed by seed on the cluster of RAY_ADDRESS.

    One that does not go through seeds is measured here; it may use the cluster itself.

    Raises:
        ValueError: a machine of the cluster has other models or data.
    """
    rows = study.rows()
    try:
        with part(COUNTING):
            first = next(rows)
    except Counted as counted:
        yield from _on_cluster(study, counted.number)
    else:
        yield first
        yield from rows


def _on_cluster(study: Study, seeds: int) -> Iterator[Row]:
    with cluster() as ray:
        task = ray.remote(_measured)
        tasks = [task.remote(study, number) for number in range(seeds)]
        for made_with, rows in map(ray.get, tasks):
            if made_with != study.made_with:
                raise ValueError(
                    f"a machine of the cluster has other models or data for "
                    f"{study.name}: bring the project there to the state of this one"
                )
            yield from rows


def _measured(study: Study, number: int) -> tuple[str, list[Row]]:
    """In a task of the cluster: what the rows of a seed were made with, and these."""
    with part(number):
        return study.made_with, [{**row, **here()} for row in study.rows()]
