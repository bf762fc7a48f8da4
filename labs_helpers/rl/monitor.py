"""Is this run healthy? Alarms that name what goes wrong, why, and what to do.

Reads the `History` of on-policy training (`rl.train`) and nothing else: pure functions
of its columns, at the end of a run or in the middle. A column that a run does not have
raises no alarm. Knows no model, and no true reward: these are the signs that can be
seen without one. That a reward is being hacked is seen soonest where `train` was given
a `rl.SecondOpinion` to evaluate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from labs_helpers.fit import History

WINDOW = 5  # updates in a moving mean
START = 2  # updates in the start that it is compared with: later ones may have moved


@dataclass(frozen=True)
class Alarm:
    """Something is wrong.

    Attributes:
        name: of the instability, one of `NAMES`.
        step: the first update at which it shows.
        seen: what shows it, with numbers.
        cause: the likely one.
        remedy: what to try first.
    """

    name: str
    step: int
    seen: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"update {self.step}: {self.name}. {self.seen}. Likely cause: {self.cause}."
            f" Try: {self.remedy}."
        )


@dataclass(frozen=True)
class _Sign:
    """An instability: which rows show it, what to say of one, cause and remedy."""

    name: str
    rows: Callable[["_Log"], np.ndarray]
    seen: Callable[["_Log", int], str]
    cause: str
    remedy: str


class _Log:
    """Columns of a history as moving means, and how they began."""

    def __init__(self, history: History):
        self.history = history
        self.number = len(history.rows)

    def raw(self, column: str) -> Float[np.ndarray, " rows"]:
        """One column; NaN where the run has none."""
        if column not in self.history:
            return np.full(self.number, np.nan)
        return self.history[column]

    def now(self, column: str) -> Float[np.ndarray, " rows"]:
        """Mean of the last few rows at each row; NaN before there are enough."""
        means = np.full(self.number, np.nan)
        if self.number >= WINDOW:
            kernel = np.full(WINDOW, 1 / WINDOW)
            means[WINDOW - 1 :] = np.convolve(self.raw(column), kernel, mode="valid")
        return means

    def start(self, column: str) -> float:
        """Mean of the first rows."""
        return float(self.raw(column)[:START].mean())

    def ratio(self, column: str) -> Float[np.ndarray, " rows"]:
        """The moving mean against the start."""
        return self.now(column) / max(self.start(column), 1e-9)


# Thresholds leave room above what healthy runs of all four algorithms showed.
FAR_STEP = 0.1  # nats a token that one update moves; healthy ones stay below 0.03
FAR_JUMP = 8.0  # nats an answer between two updates
COLLAPSED = 0.15  # of the first entropy; healthy runs keep a third
UNFIT = -0.5  # explained variance that is noise, not a value
DEAD = 1e-6  # spread of rewards
LENGTHS = (0.5, 2.0)  # of the first answers
HACKED_LENGTHS = (0.7, 1.4)  # where the reward rises with it
NEAR = 1.0  # nats an answer that no one needs to explain
APART = 2.5  # standard errors between two judges; in healthy runs up to 2.8
FOLLOWED = 2 / 3  # of the reward's rise, by a second opinion; healthy ones about 3/4
RISES = 0.02  # standard deviations of the first answers, from one look to the next


def _far(log: _Log) -> np.ndarray:
    jump = np.diff(log.raw("kl"), prepend=np.nan)
    clipped = log.raw("clip_fraction") > 0.4
    return (log.raw("approx_kl") > FAR_STEP) | (jump > FAR_JUMP) | clipped


def _says_far(log: _Log, row: int) -> str:
    said = f"KL from the reference is {log.raw('kl')[row]:.2g} nats an answer"
    if "approx_kl" in log.history:
        said += f"; this update moved {log.raw('approx_kl')[row]:.2g} nats a token"
    if "clip_fraction" in log.history:
        said += f" and clipped {log.raw('clip_fraction')[row]:.0%} of the tokens"
    return said


def _changed(log: _Log) -> np.ndarray:
    """Answers look different from those at the start."""
    length = log.ratio("length")
    return (
        (length < HACKED_LENGTHS[0])
        | (length > HACKED_LENGTHS[1])
        | (log.ratio("distinct") < 0.7)
        | (log.now("repetition") > log.start("repetition") + 0.05)
    )


def _apart(log: _Log) -> np.ndarray:
    """On held-out answers the reward goes on rising, and a second opinion does not."""
    looks = np.flatnonzero(np.isfinite(log.raw("second_opinion")))
    reward, second, error = (
        log.raw(column)[looks]
        for column in ("held_out_reward", "second_opinion", "second_opinion_error")
    )
    certain = (error > 0) & (reward - second > APART * error)
    behind = (reward > 0) & (second < FOLLOWED * reward)
    rises = np.diff(reward, prepend=0) > RISES  # both are 0 at the start
    follows = np.diff(second, prepend=0) > 0
    shows = np.zeros(log.number, bool)
    shows[looks] = certain & behind & rises & ~follows
    return shows


def _hacked(log: _Log) -> np.ndarray:
    return _apart(log) | _looks_hacked(log)


def _looks_hacked(log: _Log) -> np.ndarray:
    gain = log.now("reward") - log.start("reward")
    rises = gain > 0.25 * log.start("reward_spread")
    return rises & (log.now("kl") > NEAR) & _changed(log)


def _says_hacked(log: _Log, row: int) -> str:
    if _apart(log)[row]:
        return (
            f"On held-out answers the reward rose by "
            f"{log.raw('held_out_reward')[row]:.2f} standard deviations, a second "
            f"opinion by {log.raw('second_opinion')[row]:.2f}, with an error of "
            f"{log.raw('second_opinion_error')[row]:.2f}"
        )
    return (
        f"Reward rose from {log.start('reward'):.2g} to {log.now('reward')[row]:.2g} "
        f"at {log.now('kl')[row]:.2g} nats, while answers went from "
        f"{log.start('length'):.0f} to {log.now('length')[row]:.0f} tokens, distinct "
        f"ones from {log.start('distinct'):.0%} to {log.now('distinct')[row]:.0%}, "
        f"repetition from {log.start('repetition'):.0%} to "
        f"{log.now('repetition')[row]:.0%}"
    )


def _from_to(column: str, text: str) -> Callable[[_Log, int], str]:
    def seen(log: _Log, row: int) -> str:
        return text.format(log.start(column), log.now(column)[row])

    return seen


_SIGNS = (
    _Sign(
        "learning rate too high",
        _far,
        _says_far,
        cause="steps so large that the answers no longer tell where to go",
        remedy="a third of the learning rate, fewer epochs, or (TRPO) a lower kl_bound",
    ),
    _Sign(
        "entropy collapse",
        lambda log: log.ratio("entropy") < COLLAPSED,
        _from_to("entropy", "Entropy fell from {:.2g} to {:.2g} nats a token"),
        cause="the policy has settled on one answer before it had tried others",
        remedy="an entropy_weight, a larger kl_weight, or a lower learning rate",
    ),
    _Sign(
        "values do not fit",
        lambda log: log.now("explained_variance") <= UNFIT,
        _from_to(
            "explained_variance",
            "Values explain {1:.2g} of the returns' variance, where 0 would be none",
        ),
        cause="the values lag behind or overshoot, and add noise to every advantage",
        remedy="a value model of its own, a smaller value_weight or learning rate, and "
        "values that start at 0",
    ),
    _Sign(
        "dead reward",
        lambda log: _all_of_window(log.raw("reward_spread") < DEAD),
        _from_to("reward", "All answers earn the same, {1:.3g}: nothing to learn from"),
        cause="a reward function that is constant, or a policy that earns the most "
        "with everything it says",
        remedy="a look at the reward of a few answers; if all is well, stop here",
    ),
    _Sign(
        "no end of sequence",
        lambda log: log.now("finished") < log.start("finished") - 0.25,
        _from_to(
            "finished", "Answers that end by themselves fell from {:.0%} to {:.0%}"
        ),
        cause="the reward likes more text, and cut answers do not cost enough",
        remedy="a larger missing_end_penalty, or a larger max_new_tokens",
    ),
    _Sign(
        "repetition",
        lambda log: log.now("repetition") > log.start("repetition") + 0.2,
        _from_to(
            "repetition", "Repeated three-token sequences rose from {:.0%} to {:.0%}"
        ),
        cause="the policy has left the text that its reference would write",
        remedy="a larger kl_weight, or an earlier checkpoint and a lower learning rate",
    ),
    _Sign(
        "length drift",
        lambda log: (
            (log.ratio("length") < LENGTHS[0]) | (log.ratio("length") > LENGTHS[1])
        ),
        _from_to("length", "Answers went from {:.0f} to {:.0f} tokens"),
        cause="the reward depends on length, or pads over what it cannot judge",
        remedy="a length-controlled reward, a larger kl_weight, and a look at answers",
    ),
    _Sign(
        "reward hacking",
        _hacked,
        _says_hacked,
        cause="the policy has found what the reward likes rather than what is good",
        remedy="an earlier checkpoint, a larger kl_weight, a better reward model or "
        "several; and a look at the highest-scored answers",
    ),
)
NAMES = tuple(sign.name for sign in _SIGNS)


def alarms(history: History) -> list[Alarm]:
    """What is wrong with a run, in the order in which it shows; each name once.

    A healthy run gives an empty list.
    """
    if not history.rows:
        return []
    log = _Log(history)
    found = []
    for sign in _SIGNS:
        rows = np.flatnonzero(sign.rows(log))
        if len(rows):
            row = int(rows[0])
            found.append(
                Alarm(
                    sign.name,
                    int(log.raw("step")[row]),
                    sign.seen(log, row),
                    sign.cause,
                    sign.remedy,
                )
            )
    return sorted(found, key=lambda alarm: alarm.step)


def _all_of_window(flags: np.ndarray) -> np.ndarray:
    """True where this row and the ones before it, a window's worth, all are."""
    padded = np.concatenate([np.zeros(WINDOW - 1, bool), flags])
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW).all(axis=1)
