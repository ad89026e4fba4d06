"""One step of a flow each: a Prefect task with its retries and artifacts around a call into the machine learning."""
