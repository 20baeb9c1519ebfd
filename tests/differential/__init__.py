"""A random comparison of the package with its reference, over the values at the ends of the range.

`python -m tests.differential --seed 7 --cases 20000` draws calls of the functions on arrays,
compares each result with the float64 reference, and shrinks the first mismatch of each kind to a
call that can be pasted. What the contract allows is a rule of `rules.py` that says why; everything
else is a fault.
"""
