"""The report's figures as Vega-Lite specifications (plain dicts), and vl-convert, which draws them.

Colours of text, grid and arms are CSS variables: the page gives them, dark or light; `drawn` puts in the light ones.
A chart names its rows ("data": {"name": ...}); the page holds each once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from itrpo.errors import InputError

# Okabe and Ito's colours, then others as far apart; dark grounds have lighter ones (dark.css). BRAC's two controls are
# of one hue, as are the methods with a VAE.
LIGHT = {
    "--ink": "#1c1e21",
    "--muted": "#62676d",
    "--line": "#d9dcdf",
    "--paper": "#ffffff",
    "--c0": "#d55e00",
    "--c1": "#0072b2",
    "--c2": "#4aa8dd",
    "--c3": "#6b7178",
    "--c4": "#009e73",
    "--c5": "#c78a00",
    "--c6": "#b8568f",
    "--c7": "#7a4fb5",
    "--c8": "#8c564b",
    "--c9": "#5f8f1e",
    "--c10": "#17919e",
    "--c11": "#c23b4b",
    "--s0": "#7a8791",
    "--s1": "#3f7fb5",
    "--s2": "#7a4fb5",
    "--s3": "#c23b77",
    "--s4": "#d55e00",
}
COLORS = len([it for it in LIGHT if it.startswith("--c")])
OF_ALGORITHM = {
    "itrpo": 0,
    "brac_v": 1,
    "brac_p": 2,
    "bc": 3,
    "iql": 4,
    "td3_bc": 5,
    "cql": 6,
    "pbrl": 7,
    "bear": 8,
    "uwac": 9,
    "rebrac": 10,
    "spot": 11,
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


class Chart(NamedTuple):
    name: str  # of its files
    title: str
    caption: str
    spec: dict[str, Any]
    data: list[dict[str, Any]]
    height: int = 300  # of the figure, or of one panel
    panels: int = 0  # small multiples; 0: one plot, as wide as the page


def config() -> dict[str, Any]:
    """How all charts look."""
    axis = {
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titlePadding": 8,
        "labelOverlap": True,
    }
    return {
        "background": None,
        "font": FONT,
        "padding": 4,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "legend": {
            "labelColor": "var(--ink)",
            "titleColor": "var(--muted)",
            "titleFontWeight": "normal",
            "orient": "top",
            "direction": "horizontal",
            "labelFontSize": 12,
            "labelLimit": 220,
            "symbolStrokeWidth": 2.5,
            "symbolOpacity": 1,
            "symbolType": "stroke",
            "symbolSize": 220,
            "columnPadding": 14,
        },
        "header": {
            "labelColor": "var(--ink)",
            "labelFontSize": 12,
            "labelFontWeight": 600,
            "titleColor": "var(--muted)",
        },
        "title": {"color": "var(--ink)", "anchor": "start", "fontSize": 13},
    }


def palette(arms: Sequence[tuple[str, str]]) -> tuple[list[str], list[str], list[list[int]]]:
    """For arms as (title, algorithm): (titles, colours, dashes). An algorithm has one colour in all charts; further
    arms of it are dashed, in the nearest free colour."""
    taken: set[int] = set()
    colors, dashes = [], []
    for _, algorithm in arms:
        first = OF_ALGORITHM.get(algorithm, COLORS - 1)
        free = [first, *((first + it) % COLORS for it in range(1, COLORS))]
        others = {OF_ALGORITHM.get(it) for _, it in arms} - {first}
        index = next((it for it in free if it not in taken and (it == first or it not in others)), first)
        dashes.append([] if first not in taken else [6, 3])
        taken.add(index)
        colors.append(f"var(--c{index})")
    return [it for it, _ in arms], colors, dashes


def curves(
    name: str,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    arms: Sequence[tuple[str, str]],
    y: str,
    panel: Sequence[str] = (),
    legend: str = "",
    scale: dict[str, Any] | None = None,
) -> Chart:
    """Means over gradient steps with bands. Rows: s (step), m, lo, hi (numbers), a (arm), p (panel, where
    there are).
    """
    titles, colors, dashes = palette(arms)
    rows = with_bands(rows)
    color = {
        "field": "a",
        "type": "nominal",
        "title": legend or None,
        "scale": {"domain": titles, "range": colors},
        "sort": titles,
    }
    labels = "datum.value === 0 ? '0' : format(datum.value, '~s')"
    x = {"field": "s", "type": "quantitative", "title": "gradient steps", "axis": {"labelExpr": labels, "tickCount": 5}}
    faded = {"condition": {"param": "pick", "value": 1.0}, "value": 0.12}
    number = {"type": "quantitative", "format": ".3~r"}
    tooltip = [
        {"field": "a", "title": legend or "arm"},
        {"field": "s", "type": "quantitative", "format": ",", "title": "step"},
        {"field": "m", "title": "mean"} | number,
    ]
    if any(row["lo"] is not None for row in rows):
        tooltip += [{"field": "lo", "title": "95 % from"} | number, {"field": "hi", "title": "to"} | number]
    if panel:
        tooltip.insert(0, {"field": "p", "title": "dataset"})
    scaled = {"scale": {"zero": False} | (scale or {})}
    layers = [
        {
            "mark": {"type": "area", "opacity": 0.16, "clip": True},
            "encoding": {
                "y": {"field": "bl", "type": "quantitative", "title": y} | scaled,
                "y2": {"field": "bh"},
                "fillOpacity": {"condition": {"param": "pick", "value": 1.0}, "value": 0.1},
            },
        },
        {
            "params": [{"name": "pick", "select": {"type": "point", "fields": ["a"]}, "bind": "legend"}],
            "mark": {"type": "line", "strokeWidth": 2, "clip": True, "strokeJoin": "round"},
            "encoding": {
                "y": {"field": "m", "type": "quantitative", "title": y} | scaled,
                "opacity": faded,
                "strokeDash": {
                    "field": "a",
                    "type": "nominal",
                    "title": legend or None,
                    "scale": {"domain": titles, "range": [it or [1, 0] for it in dashes]},
                    "sort": titles,
                },
            },
        },
        {
            "mark": {"type": "point", "size": 70, "filled": True, "opacity": 0},
            "params": [
                {
                    "name": "near",
                    "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
                }
            ],
            "encoding": {
                "y": {"field": "m", "type": "quantitative", "title": y},
                "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
                "tooltip": tooltip,
            },
        },
    ]
    plot = {"layer": layers, "encoding": {"x": x, "color": color}}
    return framed(name, title, caption, plot, rows, panel, independent="y", labels=("gradient steps", y))


def with_bands(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with bl and bh, between which the band is drawn: the interval, but not further from the panel's means
    than a third of how far these lie apart: an interval over two seeds is 13 standard errors to either side.
    """
    means: dict[Any, list[float]] = {}
    for row in rows:
        means.setdefault(row.get("p"), []).append(row["m"])
    room = {panel: (max(it) - min(it)) / 3 for panel, it in means.items()}
    ends = {panel: (min(it) - room[panel], max(it) + room[panel]) for panel, it in means.items()}
    return [
        row | {"bl": max(low, ends[row.get("p")][0]), "bh": min(high, ends[row.get("p")][1])}
        for row in rows
        for low, high in [[row["m"] if row[it] is None else row[it] for it in ("lo", "hi")]]
    ]


