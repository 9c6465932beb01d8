"""``probkit list``: what can be named on the command line."""

from __future__ import annotations

from probkit.cli.running import Lines
from probkit.dataset_names import DATASETS

__all__ = ["show"]


def show() -> Lines:
    """Families, bundled data sets and named problems."""
    from probkit.cli.application import family_modules

    sections: dict[str, dict[str, str]] = {"families": {}, "data sets": dict(DATASETS)}
    for name, module in family_modules():
        sections["families"][name] = str(module.app.info.help)
        named = getattr(module, "named_problems", None)
        if named is not None:
            sections[f"{name} problems"] = named()
    for title, entries in sections.items():
        yield f"{title}:"
        width = max((len(name) for name in entries), default=0)
        for name, text in entries.items():
            yield f"  {name:{width}s}  {text}"
    return dict(sections)
