"""Talking to the Hugging Face Hub: retries, errors of one line, files checked by hash."""
