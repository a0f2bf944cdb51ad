"""`reslight data pack`: a dataset of any form, in parquet shards that every later run reads."""
