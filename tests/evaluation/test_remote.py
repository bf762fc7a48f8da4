"""A judge behind an address: what it is sent, what it says, and every way to fail."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from labs_helpers.data import Judge, Prompt
from labs_helpers.evaluation import JudgeFails, RemoteJudge, remote
from labs_helpers.evaluation.remote import first_wins

SIDES = (["good", "bad", "good"], ["bad", "good", "good"])
PROMPTS = [Prompt(name) for name in ("one", "two", "three")]


def prefers_good(body):
    """What a fair model replies: the letter of the first answer that is good."""
    text = body["messages"][0]["content"]
    return "A" if "Answer A: good" in text else "B"


@pytest.fixture
def server(monkeypatch):
    """A server whose `reply` makes text, or a status and a body, of a request."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((self.path, self.headers, body))
            found = self.server.reply(body)
            if isinstance(found, str):
                message = {"role": "assistant", "content": found}
                found = 200, json.dumps({"choices": [{"message": message}]})
            status, text = found
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_): ...

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    served.asked, served.reply = [], prefers_good
    served.name = f"http://127.0.0.1:{served.server_port}/v1#some/model"
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


class TestVerdicts:
    def test_the_better_answer_wins_in_both_orders(self, server):
        judge = RemoteJudge.at(server.name)
        assert isinstance(judge, Judge)
        assert judge.compare(PROMPTS, *SIDES).tolist() == [1, 0, 0.5]

    def test_who_always_says_the_first_ties_all(self, server):
        server.reply = lambda body: "A"
        said = RemoteJudge.at(server.name).both_orders(PROMPTS, *SIDES)
        assert said.outcomes.tolist() == [0.5] * 3
        assert said.position_bias.value == 1

    def test_an_unclear_reply_counts_for_neither(self, server):
        def reply(body):
            unclear = "Question: one" in body["messages"][0]["content"]
            return "Both are fine." if unclear else prefers_good(body)

        server.reply = reply
        outcomes = RemoteJudge.at(server.name).compare(PROMPTS, *SIDES)
        np.testing.assert_array_equal(outcomes, [0.5, 0, 0.5])

    def test_what_is_asked(self, server, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
        RemoteJudge.at(server.name).compare(PROMPTS[:1], ["good"], ["bad"])
        (path, headers, body), _ = server.asked
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == "Bearer secret"
        assert body["model"] == "some/model"
        assert body["temperature"] == 0

    def test_no_key_is_sent_where_there_is_none_and_none_is_shown(self, server):
        judge = RemoteJudge.at(server.name)
        judge.compare(PROMPTS[:1], ["good"], ["bad"])
        assert server.asked[0][1]["Authorization"] is None
        assert "secret" not in repr(RemoteJudge("http://x/v1", "m", "secret"))

    def test_nothing_to_compare(self, server):
        assert RemoteJudge.at(server.name).compare([], [], []).shape == (0,)


class TestReplies:
    @pytest.mark.parametrize(
        ("reply", "first"),
        [
            ("A", 1),
            ("B", 0),
            (" **B**\n", 0),
            ("Answer A", 1),
            ("B) it is shorter.", 0),
            ("A: it answers the question.", 1),
            ("The better answer is B", 0),
            ("Answer A is longer, Answer B is right.\n\nB", 0),
            ("<think>\nA\nB\n</think>\nA", 1),
            ("<think>A is worse.", 0.5),
            ("Answer A is as good as Answer B.", 0.5),
            ("A dog.", 0.5),
            ("", 0.5),
        ],
    )
    def test_which_answer_is_meant(self, reply, first):
        assert first_wins(reply) == first


class TestFailures:
    def fails(self, server, *said):
        judge = RemoteJudge.at(server.name)
        with pytest.raises(JudgeFails, match=r"The judge some/model at http") as raised:
            judge.compare(PROMPTS, *SIDES)
        for part in said:
            assert part in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_busy_server_is_asked_again(self, server):
        begun = []

        def reply(body):
            begun.append(body)
            busy = {1: 429, 2: 503}.get(len(begun))
            return (busy, "later") if busy else prefers_good(body)

        server.reply = reply
        judge = RemoteJudge.at(server.name)
        assert judge.compare(PROMPTS[:1], ["good"], ["bad"]).tolist() == [1]
        assert len(begun) == 4

    @pytest.mark.parametrize(
        ("status", "body", "tries", "said"),
        [
            (401, "no", 1, "asks for a key (401): set OPENAI_API_KEY to one"),
            (
                404,
                "no model x",
                1,
                "has no such path or model (no model x): write http",
            ),
            (400, "a\nbad request", 1, "answered with the error 400 (a bad request)"),
            (429, "slow down", 3, "takes no more requests (slow down): wait"),
            (500, "\x1b[31moops", 3, "answered with the error 500 (oops)"),
            (200, "<html>", 1, "sent no chat completion, but '<html>'"),
            (200, '{"choices": []}', 1, "sent no chat completion"),
            (200, "[3]", 1, "sent no chat completion"),
        ],
    )
    def test_a_refusal_is_a_sentence(self, server, status, body, tries, said):
        server.reply = lambda asked: (status, body)
        with pytest.raises(JudgeFails) as raised:
            RemoteJudge.at(server.name).compare(PROMPTS[:1], ["good"], ["bad"])
        assert said in str(raised.value)
        assert len(server.asked) in (tries, 2 * tries)

    def test_a_model_that_never_says_a_or_b(self, server):
        server.reply = lambda body: "I am only a language model."
        self.fails(
            server, "never replied with A or B, but 'I am only a language model.'"
        )

    def test_no_reply_in_time(self, server):
        server.reply = lambda body: threading.Event().wait(0.3) or "A"
        judge = RemoteJudge.at(server.name)
        slow = RemoteJudge(judge.address, judge.model, timeout=0.05)
        with pytest.raises(JudgeFails, match=r"cannot be reached .*timed out"):
            slow.compare(PROMPTS[:1], ["good"], ["bad"])

    def test_nobody_there(self, server):
        server.shutdown()
        server.server_close()
        self.fails(server, "cannot be reached", "refused", "LABS_JUDGE")
        with pytest.raises(JudgeFails, match="cannot be reached"):
            RemoteJudge.at(server.name).require_reachable()

    def test_any_answer_says_that_somebody_is_there(self, server):
        RemoteJudge.at(server.name).require_reachable()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("http://localhost:8000/v1", "names no model: write http://host/v1#model"),
            ("http://#model", "is no address"),
            ("http://[::1/v1#model", "is no address"),
            ("ftp://localhost#model", "is no address"),
            ("http://local host:x/#m", "is no address"),
        ],
    )
    def test_what_is_no_address(self, name, said):
        with pytest.raises(ValueError, match="the judge") as raised:
            RemoteJudge.at(name)
        assert said in str(raised.value)

    def test_a_key_that_is_none_is_not_shown(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "my secret")
        with pytest.raises(ValueError, match="OPENAI_API_KEY is no key") as raised:
            RemoteJudge.at("http://localhost/v1#m")
        assert "secret" not in str(raised.value)
