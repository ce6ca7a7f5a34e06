"""When the pages are written: once a day after yesterday has been closed, apart from the refresh, and on demand."""

from __future__ import annotations

import dagster as dg

from algobot_assets.defs.automation.proposals import regular

report_job = dg.define_asset_job(
    "report", selection=["tear_sheets"], description="Write the pages of all strategies and their comparison."
)
report_schedule = regular(
    "report", report_job, "50 0 * * *", "Daily, after yesterday has been closed: the pages to look at."
)
