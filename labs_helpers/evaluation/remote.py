"""A language model behind an OpenAI-compatible address, asked which answer is better.

Prompts and two answers to each go out over HTTP, in both orders; outcomes come back, or
a sentence that says what stands in the way. Knows nothing of models on this machine.
"""

import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import numpy as np

from labs_helpers.common import progress
from labs_helpers.common.printable import one_line
from labs_helpers.data.messages import answer_text
from labs_helpers.evaluation.judges import (
    COMPARISON,
    BothOrders,
    Prompts,
    Texts,
    question,
    require_pairs,
)

WAITS = (1.0, 4.0, 16.0)  # seconds before another try
AT_ONCE = 8  # requests
# Room for a model that thinks before it replies; the reply itself is one letter.
MOST_TOKENS = 1024
WRITE = "write http://host/v1#model"
_ALONE = re.compile(r"\W*(?:[Aa]nswer\W*)?([AB])(?:[).:,].*|\W*)")
_CALLED = re.compile(r"\b[Aa]nswer(?: is)?\W{0,4}([AB])\b")


class JudgeFails(OSError):
    """A judge that cannot be asked; the message says why, and what to do."""


@dataclass(frozen=True)
class RemoteJudge:
    """Asks a model at an address such as http://localhost:8000/v1 in both orders.

    A verdict that turns with the order is a tie; a reply that is neither A nor B counts
    for neither side.

    Attributes:
        address: of the API, without /chat/completions.
        model: its name there.
        key: sent as a bearer token.
        timeout: seconds to wait for a reply; no answer, too many requests and errors
            of the server are tried again, three times.
    """

    address: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0

    @classmethod
    def at(cls, name: str) -> "RemoteJudge":
        """Read "http://host/v1#model"; the key is what OPENAI_API_KEY says.

        Raises:
            ValueError: it is no such address, or the key is no key.
        """
        address, _, model = name.partition("#")
        try:
            host = is_address(address) and httpx.URL(address).host
        except (httpx.InvalidURL, ValueError):
            host = ""
        if not host or not model:
            lacks = "names no model" if host else "is no address"
            raise ValueError(f"the judge {name!r:.200} {lacks}: {WRITE}")
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("OPENAI_API_KEY is no key: it holds more than one word")
        return cls(address.rstrip("/"), model, key)

    def require_reachable(self) -> None:
        """Raise `JudgeFails` unless something answers there within five seconds."""
        try:
            with self._client(5.0) as client:
                client.get("models")
        except httpx.HTTPError as error:
            raise self._failure(_unreachable(error)) from error

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        return self.both_orders(prompts, a, b).outcomes

    def both_orders(self, prompts: Prompts, a: Texts, b: Texts) -> BothOrders:
        """Compare answers and keep what was said in either order.

        Raises:
            JudgeFails: it gives no reply, or never one that says A or B.
        """
        require_pairs(prompts, a, b)
        triples = [*zip(prompts, a, b, strict=True), *zip(prompts, b, a, strict=True)]
        asked = [
            COMPARISON.format(
                prompt=question(prompt), a=answer_text(first), b=answer_text(second)
            )
            for prompt, first, second in triples
        ]
        replies = self._replies(asked)
        said = np.array([first_wins(reply) for reply in replies]).reshape(2, -1)
        if replies and np.all(said == 0.5):
            heard = one_line(replies[0], 80)
            raise self._failure(f"never replied with A or B, but {heard!r}")
        return BothOrders(said[0], 1 - said[1])

    def _replies(self, asked: Sequence[str]) -> list[str]:
        with (
            self._client(self.timeout) as client,
            progress.bar(len(asked), "judging") as bar,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):

            def reply(text: str) -> str:
                said = self._reply(client, text)
                bar.update()
                return said

            try:
                return list(pool.map(reply, asked))
            except BaseException:  # do not ask the rest
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _client(self, timeout: float) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.address, headers=headers, timeout=timeout)

    def _reply(self, client: httpx.Client, text: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        }
        for wait in (*WAITS, None):
            try:
                response = client.post("chat/completions", json=body)
            except httpx.HTTPError as error:
                problem = _unreachable(error)
            else:
                if response.is_success:
                    return self._said(response)
                problem = self._refusal(response)
                if not (response.is_server_error or response.status_code in (408, 429)):
                    break
            if wait is not None:
                time.sleep(wait)
        raise self._failure(problem)

    def _said(self, response: httpx.Response) -> str:
        try:
            return response.json()["choices"][0]["message"]["content"] or ""
        except (ValueError, LookupError, TypeError):
            heard = one_line(response.text, 120)
            problem = f"sent no chat completion, but {heard!r}"
            raise self._failure(f"{problem}: expected OpenAI's protocol") from None

    def _refusal(self, response: httpx.Response) -> str:
        code, text = response.status_code, one_line(response.text, 200)
        if code in (401, 403):
            way = "another one" if self.key else "one"
            return f"asks for a key ({code}): set OPENAI_API_KEY to {way}"
        if code == 404:
            return f"has no such path or model ({text}): {WRITE}"
        if code == 429:
            return f"takes no more requests ({text}): wait, or ask for a higher limit"
        return f"answered with the error {code} ({text})"

    def _failure(self, problem: str) -> JudgeFails:
        return JudgeFails(f"The judge {self.model} at {self.address} {problem}.")


def is_address(name: str) -> bool:
    """Whether a judge's name is an address, and none of a model or a folder."""
    return name.startswith(("http://", "https://"))


def first_wins(reply: str) -> float:
    """What a reply says of the answer shown first: 1 better, 0 worse, 0.5 nothing.

    >>> [first_wins(text) for text in ("A", "Answer B.", "A tie, I think.")]
    [1.0, 0.0, 0.5]
    """
    said = reply.rpartition("</think>")[2].strip()
    lines = said.splitlines()
    ends = filter(None, map(_ALONE.fullmatch, lines[:1] + lines[-1:]))
    letters = {found[1] for found in ends} or set(_CALLED.findall(said))
    return {"A": 1.0, "B": 0.0}.get("".join(sorted(letters)), 0.5)


def _unreachable(error: Exception) -> str:
    why = one_line(str(error), 120) or type(error).__name__
    return (
        f"cannot be reached ({why}): see that the server runs and that LABS_JUDGE says "
        "where"
    )
