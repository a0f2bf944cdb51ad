"""The user's own images: class folders, parquet shards, a dataset on the Hub."""
