"""Everything that Dagster loads. `dg scaffold defs` adds files here; `build_defs` loads every module of the folder."""
