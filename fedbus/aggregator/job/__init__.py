"""One job from its submit to its end."""
