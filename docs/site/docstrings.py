"""Griffe's view of our docstrings: prose, `code` and indented equations; `*`, `_` and brackets are themselves."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Prose(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = escaped(obj.docstring.value)


def escaped(text: str) -> str:
    """`text` with Markdown's marks escaped, but for code: between backticks, or indented by four."""

    def line(one: str) -> str:
        if one.startswith("    "):
            return one
        parts = one.split("`")
        parts[::2] = [re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
        return "`".join(parts)

    return "\n".join(map(line, text.split("\n")))
