"""Estimate the memory, disk and time of a job, and measure this machine for it."""
