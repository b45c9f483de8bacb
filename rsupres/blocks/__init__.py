"""Network parts that families share: residual blocks, attention, embeddings, resampling."""
