"""Templates filled in, and the frame of every page."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flowfn.extras import needed


def rendered(template: str, who: str = "page()", /, **values: Any) -> str:
    """A template of `templates/` with values in it, all of them escaped; `who` asks for it, if jinja2 is missing.

    What it returns is markup: it can be put into other templates as it is.
    """
    markup: Any = needed("markupsafe", who, extra="seeing")
    text: str = markup.Markup(_templates(who).get_template(template).render(values))
    return text


def template_text(name: str) -> str:
    """A style or a script of `templates/`, as it was written."""
    return Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf8")


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page: HTML in one file, light and dark, for screens, phones and paper.

    `body` is what `rendered` returned; any other string is text and is escaped. `style` (CSS) and `script`
    (JavaScript) are added to those that all pages have. Buttons with `data-copy="..."` copy that text. The page has
    the script of everybody who calls this, and runs no other: what is in the data cannot.

    >>> "<h1>1 &lt; 2</h1>" in page("1 < 2", "of the data: <script>")
    True
    """
    scripts = [text for text in (template_text("page.js"), script) if text]
    whole = rendered(
        "page.html",
        title=title,
        body=body,
        style=_safe(template_text("page.css") + style),
        scripts=[_safe(text) for text in scripts],
        policy=_policy(scripts),
    )
    return str(whole)


def in_frame(whole: str, height: int = 480) -> str:
    """A page within another (a notebook): in a frame of its own, so neither's style reaches the other."""
    markup: Any = needed("markupsafe", "page()", extra="seeing")
    frame: str = markup.Markup(
        '<iframe srcdoc="{}" sandbox="allow-scripts allow-modals" style="width:100%;height:{}px;border:0"></iframe>'
    ).format(str(whole), height)
    return frame


@cache
def _templates(who: str) -> Any:
    jinja2: Any = needed("jinja2", who, extra="seeing")
    folder = jinja2.PackageLoader(__package__, "templates")
    return jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _safe(text: str) -> Any:
    """What we wrote ourselves, as it is; it must not end its element."""
    if "</" in text:
        raise ValueError("page(): style and script must not contain '</'")
    markup: Any = needed("markupsafe", "page()", extra="seeing")
    return markup.Markup(text)


def _policy(scripts: list[str]) -> str:
    """What a page may do: show what is in it, run these scripts, and ask nobody."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
