"""Is this run healthy? Alarms that name what goes wrong, why, and what to do.

Reads the `History` of on-policy training (`rl.train`) and nothing else, at the end of a
run or in the middle. A column that a run does not have raises no alarm. Knows no model,
and no true reward: that a reward is being hacked is seen soonest where `train` was
given a `rl.SecondOpinion` to evaluate.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

from labs_helpers.fit import History

WINDOW = 5  # updates in a moving mean
START = 2  # updates in the start that it is compared with: later ones may have moved

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


class Alarm(NamedTuple):
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


class _Columns:
    """Columns of a history as moving means, and how they began."""

    def __init__(self, history: History):
        self.history = history
        self.number = len(history.rows)

    def raw(self, column: str) -> Float[np.ndarray, " rows"]:
        """One column; NaN where the run has none."""
        if column not in self.history:
            return np.full(self.number, np.nan)
        return self.history[column]

    def window(self, column: str) -> Float[np.ndarray, "rows window"]:
        """At each row the last few ones; NaN before there are enough."""
        before = np.full(WINDOW - 1, np.nan)
        return sliding_window_view(np.concatenate([before, self.raw(column)]), WINDOW)

    def now(self, column: str) -> Float[np.ndarray, " rows"]:
        """The moving mean."""
        return self.window(column).mean(axis=1)

    def start(self, column: str) -> float:
        """Mean of the first rows."""
        return float(self.raw(column)[:START].mean())

    def ratio(self, column: str) -> Float[np.ndarray, " rows"]:
        """The moving mean against the start."""
        return self.now(column) / max(self.start(column), 1e-9)

    def outside(self, column: str, bounds: tuple[float, float]) -> np.ndarray:
        """Where that leaves its bounds."""
        return (self.ratio(column) < bounds[0]) | (self.ratio(column) > bounds[1])


class _Sign(NamedTuple):
    """An instability: which rows show it, what to say of one, cause and remedy.

    What to say is a function of the columns and the row, or a column and a text with
    room for its start and its moving mean.
    """

    name: str
    rows: Callable[[_Columns], np.ndarray]
    seen: Callable[[_Columns, int], str] | tuple[str, str]
    cause: str
    remedy: str


def _far(log: _Columns) -> np.ndarray:
    jump = np.diff(log.raw("kl"), prepend=np.nan)
    clipped = log.raw("clip_fraction") > 0.4
    return (log.raw("approx_kl") > FAR_STEP) | (jump > FAR_JUMP) | clipped


def _says_far(log: _Columns, row: int) -> str:
    said = f"KL from the reference is {log.raw('kl')[row]:.2g} nats an answer"
    if "approx_kl" in log.history:
        said += f"; this update moved {log.raw('approx_kl')[row]:.2g} nats a token"
    if "clip_fraction" in log.history:
        said += f" and clipped {log.raw('clip_fraction')[row]:.0%} of the tokens"
    return said


def _apart(log: _Columns) -> np.ndarray:
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


def _hacked(log: _Columns) -> np.ndarray:
    """So, or the reward rises while answers look different from those at the start."""
    rises = log.now("reward") - log.start("reward") > 0.25 * log.start("reward_spread")
    changed = (
        log.outside("length", HACKED_LENGTHS)
        | (log.ratio("distinct") < 0.7)
        | (log.now("repetition") > log.start("repetition") + 0.05)
    )
    return _apart(log) | (rises & (log.now("kl") > NEAR) & changed)


def _says_hacked(log: _Columns, row: int) -> str:
    if _apart(log)[row]:
        reward, second, error = (
            log.raw(column)[row]
            for column in ("held_out_reward", "second_opinion", "second_opinion_error")
        )
        return (
            f"On held-out answers the reward rose by {reward:.2f} standard deviations, "
            f"a second opinion by {second:.2f}, with an error of {error:.2f}"
        )
    names = ("reward", "length", "distinct", "repetition")
    was = {name: log.start(name) for name in names}
    is_ = {name: log.now(name)[row] for name in names}
    return (
        f"Reward rose from {was['reward']:.2g} to {is_['reward']:.2g} at "
        f"{log.now('kl')[row]:.2g} nats, while answers went from "
        f"{was['length']:.0f} to {is_['length']:.0f} tokens, distinct ones from "
        f"{was['distinct']:.0%} to {is_['distinct']:.0%}, repetition from "
        f"{was['repetition']:.0%} to {is_['repetition']:.0%}"
    )


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
        ("entropy", "Entropy fell from {:.2g} to {:.2g} nats a token"),
        cause="the policy has settled on one answer before it had tried others",
        remedy="an entropy_weight, a larger kl_weight, or a lower learning rate",
    ),
    _Sign(
        "values do not fit",
        lambda log: log.now("explained_variance") <= UNFIT,
        (
            "explained_variance",
            "Values explain {1:.2g} of the returns' variance, where 0 would be none",
        ),
        cause="the values lag behind or overshoot, and add noise to every advantage",
        remedy="a value model of its own, a smaller value_weight or learning rate, and "
        "values that start at 0",
    ),
    _Sign(
        "dead reward",
        lambda log: (log.window("reward_spread") < DEAD).all(axis=1),
        ("reward", "All answers earn the same, {1:.3g}: nothing to learn from"),
        cause="a reward function that is constant, or a policy that earns the most "
        "with everything it says",
        remedy="a look at the reward of a few answers; if all is well, stop here",
    ),
    _Sign(
        "no end of sequence",
        lambda log: log.now("finished") < log.start("finished") - 0.25,
        ("finished", "Answers that end by themselves fell from {:.0%} to {:.0%}"),
        cause="the reward likes more text, and cut answers do not cost enough",
        remedy="a larger missing_end_penalty, or a larger max_new_tokens",
    ),
    _Sign(
        "repetition",
        lambda log: log.now("repetition") > log.start("repetition") + 0.2,
        ("repetition", "Repeated three-token sequences rose from {:.0%} to {:.0%}"),
        cause="the policy has left the text that its reference would write",
        remedy="a larger kl_weight, or an earlier checkpoint and a lower learning rate",
    ),
    _Sign(
        "length drift",
        lambda log: log.outside("length", LENGTHS),
        ("length", "Answers went from {:.0f} to {:.0f} tokens"),
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
    log, found = _Columns(history), []
    for sign in _SIGNS if history.rows else ():
        rows = np.flatnonzero(sign.rows(log))
        if len(rows):
            row = int(rows[0])
            if callable(sign.seen):
                seen = sign.seen(log, row)
            else:
                column, text = sign.seen
                seen = text.format(log.start(column), log.now(column)[row])
            step = int(log.raw("step")[row])
            found.append(Alarm(sign.name, step, seen, sign.cause, sign.remedy))
    return sorted(found, key=lambda alarm: alarm.step)
