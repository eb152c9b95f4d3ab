"""One self-contained page: sections, charts and the script that draws them, in the style of all pages of itrpo."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from itrpo import files
from itrpo.report.page import charts, html
from itrpo.report.page.charts import Chart
from itrpo.report.page.html import esc

HERE = Path(__file__).parent


class Section(NamedTuple):
    anchor: str
    title: str
    navigation: str  # "": not in the bar
    body: str
    kind: str | None = None


class Words(NamedTuple):
    """What one kind of page says of itself. Title and generator are text, the others HTML."""

    title: str
    generator: str  # the command
    lead: str
    footer: str
    noscript: str
    switches: str = ""  # in the bar
    root: str = ""  # attributes of the root


def document(words: Words, facts: Mapping[str, str], sections: Sequence[Section], drawn: Sequence[Chart]) -> str:
    """The HTML. Raises InputError where vl-convert is not installed."""
    from itrpo import __version__

    content = {
        "charts": {it.name: {"spec": it.spec, "panels": it.panels, "height": it.height} for it in drawn},
        "data": {it.name: it.data for it in drawn},
        "config": charts.config(),
    }
    versions = " ".join(f"{name} {version}." for name, version in charts.versions().items())
    values = words._asdict() | {
        "title": esc(words.title),
        "generator": esc(words.generator),
        "facts": html.facts(facts),
        "navigation": "".join(
            f'<a href="#{esc(it.anchor)}">{esc(it.navigation)}</a>' for it in sections if it.navigation
        ),
        "sections": "\n".join(html.section(it.anchor, it.title, it.body, it.kind) for it in sections),
        "version": esc(__version__),
        "drawn": f"Charts: {esc(versions)}",
        "content": script_json(content),
    }
    return string.Template(_shell()).substitute(values)


@cache
def _shell() -> str:
    """The template with all that no page changes in it: 0.9 MB, of which nothing else may be taken for a name."""
    dark = (HERE / "dark.css").read_text("utf-8")
    fixed = {
        "css": string.Template((HERE / "page.css").read_text("utf-8")).substitute(dark=dark),
        "script": (HERE / "page.js").read_text("utf-8"),
        "vega": charts.bundle().replace("</script", r"<\/script").replace("<!--", r"<\!--"),
    }
    escaped = {name: text.replace("$", "$$") for name, text in fixed.items()}
    return string.Template((HERE / "page.html").read_text("utf-8")).safe_substitute(escaped)


def script_json(value: Any) -> str:
    """JSON that no text of which can end its <script>."""
    text = json.dumps(files.strict(value), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
