"""All that Dagster sees. `dg scaffold defs` adds files here, and `build_defs` loads every module of the folder."""
