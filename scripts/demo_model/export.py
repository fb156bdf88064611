"""Export the latest checkpoint of a training run as a Hugging Face model folder with a model card.

    python scripts/demo_model/export.py --work-dir build/demo_model --to steerlens/demo/model

The folder is first written beside the target and measured; then each file is renamed into place,
so that no reader ever sees a part of a file.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import torch
from conversations import DEFAULT_CORPUS
from measure import measurements, sample_prompts
from train import load_checkpoint, new_model
from transformers import GenerationConfig, GPT2LMHeadModel
from transformers.utils import logging

from steerlens.models.names import write_digests

CARD = Path(__file__).with_name("model_card.md")


def exported_model(state: dict) -> GPT2LMHeadModel:
    """The averaged weights in float16.

    The configuration asks for float32, so that the weights are widened when they are loaded. Its
    activation stays ``gelu_pytorch_tanh``: what ``gelu_new`` computes, in one step instead of six.
    """
    model = new_model(**state["shape"])
    model.load_state_dict(state["average"], strict=False)
    model.config.use_cache = True
    model.config._name_or_path = ""
    return model.half()


def write_folder(state: dict, tokenizer_folder: Path, to: Path) -> None:
    """Model, tokenizer and configurations."""
    model = exported_model(state)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=5, pad_token_id=0)
    model.save_pretrained(to)
    config = model.config
    config.dtype = torch.float32
    config.save_pretrained(to)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_folder / name, to / name)


def quoted(texts: list[str]) -> str:
    """The texts as Markdown quotations."""
    return "\n\n".join("> " + text.strip().replace("\n", "\n> ") for text in texts)


def card(state: dict, measured: dict, minutes: float) -> str:
    """The model card."""
    samples = "\n\n".join(
        f"### {name}\n\nSystem: {system or '(none)'} User: {user}\n\n"
        f"{quoted(measured['samples'][name])}"
        for name, (system, user) in sample_prompts().items()
    )
    return CARD.read_text(encoding="utf-8").format(
        **state["shape"],
        **{name: value for name, value in measured.items() if name != "samples"},
        samples=samples,
        budget=minutes,
        minutes=state["done"]["seconds"] / 60,
        steps=state["done"]["steps"],
        tokens=state["done"]["tokens"] / 1e6,
    )


def move_files(source: Path, target: Path) -> None:
    """Rename every file of ``source`` into ``target``; weights and configuration last."""
    target.mkdir(parents=True, exist_ok=True)
    last = ("config.json", "model.safetensors")
    for path in sorted(source.iterdir(), key=lambda p: (p.name in last, p.name)):
        path.chmod(0o644)
        os.replace(path, target / path.name)
    source.rmdir()


def main() -> None:
    """Export, measure, and put into place."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--to", type=Path, required=True, help="the model folder")
    parser.add_argument("--minutes", type=float, default=100, help="the time budget, for the card")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    state = load_checkpoint(arguments.work_dir / "checkpoint.pt")
    temporary = arguments.to.with_name(f".{arguments.to.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_folder(state, arguments.work_dir / "tokenizer", temporary)
    measured = measurements(temporary, arguments.corpus)
    text = card(state, measured, arguments.minutes)
    (temporary / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    move_files(temporary, arguments.to)
    write_digests(arguments.to)


if __name__ == "__main__":
    main()
