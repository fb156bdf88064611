"""Effect and faithfulness of the same settings in one table."""

import pandas as pd

from steerlens.kinds import require_kinds

_KEYS = ["method", "strength"]


def effect_and_faithfulness(
    effects: pd.DataFrame, errors: pd.DataFrame, first_layer: int | None = None
) -> pd.DataFrame:
    """A row per method and strength that both tables have: its effect, its mean relative RMSE.

    `effects` is of `logit_shift` or `prompt_effect_recovered`, `errors` of `faithfulness`; of these
    the mean over the layers from `first_layer` up counts, by default from the lowest of them.
    Columns: those of `effects`, relative_rmse, first_layer, last_layer.
    """
    require_kinds(effect_and_faithfulness, locals())
    for name, table, column in (
        ("effects", effects, "strength"),
        ("errors", errors, "relative_rmse"),
    ):
        if column not in table or "method" not in table:
            raise ValueError(f"{name} lacks the column {column!r}; it has {list(table.columns)}.")
    first = int(errors["layer"].min()) if first_layer is None else first_layer
    above = errors.loc[errors["layer"] >= first]
    if above.empty:
        raise ValueError(
            f"first_layer={first_layer}: the errors end at layer {errors['layer'].max()}."
        )
    means = above.groupby(_KEYS, sort=False, dropna=False)["relative_rmse"].mean().reset_index()
    joined = effects.merge(means, on=_KEYS, how="inner")
    if joined.empty:
        raise ValueError(
            f"no method is in both tables: effects have {sorted(set(effects['method']))}, errors "
            f"{sorted(set(errors['method']))}. Measure both with the same steerings."
        )
    joined = joined.assign(first_layer=first, last_layer=int(above["layer"].max()))
    joined.attrs.update(errors.attrs)
    return joined
