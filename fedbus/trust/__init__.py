"""Who is who: certificates, the federation's own CA, what is signed and sealed. Nothing else imports cryptography."""
