"""What a soft prompt is: a parameterisation and an injection, and the artifact they end as."""