def framed(
    name: str,
    title: str,
    caption: str,
    plot: dict[str, Any],
    rows: list[dict[str, Any]],
    panel: Sequence[str] = (),
    independent: str = "",
    height: int = 320,
    labels: tuple[str, str] = ("", ""),
) -> Chart:
    """A chart of one plot, or of one for each of `panel`, the values of "p". Of panels a line above them says what the
    axes (`labels`) are, instead of each of them.
    """
    if not panel:
        spec = plot | {"width": "container", "height": height}
        return Chart(name, title, caption, spec | {"data": {"name": name}}, rows, height)
    size = {"width": 270, "height": 150}
    header = {"labelExpr": "split(datum.label, /, (.*)/)"}  # the set's name above what was varied
    facet = {"field": "p", "type": "nominal", "title": None, "sort": list(panel), "header": header}
    spec = {
        "facet": facet,
        "columns": 3 if len(panel) % 4 else 4,  # eight panels have no gap in fours
        "spec": untitled(plot) | size,
        "data": {"name": name},
        "spacing": {"row": 14, "column": 16},
    }
    if labels[1]:
        spec["title"] = {"text": f"{labels[1]}, by {labels[0]}", "fontWeight": "normal", "fontSize": 12, "offset": 10}
    if independent:
        spec["resolve"] = {"scale": {independent: "independent"}, "axis": {"x": "independent"}}
    return Chart(name, title, caption, spec, rows, 150, len(panel))


def untitled(plot: dict[str, Any]) -> dict[str, Any]:
    """Without titles of axes, and with room for labels of one width, so that panels are in line."""
    plot = json.loads(json.dumps(plot))
    for part in (plot, *plot.get("layer", ())):
        for name in ("x", "y"):
            encoding = part.get("encoding", {}).get(name)
            if encoding is not None and encoding.get("type") == "quantitative" and "field" in encoding:
                encoding["title"] = None
                if name == "y":
                    encoding["axis"] = encoding.get("axis", {}) | {"minExtent": 34, "maxExtent": 34, "tickCount": 5}
    return plot


