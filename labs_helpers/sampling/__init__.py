"""Answers of a policy, and the log-prob of an answer under one."""

# fmt: off
from labs_helpers.sampling.rollouts import Rollout, sample
from labs_helpers.sampling.logprobs import (
    answer_logprobs, response_logprobs, rollout_kl, rollout_logprobs, sequence_scores,
)
