"""Seeds and generators: every random number in probkit comes from an explicit generator."""

from __future__ import annotations

from numbers import Integral

import torch

from probkit.errors import ConfigurationError, DtypeError, message

__all__ = ["Seed", "as_generator", "fixed_seed", "spawn_seeds"]

Seed = int | torch.Generator | None

_LARGEST = 2**64 - 1
"""of what a generator of torch takes"""


def as_generator(seed: Seed, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for ``seed``; a generator is passed through, so that its state advances.

    Args:
        seed: an integer (NumPy's too) from 0 to 2**64 - 1, a ``torch.Generator``, or None for
            fresh entropy.
        device: where the generator lives; ignored when a generator is given.

    Raises:
        ConfigurationError: a seed that is negative or has more than 64 bits.
        DtypeError: anything that is neither an integer, a generator nor None.

    Example:
        >>> a, b = as_generator(3), as_generator(3)
        >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
        True
    """
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
        return generator
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise DtypeError(
            message(
                "A seed must be an integer",
                where="seed",
                got=f"{type(seed).__name__} {seed!r}",
                expected="int, torch.Generator or None",
            )
        )
    if not 0 <= seed <= _LARGEST:
        what = "A seed must not be negative" if seed < 0 else "A seed has at most 64 bits"
        raise ConfigurationError(
            message(what, where="seed", got=seed, expected=f"from 0 to {_LARGEST}")
        )
    generator.manual_seed(int(seed))
    return generator


def fixed_seed(seed: Seed) -> int:
    """The seed if it is an integer, else one drawn from the generator or from fresh entropy.

    For settings that are used again and saved: every use then gives the same numbers.

    Raises:
        ConfigurationError: a seed that is negative or has more than 64 bits.
        DtypeError: anything that is neither an integer, a generator nor None.

    Example:
        >>> fixed_seed(3), fixed_seed(as_generator(0)) == fixed_seed(as_generator(0))
        (3, True)
    """
    if isinstance(seed, Integral) and not isinstance(seed, bool):
        seed = int(seed)
    generator = as_generator(seed)
    return seed if isinstance(seed, int) else spawn_seeds(generator, 1)[0]


def spawn_seeds(generator: torch.Generator, count: int) -> list[int]:
    """Draw ``count`` independent integer seeds for parts of a computation.

    Example:
        >>> len(set(spawn_seeds(as_generator(0), 3)))
        3
    """
    draws = torch.randint(0, 2**62, (count,), generator=generator, device=generator.device)
    return [int(value) for value in draws.cpu()]
