"""The frame of all benchmarks: rows, targets, one printed line a figure, machine-readable output.

A family is a module that defines rows::

    @row("T9", "time to accuracy")
    def time_to_accuracy(context):
        yield Line("fit", "time to RMSE .2852 (CPU s)", figure=3.1, baseline=54.0)

A row yields one :class:`Line` a figure. ``Line.key`` names its entry in ``targets.toml`` under the
family and the row's id; a line without an entry is a report. A row that cannot run raises
:class:`Unavailable`. A row that crashes is a miss with the exception's text, and the others go on.
"""

from __future__ import annotations

import platform
import resource
import time
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from benchmarks.store import write_row

__all__ = [
    "Context",
    "Line",
    "Report",
    "Row",
    "Target",
    "Unavailable",
    "cpu_seconds",
    "cpu_time",
    "cpu_times",
    "load_targets",
    "machine",
    "row",
    "rows_of",
    "run_rows",
]

TARGETS = Path(__file__).with_name("targets.toml")
_HEADER = ("id", "what", "figure", "target", "baseline", "ratio", "pass")


class Unavailable(Exception):
    """The row cannot run here; its message is the reason."""


@dataclass(frozen=True)
class Context:
    """What a row may depend on.

    ``quick`` asks for small sizes; targets hold for the full sizes, so nothing is judged then.
    """

    data_dir: Path | None = None
    quick: bool = False

    def directory(self, file: str) -> Path:
        """The data directory, if it holds ``file``."""
        if self.data_dir is None:
            raise Unavailable(f"needs {file}: no --data-dir given")
        if not (self.data_dir / file).is_file():
            raise Unavailable(f"needs {file}: not in {self.data_dir}")
        return self.data_dir

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Line:
    """One figure of a row; ``baseline`` is the same quantity of what it is compared with."""

    key: str
    what: str
    figure: float | None
    baseline: float | None = None
    reason: str | None = None
    """why there is no figure, or a remark"""


@dataclass(frozen=True)
class Target:
    """A bound on the figure, or on figure / baseline where ``on`` is "ratio"."""

    value: float | tuple[float, float]
    comparison: str
    source: str
    date: str
    on: str = "figure"

    def met(self, figure: float | None, ratio: float | None) -> bool:
        number = ratio if self.on == "ratio" else figure
        if number is None or number != number:
            return False
        if isinstance(self.value, tuple):
            return self.value[0] <= number <= self.value[1]
        return number <= self.value if self.comparison == "<=" else number >= self.value

    def __str__(self) -> str:
        prefix = "ratio " if self.on == "ratio" else ""
        if isinstance(self.value, tuple):
            return f"{prefix}in [{self.value[0]:g}, {self.value[1]:g}]"
        return f"{prefix}{self.comparison} {self.value:.4g}"


@dataclass(frozen=True)
class Row:
    """A registered row: a function that yields lines."""

    id: str
    what: str
    run: Callable[[Context], Iterable[Line]]


