"""The README's Python runs as it stands, top to bottom, and ends well."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_readme_examples_run(capsys):
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"-?\d\.\d\d ± 0\.\d\d", printed[0])
    assert printed[1] == "Status.CONVERGED"
    assert printed[2].startswith("GREEN")


def test_readme_pictures_are_there():
    text = README.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 5
    assert all((README.parent / picture).is_file() for picture in pictures)
