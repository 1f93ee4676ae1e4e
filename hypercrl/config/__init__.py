"""The settings of every command, and what is wrong with those given."""
