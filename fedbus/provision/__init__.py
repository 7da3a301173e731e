"""Making a federation out of one file: CA, certificates, the broker's configuration, one folder per participant."""
