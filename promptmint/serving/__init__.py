"""The HTTP server: many prompts on one frozen base, each request answered by the champion of the moment."""
