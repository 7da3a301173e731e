"""The submitter without a shell: publish job specs: `python -m services.publisher`."""
