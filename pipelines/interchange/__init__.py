"""Prompts carried to and from other tools: PEFT adapters, and engines that take input embeddings."""
