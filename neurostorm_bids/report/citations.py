"""Turn the methods text from Markdown with [@keys] into HTML and LaTeX, with its references."""

import re
from collections.abc import Callable
from functools import lru_cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pybtex.backends.html import Backend
from pybtex.database import BibliographyData, Entry, parse_string
from pybtex.style.formatting.unsrt import Style

CITED = re.compile(r"\[(@[\w-]+(?:; @[\w-]+)*)\]")
# Markers around keys, which no renderer touches: characters of Unicode's private use area
BEGIN, END = "\ue000", "\ue001"
MARKED = re.compile(f"{BEGIN}(.*?){END}")
TEX = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}

Bibliography = dict[str, Entry]


class _PlainHTML(Backend):
    """HTML without links, since reports point nowhere outside their folder, and without marks of BibTeX's braces."""

    def format_protected(self, text: str) -> str:
        """Return the text between braces."""
        return text

    def format_href(self, url: str, text: str, *_: object) -> str:
        """Return the text of a link."""
        return text


def keys_in(text: str) -> list[str]:
    """Return the keys cited in a text, in the order of their first use.

    >>> keys_in("one [@b; @a] two [@b]")
    ['b', 'a']
    """
    return list(dict.fromkeys(key.lstrip("@") for cited in CITED.findall(text) for key in cited.split("; ")))


def read_bibliography(text: str) -> Bibliography:
    """Return the entries of a .bib file by key."""
    return dict(parse_string(text, "bibtex").entries.items())


def bibliography_of(text: str, entries: Bibliography) -> str:
    """Return the .bib file of what a text cites."""
    cited = BibliographyData({key: entries[key] for key in sorted(keys_in(text))})
    content: str = cited.to_string("bibtex")
    return content.strip() + "\n"


def to_html(text: str, entries: Bibliography) -> str:
    """Return a fragment of HTML: the text with author and year, then the references."""

    def cite(match: re.Match[str]) -> str:
        links = (f'<a href="#ref-{key}">{escape(short(entries[key]))}</a>' for key in match[1].split())
        return f"({'; '.join(links)})"

    tokens = _parse(text)
    for token in tokens:  # the page's own heading stands above
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1]) + 1}"
    markdown = _markdown()
    body = MARKED.sub(cite, markdown.renderer.render(tokens, markdown.options, {}))
    references = [_reference(key, entries) for key in sorted(keys_in(text), key=lambda key: short(entries[key]))]
    return "\n".join([body.strip(), "<h3>References</h3>\n<ul>", *references, "</ul>"])


def to_tex(text: str) -> str:
    """Return a LaTeX document that takes its references from CITATION.bib."""
    parts = []
    level = 0
    for token in _parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "inline":
            body = MARKED.sub(lambda m: f"\\citep{{{','.join(m[1].split())}}}", _inline_tex(token.children or []))
            parts.append(f"\\{'sub' * (level - 1)}section{{{body}}}" if level else body)
            level = 0
    lines = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{natbib}",
        r"\begin{document}",
        "\n\n".join(parts),
        r"\bibliographystyle{plainnat}",
        r"\bibliography{CITATION}",
        r"\end{document}",
    ]
    return "\n\n".join(lines) + "\n"


def short(entry: Entry) -> str:
    """Return author and year, as cited in a text.

    >>> short(read_bibliography("@misc{x, author = {Gu, Albert and Dao, Tri}, year = {2023}}")["x"])
    'Gu & Dao, 2023'
    """
    persons = entry.persons["author"]
    names = [" ".join([*person.prelast_names, *person.last_names]) for person in persons]
    others = len(names) > 2 or names[-1] == "others"
    who = f"{names[0]} et al." if others else " & ".join(names)
    return f"{_text(who)}, {entry.fields['year']}"


def _text(latex: str) -> str:
    """Return a field of a .bib file as text: accents as letters, no braces."""
    import codecs

    import latexcodec  # noqa: F401 (registers the codec; pybtex brings it)

    decoded: str = codecs.decode(latex, "ulatex")  # type: ignore[call-overload]
    return decoded.replace("{", "").replace("}", "")


def _reference(key: str, entries: Bibliography) -> str:
    formatted = next(iter(_style().format_entries([entries[key]])))
    return f'<li id="ref-{key}">{formatted.text.render(_PlainHTML())}</li>'.replace("\n", " ")


@lru_cache(maxsize=1)
def _style() -> Style:
    return Style()  # it looks for its plug-ins in every package that is installed


def _markdown() -> MarkdownIt:
    """Return a parser of headings, paragraphs and emphasis; anything else, such as HTML, is text."""
    return MarkdownIt("zero").enable(["heading", "emphasis"])


def _parse(text: str) -> list[Token]:
    marked = CITED.sub(lambda m: BEGIN + m[1].replace("@", "").replace(";", "") + END, text)
    tokens = _markdown().parse(marked)
    return tokens


def _inline_tex(tokens: list[Token]) -> str:
    write: dict[str, Callable[[Token], str]] = {
        "text": lambda token: _escape_tex(token.content),
        "softbreak": lambda _: " ",
        "em_open": lambda _: "\\emph{",
        "em_close": lambda _: "}",
    }
    return re.sub(r'"([^"]*)"', r"``\1''", "".join(write[token.type](token) for token in tokens))


def _escape_tex(text: str) -> str:
    """Escape text for LaTeX, but not the keys between markers."""
    parts = re.split(f"({BEGIN}.*?{END})", text)
    return "".join(part if i % 2 else "".join(TEX.get(c, c) for c in part) for i, part in enumerate(parts))
