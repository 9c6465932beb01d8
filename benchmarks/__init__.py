"""Speed, memory and accuracy against named baselines: ``python -m benchmarks.run tensor``."""
