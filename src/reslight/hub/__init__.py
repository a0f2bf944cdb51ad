"""Talking to the Hugging Face Hub: retries, errors in one line, files checked by their hash."""
