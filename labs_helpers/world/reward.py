"""A reward model that also reads how likely a language model finds the answer.

A trunk that learns rewards from some questions soon forgets what answers the others;
the policy that it came from has not, and gives little probability to what does not
belong into an answer. `town-s-reward` is one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from labs_helpers.models import Policy, RewardModel, load_policy, save_policy
from labs_helpers.models.chat import encode_answers
from labs_helpers.models.limits import check_fits
from labs_helpers.models.policies import in_batches
from labs_helpers.sampling import answer_logprobs
from labs_helpers.sampling.logprobs import Masked

REFERENCE_FOLDER = "reference"
HIDDEN_UNITS = 64
# The figures of `surprisal`, and what makes each of order one for answers of some dozen
# words.
SURPRISAL_UNITS = {
    "all tokens": 20.0,
    "mean token": 1.0,
    "rarest token": 5.0,
    "three rarest": 10.0,
    "first token": 3.0,
    "first four": 6.0,
    "end token": 3.0,
    "number of tokens": 20.0,
    "log of the mean": 1.0,
    "log of the rarest": 1.0,
}


class SurprisalRewardModel(RewardModel):
    """Heads that read the last hidden state and `surprisal`, through a hidden layer.

    Args:
        reference: The policy that says how likely answers are; it is not trained.
    """

    def __init__(
        self,
        trunk: PreTrainedModel,
        heads: tuple[str, ...],
        tokenizer: PreTrainedTokenizerBase,
        request: str | None,
        reference: Policy,
    ):
        super().__init__(trunk, heads, tokenizer, request)
        self.reference = reference.requires_grad_(False)

    def new_head(self) -> nn.Module:
        """Rewards of 0 at first, from a hidden layer that is drawn by lot."""
        last = nn.Linear(HIDDEN_UNITS, len(self.heads), bias=False)
        nn.init.zeros_(last.weight)
        read = self.width + len(SURPRISAL_UNITS)
        return nn.Sequential(nn.Linear(read, HIDDEN_UNITS), nn.GELU(), last)

    def features(
        self, prompts: Sequence[Any], responses: Sequence[Any], batch_size: int = 64
    ) -> Float[Tensor, "B D"]:
        """Hidden states of the last token, and surprisal; on the CPU."""
        hidden = super().features(prompts, responses, batch_size)
        said = surprisal(self.reference, self.tokenizer, prompts, responses, batch_size)
        return torch.cat([hidden, said], dim=1)

    def forward(
        self, input_ids: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B heads"]:
        """Refuse: tokens alone do not say where the answer begins.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a {type(self).__name__} reads more than tokens: call score(prompts, "
            "answers), and train its head on features(prompts, answers). To train on "
            "preferences, start with RewardModel.from_policy"
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Save all of a reward model, and the reference in a folder of its own."""
        super().save_pretrained(folder)
        save_policy(self.reference, Path(folder) / REFERENCE_FOLDER)

    @classmethod
    def saved_parts(cls, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        """The reference."""
        reference = load_policy(folder / REFERENCE_FOLDER, device="cpu", dtype=dtype)
        return {"reference": reference}


def surprisal(
    model: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    batch_size: int = 64,
) -> Float[Tensor, "B S"]:
    """How likely a model finds each response's tokens, in figures of order one.

    On the CPU, without gradient; named by `SURPRISAL_UNITS`, in these units of a nat.
    An answer to another question, or a wrong word in a right one, is some improbable
    token among probable ones, which a sum of log-probs alone does not show.
    """
    rows = encode_answers(tokenizer, prompts, responses)
    check_fits(model, tokenizer, [tokens for tokens, _ in rows])
    if not rows:
        return torch.zeros(0, len(SURPRISAL_UNITS))

    def figures(batch: Sequence[Masked]) -> Tensor:
        logprobs, counts = answer_logprobs(model, batch)
        place = counts.cumsum(dim=1) * counts  # 1 at an answer's first token
        number = counts.sum(dim=1)
        total = logprobs.sum(dim=1)
        lowest = logprobs.topk(min(3, logprobs.shape[1]), dim=1, largest=False).values
        found = (
            total,
            total / number,
            lowest[:, 0],
            lowest.sum(dim=1),
            (logprobs * (place == 1)).sum(dim=1),
            (logprobs * (place <= 4)).sum(dim=1),
            (logprobs * (place == number[:, None])).sum(dim=1),
            number,
            (0.02 - total / number).log(),
            (0.05 - lowest[:, 0]).log(),
        )
        units = torch.tensor(list(SURPRISAL_UNITS.values()), device=logprobs.device)
        return torch.stack(found, dim=1) / units

    return in_batches(model, rows, figures, batch_size)
