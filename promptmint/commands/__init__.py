"""The commands, grouped by what a person is doing; `promptmint/cli.py` lists them all."""
