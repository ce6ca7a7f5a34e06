"""When the pages are written: once a day after yesterday has been closed, apart from the refresh, and on demand."""

from __future__ import annotations

import dagster as dg

report_job = dg.define_asset_job(
    "report", selection=["tear_sheets"], description="Write the pages of all strategies and their comparison."
)
report_schedule = dg.ScheduleDefinition(
    name="report",
    job=report_job,
    cron_schedule="50 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Daily, after yesterday has been closed: the pages to look at.",
)
