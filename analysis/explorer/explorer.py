"""`explore`: prompt and steerings on the same tokens, to be looked at from all sides."""

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from steerlens.identity import identity_of
from steerlens.kinds import require_kinds
from steerlens.prompts import Encoded, PromptPair
from steerlens.sampling import Sampling
from steerlens.sinks import SINK
from steerlens.types import HookedModel
from steerlens.whole import require_place

from ..figures.tokens import TokenView
from ..measures.plain_side import BY_TEMPLATE, plain_side
from .grid import Grid, payload_of
from .methods import PROMPT, Place, Steerings, by_name
from .notebook import missing_widget, new_twin, notebook_content, shown_live, static_bundle
from .page import BUDGET, explorer_page, write_page
from .payload import NAMES, State
from .pictures import picture
from .states import checked, first_state, lines_of, state_json
from .study import Study, as_strengths
from .table import table_of

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
AS_IT_IS = "as it is"
"""What is subtracted stays the same."""


def explore(
    model: HookedModel,
    *,
    steerings: Steerings,
    pairs: Sequence[PromptPair],
    strengths: Sequence[float] = STRENGTHS,
    max_new_tokens: int = 60,
    temperature: float = 0.8,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
    equivalents: Sequence[str] = (),
    title: str = "",
) -> "Explorer":
    """What an instruction and steerings do to the tokens of a response, side by side.

    `steerings` has a `Steering` for each name, or a family of them, {layer: steering}. The pairs
    are the texts that are shown, their instruction is what the methods are held against; from two
    of them on, the direction of each is the mean push on the others. `strengths` are those of a
    static page and the ticks of the slider. What the model writes has at most `max_new_tokens`.
    """
    require_kinds(explore, locals())
    sampling = Sampling(max_new_tokens, temperature, seed=seed)
    study = Study.of(
        model, pairs, steerings, strengths, sampling, baseline, sinks, equivalents=equivalents
    )
    return Explorer(study, first_state(study), title or _title(study))


