"""Turn the methods text from Markdown with [@keys] into HTML and LaTeX, with its references.

Only what boilerplate/methods.md uses is understood: headings, paragraphs, *emphasis* and citations.
"""

import re
from html import escape

CITED = re.compile(r"\[(@[\w-]+(?:; @[\w-]+)*)\]")
ENTRY = re.compile(r"@(\w+)\{([\w-]+),\n(.*?)\n\}", re.DOTALL)
FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?$", re.MULTILINE)
ACCENTS = {r"{\'a}": "á", r"{\'e}": "é", r"{\~n}": "ñ"}
TEX = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}


def keys_in(text: str) -> "list[str]":
    """Keys cited in a text, in the order of their first use.

    >>> keys_in("one [@b; @a] two [@b]")
    ['b', 'a']
    """
    return list(dict.fromkeys(key.lstrip("@") for cited in CITED.findall(text) for key in cited.split("; ")))


def read_bibliography(text: str) -> "dict[str, dict]":
    """Entries of a .bib file by key; each holds its fields, and itself as ``entry``."""
    entries = {}
    for match in ENTRY.finditer(text):
        fields = dict(FIELD.findall(match.group(3)))
        for accent, letter in ACCENTS.items():
            fields = {name: value.replace(accent, letter) for name, value in fields.items()}
        entries[match.group(2)] = {**fields, "entry": match.group(0)}
    return entries


def bibliography_of(text: str, entries: "dict[str, dict]") -> str:
    """The .bib file of what a text cites."""
    return "\n\n".join(entries[key]["entry"] for key in sorted(keys_in(text))) + "\n"


def to_html(text: str, entries: "dict[str, dict]") -> str:
    """A fragment of HTML: the text with author and year, then the references."""

    def cited(match: re.Match) -> str:
        links = (f'<a href="#ref-{key}">{escape(short(entries[key]))}</a>' for key in keys_in(match.group(0)))
        return f"({'; '.join(links)})"

    parts = []
    for block in _blocks(text):
        level = len(block) - len(block.lstrip("#"))
        body = CITED.sub(cited, re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", escape(block.lstrip("# "), quote=False)))
        parts.append(f"<h{level + 1}>{body}</h{level + 1}>" if level else f"<p>{body}</p>")
    parts.append("<h3>References</h3>\n<ul>")
    for key in sorted(keys_in(text), key=lambda key: short(entries[key])):
        parts.append(f'<li id="ref-{key}">{_reference(entries[key])}</li>')
    return "\n".join([*parts, "</ul>"])


def to_tex(text: str) -> str:
    """A LaTeX document that takes its references from CITATION.bib."""
    parts = []
    for block in _blocks(text):
        level = len(block) - len(block.lstrip("#"))
        pieces = CITED.split(block.lstrip("# "))  # text, keys, text, ...
        body = "".join(
            f"\\citep{{{','.join(key.lstrip('@') for key in piece.split('; '))}}}" if i % 2 else _tex(piece)
            for i, piece in enumerate(pieces)
        )
        parts.append(f"\\{'sub' * (level - 1)}section{{{body}}}" if level else body)
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


def short(entry: dict) -> str:
    """Author and year, as cited in a text.

    >>> short({"author": "Gu, Albert and Dao, Tri", "year": "2023"})
    'Gu & Dao, 2023'
    """
    names = [name.split(",")[0] for name in entry["author"].split(" and ")]
    who = names[0] if len(names) == 1 else " & ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{who.replace(' & others', ' et al.')}, {entry['year']}"


def _reference(entry: dict) -> str:
    authors = re.sub(r" and ", "; ", entry["author"]).replace("; others", " et al.")
    where = entry.get("journal") or entry.get("booktitle") or entry.get("note") or ""
    volume = f" {entry['volume']}" if "volume" in entry else ""
    pages = f": {entry['pages'].replace('--', '–')}" if "pages" in entry else ""
    where = f" <em>{escape(where)}</em>{volume}{pages}." if where else ""
    doi = f" doi: {escape(entry['doi'])}" if "doi" in entry else ""
    return f"{escape(authors.rstrip('.'))}. ({entry['year']}). {escape(entry['title'])}.{where}{doi}"


def _tex(text: str) -> str:
    quoted = "".join(TEX.get(letter, letter) for letter in text)
    quoted = re.sub(r'"([^"]*)"', r"``\1''", quoted)
    return re.sub(r"\*([^*\s][^*]*)\*", r"\\emph{\1}", quoted)


def _blocks(text: str) -> "list[str]":
    """Headings and paragraphs, each on one line."""
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]
