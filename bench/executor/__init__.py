"""What a step costs before it does anything: the sandbox beside fork and exec, and beside bubblewrap."""
