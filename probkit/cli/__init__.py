"""The ``probkit`` command."""
