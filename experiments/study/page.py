"""A study's tables, and the page beside it: one HTML file that requests nothing."""

import base64
import html
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_jax import records

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto;
       padding: 0 1em; color: #222; }
img { max-width: 100%; }
figure { margin: 2em 0; }
figcaption { color: #555; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { cursor: pointer; border-bottom: 2px solid #888; white-space: nowrap; }
th[aria-sort=ascending]::after { content: " \\25B2"; }
th[aria-sort=descending]::after { content: " \\25BC"; }
pre { background: #f4f4f4; padding: .6em; overflow-x: auto; }
"""
# A click on a column's head sorts by it: numbers by value, all else by letters.
_SCRIPT = """
const number = cell => parseFloat(cell.textContent.replace(/,/g, ""));
for (const head of document.querySelectorAll("th")) {
  head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const table = head.closest("table"), column = head.cellIndex;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = a.cells[column], y = b.cells[column];
      const order = isNaN(number(x)) || isNaN(number(y))
        ? x.textContent.localeCompare(y.textContent) : number(x) - number(y);
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
"""


def markdown(
    heads: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int = 1
) -> str:
    """A table in Markdown: first columns of text, then of numbers."""
    rules = ["---"] * num_texts + ["---:"] * (len(heads) - num_texts)
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    return "\n".join(lines) + "\n"


def write_all(workdir: Path, contents: Mapping[str, Any]) -> None:
    """Writes files by their names in `workdir`: bytes and text as they are, a `Page`
    as HTML, all else as JSON."""
    for name, content in contents.items():
        if isinstance(content, Page):
            content = content.to_html()
        elif not isinstance(content, bytes | str):
            content = json.dumps(content, indent=2) + "\n"
        if isinstance(content, str):
            content = content.encode()
        records.write_atomically(workdir / name, content)


class Page:
    """Collects the parts of a page, and writes it.

    Args:
      title: of the page.
      command: what made it, shown first; by default how this program was started.
    """

    def __init__(self, title: str, command: str | None = None):
        command = command or shlex.join(["python", *sys.argv])
        self._title = html.escape(title)
        self._parts = [f"<h1>{self._title}</h1>", f"<pre>{html.escape(command)}</pre>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that sorts by the column whose head is clicked."""

        def line(tag, cells):
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        body = "\n".join(line("td", row) for row in rows)
        self._parts.append(
            f"<table><thead>{line('th', heads)}</thead>\n<tbody>{body}</tbody></table>"
        )

    def figure(self, png: bytes, text: str) -> None:
        """A PNG file, embedded, with `text` under it."""
        data = base64.b64encode(png).decode()
        text = html.escape(text)
        self._parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def to_html(self) -> str:
        body = "\n".join(self._parts)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
            f"<title>{self._title}</title><link rel=icon href=data:,>"
            f"<style>{_STYLE}</style></head>\n<body>\n{body}\n"
            f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
        )
