"""From source files to checked, split examples: sources, snapshot, contract, splits, expectations."""
