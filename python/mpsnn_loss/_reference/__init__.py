"""The numerical contract in NumPy float64: what every engine is measured against.

Arrays are [N, H, W, C]: images, rows, columns, feature channels. The inputs of an engine are
converted to float64, which is exact, so a float32 result is compared with the true result for the
very values the engine was given.
"""
