"""`steerlens models`, `info` and `doctor`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from steerlens.cli import importing, output
from steerlens.cli.options import AsJson


def models(
    hub: Annotated[str, typer.Option(help="List hub names that contain this.")] = "",
    as_json: AsJson = False,
) -> None:
    """The models that can be loaded, with size, licence, source and digest."""
    from dataclasses import asdict

    from steerlens.models import DEMO, has_hooked_transformer, hub_names
    from steerlens.models.listing import listed

    backends = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]
    names = [name for name in hub_names() if hub and hub.lower() in name.lower()]
    named = listed()
    content = {
        "embedded": {"demo": str(DEMO)},
        "named": [asdict(one) for one in named],
        "backends": backends,
        "hub": names,
    }
    text = [
        *(str(one) for one in named),
        "FOLDER      any local Hugging Face folder (config.json, *.safetensors, tokenizer.json)",
        "FILE.gguf   a GGUF file, or a folder with one; unpacked once into a cache",
        f"OWNER/NAME  a hub name; TransformerLens knows {len(hub_names())} (--hub TEXT searches)",
        f"Backends here: {', '.join(backends)}",
    ]
    output.say(content, as_json, "\n".join([*text, *names]))


def info(
    file: Annotated[Path, typer.Argument(help="A steering file, or another tool's vectors.")],
    as_json: AsJson = False,
) -> None:
    """What a steering file holds and which model it is for; of other tools' files, what is seen."""
    from steerlens.reading import is_foreign, read_file

    if is_foreign(file):
        content, lines = importing.described(file)
        output.say(content, as_json, "\n".join(lines))
        return
    header, tensors = read_file(file)
    origin = header["origin"] or {}
    model = origin.get("model", {})
    shapes = {name: [str(t.dtype), *t.shape] for name, t in tensors.items()}
    content = {"file": str(file), **header, "tensors": shapes}
    lines = [
        f"{file}: format {header['format']}",
        f"model       {model.get('name') or 'not recorded'} "
        f"({model.get('n_layers', '?')} layers, d_model {model.get('d_model', '?')})",
        *([f"weights     {model['made_of']}"] if model.get("made_of") else []),
        *([f"moved from  {origin['moved_from']}"] if origin.get("moved_from") else []),
        *(line for part in origin.get("imported", []) for line in importing.told(part)),
        f"fingerprint {model.get('fingerprint', 'not recorded')}",
        f"processing  {model.get('processing', 'not recorded')}",
        f"data        {origin.get('data') or 'not recorded'}, seed {origin.get('seed')}",
        f"made with   {', '.join(f'{k} {v}' for k, v in header['versions'].items())}",
        *(f"{line}" for line in _outline(header["steering"])),
    ]
    output.say(content, as_json, "\n".join(lines))


def _outline(tree: Any, depth: int = 0, name: str = "") -> list[str]:
    """The classes and values of a saved steering, one a line, indented."""
    head = "  " * depth + (f"{name}: " if name else "")
    if isinstance(tree, dict) and "class" in tree:
        inner = [_outline(value, depth + 1, key) for key, value in tree["fields"].items()]
        return [head + tree["class"], *(line for lines in inner for line in lines)]
    if isinstance(tree, dict) and "tuple" in tree:
        inner = [_outline(value, depth + 1) for value in tree["tuple"]]
        return [*([head] if head.strip() else []), *(line for lines in inner for line in lines)]
    return [head + str(tree.get("tensor") if isinstance(tree, dict) else tree)]


def doctor(as_json: AsJson = False) -> None:
    """What works on this machine and what does not."""
    from dataclasses import asdict

    from steerlens.cli.doctor import examine

    checks = examine()
    lines = [f"{'✓' if check.works else '✗'} {check.name}: {check.seen}" for check in checks]
    output.say([asdict(check) for check in checks], as_json, "\n".join(lines))
    if not all(check.works for check in checks):
        raise typer.Exit(1)