def lines(
    name: str,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    colors: Mapping[str, str],
    panel: Sequence[str],
    labels: tuple[str, str],
    independent: str,
    columns: int | None = None,
    steps: bool = False,
) -> Chart:
    """Lines of `colors` in panels, some with bands. Rows: s (x), m, lo, hi (None: no band), a (line), p (panel).
    `labels` are those of the axes, `independent` is "x" or "y", which each panel has its own of; `steps`: a value holds
    until the next.
    """
    number = {"type": "quantitative", "format": ".4~r"}
    scale = {"domain": list(colors), "range": list(colors.values())}
    y = {"type": "quantitative", "title": labels[1], "scale": {"zero": False}}
    shape = {"interpolate": "step-after"} if steps else {}
    tooltip = [
        {"field": "p", "title": "of"},
        {"field": "a", "title": "line"},
        {"field": "s", "title": labels[0]} | number,
        {"field": "m", "title": "value"} | number,
    ]
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.8, "strokeJoin": "round"} | shape,
            "encoding": {"y": {"field": "m"} | y},
        },
        {
            "mark": {"type": "point", "size": 70, "filled": True},
            "params": [
                {
                    "name": "near",
                    "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
                }
            ],
            "encoding": {
                "y": {"field": "m"} | y,
                "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
                "tooltip": tooltip,
            },
        },
    ]
    if any(it["lo"] is not None for it in rows):
        band = {
            "transform": [{"filter": "datum.lo !== null"}],
            "mark": {"type": "area", "opacity": 0.18},
            "encoding": {"y": {"field": "lo"} | y, "y2": {"field": "hi"}},
        }
        layers.insert(0, band)
    encoding = {
        "x": {"field": "s", "type": "quantitative", "title": labels[0], "scale": {"zero": False, "nice": False}},
        "color": {"field": "a", "type": "nominal", "title": None, "scale": scale, "sort": list(colors)},
    }
    plot = {"layer": layers, "encoding": encoding}
    chart = framed(name, title, caption, plot, rows, panel, independent, labels=labels)
    return chart if columns is None else chart._replace(spec=chart.spec | {"columns": columns})


def scatter(
    name: str, title: str, caption: str, rows: list[dict[str, Any]], arms: Sequence[str], panel: Sequence[str]
) -> Chart:
    """Scores with intervals against a distance. Rows: x, m, lo, hi, a (tau), l (lambda), p (panel)."""
    number = {"type": "quantitative", "format": ".3~r"}
    span = max(1, len(arms) - 1)
    scale = {"domain": list(arms), "range": [f"var(--s{round(i * 4 / span)})" for i in range(len(arms))]}
    encoding = {
        "x": {
            "field": "x",
            "type": "quantitative",
            "title": None,
            "scale": {"type": "log"},
            "axis": {"tickCount": 4, "format": "~g"},
        },
        "color": {
            "field": "a",
            "type": "nominal",
            "title": "τ",
            "sort": list(arms),
            "scale": scale,
            "legend": {"symbolType": "circle", "symbolSize": 90},
        },
        "tooltip": [
            {"field": "p", "title": "dataset"},
            {"field": "a", "title": "τ"},
            {"field": "l", "title": "λ"} | number,
            {"field": "x", "title": "KL"} | number,
            {"field": "m", "title": "score"} | number,
            {"field": "lo", "title": "95 % from"} | number,
            {"field": "hi", "title": "to"} | number,
        ],
    }
    y = {"type": "quantitative", "title": None, "scale": {"zero": False}}
    layers = [
        {
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.5},
            "encoding": {"y": {"field": "m"} | y, "order": {"field": "x"}},
        },
        {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {"y": {"field": "lo"} | y, "y2": {"field": "hi"}}},
        {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}, "encoding": {"y": {"field": "m"} | y}},
    ]
    labels = ("KL[π ‖ πβ] at the end, nats", "final D4RL score")
    chart = framed(name, title, caption, {"layer": layers, "encoding": encoding}, rows, panel, "y", labels=labels)
    chart.spec["spec"]["height"] = 220
    return chart


