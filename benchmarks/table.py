"""The README's figures, from ``benchmarks/results``: ``python -m benchmarks.table --write``.

A claim names a line of a row; figure, baseline, ratio, date and machine come from the file, so that
nothing is typed by hand. Every target that the kept figures miss is listed below the table, whether
or not a claim mentions its row, and so is every row with targets that has no kept figures.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.frame import TARGETS
from benchmarks.store import RESULTS, read

__all__ = ["BEGIN", "END", "Claim", "render", "replaced"]

BEGIN, END = "<!-- figures: python -m benchmarks.table --write -->", "<!-- end of figures -->"
_README = Path(__file__).parents[1] / "README.md"


class Claim(NamedTuple):
    """One line of the table: where its figures are, and what they are called."""

    family: str
    row: str
    key: str
    what: str
    against: str
    unit: str = ""


CLAIMS = (
    Claim("engines", "E1", "logistic_pyro", "a step of SVI, logistic regression", "Pyro", "us"),
    Claim("engines", "E1", "logistic_numpyro", "the same", "NumPyro", "us"),
    Claim("engines", "E1", "hierarchical_numpyro", "a step of SVI, 1000 groups", "NumPyro", "us"),
    Claim("engines", "E3", "logistic_pyro", "effective draws a second, logistic", "Pyro NUTS"),
    Claim("engines", "E3", "logistic_numpyro", "the same", "NumPyro NUTS"),
    Claim("tensor", "T9", "fit", "functional Tucker to the same error", "published scheme", "s"),
    Claim("tensor", "T17", "gradient", "GP log-likelihood and gradient", "tinygp", "s"),
    Claim("sparse", "S17", "nmse", "channel error, angles off the grid", "on the grid"),
    Claim("pde", "P18", "error", "a sharp layer, relative error", "Chebyshev"),
    Claim(
        "pde", "P22", "line_time", "high-frequency solution", "100 epochs published, error .26", "s"
    ),
    Claim("fractional", "R8", "batch", "likelihoods, 100 series by 49 indices", "Cholesky", "s"),
    Claim("fractional", "R7", "dfa_0.3", "error of the Hurst index, H = .3", "DFA"),
    Claim("fractional", "R7", "l2_0.3", "the same", "published weights"),
    Claim("fractional", "R17", "increment", "error of H(t) from one path", "ten windows"),
    Claim("fractional", "R10", "direct", "gradient of a fractional SDE", "torchsde", "ms"),
    Claim("similarity", "D13", "opendp", "discrete Gaussian noise, times faster", "OpenDP"),
    Claim("similarity", "D18", "faster", "a private query, times faster", "published tree"),
)


def render(
    results: Path = RESULTS, claims: tuple[Claim, ...] = CLAIMS, targets: Path = TARGETS
) -> str:
    """The table, the misses and the rows without kept figures as Markdown.

    Raises:
        KeyError: a claim names a row or a line that is not in the results.
    """
    kept = {path.stem: read(path) for path in sorted(results.glob("*.json"))}
    lines = [
        "| what | probkit | compared with | ratio | row, day |",
        "| --- | --- | --- | --- | --- |",
        *(_claim(claim, kept) for claim in claims),
        "",
        f"{_where(kept)} CPU seconds of one thread, both sides in one process.",
    ]
    missed = list(_missed(kept))
    judged = sum(1 for _ in _judged(kept))
    if missed:
        lines += [f"Of {judged} targets with kept figures, {len(missed)} are missed:", "", *missed]
    else:
        lines.append(f"All {judged} targets with kept figures are met.")
    unknown = list(_without_figures(kept, targets))
    if unknown:
        lines += ["", f"Rows with targets, but without kept figures: {', '.join(unknown)}."]
    return "\n".join(lines)


def replaced(text: str, table: str) -> str:
    """A page with the part between the two marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _claim(claim: Claim, kept: dict[str, Any]) -> str:
    entry = kept[claim.family][claim.row]
    (line,) = (found for found in entry["lines"] if found["key"] == claim.key)
    unit = f" {claim.unit}" if claim.unit else ""
    baseline, ratio = line["baseline"], line["ratio"]
    other = "" if baseline is None else f", {_number(baseline)}{unit}"
    share = "" if ratio is None else _ratio(ratio)
    where = f"`{claim.family}` {claim.row}, {entry['date']}"
    own = f"{_number(line['figure'])}{unit}"
    return f"| {claim.what} | {own} | {claim.against}{other} | {share} | {where} |"


def _judged(kept: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for family, rows in kept.items():
        for row, entry in rows.items():
            for line in entry["lines"]:
                if line["pass"] is not None:
                    yield family, row, line


def _missed(kept: dict[str, Any]) -> Iterator[str]:
    for family, row, line in _judged(kept):
        if not line["pass"]:
            number = line["ratio"] if str(line["target"]).startswith("ratio") else line["figure"]
            reached = line.get("reason", "") if number is None else _number(number)
            yield f"- `{family}` {row}, {line['what']}: {reached}, target {line['target']}"


def _without_figures(kept: dict[str, Any], targets: Path) -> Iterator[str]:
    for family, rows in tomllib.loads(targets.read_text(encoding="utf-8")).items():
        missing = [row for row in rows if row not in kept.get(family, {})]
        if missing:
            yield f"`{family}` {' '.join(missing)}"


def _where(kept: dict[str, Any]) -> str:
    machines = {e["machine"].split("; float64")[0] for rows in kept.values() for e in rows.values()}
    return " / ".join(sorted(machines)) + "."


def _ratio(value: float) -> str:
    return f"1 / {1 / value:.3g}" if value < 0.5 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    options = parser.parse_args(arguments)
    table = render()
    if options.write:
        text = _README.read_text(encoding="utf-8")
        _README.write_text(replaced(text, table), encoding="utf-8")
    else:
        print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
