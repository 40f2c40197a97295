"""What a study leaves: JSON, Markdown, PNG, and one HTML file that requests nothing."""

import base64
import html
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common.table import Table
from mnist_jax.storage import records

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


def write_all(workdir: Path, contents: Mapping[str, Any]) -> None:
    """Writes files by their names in `workdir`.

    Args:
      workdir: made if need be.
      contents: bytes and text as they are, a `Page` as HTML, a mapping as JSON with the
        schema's number.
    """
    for name, content in contents.items():
        if isinstance(content, Page):
            content = content.to_html()
        if isinstance(content, Mapping):
            records.write_json(workdir / name, content)
        else:
            content = content.encode() if isinstance(content, str) else content
            records.write_atomically(workdir / name, content)


class Page:
    """Collects the parts of an HTML page."""

    def __init__(self, title: str, command: str | None = None):
        """Starts the page.

        Args:
          title: of the page.
          command: what made it, shown first; by default how this program was started.
        """
        command = command or own_command()
        self._title = html.escape(title)
        self._parts = [f"<h1>{self._title}</h1>", f"<pre>{html.escape(command)}</pre>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, table: Table) -> None:
        """A table that sorts by the column whose head is clicked."""
        self._parts.append(table.to_html())

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


def own_command() -> str:
    """How this program was started; `python -m` for a module of a package."""
    main = sys.modules["__main__"].__spec__
    program = sys.argv[:1] if main is None else ["-m", main.name]
    return shlex.join(["python", *program, *sys.argv[1:]])
