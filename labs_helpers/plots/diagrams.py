"""Diagrams of what the labs do: who is trained on what, and what flows where.

Boxes and arrows on a sheet that is read from top to bottom. Nothing is measured here;
diagrams whose numbers are computed are in `number_rows`.
"""

from labs_helpers.plots.boxes import (
    SMALL,
    WIDTH,
    Box,
    Place,
    arrow,
    box,
    heading,
    key,
    note,
    sheet,
)
from labs_helpers.plots.style import Axes, Figure, styled

MIDDLE = WIDTH / 2
MODELS = (("trained", "model, trained"), ("frozen", "model, frozen"), ("data", "data"))


@styled
def diagram_rlhf() -> Figure:
    """Draw the three stages of reinforcement learning from human feedback."""
    figure, axes = sheet(6.9)
    left, right, wide, tall = 1.0, 4.6, (1.6, 0.6), (1.7, 0.6)
    heading(axes, "1. Supervised fine-tuning (SFT)", 0.3)
    written = box(axes, "prompts and\ngood answers", (left, 0.95), wide)
    sft = box(axes, "SFT policy", (right, 0.95), tall, "trained")
    _step(axes, written.right, sft.left, "imitate")
    heading(axes, "2. Reward model (Lab 1)", 1.75)
    pair = box(axes, "two answers\nto a prompt", (left, 2.4), wide)
    arrow(axes, sft.bottom, (right, 2.4), pair.right)
    choice = box(axes, "which one\npeople choose", (left, 3.3), wide)
    arrow(axes, pair.bottom, choice.top)
    reward = box(axes, "reward model", (right, 3.3), tall, "trained")
    _step(axes, choice.right, reward.left, "Bradley-Terry\nloss")
    heading(axes, "3. Reinforcement learning (Lab 3)", 4.3)
    answers = box(axes, "prompts, and\nits own answers", (left, 5.0), wide)
    policy = box(axes, "policy", (right, 5.0), tall, "trained")
    ppo = _step(axes, answers.right, policy.left, "PPO on reward\nless price of KL")
    beside = ppo.x + 0.5  # of the heading
    arrow(axes, reward.bottom, (right, 3.85), (beside, 3.85), (beside, ppo.top[1]))
    arrow(axes, policy.bottom, (right, 5.6), (left, 5.6), answers.bottom)
    note(
        axes,
        "The policy begins as the SFT policy, which is also the reference\n"
        "of the KL. DPO (Lab 2) learns from the choices of stage 2 directly.",
        (0.1, 6.05),
    )
    key(axes, (("trained", "model"), ("data", "data"), ("step", "training")), 6.62)
    return figure


def _step(axes: Axes, start: Place, end: Place, name: str) -> Box:
    """An arrow between two boxes, with what is done on the way."""
    middle = ((start[0] + end[0]) / 2, start[1])
    made = box(axes, name, middle, (1.45, 0.56), "step", fontsize=SMALL)
    arrow(axes, start, made.left)
    arrow(axes, made.right, end)
    return made


@styled
def diagram_dpo() -> Figure:
    """Draw the way from a reward and a price of KL to the loss of DPO."""
    figure, axes = sheet(6.3)
    lines = (
        r"maximise  $\mathbb{E}[r(x, y)] - \beta\,$KL$(\pi, \pi_{ref})$",
        r"$\pi^*(y|x) = \frac{1}{Z(x)}\,\pi_{ref}(y|x)\,e^{\,r(x, y)\,/\,\beta}$",
        r"$r(x, y) = \beta\,\log\frac{\pi^*(y|x)}{\pi_{ref}(y|x)} + \beta\,\log Z(x)$",
        r"$P(y_w$ beats $y_l) = \sigma(r(x, y_w) - r(x, y_l))$",
        r"$-\log\sigma\left(\beta\,\log\frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}"
        r" - \beta\,\log\frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}\right)$",
    )
    names = ("the goal", "its best policy", "its reward", "a comparison", "the loss")
    reasons = (
        "solve it exactly",
        "take the log, and solve for the reward",
        r"only a difference counts: $\log Z(x)$ cancels",
        "a policy in place of the best one",
    )
    boxes = []
    for i, (name, line) in enumerate(zip(names, lines, strict=True)):
        y = 0.5 + 1.28 * i
        note(axes, name, (0.1, y), fontweight="bold")
        kind = "step" if name == "the loss" else "data"
        boxes.append(box(axes, line, (3.5, y), (4.0, 0.72), kind, fontsize=12))
    for above, below, reason in zip(boxes, boxes[1:], reasons, strict=False):
        arrow(axes, (1.8, above.bottom[1]), (1.8, below.top[1]))
        note(axes, reason, (1.95, (above.y + below.y) / 2))
    return figure


