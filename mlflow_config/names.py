"""What things are called in MLflow."""

from __future__ import annotations

EXPERIMENT = "promptmint"
CHAMPION = "champion"  # alias: the version that serves
CHALLENGER = "challenger"  # alias: the newest version that passed and waits for a decision

# Tags of a registered version: enough to find its run in the store, and to refuse a wrong base before anything loads.
TAG_VERDICT = "promptmint.verdict"
TAG_RUN_KEY = "promptmint.run_key"
TAG_PROMPT = "promptmint.prompt_digest"
TAG_BASE = "promptmint.base_digest"
TAG_DATA = "promptmint.data_digest"
TAG_RECIPE = "promptmint.recipe_digest"
TAG_ARTIFACT = "promptmint.artifact_tree"
DIGESTS = (TAG_RUN_KEY, TAG_PROMPT, TAG_BASE, TAG_DATA, TAG_RECIPE, TAG_ARTIFACT)
