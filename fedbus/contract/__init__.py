"""The contract of the bus and of job specs for programs in other languages, made from the types."""
