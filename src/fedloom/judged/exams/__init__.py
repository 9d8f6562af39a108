"""Open-ended examinations, one per file: each an `Exam` that says what to ask and how to read verdicts."""

__all__ = ["UNANSWERED", "UNPARSED"]

UNPARSED = "unparsed"
"""The score that counts the verdicts which say nothing."""

UNANSWERED = "unanswered"
"""The score that counts the answers and verdicts which cannot be had; none where there are all."""
