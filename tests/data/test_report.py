"""Values against models: every misfit with file, line and remedy."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labs_helpers.data import PreferenceReport, as_messages
from labs_helpers.data.files import read_as, read_yaml
from labs_helpers.data.report import node_at, validated


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int
    name: str = Field("", description="Write a name")


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["safe", "harmful"]
    prompt: object = Field(description="Write what is asked")
    id: str | int | None = None
    parts: list[Part] = []

    @field_validator("prompt")
    @classmethod
    def read(cls, prompt):
        return as_messages(prompt)

    @model_validator(mode="after")
    def together(self):
        if self.kind == "harmful" and not self.id:
            raise ValueError("what is harmful needs an id")
        return self


GOOD = {"kind": "safe", "prompt": "Who?"}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ([1], ["is [1], expected an object. Write one; needed are kind, prompt"]),
        (None, ["is null, expected an object. Write one; needed are kind, prompt"]),
        (
            {},
            [
                "kind: is missing. Add it; needed are kind, prompt",
                "prompt: is missing. Write what is asked",
            ],
        ),
        (
            {"knd": "safe", "prompt": 3},
            [
                "kind: is missing. Rename 'knd' to 'kind'",
                'prompt: is a number. Expected a string or a list of messages {"role": '
                '"user", "content": "..."}',
                "knd: is no field. Fields are kind, prompt, id, parts",
            ],
        ),
        (
            GOOD | {"kind": "evil"},
            ["kind: is 'evil', expected one of safe, harmful. Correct it"],
        ),
        (
            GOOD | {"prompt": [{"role": "user", "content": None}]},
            ["prompt[0].content: is a null, expected a string. Write the message's te"],
        ),
        (GOOD | {"id": []}, ["id: is [], expected text. Correct it, or leave it out"]),
        (
            GOOD | {"parts": [{"size": 1}, {"size": "x", "name": 3, "nam": 4}]},
            [
                "parts[1].size: is 'x', expected a whole number. Correct it",
                "parts[1].name: is 3, expected text. Write a name",
                "parts[1].nam: is no field. Fields are size, name",
            ],
        ),
        (GOOD | {"kind": "harmful"}, ["what is harmful needs an id. Correct it"]),
    ],
)
def test_a_misfit_has_place_problem_and_remedy(row, found):
    value, findings = validated(Row, row, "rows.jsonl", 7)
    assert value is None
    for finding, said in zip(findings, found, strict=True):
        assert str(finding).startswith("rows.jsonl:7")
        assert said in str(finding)


def test_what_is_huge_is_cut():
    row = GOOD | {"kind": "x" * 10**6, "y" * 10**6: [[0] * 10**4] * 10}
    assert all(len(str(finding)) < 300 for finding in validated(Row, row, "a", 1)[1])


def test_what_fits_is_the_model():
    value, findings = validated(Row, GOOD, "rows.jsonl", 1)
    assert not findings
    assert value.prompt == [{"role": "user", "content": "Who?"}]


def test_yaml_has_the_line_of_the_value():
    text = "kind: safe\nprompt: Who?\nparts:\n- {size: 1,\n   name: 2}\n- nam: 3\n"
    node, value = read_yaml(text, "a.yaml")
    findings = validated(Row, value, "a.yaml", node)[1]
    assert [(f.line, f.field) for f in findings] == [
        (5, "parts[0].name"),
        (6, "parts[1].size"),
        (6, "parts[1].nam"),
    ]


def test_a_list_that_is_too_short_is_said():
    model = Annotated[list[int], Field(min_length=2)]
    (finding,) = validated(model, [1], "a.json", 1)[1]
    assert finding.problem == "is [1], expected a list of at least 2"


def test_a_node_is_found_by_its_path():
    root, _ = read_yaml("parts:\n- a: 1\n- a: 2\n", "a.yaml")
    assert node_at(root, "parts", 1, "a").start_mark.line == 2


def test_rows_that_fit_are_read_and_others_reported(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"kind": "safe", "prompt": "Who?"}\n{\n\n{"kind": "safe"}\n')
    report = PreferenceReport()
    ((file, line, row),) = read_as(Row, path, report)
    assert (file, line, row.kind) == (str(path), 1, "safe")
    assert [error.line for error in report.errors] == [2, 4]
    assert (report.rows, report.total) == (1, 3)
