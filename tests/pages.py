"""What pages show is run as doctests: blocks of `pycon`, and those of `pycon NAME` where NAME is installed."""

import doctest
import re


def blocks(language, page):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)


def failures(page, language="pycon", **names):
    """How many examples of a page do not print what it says."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for number, block in enumerate(blocks(language, page)):
        test = parser.get_doctest(block, names, f"{page.name} block {number}", str(page), 0)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
    return runner.summarize(verbose=False).failed
