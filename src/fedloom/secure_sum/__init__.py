"""Sums of clients' rows of which the server learns nothing but the sum: `docs/secure_sums.md`.

A pure library: what is sent are frozen records, and somebody else carries them.
"""

__all__: list[str] = []
