"""The saga of a task: a pure decision over the log, and the runner that carries it out."""
