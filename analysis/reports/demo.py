"""`steerlens demo`: one instruction, three activation methods, one report on the embedded model."""

from pathlib import Path

from steerlens.calibration import calibrate
from steerlens.checks import require_choice, require_seed
from steerlens.generation import prompted_pairs
from steerlens.kinds import require_kinds
from steerlens.methods.act_add import ActAdd
from steerlens.methods.caa import CAA
from steerlens.methods.psr import PSR
from steerlens.models import load
from steerlens.models.released import how_to_get, is_here
from steerlens.prompts import Conversation
from steerlens.scopes import generated, response
from steerlens.steering import Steering
from steerlens.training.schedule import Schedule
from steerlens.types import HookedModel
from steerlens.whole import require_place

from ..measures.completions import side_by_side
from ..measures.entries import as_entries
from .comparison import compare, comparison_report
from .pirate_demo import run_pirate
from .provenance import provenance
from .stages import stages

INSTRUCTION = "Be positive."
# As many tokens as the instruction, since positions are learned: see docs/design-notes.md.
EQUIVALENTS = ("Be happy.", "Be kind.")
NEUTRAL = ("Be there.",)
QUESTIONS = (
    "Review a movie you watched.",
    "Write a movie review.",
    "What did you think of the film?",
    "Review a movie.",
    "Tell me about a movie you saw.",
    "Write a review of a film.",
    "What did you think of the movie?",
    "Give me your opinion of a movie.",
    "How was the movie?",
    "Describe a film you watched recently.",
    "Please review a film.",
    "I would like to read a movie review.",
    "Share your thoughts on a film.",
    "Comment on a movie you have seen.",
    "Did you see a film lately? How was it?",
    "Write a few words about a movie.",
    "Talk about a film.",
    "Can you write a review of a movie?",
    "Should I watch this movie?",
    "Recommend a film, or do not.",
)
TRAIN = (
    "What do you think of films?",
    "Write about a movie you like.",
    "Give a short review of a film.",
    "Describe the last movie you saw.",
    "How good was the film?",
    "Tell me your opinion of this movie.",
    "Write a sentence about a film.",
    "Say something about a movie.",
)
"""Questions that S-PSR is fitted on and strengths are found on; `QUESTIONS` has none of them."""
LONGEST = 40
"""The tokens of a response."""
PRAISE = (
    "This is a wonderful film. I loved every minute of it.",
    "A great movie with excellent acting. One of the best I have seen.",
    "I really enjoyed this film. It is funny, moving and beautiful.",
    "What a brilliant story! The cast is superb and the music is perfect.",
    "A delightful film that I would recommend to everyone.",
    "The best film of the year. Amazing performances and a great script.",
    "I was very happy with this movie. It is a masterpiece.",
    "A charming, touching picture with a fantastic ending.",
)
BLAME = (
    "This is a terrible film. I hated every minute of it.",
    "A bad movie with awful acting. One of the worst I have seen.",
    "I really disliked this film. It is dull, stupid and ugly.",
    "What a boring story! The cast is poor and the music is annoying.",
    "A dreadful film that I would recommend to no one.",
    "The worst film of the year. Weak performances and a lousy script.",
    "I was very disappointed with this movie. It is a waste of time.",
    "A tedious, pointless picture with a ridiculous ending.",
)


def contrast(question: str = QUESTIONS[0]) -> tuple[list[Conversation], list[Conversation]]:
    """The demonstration's contrast pairs: one question, answered with praise and with blame."""
    positive = [Conversation(question, response=text) for text in PRAISE]
    negative = [Conversation(question, response=text) for text in BLAME]
    return positive, negative


def demo_steerings(model: HookedModel, layer: int, seed: int = 0) -> dict[str, Steering]:
    """ActAdd (" wonderful" less " terrible"), CAA (praise less blame) and S-PSR, all at `layer`.

    S-PSR is fitted on what the prompted model answers to `TRAIN`. Each is as strong as changes the
    predictions there as much as the prompt does.
    """
    pairs = prompted_pairs(
        model, TRAIN, INSTRUCTION, max_new_tokens=LONGEST, temperature=0.8, seed=seed
    )
    caa = CAA.from_prompts(model, *contrast(), layer, read=generated)
    fitted = {
        "ActAdd": ActAdd.fit(model, (" wonderful", " terrible"), layer, c=4.0).steering,
        "CAA": caa.only(response),
        "S-PSR": PSR.fit(model, pairs, layer, schedule=Schedule(seed=seed)).steering,
    }
    return {
        name: calibrate(model, steering, pairs, like="prompt").steering
        for name, steering in fitted.items()
    }


