"""Splits in memory and on disk, loaders, decoding, cache, fingerprints, parquet columns."""
