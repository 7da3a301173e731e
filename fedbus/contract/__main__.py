"""`python -m fedbus.contract`: the AsyncAPI document of the bus."""

from __future__ import annotations

from fedbus.contract.asyncapi import as_yaml

if __name__ == "__main__":
    print(as_yaml(), end="")
