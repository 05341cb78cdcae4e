"""The planner: turns a received task into a plan, or says honestly why it can't."""
