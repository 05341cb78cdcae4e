"""The view: folds the event log into Postgres and serves it over HTTP. It writes nothing else."""
