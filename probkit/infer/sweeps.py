"""Many fits at once: one job for every combination of seeds and settings.

A job is a function of its settings that returns a result. Jobs run in the processes of the standard
library's pool, each on one thread, or through ``dask.distributed`` (extra ``distributed``).
Outcomes come in the order of the settings; one that fails keeps its error and does not disturb the
others. With a directory, results are written as they come, and a second call only runs what is
missing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import pickle
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from probkit.errors import ConfigurationError, DependencyError, message
from probkit.infer.result import FitResult

__all__ = ["Outcome", "fit_many", "grid"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Args:
        settings: of the job.
        result: what it returned, None if it failed.
        error: the text of its traceback, empty if it succeeded.
    """

    settings: Settings
    result: Any = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the job returned."""
        return not self.error


def grid(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the values; the last name varies fastest.

    Example:
        >>> grid(steps=[100, 200], seed=range(2))[:3]
        [{'steps': 100, 'seed': 0}, {'steps': 100, 'seed': 1}, {'steps': 200, 'seed': 0}]
    """
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def fit_many(
    job: Callable[..., Any],
    settings: Sequence[Settings],
    *,
    out: str | Path | None = None,
    backend: str = "processes",
    workers: int | None = None,
    client: Any = None,
    progress: bool = False,
) -> list[Outcome]:
    """Run ``job(**s)`` for every ``s`` in ``settings``.

    Args:
        job: a function of a module (processes import it by name); in a script, call ``fit_many``
            below ``if __name__ == "__main__":``.
        settings: keyword arguments of each job; JSON-able if ``out`` is given.
        out: directory for results, which must then be ``FitResult``; those that are there already
            are loaded, failed ones are tried again. It belongs to one job and its data.
        backend: "processes", "dask", or "serial" for this process, one after the other.
        workers: how many at a time; None for one a processor.
        client: a ``dask.distributed.Client``; None starts a cluster on this machine. On other
            machines ``out`` must be a directory that all of them share.
        progress: show a progress bar.

    Returns:
        Outcomes in the order of ``settings``.

    Raises:
        ConfigurationError: an unknown backend, a job that processes cannot import, settings that
            occur twice or cannot be written.
        DependencyError: dask is not installed.

    Example:
        >>> def share(whole, parts):
        ...     return whole / parts
        >>> for outcome in fit_many(share, grid(whole=[6], parts=[2, 0]), backend="serial"):
        ...     print(outcome.result if outcome.ok else outcome.error.splitlines()[-1])
        3.0
        ZeroDivisionError: division by zero
    """
    if backend not in ("processes", "dask", "serial"):
        raise ConfigurationError(
            message(
                "There is no such backend",
                where="backend",
                got=repr(backend),
                expected='"processes", "dask" or "serial"',
            )
        )
    folders = _folders(job, settings, out)
    outcomes = {i: found for i, s in enumerate(settings) if (found := _load(s, folders[i]))}
    missing = [i for i in range(len(settings)) if i not in outcomes]
    with tqdm(total=len(settings), initial=len(outcomes), disable=not progress) as bar:

        def keep(i: int, answer: bytes) -> None:
            outcomes[i] = _outcome(settings[i], folders[i], answer)
            bar.update()

        if backend == "serial":
            for i in missing:
                keep(i, _call(job, dict(settings[i]), folders[i]))
        elif missing:
            _require_importable(job)
            tasks = {i: (job, dict(settings[i]), folders[i]) for i in missing}
            _run_tasks(tasks, keep, backend, workers, client)
    return [outcomes[i] for i in range(len(settings))]


_Task = tuple[Callable[..., Any], dict[str, Any], Path | None]


def _run_tasks(
    tasks: dict[int, _Task],
    keep: Callable[[int, bytes], None],
    backend: str,
    workers: int | None,
    client: Any,
) -> None:
    # a process that dies takes its pool, or what its worker had in hand, with it; alone, the
    # culprit is known and the others finish
    if backend == "dask":
        with _DaskPool(workers, client) as pool:
            lost = _lost_worker()
            for i in _collect(pool, tasks, keep, lost):
                if _collect(pool, {i: tasks[i]}, keep, lost):
                    keep(i, pickle.dumps((None, _DIED)))
        return
    with _process_pool(workers) as pool:
        unfinished = _collect(pool, tasks, keep, BrokenProcessPool)
    for i in unfinished:
        with _process_pool(1) as pool:
            if _collect(pool, {i: tasks[i]}, keep, BrokenProcessPool):
                keep(i, pickle.dumps((None, _DIED)))


