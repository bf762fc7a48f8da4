"""The best that a KL weight allows, prompt by prompt: what Labs 2 and 3 measure by.

J* = w log E_sft[exp(gold / w)] over 512 answers of the SFT policy to each held-out
prompt. `labs study optimum` samples them; `recorded.attainable` reads what it wrote.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from labs_helpers.course.recorded import SIZES, WEIGHTS
from labs_helpers.evaluation import optimum_from_samples
from labs_helpers.sampling import sample
from labs_helpers.world import Gold
from labs_helpers.world.prompts import prompts
from labs_tools.studies.measures import LONGEST, loaded, repeated
from labs_tools.studies.study import Row, study

SAMPLES = 512
SEED = 123


@study("optimum", *SIZES, recipe=(WEIGHTS, SAMPLES, SEED))
def optimum() -> Iterator[Row]:
    """Closed-form optima of E[gold] - w KL, one row for each model and prompt.

    Columns: model, prompt (its place in the test split), start (mean gold of the SFT
    policy), and for each weight w objective_w (J*) and gold_w (gold of the optimum).
    """
    for name in SIZES:
        gold = _sampled_gold(name)
        optima = {w: optimum_from_samples(gold, w) for w in WEIGHTS}
        for i, start in enumerate(gold.mean(axis=1)):
            row = {"model": name, "prompt": i, "start": round(float(start), 4)}
            for w, found in optima.items():
                row[f"objective_{w:g}"] = round(float(found.objective[i]), 4)
                row[f"gold_{w:g}"] = round(float(found.reward[i]), 4)
            yield row


def _sampled_gold(name: str) -> Float[np.ndarray, "prompts samples"]:
    (policy, tokenizer, _), asked = loaded(name), prompts("test")
    settings = {"max_new_tokens": LONGEST, "n": SAMPLES, "seed": SEED}
    texts = sample(policy, tokenizer, asked, **settings).texts
    gold = Gold().scores(repeated(asked, SAMPLES), texts)
    return gold.reshape(len(asked), SAMPLES)
