"""Closed-ended examinations through lm-eval: our model, adapters and templates under its tasks and ours."""

__all__: list[str] = []
