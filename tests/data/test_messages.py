"""Messages: whatever stands for a conversation is read or refused in a sentence."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.data import BadMessages, as_messages
from labs_helpers.data.messages import answer_text, as_conversations

ASKED = [{"role": "user", "content": "Who?"}]


class TestAsMessages:
    @pytest.mark.parametrize(
        "given",
        [
            "Who?",
            np.str_("Who?"),
            ASKED,
            tuple(ASKED),
            np.array(ASKED, dtype=object),
            SimpleNamespace(messages=tuple(ASKED)),
            [SimpleNamespace(role="user", content="Who?")],
            [{"from": "human", "value": "Who?"}],
            [{"role": "Human", "content": "Who?"}],
            [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}],
            [{"role": "user", "content": ["Wh", {"text": "o?"}]}],
            [{"role": "user", "content": np.str_("Who?"), "name": None}],
        ],
        ids=repr,
    )
    def test_what_is_legal_becomes_one_shape(self, given):
        messages = as_messages(given)
        assert messages == ASKED
        assert type(messages[0]["content"]) is str

    def test_messages_are_copied(self):
        as_messages(ASKED)[0]["content"] = "changed"
        assert ASKED == [{"role": "user", "content": "Who?"}]

    @pytest.mark.parametrize(
        ("speaker", "role"),
        [("gpt", "assistant"), ("system", "system"), ("human", "user")],
    )
    def test_sharegpt_speakers(self, speaker, role):
        messages = as_messages([{"from": speaker, "value": "Hi"}])
        assert messages == [{"role": role, "content": "Hi"}]

    def test_text_of_an_answer_is_the_assistants(self):
        assert as_messages("I.", "assistant") == [
            {"role": "assistant", "content": "I."}
        ]

    def test_an_answer_may_be_empty_and_a_prompt_may_not(self):
        assert as_messages("", "assistant")[0]["content"] == ""
        with pytest.raises(BadMessages, match=r"^a prompt is empty\. Write a text\.$"):
            as_messages(" \n")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (None, "a prompt is a null"),
            (3, "a prompt is a number"),
            (b"Who?", r"a prompt is a bytes\. Expected a string"),
            ([], "a prompt is an empty list"),
            ([{}], r"a prompt\[0\] is no message"),
            (["Who?"], r"a prompt\[0\] is no message: 'Who\?'"),
            ([ASKED], "One list holds one conversation, not several"),
            (ASKED[0], r"is an object\. A message stands in a list"),
            ({"role": ["user"], "content": ["Who?"]}, "A message stands in a list"),
            ([{"role": "user"}], r"\[0\] is no message"),
            ([{"role": "user", "content": None}], r"\[0\]\.content is a null"),
            ([{"role": "user", "content": b"Who?"}], r"content is a bytes"),
            ([{"role": "user", "content": {"text": "Who?"}}], "content is an object"),
            ([*ASKED, {"from": "gpt", "value": None}], r"\[1\]\.value is a null"),
            ([{"from": "narrator", "value": "Hi"}], "'narrator', an unknown role"),
            ([{"role": "tool", "content": "4"}], "Use one of system, user, assistant"),
            ([{"role": None, "content": "4"}], "None, an unknown role"),
            (
                [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
                r"content\[0\] is \{'type': 'ima.*expected text",
            ),
            (
                [{"role": "user", "content": [["Who?"]]}],
                r"content\[0\] is \['Who\?'\], expected text",
            ),
            ("Who \ud83d?", r"half of a surrogate pair, U\+D83D, at character 5"),
            ([{"role": "user", "content": "\udc00"}], "half of a surrogate pair"),
        ],
    )
    def test_anything_else_is_named_with_its_place(self, given, said):
        with pytest.raises(BadMessages, match=said):
            as_messages(given)

    @settings(max_examples=40)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.binary() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.tuples(inner)
                | st.dictionaries(
                    st.sampled_from(["role", "content", "from", "value", "text"]),
                    inner | st.sampled_from(["user", "gpt", "text"]),
                    max_size=3,
                )
            ),
        ),
        st.sampled_from(["user", "assistant"]),
    )
    def test_nothing_escapes(self, given, role):
        try:
            messages = as_messages(given, role)
        except BadMessages as error:
            messages = as_messages(str(error))
        assert as_messages(messages, role) == messages


class TestAsConversations:
    def test_the_row_is_named(self):
        with pytest.raises(BadMessages, match=r"^prompt 1\[0\]\.content is a null"):
            as_conversations(["Who?", [{"role": "user", "content": None}]])

    @pytest.mark.parametrize("given", ["Who?", ASKED[0], b"Who?", None, 3])
    def test_a_single_one_is_no_list(self, given):
        with pytest.raises(BadMessages, match=r"expected a list.*: \[prompt\]"):
            as_conversations(given)

    def test_one_conversation_in_place_of_several_is_named(self):
        with pytest.raises(BadMessages, match=r"prompt 0 is an object.*in a list"):
            as_conversations(ASKED)


class TestAnswerText:
    @pytest.mark.parametrize("given", ["I.", [{"role": "assistant", "content": "I."}]])
    def test_text_or_one_message(self, given):
        assert answer_text(given) == "I."

    @pytest.mark.parametrize("given", [ASKED, [*ASKED, {"from": "gpt", "value": "I."}]])
    def test_other_messages_are_no_answer(self, given):
        with pytest.raises(BadMessages, match="an answer holds messages of user"):
            answer_text(given)
