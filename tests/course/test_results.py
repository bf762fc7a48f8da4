"""Claims, and the file of all labs' results."""

import json
import multiprocessing

import pytest

from labs_helpers.course.results import (
    Claim,
    forget_results,
    merge_results,
    read_results,
)

HEADER = {"profile": "tiny", "versions": {}, "device": "cpu"}
BROKEN = [b"{", b"\xff", b"[1]", b'{"labs": 3}', b'{"labs": {"1": 2}}', b"[" * 99999]


@pytest.mark.parametrize(
    ("bounds", "value", "ci", "holds"),
    [
        ({"at_least": 0.9}, 0.95, None, True),
        ({"at_least": 0.9}, 0.85, None, False),
        ({"at_least": 0.9}, 0.95, (0.91, 0.99), True),
        ({"at_least": 0.9}, 0.95, (0.89, 0.99), False),
        ({"at_most": 0.01}, 0.005, (0.001, 0.009), True),
        ({"at_most": 0.01}, 0.005, (0.001, 0.02), False),
        ({"at_least": 0.0, "at_most": 1.0}, 0.5, (0.1, 1.2), False),
        ({"at_least": 0.9}, float("nan"), None, False),
        ({"at_least": 0.9}, float("nan"), (float("nan"), float("nan")), False),
        ({"at_least": 0.9}, 0.95, (float("-inf"), float("inf")), False),
    ],
)
def test_claim_holds_if_the_near_end_clears_the_bound(bounds, value, ci, holds):
    assert Claim("id", "text", value, ci, **bounds).holds is holds


def test_claim_needs_a_bound():
    with pytest.raises(ValueError, match="'id' has no bound"):
        Claim("id", "text", 1.0)


def test_claim_refuses_an_interval_upside_down():
    with pytest.raises(ValueError, match="low, high"):
        Claim("id", "text", 1.0, (2.0, 1.0), at_least=0.0)


def test_claim_survives_json():
    claim = Claim("id", "text", float("nan"), (0.0, float("inf")), at_most=1.0)
    row = json.loads(json.dumps(claim.to_json(), allow_nan=False))
    assert str(Claim.from_json(row)) == str(claim)
    assert row["holds"] is False


def test_a_missed_goal_is_shown_and_fails_nothing():
    goal = Claim("a", "It is so.", 0.7, at_least=0.9, goal=True)
    assert goal.holds is False
    assert goal.verdict == "goal not reached"
    assert not goal.fails
    assert Claim.from_json(goal.to_json()) == goal
    assert Claim("a", "It is so.", 0.7, at_least=0.9).fails


def test_results_of_labs_are_merged(tmp_path):
    merge_results(tmp_path, 2, {"seconds": 2}, HEADER)
    merge_results(tmp_path, 1, {"seconds": 1}, HEADER)
    merge_results(tmp_path, 2, {"seconds": 3}, HEADER)
    results = read_results(tmp_path)
    assert list(results["labs"]) == ["1", "2"]
    assert results["labs"]["2"] == {"seconds": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_results_of_another_profile_make_way(tmp_path):
    merge_results(tmp_path, 1, {"seconds": 1}, HEADER)
    merge_results(tmp_path, 2, {"seconds": 2}, {**HEADER, "profile": "smoke"})
    results = read_results(tmp_path)
    assert results["profile"] == "smoke"
    assert list(results["labs"]) == ["2"]


def test_forgetting_a_lab_keeps_the_others(tmp_path):
    forget_results(tmp_path, 1)
    merge_results(tmp_path, 1, {"seconds": 1}, HEADER)
    merge_results(tmp_path, 2, {"seconds": 2}, HEADER)
    forget_results(tmp_path, 1)
    assert list(read_results(tmp_path)["labs"]) == ["2"]


@pytest.mark.parametrize("content", BROKEN)
def test_a_lab_can_be_forgotten_in_broken_results(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    forget_results(tmp_path, 1)
    assert read_results(tmp_path) == {}


def write_many(folder, labs):
    for lab in labs:
        merge_results(folder, lab, {"seconds": lab}, HEADER)


def test_processes_that_write_at_once_lose_no_lab(tmp_path):
    # Forked: each starts at once, and nothing is imported anew.
    context = multiprocessing.get_context("fork")
    ranges = [range(i, i + 25) for i in (0, 100, 200)]
    running = [context.Process(target=write_many, args=(tmp_path, r)) for r in ranges]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert len(read_results(tmp_path)["labs"]) == 75
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_broken_results_say_what_to_do(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results.json.*Delete it"):
        read_results(tmp_path)
