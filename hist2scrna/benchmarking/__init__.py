"""Benchmarks: planned, run job by job, and read as tables."""
