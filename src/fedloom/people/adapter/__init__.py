"""Where people meet the frame: the example kind, the model family, the task and the sources, and nothing else."""

__all__: list[str] = []
