"""The options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", "-m", help="'demo', a Hugging Face folder, or a hub name.")
]
Backend = Annotated[str, typer.Option(help="auto, hooked or bridge.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
Pairs = Annotated[
    Path, typer.Option(help='JSON Lines of {"user": ..., "system": ..., "response": ...}.')
]
CompletedPairs = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}; a line with a response '
        'needs no "system" if --direction is random or a file, or with --learn-directions.',
    ),
]
Contrasts = Annotated[Path, typer.Option(help='JSON Lines of {"positive": ..., "negative": ...}.')]
Layers = Annotated[str, typer.Option(help='Steered layers: "4", "2,4", "2-5" or "all".')]
Seed = Annotated[int, typer.Option(help="Seed of the sampling noise.")]
MaxNewTokens = Annotated[int, typer.Option(help="The most tokens that a completion may have.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Equivalent = Annotated[
    list[str] | None, typer.Option(help="The instruction in other words; repeatable.")
]
Neutral = Annotated[
    list[str] | None, typer.Option(help="An instruction that asks for nothing; repeatable.")
]
PairLoss = Annotated[
    str,
    typer.Option(
        help="dpo, sft (positive), negative_sft (negative), or options, which reads lines of "
        '{"prompt": ..., "options": {" good": 0.7, " bad": 0.3}} instead.'
    ),
]
Eta = Annotated[float, typer.Option(help="The paper's step size.")]
Steered = Annotated[str, typer.Option(help="Scope that is steered.")]
CompatOption = Annotated[
    str | None, typer.Option("--compat", help='"released": as the authors\' code does.')
]
Together = Annotated[int, typer.Option("--batch-size", help="Examples a pass.")]
LabelledPairs = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}; with a "label" from 0 '
        "to 1 a response is learned from as far as it has the attribute.",
    ),
]
Direction = Annotated[
    Path | None,
    typer.Option(help="A steering file whose vectors at these layers are kept: only gates train."),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Written after each epoch; if it is there, the fit goes on.")
]
TopP = Annotated[float, typer.Option(help="Keep the smallest set with more than this probability.")]
