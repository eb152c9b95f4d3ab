"""Tables inside documents: each stands between two comments that name it, and is written anew from its rows."""

from __future__ import annotations

from pathlib import Path

from itrpo import files

DOCS = Path(__file__).parents[1] / "docs"


def split(document: Path, name: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands after it, both comments left where they are.

    Raises ValueError if the document has no such place, or more than one.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = document.read_text("utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{document}: needs one {begin.strip()} and one {end.strip()}, each on a line of its own")
    before, _, rest = text.partition(begin)
    table, _, after = rest.partition(end)
    return before + begin, table.strip(), end + after


def write(document: Path, name: str, table: str) -> None:
    """Puts the table into the document in place of the one that is there, and prints it."""
    before, _, after = split(document, name)
    files.write(document, f"{before}\n{table.strip()}\n\n{after}".encode())
    print(table)
