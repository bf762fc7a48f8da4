"""Constitutional AI (arXiv 2212.08073): principles, critique, revision, AI feedback.

Works with any policy, tokenizer and principles in words.
"""

# fmt: off
from labs_helpers.constitution.principles import (
    BadConstitution, Constitution, Principle, load_constitution,
)
from labs_helpers.constitution.revision import (
    Round, Transcript, critique_and_revise, revised_answers, turn_tokens, unusable,
    word_diff,
)
from labs_helpers.constitution.feedback import (
    Comparisons, ConstitutionJudge, compare_by_principles, judge_by_principles,
    preferences_from, principle_scores,
)
