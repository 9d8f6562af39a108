"""What a client costs in a round, measured up to 10^5 simulated clients, and a plan for a million."""

__all__: list[str] = []
