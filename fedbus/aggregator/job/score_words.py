"""What a site measured, in a few words for people."""

from __future__ import annotations

from fedbus.core.job.scores import Score

MOST_NAMED = 8
"""So many metrics of a score stand in its sentence."""
MOST_REASON = 200


def score_words(score: Score) -> str:
    """Return 'auc 0.812, loss 0.400'; 'no metric' for a score without any."""
    parts = [f"{name} {value:.3f}" for name, value in list(score.metrics.items())[:MOST_NAMED]]
    parts += [f"{name} is not finite" for name in score.not_finite[:MOST_NAMED]]
    return ", ".join(parts) or "no metric"
