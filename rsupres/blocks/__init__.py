"""Network parts that families share: blocks, attention, embeddings, resampling."""
