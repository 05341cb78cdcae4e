"""The command `octo`: submit, watch and inspect tasks; start, look at and stop a local stack."""