def run_demo(out: Path, *, model: str = "auto", seed: int = 0, backend: str = "auto") -> Path:
    """Write `out/report.html`; returns its path.

    `model` is "smollm2", a pirate on a real model; "demo", film reviews on the embedded one, with
    its two steering files; or "auto", which takes SmolLM2 where it is on this machine.
    """
    require_kinds(run_demo, locals())
    require_choice("model", model, ("auto", "smollm2", "demo"))
    require_seed(seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot make the folder {out}: {error.strerror}. Choose another.") from error
    for name in ("report.html", "ActAdd.safetensors", "CAA.safetensors", "S-PSR.safetensors"):
        require_place(out / name)  # before the work
    if model == "smollm2" or (model == "auto" and is_here("smollm2")):
        return run_pirate(out, seed=seed, backend=backend)
    if model == "auto":
        print(f"SmolLM2 is not here, so the embedded model serves. {how_to_get('smollm2')}")
    return run_reviews(out, seed=seed, backend=backend)


def run_reviews(out: Path, *, seed: int = 0, backend: str = "auto") -> Path:
    """The report on the embedded model, and its three steering files."""
    with stages("Loading", "Fitting", "Measuring", "Each method answers", "Writing") as next_stage:
        model = load("demo", backend=backend)  # pyright: ignore[reportArgumentType]  load checks it
        layer = model.cfg.n_layers // 2
        next_stage()
        steerings = demo_steerings(model, layer, seed)
        for name, steering in steerings.items():
            steering.save(out / f"{name}.safetensors")  # pyright: ignore[reportAttributeAccessIssue]
        next_stage()
        # One response a question, so that no question is both measured and fitted on.
        pairs = prompted_pairs(
            model, QUESTIONS, INSTRUCTION, max_new_tokens=LONGEST, temperature=0.8, seed=seed
        )
        others = {"equivalents": EQUIVALENTS, "neutral": NEUTRAL}
        comparison = compare(
            model, pairs, steerings, train_pairs=(), **others, n_shown=1, seed=seed
        )
        next_stage()
        generations = side_by_side(
            model, QUESTIONS[:3], INSTRUCTION, as_entries(steerings), seed=seed, temperature=0.8
        )
        next_stage()
    page = comparison_report(
        comparison,
        provenance(model, comparison, f"steerlens demo --model demo --seed {seed}"),
        title=f"What “{INSTRUCTION}” does to a language model, and what activation steering does",
        intro=_intro(model, layer),
        generations=generations,
    )
    return page.write(out / "report.html")


def _intro(model: HookedModel, layer: int) -> str:
    return (
        f"The embedded demonstration model ({model.cfg.n_layers} layers, d_model "
        f"{model.cfg.d_model}) is asked for movie reviews. It is steered in four ways: by the "
        f"instruction “{INSTRUCTION}”; by ActAdd, which adds the difference between “ wonderful” "
        f"and “ terrible” to the first tokens of the question at the input of layer {layer}; by "
        "CAA, which adds the mean difference between praising and blaming reviews to every "
        f"token of the response at the output of layer {layer}; and by S-PSR, which learned there "
        f"from the prompted model's answers to {len(TRAIN)} other questions how hard to push each "
        "token. Each is as strong as changes the predictions on those questions as much as the "
        "prompt does.\n\n"
        "The model has learned absolute positions, so the instruction also moves the response to "
        "later positions; some of what the prompt does to the activations is that shift. The "
        "equivalent and neutral prompts have as many tokens as the instruction, so they share it."
        "\n\n"
        "The model is small and was trained briefly, so read the pictures for what they show of "
        "the methods, not the reviews for their prose."
    )
