"""What a table says of its unprompted side: `table.attrs["plain_system"]`."""

import pandas as pd

from steerlens.templates import plain_system
from steerlens.types import HookedModel


def noted(table: pd.DataFrame, model: HookedModel) -> pd.DataFrame:
    """The table, with the system text that conversations without a system turn had."""
    table.attrs["plain_system"] = plain_system(model)
    return table