@styled
def diagram_four_models() -> Figure:
    """Draw the four models of PPO, what each gives, and which of them are trained."""
    figure, axes = sheet(6.5)
    actor = box(axes, "actor\n(the policy)", (MIDDLE, 0.85), (1.7, 0.6), "trained")
    prompt = box(axes, "prompt", (0.85, 0.85), (0.9, 0.45))
    arrow(axes, prompt.right, actor.left)
    answer = box(axes, "answer, token by token", (MIDDLE, 1.7), (2.4, 0.42))
    arrow(axes, actor.bottom, answer.top)
    asked = (
        (1.15, "reference", "frozen", "log-prob\nof each token"),
        (MIDDLE, "reward model", "frozen", "one score,\nat the end"),
        (4.45, "critic", "trained", "value\nof each token"),
    )
    fork, given = 2.12, []
    for x, name, kind, gives in asked:
        model = box(axes, name, (x, 2.6), (1.5, 0.5), kind)
        arrow(axes, answer.bottom, (MIDDLE, fork), (x, fork), model.top)
        given.append(box(axes, gives, (x, 3.5), (1.5, 0.6)))
        arrow(axes, model.bottom, given[-1].top)
    logprob, score, value = given
    price = "reward of each token:\nthe score, less\nthe price of KL"
    reward = box(axes, price, (1.95, 4.6), (2.1, 0.8), "step")
    arrow(axes, (1.35, logprob.bottom[1]), (1.35, reward.top[1]))
    arrow(axes, (2.5, score.bottom[1]), (2.5, reward.top[1]))
    gae = box(axes, "advantages and\nreturns (GAE)", (4.3, 4.6), (1.7, 0.8), "step")
    arrow(axes, reward.right, gae.left)
    arrow(axes, (value.x, value.bottom[1]), (value.x, gae.top[1]))
    back = (gae.x, 5.3), (0.15, 5.3), (0.15, 0.25), (MIDDLE, 0.25)
    arrow(axes, gae.bottom, *back, actor.top, dashed=True)
    arrow(axes, gae.right, (5.45, gae.y), (5.45, 2.6), (5.2, 2.6), dashed=True)
    trains = "Dashed: advantages train the actor, returns the critic."
    note(axes, trains, (0.1, 5.65))
    key(axes, MODELS, 6.2)
    return figure


@styled
def diagram_constitutional() -> Figure:
    """Draw the two stages of Constitutional AI, and where the principles come in."""
    figure, axes = sheet(7.0)
    left, right, wide = 1.5, 4.6, (2.6, 0.6)
    heading(axes, "1. Learn from revisions: SL-CAI", 0.3)
    draft = box(axes, "the SFT model answers\na harmful request", (left, 0.95), wide)
    critique = box(axes, "it criticises its answer\nby a principle", (left, 1.85), wide)
    revision = box(axes, "it revises its answer\nby that principle", (left, 2.75), wide)
    first = box(axes, "SL-CAI", (right, 2.75), (1.6, 0.6), "trained")
    arrow(axes, draft.bottom, critique.top)
    arrow(axes, critique.bottom, revision.top)
    _named(axes, revision.right, first.left, "SFT")
    heading(axes, "2. Learn from AI feedback: RL-CAI", 3.65)
    pair = box(axes, "SL-CAI answers each\nprompt twice", (left, 4.3), wide)
    asked = box(axes, "the SFT model compares\nthem by a principle", (left, 5.2), wide)
    labels = box(axes, "probability that\nthe first is better", (left, 6.1), wide)
    last = box(axes, "RL-CAI", (right, 6.1), (1.6, 0.6), "trained")
    arrow(axes, first.bottom, (right, 4.3), pair.right)
    arrow(axes, pair.bottom, asked.top)
    arrow(axes, asked.bottom, labels.top)
    _named(axes, labels.right, last.left, "DPO")
    for user in (critique, asked):
        rules = box(axes, "constitution", (right, user.y), (1.6, 0.5), "step")
        arrow(axes, rules.left, user.right, dashed=True)
    key(axes, (("trained", "trained"), ("data", "written"), ("step", "rules")), 6.75)
    return figure


def _named(axes: Axes, start: Place, end: Place, name: str) -> None:
    """An arrow with a short name above it."""
    arrow(axes, start, end)
    note(axes, name, ((start[0] + end[0]) / 2, start[1] - 0.16), ha="center")


LABS = (
    "Lab 1: reward models\nfrom choices to a reward",
    "Lab 2: DPO\nfrom choices to a policy",
    "Lab 3: RLHF with PPO\nfrom a reward to a policy",
    "Lab 4: Constitutional AI\nfrom rules to a policy",
)


@styled
def diagram_course(here: int | None = None) -> Figure:
    """Draw how the labs stand on each other; the one that is read has a thick border.

    Args:
        here: the lab's number; 0 is the primer.
    """
    figure, axes = sheet(5.1)

    def station(number: int, text: str, place: tuple, size: tuple) -> Box:
        kind = "trained" if number == here else "data"
        return box(axes, text, place, size, kind)

    words = "Primer: the words, in fifteen minutes"
    primer = station(0, words, (MIDDLE, 0.4), (5.2, 0.44))
    whole = (MIDDLE, 1.3), (5.2, 0.44)
    choices = box(axes, "choices: which of two answers is better?", *whole, "step")
    arrow(axes, primer.bottom, choices.top)
    places = [(1.45, 2.35), (4.15, 2.35), (1.45, 3.65), (4.15, 3.65)]
    one, two, three, four = (
        station(i, text, place, (2.5, 0.76))
        for i, (text, place) in enumerate(zip(LABS, places, strict=True), start=1)
    )
    for lab in (one, two):
        arrow(axes, (lab.x, choices.bottom[1]), lab.top)
    for above, below, what in ((one, three, "reward model"), (two, four, "DPO loss")):
        arrow(axes, above.bottom, below.top)
        note(axes, what, (above.x + 0.12, (above.y + below.y) / 2))
    truth = "all measured against a truth that is known"
    gold = box(axes, truth, (MIDDLE, 4.7), (5.2, 0.44), "step")
    for lab in (three, four):
        arrow(axes, lab.bottom, (lab.x, gold.top[1]))
    return figure
