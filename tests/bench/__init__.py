"""The benchmark against other libraries: python -m tests.bench, or nox -s bench."""
