"""``probkit similarity release``, ``query`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probkit.cli.options import OutFile, Seed
from probkit.cli.running import Lines, command
from probkit.cli.words import check_files, split

__all__ = ["app"]

app = typer.Typer(
    help="Private similarity: release once, query for ever.",
    no_args_is_help=True,
)


@command(app)
def release(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="CSV or Parquet file of numeric columns.")
    ],
    epsilon: Annotated[str, typer.Option(help="Privacy budget, as a decimal or a fraction.")],
    bounds: Annotated[
        str,
        typer.Option(
            help='Domain of the columns: "0,9", "0,9;-1,1", or a JSON file of pairs; values '
            "outside count as the nearest bound."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write: new.", dir_okay=False)],
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
    seed: Seed = 0,
) -> Lines:
    """Release a private similarity structure of a table. Every run spends privacy budget.

    The seed is public and chooses random features; the noise is drawn from the system.
    """
    check_files(data)
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
        columns=split(columns),
        bandwidth=bandwidth,
        ledger=ledger,
        seed=seed,
    )
    return job.run()


@command(app)
def query(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="File of a release.")],
    points: Annotated[Path, typer.Argument(metavar="POINTS", help="File with the same columns.")],
    out: OutFile = None,
) -> Lines:
    """Answer at points; costs no privacy."""
    check_files(points)
    from probkit.similarity.study import query_file

    path = query_file(release, points, out)
    yield f"wrote {path}"
    return {"file": str(path)}


@command(app)
def inspect(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="File of a release.")],
) -> Lines:
    """Print what was spent and what the release promises."""
    from probkit.similarity.release import Release
    from probkit.similarity.study import describe_release

    found = Release.load(release)
    yield found.describe()
    return describe_release(found)
