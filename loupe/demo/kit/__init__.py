"""Training of the demo kit (base model and scorers) from code alone. `python -m loupe.demo.kit --help`."""