@dataclass
class Report:
    """The outcome: one dict a line with the keys of the JSON file."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missed(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["pass"] is False]


_ROWS: dict[str, list[Row]] = {}


def row(id: str, what: str) -> Callable[[Callable[[Context], Iterable[Line]]], Row]:
    """Register a function of a family's module as a row; the family is the module's package."""

    def register(function: Callable[[Context], Iterable[Line]]) -> Row:
        family = function.__module__.split(".")[1]
        registered = Row(id, what, function)
        _ROWS.setdefault(family, []).append(registered)
        return registered

    return register


def rows_of(family: str, only: Iterable[str] = ()) -> list[Row]:
    """The family's rows in the order of their ids, or those named.

    Raises:
        KeyError: an id that no row has.
    """
    registered = _ROWS.get(family, [])
    letters = list(dict.fromkeys(r.id[0] for r in registered))
    rows = sorted(registered, key=lambda r: (letters.index(r.id[0]), int(r.id[1:])))
    wanted = list(only)
    known = {r.id for r in rows}
    unknown = [id for id in wanted if id not in known]
    if unknown:
        raise KeyError(f"no row {', '.join(unknown)} in {family}; rows: {', '.join(sorted(known))}")
    return [r for r in rows if not wanted or r.id in wanted]


def load_targets(family: str, path: Path = TARGETS) -> dict[str, dict[str, Target]]:
    """Targets by row id and line key."""
    table = tomllib.loads(path.read_text(encoding="utf-8")).get(family, {})
    return {
        id: {key: _target(entry) for key, entry in entries.items()} for id, entries in table.items()
    }


def run_rows(
    rows: Iterable[Row],
    context: Context,
    targets: dict[str, dict[str, Target]],
    *,
    stream: TextIO | None = None,
    json_path: Path | None = None,
) -> Report:
    """Run rows one after another, print each line as it comes, save after every row."""
    report = Report()
    print(_format(_HEADER), file=stream, flush=True)
    for one in rows:
        before, start = len(report.lines), cpu_seconds()
        for line in _lines(one, context):
            entry = _entry(one, line, context, targets.get(one.id, {}))
            report.lines.append(entry)
            print(_format(_cells(entry)), file=stream, flush=True)
        if json_path is not None:
            write_row(json_path, one.id, report.lines[before:], cpu_seconds() - start, machine())
    return report


def machine() -> str:
    """One line: processor, versions, threads."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                name = text.split(":", 1)[1].strip()
                break
    except OSError:  # not Linux: the name from `platform` stays
        pass
    return (
        f"{name}; {platform.system()}; Python {platform.python_version()}; "
        f"torch {torch.__version__}; {torch.get_num_threads()} thread; float64; CPU seconds"
    )


def cpu_seconds() -> float:
    """CPU time of this process and its ended children so far (``os.times`` counts 10 ms ticks)."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def cpu_time(function: Callable[[], object], repeats: int = 1) -> float:
    """CPU seconds of this process for one call, the least of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def cpu_times(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """CPU seconds of each, the least of ``repeats``, taken in turn to share the machine's pace."""
    rounds = [[cpu_time(function) for function in functions] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _lines(one: Row, context: Context) -> Iterator[Line]:
    try:
        yield from one.run(context)
    except Unavailable as error:
        yield Line("", one.what, None, reason=str(error))
    except Exception as error:  # a row must not take the others down
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        yield Line("!", one.what, None, reason=text)


def _entry(one: Row, line: Line, context: Context, targets: dict[str, Target]) -> dict[str, Any]:
    target = targets.get(line.key)
    ratio = None
    if line.figure is not None and line.baseline:
        ratio = line.figure / line.baseline
    passed: bool | None
    reason = line.reason
    if line.key == "!":
        passed = False
    elif line.figure is None:
        passed = None
    elif target is None:
        passed, reason = None, reason or "report, no target"
    elif context.quick:
        passed, reason = None, reason or "quick sizes: the target holds for the full ones"
    else:
        passed = target.met(line.figure, ratio)
    entry: dict[str, Any] = {
        "id": one.id,
        "key": line.key,
        "what": line.what,
        "figure": line.figure,
        "target": None if target is None else str(target),
        "baseline": line.baseline,
        "ratio": ratio,
        "pass": passed,
    }
    return entry | ({"reason": reason} if reason else {})


def _target(entry: dict[str, Any]) -> Target:
    value = entry["value"]
    comparison = entry["comparison"]
    if comparison not in ("<=", ">=", "range") or isinstance(value, list) != (
        comparison == "range"
    ):
        raise ValueError(f"targets.toml: value {value!r} does not go with {comparison!r}")
    bound = (value[0], value[1]) if isinstance(value, list) else float(value)
    return Target(bound, comparison, entry["source"], str(entry["date"]), entry.get("on", "figure"))


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    verdict = {True: "pass", False: "MISS", None: "-"}[entry["pass"]]
    if entry.get("reason"):
        verdict += f" ({entry['reason']})"
    return (
        entry["id"],
        entry["what"],
        _number(entry["figure"]),
        entry["target"] or "-",
        _number(entry["baseline"]),
        _number(entry["ratio"]),
        verdict,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _format(cells: tuple[str, ...]) -> str:
    widths = (4, 62, 10, 18, 10, 10, 0)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
