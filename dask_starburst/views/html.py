"""The HTML representation of a cluster in a notebook."""

from __future__ import annotations

from html import escape

from dask_starburst.views.report import ClusterReport, rows

_CELL = 'style="text-align: left; padding: 2px 12px 2px 0"'


def as_html(report: ClusterReport, controls: str = "") -> str:
    """Return the HTML of a cluster; `controls` is the widget's HTML."""
    cells = "".join(
        f"<tr><th {_CELL}>{escape(title)}</th><td {_CELL}>{escape(text)}</td></tr>" for title, text in rows(report)
    )
    link = escape(report.dashboard, quote=True)
    dashboard = f'<a href="{link}" target="_blank">{link}</a>' if link else "none"
    return (
        '<div class="dask-starburst">'
        f'<h3 style="margin-bottom: 4px">{escape(report.kind)} {escape(report.name)}</h3>'
        f"{controls}<table>{cells}"
        f"<tr><th {_CELL}>Dashboard</th><td {_CELL}>{dashboard}</td></tr></table></div>"
    )
