"""The one partitions definition of all tables: UTC days, today included.

One shared object, so that any selection of assets over any range of days is one run.
"""

from __future__ import annotations

import dagster as dg

#: Binance opened in July 2017; a constant, because keys must not move.
FIRST_DAY = "2017-07-01"

daily = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)
