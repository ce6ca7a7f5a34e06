"""The partitions of all tables: UTC days, including today.

All assets share one definition, so that any selection of them over any range of days is one run.
"""

from __future__ import annotations

import dagster as dg

from algobot_assets.schema.intervals import FIRST_DAY

daily = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC", end_offset=1)

#: Tags that make a single run of a range of days, without the backfill daemon.
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
#: Runs that carry state run one at a time (dagster.yaml limits this tag).
CHAIN = {"algobot/chain": "all"}
