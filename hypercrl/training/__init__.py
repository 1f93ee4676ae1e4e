"""One run from its configuration to its result: the loop, and how agents are measured."""
