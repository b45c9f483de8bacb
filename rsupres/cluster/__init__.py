"""Compute the shards of a run in several processes, of one machine or of a cluster."""
