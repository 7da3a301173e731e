"""Running a RabbitMQ: a private node, definitions, logins."""
