"""Our own re-implementations of what the benchmarks compare with; nothing here is fast."""
