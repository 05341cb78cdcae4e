"""The contract: envelope, schemas, streams, the log, and what every service shares."""
