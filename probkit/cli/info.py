"""``probkit list`` and ``probkit doctor``."""

from __future__ import annotations

import typer

__all__ = ["datasets", "doctor"]


def datasets() -> None:
    """Print the bundled data sets."""
    from probkit.datasets import DATASETS

    for name, description in DATASETS.items():
        typer.echo(f"{name:14s} {description}")


def doctor() -> None:
    """Print versions, threads and devices."""
    import torch

    from probkit.infer.provenance import versions

    for name, value in versions().items():
        typer.echo(f"{name:18s} {value}")
    typer.echo(f"{'threads':18s} {torch.get_num_threads()}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    typer.echo(f"{'cuda':18s} {device}")
