"""How a comparison or a study came about: command, model, versions, seed."""

import importlib.metadata
from typing import Protocol, runtime_checkable

from steerlens import __version__
from steerlens.identity import identity_of
from steerlens.kinds import require_kinds
from steerlens.types import HookedModel

from ..measures.plain_side import BY_TEMPLATE, plain_side


@runtime_checkable
class Measured(Protocol):
    """What was measured with which seed."""

    @property
    def n_train(self) -> int: ...
    @property
    def n_test(self) -> int: ...
    @property
    def seed(self) -> int: ...


def provenance(model: HookedModel, comparison: Measured, command: str) -> dict[str, object]:
    """How a comparison or a study came about, for the report's last box."""
    require_kinds(provenance, locals())
    identity = identity_of(model)
    baseline = getattr(comparison, "baseline", BY_TEMPLATE)
    versions = ("transformer-lens", "torch", "transformers", "plotly")
    return {
        "command": command,
        "model": identity.name or "(not loaded by steerlens)",
        "model fingerprint": identity.fingerprint,
        "model class": type(model).__name__,
        "weight processing": identity.processing,
        "baseline": baseline,
        "system text of the plain prompts": plain_side(model, baseline),
        "seed": comparison.seed,
        "pairs": f"{comparison.n_test} measured, {comparison.n_train} for least-squares strengths",
        "versions": ", ".join(
            [f"steerlens {__version__}"]
            + [f"{name} {importlib.metadata.version(name)}" for name in versions]
        ),
    }