def ordered(chart: Chart, values: Sequence[str]) -> Chart:
    """The same curves in colours of a scale: for arms that are numbers, such as tau, from the least to the largest."""
    scale = {
        "domain": list(values),
        "range": [f"var(--s{round(i * 4 / max(1, len(values) - 1))})" for i in range(len(values))],
    }
    color = chart.spec["spec"]["encoding"]["color"] | {"scale": scale}
    layers = json.loads(json.dumps(chart.spec["spec"]["layer"]))
    del layers[1]["encoding"]["strokeDash"]
    plot = chart.spec["spec"] | {"layer": layers, "encoding": chart.spec["spec"]["encoding"] | {"color": color}}
    return chart._replace(spec=chart.spec | {"spec": plot})


def bars(
    name: str,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    order: Sequence[str],
    controls: Sequence[str],
    x: str,
) -> Chart:
    """Changes with intervals. Rows: t (task), c (control), m, lo, hi, points."""
    colors = ["var(--c1)", "var(--c2)"][: len(controls)]
    number = {"type": "quantitative", "format": "+.3~r"}
    shared = {
        "y": {
            "field": "t",
            "type": "nominal",
            "sort": list(order),
            "title": None,
            "axis": {"grid": False, "labelLimit": 190, "ticks": False},
        },
        "yOffset": {"field": "c", "sort": list(controls)},
        "color": {
            "field": "c",
            "type": "nominal",
            "title": None,
            "sort": list(controls),
            "scale": {"domain": list(controls), "range": colors},
            "legend": {"symbolType": "square", "symbolSize": 110},
        },
        "tooltip": [
            {"field": "t", "title": "task"},
            {"field": "c", "title": "control"},
            {"field": "m", "title": "change, %"} | number,
            {"field": "lo", "title": "95 % from"} | number,
            {"field": "hi", "title": "to"} | number,
            {"field": "points", "title": "in points"} | number,
        ],
    }
    numbers = [it[key] for it in rows for key in ("m", "lo", "hi") if it[key] is not None]
    domain = [max(-100, min(0, *numbers)), min(100, max(0, *numbers))]
    position = {"type": "quantitative", "title": x, "scale": {"domain": domain}}
    layers = [
        {
            "mark": {"type": "bar", "clip": True},
            "encoding": shared | {"x": {"field": "m", "axis": {"grid": True, "tickCount": 9}} | position},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.2, "clip": True},
            "encoding": {key: shared[key] for key in ("y", "yOffset", "tooltip")}
            | {"x": {"field": "lo"} | position, "x2": {"field": "hi"}, "color": {"value": "var(--ink)"}},
        },
        {"mark": {"type": "rule", "color": "var(--ink)"}, "encoding": {"x": {"datum": 0, "type": "quantitative"}}},
    ]
    return framed(name, title, caption, {"layer": layers}, rows, height=max(160, 26 * len({it["t"] for it in rows})))


def heatmap(name: str, title: str, caption: str, rows: list[dict[str, Any]], panel: Sequence[str], value: str) -> Chart:
    """The (lambda, tau) map. Rows: l, t (texts, for order: ln, tn), m, q, half, worst, kl, d (diverged), p (panel)."""
    number = {"type": "quantitative", "format": ".3~r"}
    place = {
        "x": {"field": "t", "type": "nominal", "title": "τ", "sort": {"field": "tn"}, "axis": {"labelAngle": 0}},
        "y": {"field": "l", "type": "nominal", "title": "λ = α(1 − τ)", "sort": {"field": "ln", "order": "descending"}},
    }
    tooltip = [
        {"field": "p", "title": "dataset"},
        {"field": "l", "title": "λ"},
        {"field": "t", "title": "τ"},
        {"field": "m", "title": value} | number,
        {"field": "half", "title": "± (95 %)"} | number,
        {"field": "worst", "title": "worst dip"} | number,
        {"field": "kl", "title": "KL[π ‖ πβ] at the end"} | number,
        {"field": "d", "title": "diverged"},
    ]
    # q: where the value lies between its panel's least and largest; dark squares have white text, light ones black
    color = {"field": "q", "type": "quantitative", "scale": {"scheme": "viridis", "domain": [0, 1]}, "legend": None}
    layers = [
        {
            "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
            "encoding": {"color": color, "tooltip": tooltip},
        },
        {
            "mark": {"type": "text", "fontSize": 11},
            "encoding": {
                "text": {"field": "m", "type": "quantitative", "format": ".0f"},
                "color": {"condition": {"test": "datum.q > 0.55", "value": "#000000"}, "value": "#ffffff"},
                "tooltip": tooltip,
            },
        },
    ]
    return framed(name, title, caption, {"layer": layers, "encoding": place}, rows, panel)


