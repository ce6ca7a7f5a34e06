"""Hooks of the documentation build: pages made from the program itself, diagrams, and links out of docs/.

A page asks for generated text with a marker, `<!-- commands -->` or `<!-- settings -->`. Diagrams are inlined, so that
they follow the page's light or dark colours.
"""

from __future__ import annotations

import html
import inspect
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic_core import PydanticUndefined

from algobot_assets.cli.app import SECTIONS
from algobot_assets.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
#: Pages that live at the top of the repository.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: Defaults that depend on the machine.
DEFAULTS = {"home": "`.algobot` in the project"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the top of the repository."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text()
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the markers and turn links that leave docs/ into plain text or site links."""
    markdown = markdown.replace("<!-- commands -->", commands()) if page.file.src_uri == "cli.md" else markdown
    markdown = markdown.replace("<!-- settings -->", settings()) if page.file.src_uri == "settings.md" else markdown
    markdown = re.sub(r"```mermaid\nerDiagram\n(.*?)```", lambda found: entities(found[1]), markdown, flags=re.DOTALL)
    return re.sub(r"\[([^\]]+)\]\(((?:\.\./)*)([\w/-]+\.md)(#[^)]*)?\)", _link(page), markdown)


def _link(page: Page) -> Any:
    """Return what replaces a link of this page, for `re.sub`."""
    depth = page.file.src_uri.count("/")

    def replace(found: re.Match[str]) -> str:
        text, up, target = found[1], found[2].count("../"), found[3]
        if target in OUTSIDE and (up > depth or page.file.src_uri in OUTSIDE.values()):
            return f"[{text}]({'../' * depth}{OUTSIDE[target]})"
        if up > depth or (target == "README.md" and page.file.src_uri in OUTSIDE.values()):
            return text if text.startswith("`") else f"`{target}`"
        return found[0]

    return replace


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Inline the diagrams, and let wide tables scroll."""

    def inline(found: re.Match[str]) -> str:
        name, alt = found[2], found[1]
        drawing = (ROOT / "docs" / "images" / name).read_text()
        drawing = re.sub(r"@media \(prefers-color-scheme: dark\) \{.*?\}\s*\}", "", drawing, flags=re.DOTALL)
        return f'<div class="diagram" role="img" aria-label="{alt}">{drawing}</div>'

    return re.sub(r'<img alt="([^"]*)" src="[^"]*images/([a-z-]+\.svg)"\s*/?>', inline, content)


# --- the command line ---------------------------------------------------------------------------------------


def commands() -> str:
    """Return every command with its help, arguments and options, by section as in `algobot --help`."""
    parts = []
    for section, entries in SECTIONS.items():
        parts.append(f"## {section}\n")
        for command, _ in entries:
            parts += _command(command, f"algobot {command.name}")
    return "\n".join(parts)


def _command(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"### {name}\n", f"```text\n{usage}\n```\n", _help(command.help or ""), ""]
    options = [found for found in command.params if isinstance(found, click.Option) and not found.hidden]
    if options:
        parts += ["| option | meaning |", "|---|---|", *(_option(option, context) for option in options), ""]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            parts += _command(inner, f"{name} {inner.name}")
    return parts


def _help(text: str) -> str:
    """Return click's help as Markdown: a paragraph that keeps its lines becomes a block of code."""
    paragraphs = inspect.cleandoc(text.replace("\b\n", "\b")).split("\n\n")
    made = []
    for paragraph in paragraphs:
        kept = "\b" in paragraph
        paragraph = paragraph.replace("\b", "")
        made.append(f"```text\n{inspect.cleandoc(paragraph)}\n```" if kept else html.escape(paragraph, quote=False))
    return "\n\n".join(made)


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    meaning = html.escape(" ".join((option.help or "").split()), quote=False).replace("|", "\\|")
    shown = option.get_help_extra(context).get("default") if option.show_default else None
    return f"| `{(names + value).replace('|', chr(92) + '|')}` | {meaning}{f' Default: `{shown}`.' if shown else ''} |"


# --- settings -----------------------------------------------------------------------------------------------


def settings() -> str:
    """Return a table of every setting: variable, meaning, default."""
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if name in DEFAULTS:
            shown = DEFAULTS[name]
        else:
            shown = "none" if default in (None, "", PydanticUndefined) else f"`{default}`"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{PREFIX}{name.upper()}` | {meaning} | {shown} |")
    return "\n".join(rows)


# --- tables -------------------------------------------------------------------------------------------------


def entities(diagram: str) -> str:
    """Return the entities of a Mermaid diagram as cards, each reference as a link to its table."""
    references = {
        (child, column): parent
        for parent, child, column in re.findall(r"^ *(\w+) \S+ (\w+) : (\w+)$", diagram, flags=re.MULTILINE)
    }
    cards = []
    for table, body in re.findall(r"^ *(\w+) \{\n(.*?)^ *\}", diagram, flags=re.MULTILINE | re.DOTALL):
        rows = []
        for kind, column, keys in re.findall(r"^ *(\S+) (\w+) ?(.*)$", body, flags=re.MULTILINE):
            parent = references.get((table, column))
            target = f' → <a href="#{parent}">{parent}</a>' if parent else ""
            badges = "".join(f"<b>{key}</b>" for key in re.findall("PK|UK", keys))
            rows.append(f"<li><code>{column}</code>{badges}{target}<span>{kind.lower()}</span></li>")
        cards.append(f'<div class="entity"><a href="#{table}">{table}</a><ul>{"".join(rows)}</ul></div>')
    return f'<div class="entities">{"".join(cards)}</div>\n'
