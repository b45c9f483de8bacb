"""Compute the strips of a shard, and those that two shards make together."""
