"""Wrong answers to Lab 1, written from the cells that a student sees."""

import numpy as np
import torch
import torch.nn.functional as F

from .answers import Wrong

# 1.1


def ceiling_by_labels(gold_a, gold_b, temperature):
    return (gold_a > gold_b).float().mean()


def ceiling_mean_first(gold_a, gold_b, temperature):
    p = torch.sigmoid((gold_a - gold_b) / temperature).mean()
    return torch.maximum(p, 1 - p)


def ceiling_not_averaged(gold_a, gold_b, temperature):
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return torch.maximum(p, 1 - p)


def ceiling_smaller(gold_a, gold_b, temperature):
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return torch.minimum(p, 1 - p).mean()


def ceiling_of_agreement(gold_a, gold_b, temperature):
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return (p**2 + (1 - p) ** 2).mean()


def ceiling_entropy(gold_a, gold_b, temperature):
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def ceiling_separate(gold_a, gold_b, temperature):
    p, q = torch.sigmoid(gold_a / temperature), torch.sigmoid(gold_b / temperature)
    return torch.maximum(p, q).mean()


def ceiling_softmax_of_batch(gold_a, gold_b, temperature):
    p = torch.softmax((gold_a - gold_b) / temperature, dim=0)
    return torch.maximum(p, 1 - p).mean()


# 1.2


def bt_difference(chosen_rewards, rejected_rewards, margin):
    difference = chosen_rewards - rejected_rewards
    return difference if margin is None else difference - margin