def profiles(name: str, title: str, caption: str, rows: list[dict[str, Any]], arms: Sequence[tuple[str, str]]) -> Chart:
    """Performance profiles: the share of runs above each score. Rows: s (score), m, lo, hi, a."""
    chart = curves(name, title, caption, rows, arms, "share of runs with a higher score", scale={"domain": [0, 1]})
    return with_x(chart, "D4RL score", "score")


def with_x(chart: Chart, title: str, name: str) -> Chart:
    """Curves over something else than gradient steps."""
    encoding = chart.spec["encoding"] | {
        "x": {"field": "s", "type": "quantitative", "title": title, "axis": {"tickCount": 8}}
    }
    layers = json.loads(json.dumps(chart.spec["layer"]))
    tooltip = layers[2]["encoding"]["tooltip"]
    tooltip[1] = {"field": "s", "type": "quantitative", "format": ".4~r", "title": name}
    if all(row["lo"] == row["hi"] for row in chart.data):
        del tooltip[3:]
    return chart._replace(spec=chart.spec | {"encoding": encoding, "layer": layers})


def points(
    name: str,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    order: Sequence[str],
    x: str,
    middle: float | None = None,
    panel: Sequence[str] = (),
    domain: Sequence[float] = (),
) -> Chart:
    """Values with intervals, one a line. Rows: t (line), m, lo, hi, p (panel)."""
    number = {"type": "quantitative", "format": ".3~r"}
    scale = {"zero": False} | ({"domain": list(domain)} if domain else {})
    y = {
        "field": "t",
        "type": "nominal",
        "sort": list(order),
        "title": None,
        "axis": {"labelLimit": 190, "ticks": False},
    }
    tooltip = [{"field": "t", "title": "arm"}, {"field": "m", "title": x} | number]
    tooltip += [{"field": "lo", "title": "95 % from"} | number, {"field": "hi", "title": "to"} | number]
    axis = {"grid": True, "tickCount": 4}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2.5, "color": "var(--c1)"},
            "encoding": {
                "x": {"field": "lo", "type": "quantitative", "title": x, "scale": scale, "axis": axis},
                "x2": {"field": "hi"},
                "tooltip": tooltip,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "color": "var(--c0)", "opacity": 1},
            "encoding": {"x": {"field": "m", "type": "quantitative", "title": x, "scale": scale}, "tooltip": tooltip},
        },
    ]
    if middle is not None:
        layers.insert(
            0,
            {
                "mark": {"type": "rule", "color": "var(--muted)", "strokeDash": [3, 3]},
                "encoding": {
                    "x": {"datum": middle, "type": "quantitative"},
                    "y": {"value": 0},
                    "y2": {"value": "height"},
                },
            },
        )
        layers[1]["encoding"]["y"] = layers[2]["encoding"]["y"] = y
        plot: dict[str, Any] = {"layer": layers}
    else:
        plot = {"layer": layers, "encoding": {"y": y}}
    chart = framed(
        name, title, caption, plot, rows, panel, independent="x" if panel else "", height=max(90, 28 * len(order))
    )
    if panel:
        chart.spec["resolve"] = {"scale": {"x": "independent"}}
        chart.spec["spec"]["height"] = 24 * len(order)
    return chart


# --- drawing -------------------------------------------------------------------------------------------------------


def with_data(chart: Chart) -> dict[str, Any]:
    """A specification that stands alone, in the light colours, as wide as a page of a journal."""
    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": config()} | chart.spec
    spec |= {"datasets": {chart.name: chart.data}, "background": "#ffffff"}
    if spec.get("width") == "container":
        spec["width"] = 720
    text = json.dumps(spec)
    for name, value in LIGHT.items():
        text = text.replace(f"var({name})", value)
    return json.loads(text)


def drawn(chart: Chart) -> tuple[bytes, bytes]:
    """(SVG, PNG at twice the size). Nothing is fetched."""
    vl_convert = import_vl_convert()
    svg = vl_convert.vegalite_to_svg(with_data(chart), allowed_base_urls=[])
    return svg.encode(), vl_convert.svg_to_png(svg, scale=2.0)


def bundle() -> str:
    """JavaScript of Vega, Vega-Lite and Vega-Embed: `window.vegaEmbed`."""
    return import_vl_convert().javascript_bundle()


def versions() -> Mapping[str, str]:
    vl_convert = import_vl_convert()
    return {"Vega": vl_convert.get_vega_version(), "Vega-Lite": vl_convert.get_vegalite_versions()[-1]}


def import_vl_convert() -> Any:
    """Raises InputError, naming the extra, where vl-convert is not installed."""
    try:
        import vl_convert  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError("the page needs vl-convert: pip install 'itrpo[report]'") from None
    return vl_convert
