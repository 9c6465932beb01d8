"""``probkit similarity release``, ``query`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Differentially private similarity: release once, query for ever.",
    no_args_is_help=True,
)


@app.command()
def release(
    data: Annotated[Path, typer.Argument(help="CSV or Parquet file of numeric columns.")],
    epsilon: Annotated[str, typer.Option(help="Privacy budget, as a decimal or a fraction.")],
    bounds: Annotated[
        str,
        typer.Option(help='Domain of the columns: "0,9", "0,9;-1,1", or a JSON file of pairs.'),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    kernel: Annotated[
        str,
        typer.Option(
            help="gaussian, exponential, laplacian, cauchy, inverse, inverse_l1, l1, l2 or l2sq."
        ),
    ] = "gaussian",
    relation: Annotated[str, typer.Option(help="replace or add_remove.")] = "replace",
    delta: Annotated[float | None, typer.Option(help="For (epsilon, delta); else pure.")] = None,
    bandwidth: Annotated[float, typer.Option(help="In parts of the bounds' width.")] = 0.1,
    columns: Annotated[str | None, typer.Option(help="Columns, separated by commas.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger file that pays.")] = None,
    seed: Annotated[int, typer.Option(help="Public; of random features.")] = 0,
) -> None:
    """Release a private similarity structure of a table. Every run spends privacy budget."""
    from probkit.privacy.budget import check_relation
    from probkit.similarity.study import ReleaseJob, parse_bounds

    job = ReleaseJob(
        data=data,
        out=out,
        similarity=kernel,
        bounds=parse_bounds(bounds),
        epsilon=epsilon,
        delta=delta,
        relation=check_relation(relation),
        columns=[c.strip() for c in columns.split(",")] if columns else None,
        bandwidth=bandwidth,
        ledger=ledger,
        seed=seed,
    )
    for line in job.run():
        typer.echo(line)


@app.command()
def query(
    release: Annotated[Path, typer.Argument(help="File of a release.")],
    points: Annotated[Path, typer.Argument(help="File with the same columns.")],
    out: Annotated[
        Path | None, typer.Option(help="Output file; default POINTS_similarity.csv.")
    ] = None,
) -> None:
    """Answer at points; costs no privacy."""
    from probkit.similarity.study import query_file

    typer.echo(f"wrote {query_file(release, points, out)}")


@app.command()
def inspect(release: Annotated[Path, typer.Argument(help="File of a release.")]) -> None:
    """Print what was spent and what the release promises."""
    from probkit.similarity.release import Release

    typer.echo(Release.load(release).describe())
