"""Words of the command line that stand for lists, and names that a shell can complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from probkit.errors import ConfigurationError, message
from probkit.frames import existing_file

__all__ = ["check_files", "complete", "numbers", "split"]


def check_files(*names: str | Path) -> None:
    """Missing files are told before torch and Pyro are loaded, which takes seconds.

    A word without a suffix may be the name of a data set.

    Raises:
        DataError: there is no such file.

    Example:
        >>> check_files("sst")
    """
    for name in names:
        if Path(name).suffix:
            existing_file(name)


def split(text: str | None) -> list[str] | None:
    """Words separated by commas; None stays None.

    Example:
        >>> split("lat, lon")
        ['lat', 'lon']
    """
    return [part.strip() for part in text.split(",")] if text else None


def numbers(text: str, where: str, kind: type[int] | type[float] = float) -> list[float]:
    """Numbers separated by commas.

    Raises:
        ConfigurationError: a word that is no number; ``where`` names the option.

    Example:
        >>> numbers("4,12", "--snr")
        [4.0, 12.0]
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        whole = "whole numbers" if kind is int else "numbers"
        raise ConfigurationError(
            message(
                "This is no list of numbers",
                where=where,
                got=repr(text),
                expected=f"{whole} separated by commas",
            )
        ) from error


def complete(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell may offer for a word that was begun.

    Example:
        >>> complete(["sst", "il2"])("s")
        ['sst']
    """

    def offer(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return offer
