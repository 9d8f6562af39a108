"""From text to tokens: words, templates, masks, embeddings."""

__all__: list[str] = []
