"""Write the files that are made of the declared settings.

They are ``dask_starburst/starburst.yaml``, its schema, the types and the description of the keyword arguments, and the
page of the documentation. A test checks them.

    python -m tools.settings_files
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dask_starburst.settings import Settings
from dask_starburst.settings.declare import Group, GroupsByName, Setting, declared
from dask_starburst.settings.kinds import Kind, OneOf
from dask_starburst.settings.quantities import Duration
from dask_starburst.settings.signature import annotation

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dask_starburst"
_WIDTH = 120
_MADE = "Made of the declarations in dask_starburst/settings by `python -m tools.settings_files`"


def files() -> dict[Path, str]:
    """Return each file and its text."""
    cluster = PACKAGE / "cluster" / "starburst.py"
    return {
        PACKAGE / "starburst.yaml": defaults(),
        PACKAGE / "starburst-schema.yaml": schema(),
        PACKAGE / "settings" / "arguments.py": arguments(),
        ROOT / "docs" / "reference" / "configuration.md": reference(),
        cluster: with_parameters(cluster.read_text(encoding="utf-8")),
    }


# -- words ----------------------------------------------------------------------------------------


def first_sentence(doc: str) -> str:
    """Return the first sentence of a description, without its end."""
    return re.split(r"(?<=[^.])\.(?: |$)", doc, maxsplit=1)[0]


def alternatives(words: tuple[str, ...]) -> str:
    """Return words in quotes, joined by "or"."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def in_words(value: Any, kind: object) -> Any:
    """Return a default as it is written in a configuration file."""
    if isinstance(kind, Duration) and value is not None:
        minutes = value / 60
        return f"{minutes:g} minutes" if minutes >= 2 and minutes.is_integer() else f"{value:g} s"
    return list(value) if isinstance(value, tuple) else value


def below(setting: Setting) -> Mapping[str, Setting]:
    """Return the settings of a group, or of each of its groups."""
    return {} if isinstance(setting.kind, Kind) else declared(setting.kind.cls)


