"""Pages that stand alone: one file of HTML, which opens from disk and asks no network for anything.

rendering    a template filled in, everything escaped; the frame of a page; a page within a notebook
templates/   page.html, page.css, page.js: what all pages have; and those of single pages

Values go into templates by jinja2 with escaping on, so a string from somebody's data is text whatever is in it. A
policy in the page's head allows no script but those that are written into it, and nothing to be fetched.
"""

from flowfn.seeing.pages.rendering import in_frame, page, rendered, template_text

__all__ = ["in_frame", "page", "rendered", "template_text"]
