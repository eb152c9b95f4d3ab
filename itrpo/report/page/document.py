"""One self-contained page: sections, charts and the script that draws them, in the style of all pages of itrpo."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from itrpo import files
from itrpo.report.page import charts, html
from itrpo.report.page.charts import Chart
from itrpo.report.page.html import esc

HERE = Path(__file__).parent


class Part(NamedTuple):
    """A section of a page: text, charts, text."""

    anchor: str
    title: str
    navigation: str  # in the bar; of parts that share it the first is
    before: str = ""
    charts: Sequence[Chart] = ()
    after: str = ""
    kind: str | None = None  # of data


class Words(NamedTuple):
    """What one kind of page says of itself. Title and generator are text, the others HTML."""

    title: str
    generator: str  # the command
    lead: str
    footer: str
    noscript: str
    switches: str = ""  # in the bar
    root: str = ""  # attributes of the root


def document(
    words: Words, facts: Mapping[str, str], parts: Sequence[Part], figure: Callable[[Chart], str] = html.figure
) -> str:
    """The HTML; `figure` is what stands where a chart is drawn. Raises InputError where vl-convert is not installed."""
    from itrpo import __version__

    drawn = [chart for it in parts for chart in it.charts]
    bar = dict[str, str]()
    for it in parts:
        bar.setdefault(it.navigation, it.anchor)
    sections = [
        html.section(it.anchor, it.title, it.before + "".join(map(figure, it.charts)) + it.after, it.kind)
        for it in parts
    ]
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
        "navigation": "".join(f'<a href="#{esc(anchor)}">{esc(name)}</a>' for name, anchor in bar.items() if name),
        "sections": "\n".join(sections),
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
