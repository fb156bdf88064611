"""The tables behind the pictures of docs/gallery.md, each measured when it is asked for."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

import steerlens as sl
from steerlens import analysis
from steerlens.analysis.reports.demo import (
    EQUIVALENTS,
    INSTRUCTION,
    NEUTRAL,
    QUESTIONS,
    demo_steerings,
)
from steerlens.types import HookedModel

OTHER_INSTRUCTION = "Be negative."


@dataclass
class Measured:
    """20 questions on the demonstration model, by the prompt, ActAdd and CAA."""

    seed: int = 0

    @cached_property
    def model(self) -> HookedModel:
        return sl.load("demo")

    @cached_property
    def layer(self) -> int:
        return self.model.cfg.n_layers // 2

    @cached_property
    def steerings(self) -> dict[str, sl.Steering]:
        return demo_steerings(self.model, self.layer)

    def pairs_of(self, instruction: str, seed: int) -> list[sl.PromptPair]:
        return sl.prompted_pairs(
            self.model, QUESTIONS, instruction, max_new_tokens=40, temperature=0.8, seed=seed
        )

    @cached_property
    def pairs(self) -> list[sl.PromptPair]:
        return self.pairs_of(INSTRUCTION, self.seed)

    @cached_property
    def entries(self) -> list[analysis.Entry]:
        train, _ = analysis.split_by_question(self.pairs)
        return analysis.with_least_squares(self.model, self.steerings, train)

    @cached_property
    def coefficients(self) -> pd.DataFrame:
        layers = range(self.model.cfg.n_layers)
        return analysis.coefficients(self.model, self.pairs, layers, self.steerings)

    def errors_of(self, pairs: list[sl.PromptPair], references: bool = True) -> pd.DataFrame:
        others = {
            "equivalents": [analysis.reworded(pairs, text) for text in EQUIVALENTS],
            "neutral": [analysis.reworded(pairs, text) for text in NEUTRAL],
        }
        return analysis.faithfulness(
            self.model, pairs, self.entries, **(others if references else {})
        )

    @cached_property
    def errors(self) -> pd.DataFrame:
        return self.errors_of(self.pairs)

    @cached_property
    def swept(self) -> pd.DataFrame:
        train, test = analysis.split_by_question(self.pairs)
        layers, strengths = range(self.model.cfg.n_layers), (0.25, 0.5, 1, 1.5, 2, 4)
        steerings = analysis.at_layers(self.model, train, "CAA", layers)
        steerings |= analysis.at_layers(self.model, train, "InstructionVector", layers)
        scopes = [sl.response, sl.generated]
        return analysis.sweep(self.model, test, steerings, strengths=strengths, scopes=scopes)

    @cached_property
    def by_instruction(self) -> pd.DataFrame:
        other = self.errors_of(self.pairs_of(OTHER_INSTRUCTION, self.seed), references=False)
        ours = self.errors.loc[self.errors["method"].isin(set(other["method"]))]
        return pd.concat([ours.assign(asked=INSTRUCTION), other.assign(asked=OTHER_INSTRUCTION)])

    @cached_property
    def seeds(self) -> pd.DataFrame:
        runs = [self.errors_of(self.pairs_of(INSTRUCTION, seed), False) for seed in (1, 2)]
        return analysis.over_seeds([self.errors, *runs], "relative_rmse").dropna(subset=["low"])

    @cached_property
    def effects(self) -> pd.DataFrame:
        strengths = (0.5, 1.0, 2.0, 4.0)
        entries = [
            analysis.Entry(name, steering.scaled(strength), "scaled", strength)
            for name, steering in self.steerings.items()
            for strength in strengths
        ]
        tables = []
        for entry in entries:
            shift = analysis.logit_shift(self.model, self.pairs, [entry])
            error = analysis.faithfulness(self.model, self.pairs, [entry], any_instruction=False)
            tables.append(analysis.effect_and_faithfulness(shift, error, self.layer))
        return pd.concat(tables)

    @cached_property
    def scores(self) -> pd.DataFrame:
        setting = analysis.Setting(
            self.model,
            QUESTIONS[:10],
            analysis.judge_of("positive"),
            analysis.Coherence(),
            sl.Sampling(max_new_tokens=40, seed=self.seed),
            n=2,
            batch_size=64,
        )
        return analysis.tradeoff(setting, self.steerings, [1.0, 2.0, 4.0, 8.0], INSTRUCTION)

    @cached_property
    def assumptions(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        shares = analysis.rank_share(self.model, self.pairs)
        readouts = analysis.decodability(self.model, self.pairs)
        return shares, analysis.dispersion(self.coefficients), readouts

    @cached_property
    def view(self) -> analysis.TokenView:
        table = self.coefficients
        return analysis.coloured_text(
            self.model, self.pairs[1], 1, table, self.steerings, self.layer
        )
