"""The job that writes the report pages, and its daily schedule."""

from __future__ import annotations

import dagster as dg

from algobot_assets.defs.automation.proposals import regular

report_job = dg.define_asset_job(
    "report", selection=["tear_sheets"], description="Writes the pages of all strategies and their comparison."
)
report_schedule = regular(
    "report", report_job, "50 0 * * *", "Daily, after yesterday has been closed: writes the report pages."
)
