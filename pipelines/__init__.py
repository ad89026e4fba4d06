"""The machine learning itself: plain Python, importing neither Prefect nor MLflow."""