@dataclass(frozen=True, eq=False)
class Explorer:
    """An explorer in some state: in a notebook it is a live view, everywhere else a static page.

    `set` and `at` give one in another state. What was measured once is not measured again.
    """

    study: Study
    state: State
    title: str

    def __repr__(self) -> str:
        methods = ", ".join(method.name for method in self.study.methods[1:])
        return (
            f"Explorer({len(self.study.pairs)} texts; {methods}; now {self.state['method']} at "
            f"strength {self.state['strength']:g}, layer {self.state['layer']})"
        )

    # -- States ------------------------------------------------------------------------------------

    def at(self, state: Mapping[str, Any]) -> "Explorer":
        """The explorer in a state of `explorer.state`; a question that is new is answered."""
        before = {name: self.state[name] for name in NAMES}  # its question is that of its text
        return replace(self, state=checked(self.study, {**before, **state}))

    def set(
        self,
        *,
        text: int | None = None,
        method: str | None = None,
        place: int | str | None = None,
        strength: float | None = None,
        layer: int | None = None,
        view: str | None = None,
        measure: str | None = None,
        minus: str | None = AS_IT_IS,
        token: int | None = None,
    ) -> "Explorer":
        """The explorer with this changed; `place` is a number or a label.

        `minus` is the method that is subtracted, None for none.
        """
        given = {"text": text, "method": method, "place": place, "strength": strength}
        given |= {"layer": layer, "view": view, "measure": measure, "minus": minus, "token": token}
        if method is not None and place is None:
            given["place"] = 0
        changed = {name: value for name, value in given.items() if value is not None}
        if minus == AS_IT_IS:
            del changed["minus"]
        elif minus is None:
            changed["minus"] = None
        return self.at(changed)

    def ask(self, question: str, instruction: str) -> "Explorer":
        """The explorer on another question, which the prompted model answers."""
        return self.at({"question": question, "instruction": instruction, "token": 0})

    @property
    def json(self) -> str:
        """The state as text, for a note or a link: `explorer.at(json.loads(text))`."""
        return state_json(self.state)

    @property
    def python(self) -> str:
        """The lines that make this state of `model`, `steerings` and `pairs`, and steer alike."""
        return lines_of(self.study, self.state)

    # -- What is measured --------------------------------------------------------------------------

    @property
    def pair(self) -> PromptPair:
        """The present question, plain and under the instruction, with the response to both."""
        return self.study.pairs[self.state["text"]]

    @property
    def asked(self) -> Encoded:
        """The tokens that a steered model is asked: the plain side, under the baseline."""
        return self.study.asked(self.state["text"])

    @property
    def place(self) -> Place:
        """Where the present method steers."""
        return by_name(self.study.methods, self.state["method"]).offered(True)[self.state["place"]]

    @property
    def table(self) -> pd.DataFrame:
        """Every reading so far: a row per text, token, layer, method, place, strength and view.

        The columns are those of `coefficients`, in full precision.
        """
        state, prompt = self.state, self.study.methods[0].places[0]
        self.study.reading(state["text"], PROMPT, prompt, 1.0)
        if state["method"] != PROMPT:
            self.study.reading(state["text"], state["method"], self.place, state["strength"])
        return table_of(self.study, dict(self.study.readings))

    def figure(self, kind: str = "heatmap") -> go.Figure | TokenView:
        """A figure of this state: "heatmap", "faithfulness", "strengths" or "tokens"."""
        return picture(self.study, self.state, self.place, kind)

    # -- In a notebook -----------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The live view, for where displaying the explorer itself shows the static page alone.

        That is marimo: `mo.ui.anywidget(explorer.widget)`. It needs the extra `explore`.
        """
        return shown_live(self.study, self.state, self.title, made_by(self.study)).view

    def _ipython_display_(self) -> None:
        """The static page and a picture, which stay in the notebook; then the live view."""
        from IPython.display import display

        twin = new_twin()
        display(self._bundle(twin), raw=True)
        if (missing := missing_widget()) is not None:
            warnings.warn(f"This view is static. {missing}", stacklevel=2)
            return
        display(shown_live(self.study, self.state, self.title, made_by(self.study), twin).view)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """What stays in a notebook: static HTML, and a picture where kaleido can make one."""
        return self._bundle("")

    def _bundle(self, twin: str) -> dict[str, Any]:
        content = notebook_content(self.study, self.state, self.title, made_by(self.study))
        tokens, heatmap = self.figure("tokens"), self.figure("heatmap")
        assert isinstance(tokens, TokenView)
        assert isinstance(heatmap, go.Figure)
        return static_bundle(content, tokens, heatmap, twin)

    # -- Pages -------------------------------------------------------------------------------------

    def payload(
        self,
        texts: Sequence[int] | None = None,
        strengths: Sequence[float] | None = None,
        *,
        completions: bool = True,
        lens: bool = True,
    ) -> dict[str, Any]:
        """The content of a static page over all methods, places, strengths and texts."""
        numbers = tuple(range(len(self.study.pairs)) if texts is None else texts)
        chosen = self.study.strengths if strengths is None else as_strengths(strengths)
        grid = Grid(numbers, chosen, None if completions else (), chosen if lens else ())
        return payload_of(self.study, grid, self.state, self.title, made_by(self.study))

    def save(
        self,
        path: str | Path,
        texts: Sequence[int] | None = None,
        strengths: Sequence[float] | None = None,
        *,
        completions: bool = True,
        lens: bool = True,
    ) -> Path:
        """The static twin as one HTML file, which works from anywhere, without a network.

        Without `completions` and the logit `lens` it is made faster, and is smaller.
        """
        require_place(path)  # before the work
        content = self.payload(texts, strengths, completions=completions, lens=lens)
        html = explorer_page(content)
        if (size := len(html.encode())) > BUDGET:
            warnings.warn(
                f"The page has {size / 1e6:.1f} MB. Fewer texts=, strengths= or places, or "
                "lens=False, make it smaller.",
                stacklevel=2,
            )
        return write_page(path, html)


def made_by(study: Study) -> dict[str, object]:
    """How the numbers came about."""
    identity, sampling = identity_of(study.model), study.sampling
    names = ("steerlens", "transformer-lens", "torch", "transformers")
    return {
        "model": identity.name or "(not loaded by steerlens)",
        "model fingerprint": identity.fingerprint,
        "baseline": study.baseline,
        "system text of the plain prompts": plain_side(study.model, study.baseline),
        "sampling": f"seed {sampling.seed}, temperature {sampling.temperature:g}, at most "
        f"{sampling.max_new_tokens} tokens",
        "direction": study.units.unit,
        "seed": sampling.seed,
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
    }


def _title(study: Study) -> str:
    instruction = study.line(0).instruction
    short = instruction if len(instruction) <= 60 else f"{instruction[:59]}…"
    names = ", ".join(method.name for method in study.methods[1:])
    return f"“{short}”, and what {names} did to the same tokens"