def as_yaml(value: Any) -> str:
    """Return a value on one line of YAML."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n..."))


# -- starburst.yaml -------------------------------------------------------------------------------


def defaults() -> str:
    """Return the text of ``starburst.yaml``."""
    return "\n".join(
        [
            "# All settings of StarburstCluster with their defaults. The keyword arguments of StarburstCluster",
            "# have the same names with `_` for `-`; a nested group is a mapping.",
            f"# {_MADE}.",
            "starburst:",
            *_default_lines(declared(Settings), "  "),
            "",
        ]
    )


def _default_lines(settings: Mapping[str, Setting], indent: str) -> Iterator[str]:
    for name, setting in settings.items():
        key = f"{indent}{name.replace('_', '-')}:"
        if isinstance(setting.kind, Group):
            yield from _commented(key, first_sentence(setting.doc))
            yield from _default_lines(below(setting), indent + "  ")
        else:
            yield from _commented(f"{key} {as_yaml(in_words(setting.default, setting.kind))}", comment(setting))


def comment(setting: Setting) -> str:
    """Return what a setting means, in the fewest words."""
    choices = f": {alternatives(setting.kind.choices)}" if isinstance(setting.kind, OneOf) else ""
    null = f"; null: {setting.null}" if setting.null else ""
    return f"{first_sentence(setting.doc)}{choices}{null}".replace("`", "")


def _commented(line: str, words: str, column: int = 34) -> Iterator[str]:
    wrapped = textwrap.wrap(words, _WIDTH - column - 2)
    if len(line) + 2 > column:
        yield line
    else:
        yield f"{line:<{column}}# {wrapped.pop(0)}"
    yield from (f"{'':<{column}}# {rest}" for rest in wrapped)


# -- starburst-schema.yaml ------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))


def schema() -> str:
    """Return the text of ``starburst-schema.yaml``."""
    document = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "dask_starburst",
        "description": "The configuration of StarburstCluster in `starburst.yaml` and `dask.config`.",
        "type": "object",
        "additionalProperties": False,
        "required": ["starburst"],
        "properties": {
            "starburst": {"title": "StarburstCluster", "description": Settings.__doc__}
            | _object_schema(declared(Settings))
        },
    }
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return f"# {_MADE}.\n{text}"


def _object_schema(settings: Mapping[str, Setting]) -> dict[str, Any]:
    properties = {name.replace("_", "-"): _setting_schema(setting) for name, setting in settings.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting_schema(setting: Setting) -> dict[str, Any]:
    title = setting.name.replace("_", " ").capitalize()
    described = {"title": title, "description": meaning(setting, "null")}
    match setting.kind:
        case Group(cls=cls):
            return described | _object_schema(declared(cls))
        case GroupsByName(cls=cls):
            return described | {"type": "object", "additionalProperties": _object_schema(declared(cls))}
        case kind:
            return described | (_nullable(kind.schema()) if setting.null else kind.schema())


def _nullable(values: dict[str, Any]) -> dict[str, Any]:
    if "enum" in values:
        return values | {"enum": [*values["enum"], None]}
    if "type" not in values:
        return values
    types = values["type"] if isinstance(values["type"], list) else [values["type"]]
    return values | {"type": [*types, "null"]}


def meaning(setting: Setting, null: str) -> str:
    """Return what a setting and None mean."""
    return f"{setting.doc} {null} means {setting.null}." if setting.null else setting.doc


# -- the types of the keyword arguments -----------------------------------------------------------


def arguments() -> str:
    """Return the text of ``settings/arguments.py``."""
    groups = [setting.kind.cls for setting in declared(Settings).values() if not isinstance(setting.kind, Kind)]
    classes = [_typed_dict(dict_name(cls), cls, f"Keys of `{cls.__name__}`.") for cls in groups]
    names = "".join(f"    {cls.__name__},\n" for cls in sorted(groups, key=lambda cls: cls.__name__))
    return (
        f'"""The types of the keyword arguments that are settings.\n\n{_MADE}.\n"""\n\n'
        "from __future__ import annotations\n\n"
        "from collections.abc import Iterable, Mapping\n"
        "from typing import Any, Literal, TypedDict\n\n"
        f"from dask_starburst.settings.groups import (\n{names})\n\n\n"
        + "\n\n\n".join([*classes, _typed_dict("Arguments", Settings, "Keyword arguments of `StarburstCluster`.")])
        + "\n"
    )


def dict_name(cls: type[Any]) -> str:
    """Return the name of the TypedDict of a group."""
    return f"{cls.__name__.removesuffix('Settings')}Dict"


def _typed_dict(name: str, cls: type[Any], doc: str) -> str:
    lines = [f"    {each.name}: {_static_type(each)}" for each in declared(cls).values()]
    return "\n".join([f"class {name}(TypedDict, total=False):", f'    """{doc}"""', "", *lines])


def _static_type(setting: Setting) -> str:
    match setting.kind:
        case Group(cls=cls):
            return f"{cls.__name__} | {dict_name(cls)}"
        case GroupsByName(cls=cls):
            return f"Mapping[str, {cls.__name__} | {dict_name(cls)}]"
        case _:
            return annotation(setting)


# -- the description of the keyword arguments -----------------------------------------------------


def with_parameters(source: str) -> str:
    """Return the source of `StarburstCluster` with the settings in its docstring."""
    head, rest = source.split("    Parameters\n    ----------\n", 1)
    tail = rest[rest.index("    asynchronous : bool\n") :]
    lines = [line for setting in declared(Settings).values() for line in _parameter(setting)]
    return "\n".join([f"{head}    Parameters\n    ----------", *lines, tail])


def _parameter(setting: Setting) -> Iterator[str]:
    kind, doc = setting.kind, meaning(setting, "None").replace("`", "``")
    if not isinstance(kind, Kind):
        each = f" or {kind.cls.__name__}" if isinstance(kind, Group) else " of names to mappings"
        yield f"    {setting.name} : mapping{each}"
        keys = (f"``{key.name}`` ({_numpydoc_type(key)})" for key in below(setting).values())
        doc = f"{setting.doc} Keys: {', '.join(keys)}."
    else:
        yield f"    {setting.name} : {_numpydoc_type(setting)}"
    yield from textwrap.wrap(doc, _WIDTH - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _numpydoc_type(setting: Setting) -> str:
    kind, optional = setting.kind, ", optional" if setting.null else ""
    if isinstance(kind, OneOf):
        return "{" + ", ".join(f'"{word}"' for word in kind.choices) + "}" + optional
    words = {"Any": "object", "Iterable[str]": "list of str", "Mapping[str, str]": "mapping"}
    name = kind.annotation if isinstance(kind, Kind) else "mapping"
    return words.get(name, name).replace(" | ", " or ") + optional


# -- the page of the documentation ----------------------------------------------------------------

_PAGE = """# Configuration

<!-- {made}. -->

These are all settings. [](../how-to/configure.md) explains where to put your own. As keyword arguments they have these
names; in a configuration file you can write `-` for `_`. Durations are seconds or text such as `20 minutes`; sizes are
bytes or text such as `8 GiB`. `null` is `None` in Python.

## The cluster

{settings}

{groups}

## The defaults as a file

```{{literalinclude}} ../../dask_starburst/starburst.yaml
:language: yaml
```
"""


def reference() -> str:
    """Return the text of the page."""
    simple = {name: each for name, each in declared(Settings).items() if isinstance(each.kind, Kind)}
    groups = [
        f"## `{name}`\n\n{each.doc}\n\n{_definitions(below(each))}"
        for name, each in declared(Settings).items()
        if not isinstance(each.kind, Kind)
    ]
    return _PAGE.format(made=_MADE, settings=_definitions(simple), groups="\n\n".join(groups))


def _definitions(settings: Mapping[str, Setting]) -> str:
    return "\n\n".join(map(_definition, settings.values()))


def _definition(setting: Setting) -> str:
    facts = f"A mapping; keys: {', '.join(f'`{key}`' for key in below(setting))}"
    if isinstance(setting.kind, Kind):
        facts = f"{_values(setting.kind)}; default `{as_yaml(in_words(setting.default, setting.kind))}`"
    text = f": {meaning(setting, '`null`')} *{facts}.*"
    lines = textwrap.wrap(text, _WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join([f"`{setting.name}`", *lines])


def _values(kind: Kind) -> str:
    words = alternatives(kind.choices) if isinstance(kind, OneOf) else kind.words
    return words[0].upper() + words[1:] + (f", {kind.bounds}" if kind.bounds else "")


def main() -> None:
    """Write the files that have changed."""
    for path, text in files().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
