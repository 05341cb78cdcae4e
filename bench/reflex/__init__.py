"""What the screen costs, in process and over HTTP."""