_DIED = "The process died without a word. Likely causes: it ran out of memory, or it was killed."


def _lost_worker() -> type[Exception]:
    from distributed.scheduler import KilledWorker

    found: type[Exception] = KilledWorker
    return found


def _collect(
    pool: Executor,
    tasks: dict[int, _Task],
    keep: Callable[[int, bytes], None],
    lost: type[Exception],
) -> list[int]:
    """Run tasks in a pool; returns those that were cut off by a process's end, in order."""
    unfinished = []
    try:
        futures: dict[Future[bytes], int] = {}
        for i, task in tasks.items():
            futures[pool.submit(_call, *task)] = i
        for future in as_completed(futures):
            try:
                keep(futures[future], future.result())
            except lost:
                unfinished.append(futures[future])
            except Exception as error:  # a cluster's own: a job that it cannot send
                text = "".join(traceback.format_exception(error))
                keep(futures[future], pickle.dumps((None, text)))
    except BaseException:
        # an interrupt: what is done is on disk, what has not begun is not begun
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return sorted(unfinished)


def _call(job: Callable[..., Any], settings: dict[str, Any], folder: Path | None) -> bytes:
    """Run one job where it is; the answer is a pickle of (result, error).

    Pickled here, because the pool's own way with tensors is shared memory, which this process
    would have to outlive. A result with a folder is written there and not sent.
    """
    try:
        result = job(**settings)
        if folder is None:
            return pickle.dumps((result, ""))
        if not isinstance(result, FitResult):
            raise ConfigurationError(
                message(
                    "Only fits can be written to a directory",
                    where="job's return value",
                    got=type(result).__name__,
                    expected="FitResult",
                    remedy="return result_ of an estimator, or leave out= away",
                )
            )
        temporary = folder.with_suffix(".part")
        shutil.rmtree(temporary, ignore_errors=True)
        result.save(temporary)
        temporary.replace(folder)
        return pickle.dumps((None, ""))
    except Exception:
        return pickle.dumps((None, traceback.format_exc()))


def _outcome(settings: Settings, folder: Path | None, answer: bytes) -> Outcome:
    result, error = pickle.loads(answer)
    if not error and folder is not None:
        result = FitResult.load(folder)
    return Outcome(settings, result, error)


def _load(settings: Settings, folder: Path | None) -> Outcome | None:
    if folder is None or not folder.is_dir():
        return None
    return Outcome(settings, FitResult.load(folder))


def _folders(
    job: Callable[..., Any], settings: Sequence[Settings], out: str | Path | None
) -> list[Path | None]:
    """A folder for every job, named by its settings; None each where nothing is written."""
    if out is None:
        return [None] * len(settings)
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    name = getattr(job, "__qualname__", type(job).__qualname__)
    texts = []
    for entry in settings:
        try:
            texts.append(json.dumps([name, dict(entry)], sort_keys=True))
        except TypeError as error:
            raise ConfigurationError(
                message(
                    "Settings must be JSON-able to be found again in a directory",
                    where="settings",
                    got=entry,
                    remedy="name things by strings and numbers and build them inside the job",
                )
            ) from error
    if len(set(texts)) < len(texts):
        raise ConfigurationError(
            message("The same settings occur twice", where="settings", remedy="add a seed to them")
        )
    return [directory / hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def _require_importable(job: Callable[..., Any]) -> None:
    main = sys.modules["__main__"]
    interactive = job.__module__ == "__main__" and not hasattr(main, "__file__")
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError):
        interactive = True
    if interactive:
        raise ConfigurationError(
            message(
                "Other processes cannot import this job",
                where="job",
                got=getattr(job, "__qualname__", repr(job)),
                expected="a function at the top level of a module or script",
                remedy='move it to a file, or use backend="serial"',
            )
        )


def _process_pool(workers: int | None) -> ProcessPoolExecutor:
    # spawned, because a fork of a process with torch's threads may hang
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)


class _DaskPool:
    """An executor on the given client, or on a cluster of this machine for as long as it lasts."""

    def __init__(self, workers: int | None, client: Any) -> None:
        try:
            import distributed
        except ImportError as error:
            raise DependencyError(
                message(
                    "dask is not installed",
                    where='backend="dask"',
                    remedy='pip install "probkit[distributed]"',
                )
            ) from error
        self._cluster = None
        if client is None:
            self._cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
            client = distributed.Client(self._cluster)
        self._client = client

    def __enter__(self) -> Any:
        return self._client.get_executor(pure=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._cluster is not None:
            self._client.close()
            self._cluster.close()
