"""The town's suites are up to date, held out, and can be scored by gold."""

from labs_helpers.safety import load_suite
from labs_helpers.world.gold import score
from labs_tools.town.safety_suites import FOLDER, SUITES, write


def test_the_files_are_those_that_knowledge_makes(tmp_path):
    for made in write(tmp_path):
        assert made.read_text() == (FOLDER / made.name).read_text(), made.name


def test_no_item_is_both_trained_and_tested_on():
    train = {x.prompt.meta["item"] for x in load_suite(FOLDER / "train.jsonl")}
    for name in ("harmful", "soundalike"):
        tested = {x.prompt.meta["item"] for x in load_suite(FOLDER / f"{name}.jsonl")}
        assert not train & tested


def test_right_answers_are_right_and_wrong_ones_wrong():
    for name in ("honesty", "sycophancy", "consistency"):
        for item in load_suite(FOLDER / f"{name}.jsonl"):
            for text in item.right[:1]:
                assert score(item.prompt, text)["honesty"] == 1, (item.id, text)
            for text in item.wrong:
                assert score(item.prompt, text)["gold"] == 0, (item.id, text)
    assert set(SUITES) == {p.stem for p in FOLDER.glob("*.jsonl")} - {"refusals"}