def bt_reversed(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(rejected_rewards, chosen_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference).mean() + center_weight * centre


def bt_margin_added(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        difference = difference + margin
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference).mean() + center_weight * centre


def bt_margin_forgotten(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0
):
    centre = (chosen_rewards + rejected_rewards).square().mean()
    loss = -F.logsigmoid(chosen_rewards - rejected_rewards).mean()
    return loss + center_weight * centre


def bt_margin_outside(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    loss = -F.logsigmoid(chosen_rewards - rejected_rewards)
    if margin is not None:
        loss = loss - margin
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return loss.mean() + center_weight * centre


def bt_overflow(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -torch.log(torch.sigmoid(difference)).mean() + center_weight * centre


def bt_overflow_exp(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return torch.log(1 + torch.exp(-difference)).mean() + center_weight * centre


def bt_no_log(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -torch.sigmoid(difference).mean() + center_weight * centre


def bt_sign(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return F.logsigmoid(difference).mean() + center_weight * centre


def bt_sum(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().sum()
    return -F.logsigmoid(difference).sum() + center_weight * centre


def bt_sum_of_losses(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference).sum() + center_weight * centre


def bt_mean_first(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin).mean()
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference) + center_weight * centre


def bt_centre_of_mean(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).mean().square()
    return -F.logsigmoid(difference).mean() + center_weight * centre


def bt_centre_separate(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0
):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards**2 + rejected_rewards**2).mean()
    return -F.logsigmoid(difference).mean() + center_weight * centre


def bt_centre_half(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = ((chosen_rewards + rejected_rewards) / 2).square().mean()
    return -F.logsigmoid(difference).mean() + center_weight * centre


def bt_centre_forgotten(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0
):
    return -F.logsigmoid(bt_difference(chosen_rewards, rejected_rewards, margin)).mean()


def bt_centre_subtracted(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0
):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference).mean() - center_weight * centre


def bt_hinge(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards, margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return torch.relu(-difference).mean() + center_weight * centre


def bt_detached(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    difference = bt_difference(chosen_rewards, rejected_rewards.detach(), margin)
    centre = (chosen_rewards + rejected_rewards).square().mean()
    return -F.logsigmoid(difference).mean() + center_weight * centre


# 1.3


def last_by_loop(values, lengths):
    return torch.tensor([row[n - 1].item() for row, n in zip(values, lengths)])  # noqa: B905


def last_mean(values, lengths):
    mask = torch.arange(values.shape[1]) < lengths[:, None]
    return torch.where(mask, values, 0).sum(1) / lengths


# 1.4


def multi_picked(values, dimension):
    return values.gather(1, dimension[:, None])[:, 0]


def multi_all_heads(chosen, rejected, dimension):
    return -F.logsigmoid(chosen - rejected).mean()


def multi_all_rows(chosen, rejected, dimension):
    return -F.logsigmoid((chosen - rejected)[:, dimension]).mean()


def multi_first_head(chosen, rejected, dimension):
    return -F.logsigmoid(chosen[:, 0] - rejected[:, 0]).mean()


def multi_masked_mean(chosen, rejected, dimension):
    mask = F.one_hot(dimension, chosen.shape[1])
    return (-F.logsigmoid(chosen - rejected) * mask).mean()


def multi_masked_inside(chosen, rejected, dimension):
    mask = F.one_hot(dimension, chosen.shape[1])
    return -F.logsigmoid((chosen - rejected) * mask).mean()


def multi_masked_inside_summed(chosen, rejected, dimension):
    mask = F.one_hot(dimension, chosen.shape[1])
    return -F.logsigmoid((chosen - rejected) * mask).sum(1).mean()


def multi_one_based(chosen, rejected, dimension):
    return -F.logsigmoid(multi_picked(chosen - rejected, dimension - 1)).mean()


def multi_summed_heads(chosen, rejected, dimension):
    return -F.logsigmoid((chosen - rejected).sum(1)).mean()


def multi_mean_of_heads(chosen, rejected, dimension):
    losses = -F.logsigmoid(multi_picked(chosen - rejected, dimension))
    return torch.stack(
        [losses[dimension == d].mean() for d in dimension.unique()]
    ).mean()


def multi_softmax_of_heads(chosen, rejected, dimension):
    return F.cross_entropy(chosen - rejected, dimension)


def multi_reversed(chosen, rejected, dimension):
    return -F.logsigmoid(multi_picked(rejected - chosen, dimension)).mean()


def multi_overflow(chosen, rejected, dimension):
    picked = multi_picked(chosen - rejected, dimension)
    return -picked.sigmoid().log().mean()


def multi_axis(chosen, rejected, dimension):
    return -F.logsigmoid((chosen - rejected).gather(0, dimension[None])).mean()


# 1.7


def pair_rows(rows, pad):
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens, lengths


def pair_order(chosen, rejected, key):
    return sorted(range(len(chosen)), key=lambda i: -key(chosen[i], rejected[i]))


def batch_in(order, chosen, rejected, heads, pad):
    rows = [chosen[i] for i in order] + [rejected[i] for i in order]
    return *pair_rows(rows, pad), heads[order]


def batch_as_given(chosen, rejected, heads, pad):
    rows = sorted(chosen, key=len, reverse=True)
    rows += sorted(rejected, key=len, reverse=True)
    return *pair_rows(rows, pad), heads


def batch_heads_left(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: len(c) + len(r))
    tokens, lengths, _ = batch_in(order, chosen, rejected, heads, pad)
    return tokens, lengths, heads


def batch_by_chosen(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: len(c))
    return batch_in(order, chosen, rejected, heads, pad)


def batch_by_longer(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: max(len(c), len(r)))
    return batch_in(order, chosen, rejected, heads, pad)


def batch_shortest_first(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: -len(c) - len(r))
    return batch_in(order, chosen, rejected, heads, pad)


def batch_unsorted(chosen, rejected, heads, pad):
    return batch_in(list(range(len(chosen))), chosen, rejected, heads, pad)


def batch_interleaved(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: len(c) + len(r))
    rows = [row for i in order for row in (chosen[i], rejected[i])]
    return *pair_rows(rows, pad), heads[order]


def batch_two_orders(chosen, rejected, heads, pad):
    first = sorted(range(len(chosen)), key=lambda i: -len(chosen[i]))
    second = sorted(range(len(rejected)), key=lambda i: -len(rejected[i]))
    rows = [chosen[i] for i in first] + [rejected[i] for i in second]
    return *pair_rows(rows, pad), heads[first]


def batch_sorted_together(chosen, rejected, heads, pad):
    rows = sorted([*chosen, *rejected], key=len, reverse=True)
    return *pair_rows(rows, pad), heads


def batch_rejected_first(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: len(c) + len(r))
    return batch_in(order, rejected, chosen, heads, pad)


def batch_padded_left(chosen, rejected, heads, pad):
    order = pair_order(chosen, rejected, lambda c, r: len(c) + len(r))
    tokens, lengths, heads = batch_in(order, chosen, rejected, heads, pad)
    for i, n in enumerate(lengths.tolist()):
        tokens[i] = tokens[i].roll(tokens.shape[1] - n)
    return tokens, lengths, heads


def batch_lengths_as_given(chosen, rejected, heads, pad):
    tokens, _, heads = batch_in(
        pair_order(chosen, rejected, lambda c, r: len(c) + len(r)),
        chosen,
        rejected,
        heads,
        pad,
    )
    return tokens, torch.tensor([len(row) for row in [*chosen, *rejected]]), heads


ANSWERS = {
    "1.1": (
        Wrong(
            "p itself, whichever answer is likelier",
            lambda gold_a, gold_b, temperature: torch.sigmoid(
                (gold_a - gold_b) / temperature
            ).mean(),
            "larger|likelier|mean of p|max|other|answer b",
        ),
        Wrong(
            "temperature as a factor",
            lambda gold_a, gold_b, temperature: torch.sigmoid(
                (gold_a - gold_b).abs() * temperature
            ).mean(),
            "temperature|divide",
        ),
        Wrong(
            "temperature forgotten",
            lambda gold_a, gold_b, temperature: torch.sigmoid(
                (gold_a - gold_b).abs()
            ).mean(),
            "temperature",
        ),
        Wrong(
            "the annotator never errs", ceiling_by_labels, "label|hard|certain|noise"
        ),
        Wrong("mean before the maximum", ceiling_mean_first, "mean|average"),
        Wrong("no mean", ceiling_not_averaged, "mean|all the values"),
        Wrong(
            "the rate of errors",
            ceiling_smaller,
            "min|error|smaller|worse|wrong|less likely",
        ),
        Wrong("an annotator asked twice", ceiling_of_agreement, "twice|agree|sampl"),
        Wrong("entropy of the choice", ceiling_entropy, "entropy"),
        Wrong("sigmoid of each score", ceiling_separate, "difference|each"),
        Wrong(
            "softmax over the pairs", ceiling_softmax_of_batch, "pairs|batch|softmax"
        ),
    ),
    "1.2": (
        Wrong(
            "rejected less chosen",
            bt_reversed,
            "sign|rejected|invert|order|swap|wrong way",
        ),
        Wrong("margin added", bt_margin_added, "margin"),
        Wrong("margin forgotten", bt_margin_forgotten, "margin"),
        Wrong("margin outside the logarithm", bt_margin_outside, "margin"),
        Wrong("log of sigmoid", bt_overflow, "overflow|unstable|inf|moderate"),
        Wrong("log of 1 + exp", bt_overflow_exp, "overflow|unstable|inf|moderate"),
        Wrong("no logarithm", bt_no_log, "log"),
        Wrong("no minus", bt_sign, "sign|minus|likelihood"),
        Wrong("sums for means", bt_sum, "sum"),
        Wrong("sum of the losses, mean of the centres", bt_sum_of_losses, "sum"),
        Wrong("mean of the differences first", bt_mean_first, "mean|average"),
        Wrong("centring the mean only", bt_centre_of_mean, "cent|mean"),
        Wrong("each reward centred by itself", bt_centre_separate, "cent|each"),
        Wrong("the pair's mean centred", bt_centre_half, "cent|half|quarter|four"),
        Wrong("no centring", bt_centre_forgotten, "cent"),
        Wrong("centring subtracted", bt_centre_subtracted, "cent|sign"),
        Wrong("hinge", bt_hinge, "hinge"),
        Wrong("rejected detached", bt_detached, "gradient|detach"),
    ),
    "1.3": (
        Wrong(
            "last column",
            lambda values, lengths: values[:, -1],
            "padding|column",
        ),
        Wrong(
            "all rows at all lengths",
            lambda values, lengths: values[:, lengths - 1],
            "every row|all rows|shape",
        ),
        Wrong(
            "one too far",
            lambda values, lengths: values[
                torch.arange(len(values)), lengths.clamp(max=values.shape[1] - 1)
            ],
            "one|begin at 0|after",
        ),
        Wrong(
            "index out of range",
            lambda values, lengths: values[torch.arange(len(values)), lengths],
            "one|index|padding",
        ),
        Wrong(
            "one too early",
            lambda values, lengths: values[torch.arange(len(values)), lengths - 2],
            "one|before",
        ),
        Wrong(
            "an axis kept",
            lambda values, lengths: values.gather(1, lengths[:, None] - 1),
            "axis|shape",
        ),
        Wrong("first token", lambda values, lengths: values[:, 0], "first"),
        Wrong("mean over the row", last_mean, "mean|average"),
        Wrong(
            "mean over everything",
            lambda values, lengths: values.mean(1),
            "mean|average",
        ),
        Wrong("largest value", lambda values, lengths: values.amax(1), "larg|max|high"),
        Wrong(
            "longest row's place for all",
            lambda values, lengths: values[:, lengths.max() - 1],
            "longest|padding|column|own length",
        ),
        Wrong("numbers out of the graph", last_by_loop, "gradient"),
        Wrong(
            "last value that is not 0",
            lambda values, lengths: values[
                torch.arange(len(values)), (values != 0).sum(1) - 1
            ],
        ),
    ),
    "1.4": (
        Wrong("all heads", multi_all_heads, "head"),
        Wrong("columns from all rows", multi_all_rows, "row|every|pair"),
        Wrong("always the first head", multi_first_head, "first|dimension"),
        Wrong(
            "mean over heads too", multi_masked_mean, "mean|factor|too many|b times h"
        ),
        Wrong("masked before the loss", multi_masked_inside, "mask|ln 2|0"),
        Wrong(
            "masked before the loss, summed over heads",
            multi_masked_inside_summed,
            "mask|ln 2|0",
        ),
        Wrong("heads counted from 1", multi_one_based),
        Wrong("sum of the heads", multi_summed_heads, "head|sum"),
        Wrong("each dimension the same weight", multi_mean_of_heads, "dimension|pair"),
        Wrong("softmax over the heads", multi_softmax_of_heads, "softmax|head"),
        Wrong("rejected less chosen", multi_reversed, "sign|rejected|swap"),
        Wrong("log of sigmoid", multi_overflow, "overflow|unstable|moderate"),
        Wrong("gather along the batch", multi_axis, "row|axis|batch|raises an error"),
        Wrong(
            "head of the chosen only",
            lambda chosen, rejected, dimension: (
                -F.logsigmoid(multi_picked(chosen, dimension) - rejected.mean(1)).mean()
            ),
        ),
    ),
    "1.5": (
        Wrong(
            "temperature as a factor",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins * temperature) - known_probabilities) ** 2
            ).mean(),
            "temperature|divide",
        ),
        Wrong(
            "temperature outside the sigmoid",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins) / temperature - known_probabilities) ** 2
            ).mean(),
            "temperature",
        ),
        Wrong(
            "absolute gap",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins / temperature) - known_probabilities)
                .abs()
                .mean()
            ),
            "abs|square",
        ),
        Wrong(
            "root of the mean square",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins / temperature) - known_probabilities)
                .square()
                .mean()
                .sqrt()
            ),
            "root",
        ),
        Wrong(
            "against labels",
            lambda margins, temperature, known_probabilities: (
                (
                    torch.sigmoid(margins / temperature)
                    - (known_probabilities > 0.5).float()
                )
                .square()
                .mean()
            ),
            "label|round|0 and 1",
        ),
        Wrong(
            "Brier score of certain choices",
            lambda margins, temperature, known_probabilities: (
                (1 - torch.sigmoid(margins / temperature)).square().mean()
            ),
            "known|label|1",
        ),
        Wrong(
            "temperature forgotten",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins) - known_probabilities).square().mean()
            ),
            "temperature",
        ),
        Wrong(
            "margins, not probabilities",
            lambda margins, temperature, known_probabilities: (
                (margins / temperature - known_probabilities).square().mean()
            ),
            "sigmoid|probabilit",
        ),
        Wrong(
            "sum for mean",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins / temperature) - known_probabilities)
                .square()
                .sum()
            ),
            "sum",
        ),
        Wrong(
            "square of the mean gap",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(margins / temperature) - known_probabilities)
                .mean()
                .square()
            ),
            "mean|cancel|average",
        ),
        Wrong(
            "cross-entropy",
            lambda margins, temperature, known_probabilities: (
                F.binary_cross_entropy_with_logits(
                    margins / temperature, known_probabilities
                )
            ),
            "entropy",
        ),
        Wrong(
            "sign of the margin",
            lambda margins, temperature, known_probabilities: (
                (torch.sigmoid(-margins / temperature) - known_probabilities)
                .square()
                .mean()
            ),
            "sign|other answer|minus",
        ),
        Wrong(
            "the gap without a square",
            lambda margins, temperature, known_probabilities: (
                torch.sigmoid(margins / temperature) - known_probabilities
            ).mean(),
            "square|cancel",
        ),
        Wrong(
            "expected Brier score",
            lambda margins, temperature, known_probabilities: (
                known_probabilities
                * (1 - torch.sigmoid(margins / temperature)).square()
                + (1 - known_probabilities)
                * torch.sigmoid(margins / temperature).square()
            ).mean(),
            "brier|label|noise",
        ),
    ),
    "1.6": (
        Wrong(
            "the truth chooses",
            lambda proxy, gold, n: float(gold[:, :n].max(axis=1).mean()),
            "gold|truth|oracle",
        ),
        Wrong(
            "all samples",
            lambda proxy, gold, n: float(
                gold[np.arange(len(gold)), proxy.argmax(axis=1)].mean()
            ),
            " n|first",
        ),
        Wrong(
            "columns from all rows",
            lambda proxy, gold, n: float(gold[:, proxy[:, :n].argmax(axis=1)].mean()),
            "row|every|prompt",
        ),
        Wrong(
            "argmax over the prompts",
            lambda proxy, gold, n: float(
                gold[proxy[:, :n].argmax(axis=0), np.arange(n)].mean()
            ),
            "axis|prompts",
        ),
        Wrong(
            "the proxy's opinion of its choice",
            lambda proxy, gold, n: float(proxy[:, :n].max(axis=1).mean()),
            "proxy",
        ),
        Wrong(
            "the worst",
            lambda proxy, gold, n: float(
                gold[np.arange(len(gold)), proxy[:, :n].argmin(axis=1)].mean()
            ),
            "worst|min|low|least",
        ),
        Wrong(
            "one sample too many",
            lambda proxy, gold, n: float(
                gold[np.arange(len(gold)), proxy[:, : n + 1].argmax(axis=1)].mean()
            ),
            "one",
        ),
        Wrong(
            "one sample too few",
            lambda proxy, gold, n: float(
                gold[
                    np.arange(len(gold)), proxy[:, : max(1, n - 1)].argmax(axis=1)
                ].mean()
            ),
            "one",
        ),
        Wrong(
            "nothing chosen",
            lambda proxy, gold, n: float(gold[:, :n].mean()),
            "mean|proxy|cho",
        ),
        Wrong(
            "one best answer of all prompts",
            lambda proxy, gold, n: float(gold[:, :n].flat[proxy[:, :n].argmax()]),
            "axis|prompt|all",
        ),
        Wrong(
            "the last n",
            lambda proxy, gold, n: float(
                gold[:, -n:][np.arange(len(gold)), proxy[:, -n:].argmax(axis=1)].mean()
            ),
            "first|last",
        ),
        Wrong(
            "sum for mean",
            lambda proxy, gold, n: float(
                gold[np.arange(len(gold)), proxy[:, :n].argmax(axis=1)].sum()
            ),
            "sum",
        ),
        Wrong(
            "no mean",
            lambda proxy, gold, n: gold[
                np.arange(len(gold)), proxy[:, :n].argmax(axis=1)
            ],
            "mean|values",
        ),
        Wrong(
            "mean of the best n",
            lambda proxy, gold, n: float(
                np.take_along_axis(gold, (-proxy).argsort(axis=1)[:, :n], axis=1).mean()
            ),
        ),
    ),
    "1.7": (
        Wrong("left as it is", batch_as_given, "pair|separate|rejected|own"),
        Wrong("heads in the old order", batch_heads_left, "head"),
        Wrong("by the chosen answer's length", batch_by_chosen, "chosen|both|length"),
        Wrong("by the longer answer's length", batch_by_longer, "longer|both|max|sum"),
        Wrong("shortest first", batch_shortest_first, "short|ascend|first"),
        Wrong("not sorted any more", batch_unsorted, "sort|order"),
        Wrong("rows of a pair side by side", batch_interleaved, "row|interleav|side|B"),
        Wrong("an order for each side", batch_two_orders, "pair|order|own|side"),
        Wrong("all answers sorted together", batch_sorted_together, "pair|together|B"),
        Wrong("rejected answers first", batch_rejected_first, "rejected|chosen"),
        Wrong("padded on the left", batch_padded_left, "left|right"),
        Wrong("lengths in the old order", batch_lengths_as_given, "length"),
    ),
}
