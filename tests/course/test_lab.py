"""A lab's session: claims, predictions, checks, results."""

import json
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from labs_helpers.course import start
from labs_helpers.course.exercises import CheckFailed, exercises_of
from labs_helpers.evaluation import Estimate
from labs_helpers.losses import bradley_terry_loss


@pytest.fixture
def lab(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABS_PROFILE", "tiny")
    monkeypatch.setenv("LABS_STRICT", "0")
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    lab = start(1)
    capsys.readouterr()
    return lab


def written(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_start_prints_what_it_found(monkeypatch, capsys):
    start(1)
    printed = capsys.readouterr().out
    for part in ("Lab 1 · Reward models", "smoke", "seed 0", "torch", "float32"):
        assert part in printed
    assert printed.count("\n") == 3


def test_start_names_the_labs_there_are():
    with pytest.raises(ValueError, match=r"no lab 7.*0, 1, 2, 3, 4, further/1"):
        start(7)


def test_what_reads_studies_alone_is_judged_under_every_profile(monkeypatch, capsys):
    monkeypatch.setenv("LABS_PROFILE", "small")
    monkeypatch.setenv("LABS_MODEL", "/nowhere/at/all")
    lab = start("further/2")
    assert "Lab 2, further · Direct preference" in capsys.readouterr().out
    lab.claim("study.a", 0.4, at_least=0.5, text="It is good")
    assert "does not hold" in capsys.readouterr().out


# Claims


def test_lab_prints_a_claim_and_writes_it(lab, tmp_path, capsys):
    lab.claim("a", 0.95, ci=(0.93, 0.97), at_least=0.9, text="It is good")
    printed = capsys.readouterr().out
    for part in ("It is good", "0.95 (95 % 0.93 to 0.97)", "at least 0.9", "holds"):
        assert part in printed
    lab.report()
    assert written(tmp_path)["labs"]["1"]["claims"] == [
        {
            "id": "a",
            "text": "It is good",
            "value": 0.95,
            "ci": [0.93, 0.97],
            "at_least": 0.9,
            "holds": True,
        }
    ]


def test_claim_takes_an_estimate(lab, capsys):
    lab.claim("a", Estimate(0.9, 0.8, 1.0, 50), at_least=0.85, text="It is good")
    printed = capsys.readouterr().out
    assert "0.8 to 1" in printed
    assert "does not hold" in printed


def test_claim_again_replaces(lab, tmp_path):
    for value in (0.1, 0.2):
        lab.claim("a", value, at_least=0.0, text="It is good")
    lab.report()
    claims = written(tmp_path)["labs"]["1"]["claims"]
    assert [claim["value"] for claim in claims] == [0.2]


def test_claim_is_not_judged_outside_tiny(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    lab = start(1)
    lab.claim("a", 0.1, at_least=0.9, text="It is good")
    assert "not judged (profile smoke)" in capsys.readouterr().out
    lab.report()
    assert written(tmp_path)["labs"]["1"]["claims"][0]["holds"] is None


# Predictions


@pytest.mark.parametrize(
    ("predicted", "outcome", "printed"),
    [
        (0.7, 0.82, "You predicted 0.7; it is 0.82, 0.12 away."),
        ("chosen", "chosen", "You predicted chosen; it is chosen: as you said."),
        ("chosen", "rejected", "You predicted chosen; it is rejected."),
        (True, False, "You predicted yes; it is no."),
        (None, 0.82, "It is 0.82. You made no prediction."),
    ],
)
def test_prediction_beside_outcome(lab, capsys, predicted, outcome, printed):
    lab.predict("key", predicted)
    lab.compare("key", outcome)
    assert capsys.readouterr().out.splitlines()[-1] == printed


def test_a_number_with_a_comma_is_no_prediction(lab, capsys):
    lab.predict("key", 0, 5)
    lab.compare("key", 0.6)
    printed = capsys.readouterr().out
    assert "0.5, not 0,5" in printed
    assert "You made no prediction" in printed


def test_a_deleted_prediction_stops_no_lab(lab, capsys):
    lab.compare("key", 0.6)
    assert "You made no prediction" in capsys.readouterr().out


def test_comparing_without_predicting_lists_the_keys_to_authors(monkeypatch):
    monkeypatch.setenv("LABS_STRICT", "1")
    lab = start(1)
    lab.predict("accuracy", 0.5)
    with pytest.raises(KeyError, match=r"'acuracy'.*'accuracy'"):
        lab.compare("acuracy", 0.6)


# Exercises


def test_right_answer_comes_back_with_its_points(lab, capsys):
    def answer(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
        return bradley_terry_loss(
            chosen_rewards, rejected_rewards, margin, center_weight
        )

    assert lab.check("1.2", answer) is answer
    assert lab.points("1.2") == 3
    assert "correct, 3 of 3 points" in capsys.readouterr().out


def test_wrong_answer_is_replaced_visibly(lab, capsys):
    def answer(values, lengths):
        return values[:, -1]

    function = lab.check("1.3", answer)
    printed = capsys.readouterr().out
    assert function is not answer
    assert lab.points("1.3") == 0
    for part in ("0 of 2 points", "Last column: ", "goes on with the reference"):
        assert part in printed


def test_lent_reference_earns_nothing(lab, capsys):
    lent = lab.check("1.3", lambda values, lengths: values[:, -1])
    assert lab.check("1.3", lent) is lent
    assert lab.points("1.3") == 0
    assert "lab lent you" in capsys.readouterr().out


def test_last_attempt_counts(lab, tmp_path):
    from labs_helpers.course.exercises.lab1 import last_token_rewards

    lab.check("1.3", lambda values, lengths: values[:, -1])
    lab.check("1.3", last_token_rewards)
    lab.report()
    rows = {row["id"]: row for row in written(tmp_path)["labs"]["1"]["exercises"]}
    assert rows["1.3"] == {
        "id": "1.3",
        "points": 2.0,
        "max_points": 2.0,
        "diagnosis": "correct",
    }
    assert rows["1.4"]["diagnosis"] == "not checked"


def test_an_answer_is_found_by_its_name(lab, capsys):
    def answer(values, lengths):
        return values[torch.arange(len(values)), lengths - 1]

    lab.namespace = {"last_token_rewards": answer, "bradley_terry_loss": 3}
    assert lab.check("1.3") is answer
    assert lab.points("1.3") == 2
    lab.check("1.2")
    assert "not a function" in capsys.readouterr().out.lower()


def test_a_missing_answer_is_lent_and_its_cell_named(lab, capsys):
    lab.namespace = {}
    lent = lab.check("1.3")
    assert lent(torch.arange(6.0).view(2, 3), torch.tensor([1, 3])).tolist() == [0, 5]
    assert lab.points("1.3") == 0
    assert lab.diagnoses["1.3"].name == "not defined"
    said = capsys.readouterr().out
    for part in ("Not defined: the cell for `last_token_rewards`", "exercise 1.3"):
        assert part in said
    assert "goes on with the reference" in said


def test_what_was_to_be_repaired_is_no_answer(lab, capsys):
    def pair_batch(chosen, rejected, heads, pad):
        return None

    lab.namespace = {"pair_batch": pair_batch, "buggy_pair_batch": pair_batch}
    assert lab.check("1.7") is not pair_batch
    said = capsys.readouterr().out
    assert "Not repaired yet: the cell for `pair_batch`" in said
    assert "card of exercise 1.7" in said


def test_a_missing_answer_is_an_error_where_checks_are_strict():
    lab = start(1)
    lab.namespace = {}
    with pytest.raises(CheckFailed, match=r"1.3.*the cell for `last_token_rewards`"):
        lab.check("1.3")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_exercises_are_called_as_their_functions_are(number):
    names = [exercise.name for exercise in exercises_of(number).values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_strict_raises(monkeypatch):
    lab = start(1)
    with pytest.raises(CheckFailed, match=r"1.3.*padding token"):
        lab.check("1.3", lambda values, lengths: values[:, -1])


def test_unknown_exercise_lists_the_known(lab):
    with pytest.raises(KeyError, match=r"'1.9'.*1.1, 1.2"):
        lab.check("1.9", len)
    with pytest.raises(KeyError, match=r"'1.9'"):
        lab.points("1.9")


# Task


def test_section_that_needs_truth_says_so_in_one_line(lab, monkeypatch, capsys):
    from labs_helpers.data import Task

    task = Task("HH-RLHF", lambda split: [], lambda split: [])
    monkeypatch.setattr("labs_helpers.course.lab.load_task", lambda *_: task)
    assert lab.needs_truth() is False
    assert capsys.readouterr().out.count("\n") == 1
    assert lab.needs("judge", "capability") is False
    printed = capsys.readouterr().out
    assert "a judge that has seen no training pair" in printed
    assert printed.count("\n") == 1


def test_section_whose_needs_are_there_goes_on_without_a_word(lab, capsys):
    assert lab.needs("truth", "judge", "capability", "heads", "harmful") is True
    assert capsys.readouterr().out == ""


# Figures, report and results


def test_a_figure_is_shown_with_a_text_in_its_place(lab, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    figure = Figure()
    figure.subplots().plot([0, 1], [3, 4])
    lab.show(figure, "It rises.")
    [((drawn,), options)] = shown
    assert drawn is figure
    assert options["metadata"]["image/png"]["alt"].startswith("It rises. Across: 0 to")


def test_a_slider_draws_its_figure_anew_in_the_same_place(lab, monkeypatch):
    shown, updates = [], []

    class Shown:
        def update(self, figure, metadata):
            updates.append((figure, metadata["image/png"]["alt"]))

    def display(*given, **options):
        shown.append((given, options))
        return Shown() if options else None

    def draw(value):
        figure = Figure()
        figure.subplots().plot([0, 1], [0, value])
        return figure

    monkeypatch.setattr("IPython.display.display", display)
    lab.slide("slope", [1.0, 2.0, 3.0], draw, "It rises.")
    [((figure,), options), ((slider,), _)] = shown
    assert figure.axes[0].lines[0].get_ydata()[1] == 2.0
    assert options["metadata"]["image/png"]["alt"].startswith("It rises.")
    slider.value = 3.0
    [(redrawn, text)] = updates
    assert redrawn.axes[0].lines[0].get_ydata()[1] == 3.0
    assert "0 to 3" in text


def test_what_a_lab_writes_goes_to_its_folder(lab, tmp_path):
    assert lab.folder.resolve() == (tmp_path / "out").resolve()
    assert not lab.folder.is_absolute()  # it is printed, and no machine is to show


def test_report_in_text_and_html(lab):
    lab.claim("a", 0.1, at_least=0.9, text="<b> is good")
    lab.predict("key", 1)
    lab.compare("key", 2)
    report = lab.report()
    for part in ("Lab 1", "<b> is good", "does not hold", "0 of 20 points", "key"):
        assert part in repr(report)
    html = report._repr_html_()
    assert "&lt;b&gt; is good" in html
    assert "<b>" not in html


def test_report_says_how_much_memory_the_lab_held(lab, tmp_path):
    held = np.ones(10**8)  # 0.8 GB
    closing = lab.report().closing
    peak = written(tmp_path)["labs"]["1"]["peak_memory_gb"]
    assert held.nbytes / 1e9 < peak < 8
    assert f"at most {peak:.1f} GB of memory" in closing


def test_report_does_without_memory_where_nobody_counts(lab, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert "GB" not in lab.report().closing
    assert written(tmp_path)["labs"]["1"]["peak_memory_gb"] is None


def test_report_survives_a_folder_that_it_cannot_write(lab, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LABS_OUT", str(blocked))
    assert "Not saved" in repr(lab.report())


BROKEN = [b"{", b"\xff", b"[1]", b'{"labs": 3}', b'{"labs": {"1": 2}}', b"[" * 99999]


@pytest.mark.parametrize("content", BROKEN)
def test_broken_results_do_not_cost_the_lab_that_has_just_run(lab, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_bytes(content)
    assert "Written to" in lab.report().closing
    assert list(written(tmp_path)["labs"]) == ["1"]
    assert (out / "results.json.broken").read_bytes() == content


def test_results_in_a_folder_s_place_are_no_traceback(lab, tmp_path):
    (tmp_path / "out" / "results.json").mkdir(parents=True)
    assert "Not saved" in lab.report().closing
